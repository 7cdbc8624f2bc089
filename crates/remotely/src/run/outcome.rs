//! How a run ended, and how this process ends because of it: as the command did, or with a message that says what is
//! known of the command. Used by `run` at its end.

use std::io;
use std::process::ExitCode;

use remotely_proto::exec::Step;
use remotely_session::End;
use thiserror::Error;

use super::inherited::InheritedError;
use super::{signal, terminal};
use crate::bootstrap::ConnectError;
use crate::report::{self, Failure};

/// Most characters of what the host says that are shown.
const TOLD_MAX: usize = 1000;

/// The end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// Wait status as of wait(2).
    pub(super) status: u32,
    /// It ended by this signal because a key was typed that sends it: a terminal sends it to the whole process group.
    pub(super) typed: bool,
}

/// What is known of the command when the link ends before it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It was asked for.
    Requested,
    /// It ran.
    Running,
    /// It was stopped by a signal.
    Stopped,
    /// It ended with this wait status; its last changes to files have not all been applied.
    Ended(u32),
}

/// Why a run did not end with the end of the command.
#[derive(Debug, Error)]
pub(super) enum RunError {
    /// Something of this process could not be read.
    #[error("could not start")]
    Inherited(#[source] InheritedError),
    /// A resource of this process could not be had.
    #[error("could not {step}")]
    Prepare {
        /// What was tried.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The fs server does not start.
    #[error("could not serve the files of here")]
    Serve(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no link.
    #[error(transparent)]
    Connect(ConnectError),
    /// The link ended.
    #[error("{} ({})", state(*.known), why(.end))]
    Lost {
        /// How.
        end: End,
        /// What is known.
        known: Known,
    },
    /// The agent could not run the command.
    #[error("{}", failed(*.step, *.errno, .what))]
    Failed {
        /// In which step.
        step: Step,
        /// errno of Linux, 0 if none.
        errno: u32,
        /// What was tried.
        what: String,
    },
    /// As `Failed` in [`Step::Privilege`], and what came of the second attempt.
    #[error("the host does not let this user make namespaces ({first}), and {}", as_root(*.had, .second))]
    Privilege {
        /// Why the first attempt failed.
        first: String,
        /// The second one was made as root.
        had: bool,
        /// Why it failed.
        second: String,
    },
    /// This process got a signal that ends it while there was no command to pass it to.
    #[error("ended by signal {0}")]
    Interrupted(i32),
}

impl RunError {
    /// Which exit code belongs to it.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Connect(_) | Self::Lost { .. } => Failure::Link,
            Self::Failed { step: Step::Exec, errno, .. } if *errno == libc::ENOENT as u32 => Failure::NotFound,
            Self::Failed { step: Step::Exec, .. } => Failure::NotExecutable,
            _ => Failure::Setup,
        }
    }

    /// What the user can do.
    fn hint(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.hint(),
            Self::Lost { end: End::Version { .. }, .. } => {
                Some("one side runs another version of remotely: use one executable on both".into())
            }
            Self::Failed { step: Step::Privilege, .. } => {
                Some("without --no-sudo root is tried, through sudo -n".into())
            }
            Self::Privilege { .. } => {
                let line = "'USER ALL=(ALL) NOPASSWD: ALL' in /etc/sudoers.d";
                Some(format!("either is enough; a line {line} there lets sudo work without a password"))
            }
            _ => None,
        }
    }

    /// Tells the user, and gives the exit code. The terminal must be back in order.
    pub(super) fn report(&self) -> ExitCode {
        if let Self::Interrupted(signal) = self {
            signal::die(*signal, false);
            return ExitCode::from(128u8.saturating_add(*signal as u8));
        }
        report::error(self, self.hint().as_deref());
        report::exit_code(self.failure())
    }
}

fn as_root(had: bool, why: &str) -> String {
    if had { format!("neither does it let root ({why})") } else { format!("root is not to be had by sudo ({why})") }
}

/// A failure in the words of a shell: what, and why.
fn failed(step: Step, errno: u32, what: &str) -> String {
    let why = if errno == 0 { String::new() } else { format!(": {}", errno_text(errno)) };
    match step {
        Step::Exec | Step::Setup => format!("{what}{why}"),
        // The agent says more than the errno does.
        Step::Privilege => format!("the host does not let this user make namespaces: {what}"),
        Step::Cwd => format!("cannot change into {what}{why}"),
        Step::Descriptor => format!("cannot open {what}{why}"),
    }
}

