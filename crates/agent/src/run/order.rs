//! What the agent and its init process say to each other, and why a command may fail to start. Both are the same
//! executable and trust each other; nothing of this leaves the host.

use minicbor::{Decode, Encode};
use remotely_proto::ByteVec;
use remotely_proto::exec::{Identity, Inherited, Report, Step, View};
use rustix::io::Errno;

/// From the agent to init.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Order {
    /// Make the namespaces and the mount. Answer: [`News::Mounted`] or [`News::Failed`]. First, and once.
    #[n(0)]
    Setup(#[n(0)] Setup),
    /// The mount answers: change into the root. Answer: [`News::Ready`] or [`News::Failed`].
    #[n(1)]
    Go,
    /// Run a command. Answer: [`News::Started`] or [`News::NotStarted`].
    #[n(2)]
    Run(#[n(0)] Run),
    /// Send a signal to the process group of a command.
    #[n(3)]
    Signal {
        /// Which command.
        #[n(0)]
        id: u32,
        /// Signal number.
        #[n(1)]
        signal: u32,
    },
    /// Nobody waits for what still runs: hang up on it, and end when it has ended, or soon anyway.
    #[n(4)]
    HangUp,
    /// Tell once when a command waits for input of its terminal: [`News::Reads`]. Replaces an earlier one.
    #[n(5)]
    Announce {
        /// Which command.
        #[n(0)]
        id: u32,
        /// Not only a read counts, but also waiting until there is input.
        #[n(1)]
        polls: bool,
    },
}

/// What the root is made of.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct Setup {
    /// Who commands are.
    #[n(0)]
    pub(crate) identity: Identity,
    /// What they see.
    #[n(1)]
    pub(crate) view: View,
    /// Where they run.
    #[n(2)]
    pub(crate) root: Root,
    /// The kernel checks permissions of the mount by owner and mode.
    #[n(3)]
    pub(crate) default_permissions: bool,
    /// Sockets and files of the host that the environment names.
    #[n(4)]
    pub(crate) shared: Vec<Shared>,
}

/// What the root of commands is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Root {
    /// The client's files.
    #[n(0)]
    Client,
    /// The host's own, with the client's files mounted somewhere in it.
    #[n(1)]
    Host,
    /// The host's own files, brought in by the way that the client's take: what tests have instead of a link.
    #[cfg(test)]
    #[n(2)]
    Bound,
}

/// Something of the host that is made reachable in the root.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Shared {
    /// Where it is on the host.
    #[n(0)]
    pub(crate) host: ByteVec,
    /// Where commands find it: a name in [`crate::run::environment::SHARED_DIR`], or an absolute path.
    #[n(1)]
    pub(crate) place: ByteVec,
}

/// A command. The descriptors of kind [`Source::Passed`] travel with it.
#[derive(Debug, Encode, Decode)]
pub(crate) struct Run {
    /// Names it from now on.
    #[n(0)]
    pub(crate) id: u32,
    /// Arguments; at least one.
    #[n(1)]
    pub(crate) argv: Vec<ByteVec>,
    /// Environment.
    #[n(2)]
    pub(crate) env: Vec<ByteVec>,
    /// Working directory in the root.
    #[n(3)]
    pub(crate) cwd: ByteVec,
    /// Who it becomes; `None`: who init is.
    #[n(4)]
    pub(crate) identity: Option<Identity>,
    /// What it inherits.
    #[n(5)]
    pub(crate) inherited: Inherited,
    /// Its descriptors.
    #[n(6)]
    pub(crate) fds: Vec<Descriptor>,
    /// Which of the passed descriptors is its terminal.
    #[n(7)]
    pub(crate) tty: Option<u32>,
    /// What paths of the client begin with in the root: empty where they are the root.
    #[n(8)]
    pub(crate) prefix: ByteVec,
    /// As if [`Order::Announce`] came with it, for whatever waits.
    #[n(9)]
    pub(crate) announce: bool,
}

/// A descriptor of a command.
#[derive(Debug, Encode, Decode)]
pub(crate) struct Descriptor {
    /// Its number.
    #[n(0)]
    pub(crate) fd: u32,
    /// Where it comes from.
    #[n(1)]
    pub(crate) source: Source,
}

