//! What the user asked for, as plain data: made by the command line (or by a program that uses the library), read by
//! [`bootstrap`](crate::bootstrap) and `run`. Nothing here looks at the system.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::password::Passwords;
use crate::target::{Hop, Target};

#[cfg(feature = "run")]
pub use crate::run::options::{Program, RunOptions, SyncMode, TtyMode};

/// How to get a link to a host.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The way there.
    pub target: Target,
    /// Further arguments for each `ssh` of the target, already split into words (`--ssh-opts`).
    pub ssh_opts: Vec<OsString>,
    /// Give up when the agent has not answered after this time; `None` leaves it to ssh (its `ConnectTimeout`). The
    /// time of an upload does not count.
    pub timeout: Option<Duration>,
    /// Show on standard error, if that is a terminal, what takes longer than a second: the upload of the agent, and files
    /// that are on their way to a command that has written nothing yet.
    pub progress: bool,
    /// The executable that becomes the agent; `None` is the one that runs.
    pub executable: Option<PathBuf>,
    /// What the agent is to be.
    pub agent: AgentKind,
    /// Where what the transport writes to its standard error goes.
    pub errors: Errors,
    /// Tells those who look after the time when it does not count.
    pub untimed: Arc<Untimed>,
    /// Who is asked where sudo or su wants a password.
    pub passwords: Passwords,
    /// Over how many sessions of an ssh connection the link may run.
    pub width: Width,
    /// The last hop is a sudo that the user has not asked for: it fails where it wants a password.
    pub elevated: bool,
    /// Who takes the connections that arrive at the host for this side.
    #[cfg(feature = "net")]
    pub(crate) exit: Option<remotely_net::forward::Exit>,
}

/// Whether the time of connecting counts: not while the agent is being sent, nor while somebody is asked for a password.
#[derive(Debug, Default)]
pub struct Untimed(AtomicU8);

impl Untimed {
    const NOW: u8 = 1;
    const LATELY: u8 = 2;

    /// From now on it does not count, until what is returned is dropped.
    pub(crate) fn begin(&self) -> impl Drop + '_ {
        struct Until<'a>(&'a Untimed);
        impl Drop for Until<'_> {
            fn drop(&mut self) {
                self.0.0.store(Untimed::LATELY, Ordering::Relaxed);
            }
        }
        self.0.fetch_or(Self::NOW, Ordering::Relaxed);
        Until(self)
    }

    /// Whether there was such time since it was last asked.
    pub(crate) fn take(&self) -> bool {
        self.0.fetch_and(!Self::LATELY, Ordering::Relaxed) != 0
    }
}

/// Over how many sessions of one ssh connection a link runs. Each lets 2 MiB through in a round trip, and costs no login. Where the
/// first hop is not ssh, or the server refuses, it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Width {
    /// One, and up to eight while more is sent than those there are let through.
    #[default]
    Auto,
    /// So many from the start, if the server lets us; one at least, eight at most.
    Exactly(u8),
}

impl Width {
    /// More are of no use.
    pub const MOST: u8 = 8;
}

/// It is no number of pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a number from 1 to {most}, or auto, is wanted", most = Width::MOST)]
pub struct WidthError;

impl std::str::FromStr for Width {
    type Err = WidthError;

    fn from_str(text: &str) -> Result<Self, WidthError> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(pipes @ 1..=Self::MOST)) => Ok(Self::Exactly(pipes)),
            _ => Err(WidthError),
        }
    }
}

/// What the agent is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentKind {
    /// Runs commands of the client in a root made of its files.
    Run,
    /// Runs functions of the program, with the host as it finds it.
    Tunnel,
    /// None, but a further pipe to the one that runs.
    Join,
}

impl AgentKind {
    /// The word that asks for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Tunnel => "tunnel",
            Self::Join => "join",
        }
    }
}

/// Takes bytes as they come, on a thread of its own.
pub type Take = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// Where the standard error of a process goes that we have started; the last of it is kept for messages in any case.
#[derive(Clone, Default)]
pub enum Errors {
    /// To ours, as it is.
    #[default]
    Show,
    /// Nowhere.
    Keep,
    /// To this function.
    Hand(Take),
}

impl std::fmt::Debug for Errors {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Show => "Show",
            Self::Keep => "Keep",
            Self::Hand(_) => "Hand",
        })
    }
}

impl ConnectOptions {
    /// The defaults for `target`.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            ssh_opts: Vec::new(),
            timeout: None,
            progress: true,
            executable: None,
            agent: AgentKind::Run,
            errors: Errors::Show,
            untimed: Arc::default(),
            passwords: Passwords::none(),
            width: Width::Auto,
            elevated: false,
            #[cfg(feature = "net")]
            exit: None,
        }
    }

    /// The same, with the agent started as root through `sudo -n` at the end of the way.
    pub fn elevated(&self) -> Self {
        Self { target: self.target.clone().with(Hop::Sudo { user: None }), elevated: true, ..self.clone() }
    }

    /// How many of the first hops may ask for a password.
    pub(crate) fn may_ask(&self) -> usize {
        if self.passwords.is_none() { 0 } else { self.target.hops().len() - usize::from(self.elevated) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_is_a_number_up_to_eight_or_auto() {
        assert_eq!("auto".parse(), Ok(Width::Auto));
        assert_eq!(("1".parse(), "8".parse()), (Ok(Width::Exactly(1)), Ok(Width::Exactly(8))));
        for wrong in ["", "0", "9", "256", "-1", "Auto", "two", " 1"] {
            assert_eq!(wrong.parse::<Width>(), Err(WidthError), "{wrong:?}");
        }
    }
}
