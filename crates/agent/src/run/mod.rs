//! The agent of a run: takes commands of the client over a link, runs them in a root made of the client's files, and ends them
//! all when the link ends. Which of its processes is what: the table in the crate's documentation.

mod carried;
mod channel;
mod environment;
mod exec;
mod files;
mod handle;
mod init;
mod input;
mod order;
mod passwd;
mod relay;
mod rendezvous;
mod serve;
mod shell;
mod stage;
mod terminal;
#[cfg(test)]
mod tests;

pub use self::serve::main;
