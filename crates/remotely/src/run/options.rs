//! What the user asked of a run, as plain data: made by the command line, read by [`super`]. Nothing here looks at the system.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::options::ConnectOptions;
use crate::target::Target;

/// What to run on the host, and what it sees.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The way there.
    pub connect: ConnectOptions,
    /// What is started.
    pub program: Program,
    /// Never start the agent again through `sudo -n` where the host has no usable user namespaces.
    pub no_sudo: bool,
    /// Absolute paths that the command sees as they are on the host (`--host-path`).
    pub host_paths: Vec<PathBuf>,
    /// Absolute paths of here that do not exist for the command (`--hide`).
    pub hide: Vec<PathBuf>,
    /// Absolute paths of here that are shown although they are hidden by default, such as private keys (`--show`).
    pub show: Vec<PathBuf>,
    /// The command can change nothing here.
    pub read_only: bool,
    /// When changes of files are applied here.
    pub sync: SyncMode,
    /// Which of 0, 1, 2 become a terminal there.
    pub tty: TtyMode,
    /// Print a table of round trips, requests, cache hits, bytes and times at the end.
    pub stats: bool,
    /// How often `-v` was given.
    pub verbose: u8,
}

impl RunOptions {
    /// The defaults for `program` on `target`.
    pub fn new(target: Target, program: Program) -> Self {
        Self {
            connect: ConnectOptions::new(target),
            program,
            no_sudo: false,
            host_paths: Vec::new(),
            hide: Vec::new(),
            show: Vec::new(),
            read_only: false,
            sync: SyncMode::Ordered,
            tty: TtyMode::Auto,
            stats: false,
            verbose: 0,
        }
    }
}

/// What is started on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A command of this machine: at least one word.
    Command(Vec<OsString>),
    /// `feign`: a shell of the host itself, with the mount of this machine's files to look at.
    HostShell,
}

/// When changes that the command makes to files are applied here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// In the order in which they were made, before anything of the command can be observed here.
    #[default]
    Ordered,
    /// Each before the call that made it returns.
    Strict,
}

/// Which of 0, 1, 2 become a terminal on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TtyMode {
    /// Those that are terminals here.
    #[default]
    Auto,
    /// All three, whatever they are here (`--tty`).
    Always,
    /// None (`--no-tty`): they become pipes.
    Never,
}
