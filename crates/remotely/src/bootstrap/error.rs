//! Why there is no link, and what to do about it.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::target::Target;
use crate::transport::spawn::StartError;
use crate::transport::{self, Explanation};

/// Why [`connect`](super::connect) failed. The message says what was tried and why it failed, [`hint`](Self::hint) what
/// to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The transport's process could not be started.
    #[error("could not start the way to the host")]
    Start(#[from] StartError),
    /// The transport's process ended before an agent answered. What it wrote to standard error has been shown.
    #[error("no link to {target}: {} ended with {} before the agent answered{}{}", program.to_string_lossy(), ending(*status), reason(explained.as_deref()), printed(noise))]
    Ended {
        /// Where to.
        target: String,
        /// The first local program of the way.
        program: OsString,
        /// How it ended.
        status: ExitStatus,
        /// The last of what it wrote to standard error.
        stderr: String,
        /// The beginning of what came instead of an answer.
        noise: String,
        /// Which hop it was, if that is known, and what to do.
        explained: Option<Box<Explanation>>,
    },
    /// A hop wanted a password, and there is none.
    #[error("no link to {target}: {hop} wants a password, and none was given")]
    NoPassword {
        /// Where to.
        target: String,
        /// The hop.
        hop: String,
    },
    /// A hop wanted a password, and took none of those that it was given.
    #[error("no link to {target}: {hop} did not accept the password{}", if *tries > 1 { format!(" ({tries} tries)") } else { String::new() })]
    WrongPassword {
        /// Where to.
        target: String,
        /// The hop.
        hop: String,
        /// How many it was given.
        tries: u32,
    },
    /// No answer in time.
    #[error("no link to {target}: no answer within {} s", limit.as_secs_f32())]
    Silent {
        /// Where to.
        target: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The host is another kind of machine.
    #[error("the host is {theirs}, this executable is for Linux {}", std::env::consts::ARCH)]
    Architecture {
        /// `uname -s` and `uname -m` of the host.
        theirs: String,
    },
    /// The host has no place for the agent.
    #[error("the host has no place where the agent can be put and executed: {tried}")]
    NoPlace {
        /// Each place and what is wrong with it.
        tried: String,
    },
    /// The host's side said what it never says.
    #[error("the host's shell did not follow the bootstrap: {what}")]
    Strange {
        /// What came.
        what: String,
    },
    /// The executable that should become the agent cannot be read.
    #[error("could not read {}, which becomes the agent", path.display())]
    Executable {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The executable is linked dynamically: on another machine its libraries may be missing, or be others.
    #[error("{} is linked dynamically, and would not find its libraries on other machines", path.display())]
    Dynamic {
        /// Its path.
        path: PathBuf,
    },
    /// A pipe could not be used.
    #[error("could not use the pipe of the transport")]
    Pipe {
        /// Why not.
        source: io::Error,
    },
    /// Another error on the way to `target`.
    #[error("no link to {target}")]
    At {
        /// Where to.
        target: String,
        /// What it was.
        #[source]
        source: Box<ConnectError>,
    },
}

impl ConnectError {
    pub(super) fn pipe(source: io::Error) -> Self {
        Self::Pipe { source }
    }

    pub(super) fn at(self, target: &Target) -> Self {
        Self::At { target: target.to_string(), source: Box::new(self) }
    }

    pub(super) fn names_target(&self) -> bool {
        use ConnectError::{At, Ended, NoPassword, Silent, WrongPassword};
        matches!(self, Ended { .. } | Silent { .. } | NoPassword { .. } | WrongPassword { .. } | At { .. })
    }

    /// The last of what the way wrote to standard error, if that is why.
    #[cfg(feature = "tree")]
    pub(crate) fn stderr(&self) -> &str {
        match self {
            Self::Ended { stderr, .. } => stderr,
            Self::At { source, .. } => source.stderr(),
            _ => "",
        }
    }

    /// What the user can do, in one line.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Start(StartError::NotFound { program }) => {
                transport::package(program).unwrap_or_else(|| "is the name right, and its directory in PATH?".into())
            }
            Self::Start(_) | Self::Executable { .. } | Self::Pipe { .. } | Self::Strange { .. } => return None,
            Self::Dynamic { .. } => format!(
                "build it as RUSTFLAGS='-C target-feature=+crt-static' cargo build --target {}-unknown-linux-gnu, or put the same into .cargo/config.toml",
                std::env::consts::ARCH
            ),
            Self::Ended { explained: Some(explained), .. } => explained.mend.clone(),
            Self::Ended { target, .. } => {
                format!("`remotely doctor {target}` looks for the cause; -vv shows the command that was run")
            }
            Self::NoPassword { .. } => "on a terminal it is asked for; a program gives it by ConnectOptions::passwords".into(),
            Self::WrongPassword { .. } => {
                "it is the one that the program of this hop asks for there: sudo that of the user who calls it, su that of the other user".into()
            }
            Self::Silent { .. } => "is the host up? a longer --connect-timeout waits longer".into(),
            Self::Architecture { .. } => {
                "the agent is this executable itself: use a host of the same kind, or run a remotely built for the host's kind".into()
            }
            Self::NoPlace { .. } => {
                "make one of these places a directory of your own on a file system with 10 MiB free that is not mounted noexec, or set XDG_CACHE_HOME there".into()
            }
            Self::At { source, .. } => return source.hint(),
        };
        Some(hint)
    }
}

fn reason(explained: Option<&Explanation>) -> String {
    match explained {
        Some(Explanation { hop, what, .. }) if !what.is_empty() => format!("; {hop}: {what}"),
        _ => String::new(),
    }
}

fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".into(),
    }
}

fn printed(noise: &str) -> String {
    if noise.is_empty() {
        return String::new();
    }
    let shown: String = noise.chars().filter(|c| !c.is_control()).take(200).collect();
    format!("; the host printed {shown:?}")
}
