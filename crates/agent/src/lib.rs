//! What runs on the host. It comes in two kinds, and the client says which.
//!
//! For a **run** it takes commands of the client over a link, runs them in a root made of the client's files, and ends them
//! all when the link ends:
//!
//! | process | has | does |
//! |---|---|---|
//! | agent | many threads, the host's namespaces | the link, the mount's answers, ptys and pipes (`serve`, `exec`, `relay`) |
//! | init | one thread | enters the namespaces, forks pid 1, watches it and the agent (`init`) |
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

#[cfg(feature = "run")]
mod carried;
#[cfg(feature = "run")]
mod channel;
#[cfg(feature = "run")]
mod environment;
#[cfg(feature = "run")]
mod exec;
#[cfg(feature = "run")]
mod files;
#[cfg(feature = "run")]
mod handle;
#[cfg(feature = "run")]
mod init;
#[cfg(feature = "run")]
mod input;
#[cfg(feature = "run")]
mod order;
#[cfg(feature = "run")]
mod passwd;
#[cfg(feature = "run")]
mod relay;
#[cfg(feature = "run")]
mod rendezvous;
#[cfg(feature = "run")]
mod serve;
#[cfg(feature = "run")]
mod shell;
#[cfg(feature = "run")]
mod stage;
mod start;
#[cfg_attr(not(feature = "run"), expect(dead_code, reason = "one place for system calls, which not every agent makes"))]
mod sys;
#[cfg(feature = "run")]
mod terminal;
#[cfg(test)]
#[cfg(feature = "run")]
mod tests;
mod tunnel;
mod watchdog;

#[cfg(feature = "run")]
pub use self::serve::main;
pub use self::tunnel::main as tunnel;