/// Where a descriptor comes from.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Source {
    /// This one of those that came with the order.
    #[n(0)]
    Passed(#[n(0)] u32),
    /// A file in the root.
    #[n(1)]
    File {
        /// Absolute path on the client.
        #[n(0)]
        path: ByteVec,
        /// open(2) flags.
        #[n(1)]
        flags: u32,
        /// Position in bytes.
        #[n(2)]
        offset: u64,
        /// The inode number that it must have.
        #[n(3)]
        ino: u64,
    },
    /// A copy of this other one of the command.
    #[n(2)]
    Same(#[n(0)] u32),
}

/// From init to the agent.
#[derive(Debug, Encode, Decode)]
pub(crate) enum News {
    /// The namespaces are there, and the mount, whose descriptor comes along.
    #[n(0)]
    Mounted(#[n(0)] Mounted),
    /// Commands can run.
    #[n(1)]
    Ready,
    /// The root cannot be made. Last message.
    #[n(2)]
    Failed(#[n(0)] Failure),
    /// A command runs.
    #[n(3)]
    Started {
        /// Which.
        #[n(0)]
        id: u32,
    },
    /// A command never ran.
    #[n(4)]
    NotStarted {
        /// Which.
        #[n(0)]
        id: u32,
        /// Why.
        #[n(1)]
        failure: Failure,
    },
    /// A command was stopped by this signal, or goes on.
    #[n(5)]
    Stopped {
        /// Which.
        #[n(0)]
        id: u32,
        /// `None`: it goes on.
        #[n(1)]
        signal: Option<u32>,
    },
    /// A command ended, and what it wrote to mapped files has been handed to the mount.
    #[n(6)]
    Exited {
        /// Which.
        #[n(0)]
        id: u32,
        /// How.
        #[n(1)]
        exit: Exit,
    },
    /// A command waits for input of its terminal.
    #[n(7)]
    Reads {
        /// Which.
        #[n(0)]
        id: u32,
        /// It waits until there is some, rather than in a read.
        #[n(1)]
        polls: bool,
    },
}

/// What [`News::Mounted`] says.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct Mounted {
    /// Pid 1 of the namespace, as the host numbers it.
    #[n(0)]
    pub(crate) init_pid: u32,
    /// Ids that exist for commands; `None`: all.
    #[n(1)]
    pub(crate) ids: Option<IdRanges>,
    /// Where the client's files are in the root of commands: empty where they are the root.
    #[n(2)]
    pub(crate) prefix: ByteVec,
    /// Who commands are on the host, if not the agent's user.
    #[n(3)]
    pub(crate) owner: Option<u32>,
}

/// Ids that exist in a user namespace: first, how many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct IdRanges {
    /// Users.
    #[n(0)]
    pub(crate) uids: Vec<(u32, u32)>,
    /// Groups.
    #[n(1)]
    pub(crate) gids: Vec<(u32, u32)>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Exit {
    /// Wait status.
    #[n(0)]
    pub(crate) status: u32,
    /// Final position of its files.
    #[n(1)]
    pub(crate) offsets: Vec<(u32, u64)>,
    /// CPU time in microseconds: user, system.
    #[n(2)]
    pub(crate) cpu: (u64, u64),
}

/// Why a command did not start.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Failure {
    /// At which step.
    #[n(0)]
    pub(crate) step: Step,
    /// errno of Linux, 0 if none.
    #[n(1)]
    pub(crate) errno: u32,
    /// What was tried.
    #[n(2)]
    pub(crate) what: String,
}

impl Failure {
    /// A call that failed with an errno.
    pub(crate) fn new(step: Step, errno: impl Into<std::io::Error>, what: impl Into<String>) -> Self {
        let errno = errno.into().raw_os_error().unwrap_or(0).unsigned_abs();
        Self { step, errno, what: what.into() }
    }

    /// Something that no call said.
    pub(crate) fn plain(step: Step, what: impl Into<String>) -> Self {
        Self { step, errno: 0, what: what.into() }
    }

    /// As the client is told.
    pub(crate) fn report(self) -> Report {
        Report::Failed { step: self.step, errno: self.errno, what: self.what }
    }

    /// Whether the errno is this one.
    pub(crate) fn is(&self, errno: Errno) -> bool {
        self.errno == errno.raw_os_error().unsigned_abs()
    }
}

/// Bytes for a message to a user: printable ones as they are.
pub(crate) fn show(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}