/// strerror(3).
pub(super) fn errno_text(errno: u32) -> String {
    let text = io::Error::from_raw_os_error(errno as i32).to_string();
    match text.rfind(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn state(known: Known) -> String {
    match known {
        Known::Requested => "the link was lost before the command was known to run".into(),
        Known::Running => {
            "the link was lost while the command ran; the host ends it, and files that it was writing may be incomplete"
                .into()
        }
        Known::Stopped => "the link was lost while the command was stopped; the host ends it".into(),
        Known::Ended(status) => {
            format!("the command ended with {}, then the link was lost before all its changes had come", ending(status))
        }
    }
}

fn ending(status: u32) -> String {
    match Ending::of(status) {
        Ending::Exit(code) => format!("exit status {code}"),
        Ending::Signal(signal) => format!("signal {signal}"),
    }
}

fn why(end: &End) -> String {
    match end {
        End::Closed => "the agent ended it".into(),
        End::Lost { why } => why.clone(),
        End::Silent => "nothing came from the host any more".into(),
        End::Protocol { why } => format!("the host said what it must not: {why}"),
        End::Version { ours, theirs } => {
            format!("this side speaks versions {}-{}, the host {}-{}", ours.min, ours.max, theirs.min, theirs.max)
        }
    }
}

/// A wait status taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// exit(2) with this code.
    Exit(u8),
    /// Killed by this signal.
    Signal(i32),
}

impl Ending {
    /// Anything that is neither a real exit nor a signal that can kill counts as a failure.
    pub(super) fn of(status: u32) -> Self {
        match (status & 0x7f, (status >> 8) & 0xff) {
            (0, code) => Self::Exit(code as u8),
            (signal, _) if signal::can_kill(signal as i32) => Self::Signal(signal as i32),
            _ => Self::Exit(255),
        }
    }
}

/// Ends as the command did. `unapplied`: something that it wrote could not be written here.
pub(super) fn leave(ended: Ended, unapplied: bool) -> ExitCode {
    terminal::restore();
    match Ending::of(ended.status) {
        Ending::Exit(0) if unapplied => report::exit_code(Failure::Setup),
        Ending::Exit(code) => ExitCode::from(code),
        Ending::Signal(signal) => {
            signal::die(signal, ended.typed);
            // It does not kill here, or no more.
            ExitCode::from(128u8.saturating_add(signal as u8))
        }
    }
}

/// What the host says, as a message shows it: of one line and of bounded length, without control characters.
pub(super) fn told(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().take(TOLD_MAX).map(escape).collect()
}

/// A name as a message shows it: bytes that are no text, and control characters, are escaped.
pub(super) fn shown(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => name.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_an_exit_or_a_signal() {
        assert_eq!(Ending::of(0), Ending::Exit(0));
        assert_eq!(Ending::of(7 << 8), Ending::Exit(7));
        assert_eq!(Ending::of(255 << 8), Ending::Exit(255));
        assert_eq!(Ending::of(9), Ending::Signal(9));
        assert_eq!(Ending::of(11 | 0x80), Ending::Signal(11));
        assert_eq!(Ending::of(0x137f), Ending::Exit(255));
        // What does not kill: SIGSTOP would stop this process for good, the others do not exist.
        assert_eq!([19, 20, 65, 126].map(Ending::of), [Ending::Exit(255); 4]);
    }

    #[test]
    fn failures_read_as_a_shell_says_them() {
        let failed = |step, errno: i32, what: &str| {
            let error = RunError::Failed { step, errno: errno as u32, what: what.into() };
            (error.to_string(), error.failure())
        };
        assert_eq!(
            failed(Step::Exec, libc::ENOENT, "foo"),
            ("foo: No such file or directory".into(), Failure::NotFound)
        );
        assert_eq!(failed(Step::Exec, libc::EACCES, "/x"), ("/x: Permission denied".into(), Failure::NotExecutable));
        assert_eq!(
            failed(Step::Cwd, libc::EACCES, "/x"),
            ("cannot change into /x: Permission denied".into(), Failure::Setup)
        );
        assert_eq!(failed(Step::Setup, 0, "no /dev/fuse"), ("no /dev/fuse".into(), Failure::Setup));
    }

    #[test]
    fn a_lost_link_says_what_is_known() {
        let lost = |known| RunError::Lost { end: End::Silent, known };
        let text = lost(Known::Ended(3 << 8)).to_string();
        assert!(text.contains("exit status 3") && text.contains("nothing came"), "{text}");
        assert_eq!(lost(Known::Running).failure(), Failure::Link);
    }

    #[test]
    fn names_cannot_play_with_the_terminal() {
        assert_eq!(shown("größe".as_bytes()), "größe");
        assert_eq!(shown(b"a\x1b[2J"), "a\\x1b[2J");
        assert_eq!(shown(b"\xff"), "\\xff");
        assert_eq!(told("no\x1b]0;x\x07\nway: größe"), "no\\u{1b}]0;x\\u{7}\\nway: größe");
        assert_eq!(told(&"x".repeat(5000)).len(), TOLD_MAX);
    }
}
