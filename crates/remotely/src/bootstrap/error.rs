//! Why there is no link, and what to do about it.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::target::Target;
use crate::transport::spawn::StartError;

/// Why [`connect`](super::connect) failed. The message says what was tried and why it failed, [`hint`](Self::hint) what
/// to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The transport's process could not be started.
    #[error("could not start the way to the host")]
    Start(#[from] StartError),
    /// The transport's process ended before an agent answered. What it wrote to standard error has been shown.
    #[error("no link to {target}: {} ended with {} before the agent answered{}", program.to_string_lossy(), ending(*status), printed(noise))]
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

    /// What the user can do, in one line.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Start(StartError::NotFound { program }) if program == "ssh" => {
                "install the OpenSSH client (Debian: apt-get install openssh-client)".into()
            }
            Self::Start(_) | Self::Executable { .. } | Self::Pipe { .. } | Self::Strange { .. } => return None,
            Self::Ended { target, stderr, .. } => return ended_hint(target, stderr),
            Self::Dynamic { .. } => format!(
                "build it as RUSTFLAGS='-C target-feature=+crt-static' cargo build --target {}-unknown-linux-gnu, or put the same into .cargo/config.toml",
                std::env::consts::ARCH
            ),
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

/// Which words of ssh and sudo mean what. Nothing depends on them but the hint.
fn ended_hint(target: &str, stderr: &str) -> Option<String> {
    let says = |text: &str| stderr.contains(text);
    let hint = if says("Permission denied (") || says("Too many authentication failures") {
        "the host did not accept this user and key: the same ssh command must work by itself first; --ssh-opts passes options to it"
    } else if says("Host key verification failed") {
        "log in once with ssh to accept the host's key, or mend known_hosts"
    } else if says("Could not resolve hostname") {
        "is the name right? a host of ssh's configuration may be used too"
    } else if says("Connection refused") || says("Connection timed out") || says("No route to host") {
        "is the host up, and its sshd on that port? host:port names another port"
    } else if says("a password is required") || says("is not in the sudoers file") || says("a terminal is required") {
        "sudo must work without a password there: a line 'USER ALL=(ALL) NOPASSWD: ALL' in /etc/sudoers.d allows it"
    } else if says("sudo: not found") || says("sudo: command not found") {
        "the host has no sudo"
    } else {
        return Some(format!("`remotely doctor {target}` looks for the cause; -vv shows the command that was run"));
    };
    Some(hint.into())
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
