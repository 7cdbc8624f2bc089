//! What runs on the host. It comes in two kinds, and the client says which.
//!
//! For a **run** it takes commands of the client over a link, runs them in a root made of the client's files, and ends them
//! all when the link ends:
//!
//! | process | has | does |
//! |---|---|---|
//! | agent | many threads, the host's namespaces | the link, the mount's answers, ptys and pipes (`run::serve`, `run::exec`, `run::relay`) |
//! | init | one thread | enters the namespaces, forks pid 1, watches it and the agent (`run::init`) |
//! | pid 1 | one thread, the command's root | mounts, forks commands, reaps |
//!
//! The agent never touches the mount that it answers: it would wait for itself.
//!
//! For a **tunnel** it runs functions of the program that it is, with the host as it finds it:
//!
//! | process | has | does |
//! |---|---|---|
//! | keeper | one thread | waits for the agent, and ends what that leaves behind (`tunnel::keeper`) |
//! | agent | many threads | the link, the functions, what they print (`tunnel`) |
//!
//! Where a link of either has several pipes, there is one process more for each (`join`), which has handed its own over to the agent.
//!
//! # Features
//! - `run`: the agent of a run;
//! - `copy`: put and fetch over a tunnel. Without it, a stream of that service is refused like one that nobody knows;
//! - `net`: connections, datagrams and names of the client over a tunnel, likewise.

mod join;
#[cfg(feature = "run")]
mod run;
mod start;
#[cfg_attr(not(feature = "run"), expect(dead_code, reason = "one place for system calls, which not every agent makes"))]
mod sys;
mod tunnel;
mod watchdog;

pub use self::join::main as join;
#[cfg(feature = "run")]
pub use self::run::main as run;
pub use self::tunnel::main as tunnel;
