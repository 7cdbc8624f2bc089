//! One transport as the suite sees it: a target, and the place from which it is gone to. A new one is a row in `main.rs`.

use std::ffi::{OsStr, OsString};
use std::process::Command;

use remotely::transport;
use testbed::executable::Executables;
use testbed::{Client, Engine};

/// Where the local process runs.
pub(crate) enum From<'a> {
    /// An ordinary user with ssh.
    Client(&'a Client),
    /// Root, with what an engine needs.
    Engine(&'a Engine),
}

impl From<'_> {
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match self {
            From::Client(client) => client.command(program),
            From::Engine(engine) => engine.command(program),
        }
    }

    pub(crate) fn remotely(&self, words: &[&str]) -> Command {
        let mut started = match self {
            From::Client(client) => client.command("remotely"),
            From::Engine(engine) => engine.command(Executables::get().remotely()),
        };
        started.args(words);
        started
    }
}

/// See above.
pub(crate) struct Carrier<'a> {
    pub(crate) from: From<'a>,
    pub(crate) target: &'a str,
    /// Whether the place is there the next time, with the agent in it.
    pub(crate) lasts: bool,
    /// Whether its own nature makes the far standard output a terminal; bytes must pass through it unchanged all the same.
    pub(crate) terminal_output: bool,
    /// Targets that cannot be reached, and what is said then.
    pub(crate) failing: &'a [(&'a str, &'a [&'a str])],
}

impl Carrier<'_> {
    /// The local process for a script at the end of the way.
    pub(crate) fn start(&self, script: &str) -> Command {
        let target = self.target.parse().unwrap_or_else(|e| panic!("{}: {e}", self.target));
        let argv: Vec<OsString> = transport::command_line(&target, &[], script);
        let mut command = self.from.command(&argv[0]);
        command.args(&argv[1..]);
        command
    }
}
