//! Messages of the exec service: a command of the client, run on the host. Spoken by the command line and the agent.
//!
//! One exec stream carries [`Request`] first, then [`Control`] towards the agent and [`Report`] towards the client. Each
//! descriptor of the command that is carried has a stream of its own, opened by the client with [`FdOpen`]. What comes back
//! on that of a [`FdKind::PipeIn`] is not output, but how much of it was read.

use minicbor::{Decode, Encode};

use crate::{ByteVec, fs::Counts};

/// What to run, and everything of here that it must find there. First message on an exec stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// What to start.
    #[n(0)]
    pub program: Program,
    /// Environment entries as they are, `NAME=value` or not, in order (environ(7)).
    #[n(1)]
    pub env: Vec<ByteVec>,
    /// Working directory: an absolute path on the client.
    #[n(2)]
    pub cwd: ByteVec,
    /// Who the command is.
    #[n(3)]
    pub identity: Identity,
    /// What a process inherits besides descriptors.
    #[n(4)]
    pub inherited: Inherited,
    /// Descriptors of the command, in ascending order of `fd`.
    #[n(5)]
    pub fds: Vec<FdSpec>,
    /// The terminal of here, if any of 0, 1, 2 is one.
    #[n(6)]
    pub tty: Option<Tty>,
    /// What the command sees.
    #[n(7)]
    pub view: View,
    /// Names of environment variables whose value on the host (as the transport made it, for instance `DISPLAY` by
    /// `ssh -X`) replaces that of here.
    #[n(8)]
    pub host_env: Vec<ByteVec>,
}

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Program {
    /// A command of the client, in a root made of the client's files. `argv` has at least one element; a word without
    /// a slash is looked up in `PATH` of `env`, as execvp(3) does.
    #[n(0)]
    Command {
        /// Arguments, the first being the command.
        #[n(0)]
        argv: Vec<ByteVec>,
    },
    /// `feign`: a shell of the host in the host's own root, with the client's files mounted to look at.
    #[n(1)]
    HostShell,
}

/// User and groups, by the numbers of the client.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Identity {
    /// Effective user id.
    #[n(0)]
    pub uid: u32,
    /// Effective group id.
    #[n(1)]
    pub gid: u32,
    /// Supplementary groups.
    #[n(2)]
    pub groups: Vec<u32>,
    /// Host name of the client, set in the command's UTS namespace.
    #[n(3)]
    pub hostname: ByteVec,
}

/// Attributes of a process that survive execve(2).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Inherited {
    /// umask(2).
    #[n(0)]
    pub umask: u32,
    /// Resource limits.
    #[n(1)]
    pub rlimits: Vec<Rlimit>,
    /// nice(2) value, -20..=19.
    #[n(2)]
    pub nice: i8,
    /// Blocked signals: bit n-1 stands for signal n.
    #[n(3)]
    pub blocked: u64,
    /// Ignored signals: bit n-1 stands for signal n.
    #[n(4)]
    pub ignored: u64,
    /// oom_score_adj, see proc_pid_oom_score_adj(5).
    #[n(5)]
    pub oom_score_adj: i16,
}

/// One resource limit; `u64::MAX` means unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Rlimit {
    /// `RLIMIT_*` number of Linux.
    #[n(0)]
    pub resource: u32,
    /// Soft limit.
    #[n(1)]
    pub soft: u64,
    /// Hard limit.
    #[n(2)]
    pub hard: u64,
}

/// One descriptor of the command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct FdSpec {
    /// Its number there, as here.
    #[n(0)]
    pub fd: u32,
    /// How it is made there.
    #[n(1)]
    pub kind: FdKind,
}

/// How a descriptor of here is made anew there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FdKind {
    /// The pty that stands for the terminal of here. Needs [`Request::tty`].
    #[n(0)]
    Tty,
    /// A pipe that the command reads from; the bytes come on the stream of this fd. On the way back are totals of the bytes
    /// that were read from the pipe (u64 little endian), each larger than the one before, the last one being final.
    #[n(1)]
    PipeIn,
    /// A pipe that the command writes to; the bytes leave on the stream of this fd as [`OutputHeader`] blocks.
    #[n(2)]
    PipeOut,
    /// A stream socket, both ways.
    #[n(3)]
    Socket,
    /// A file of the client, opened through the mount at `path` with `flags` (open(2), access mode and status flags
    /// only) and placed at `offset`. Its offset at the end travels back in [`Report::Exited`].
    #[n(4)]
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
        /// Device and inode on the client: what is found at `path` must be this file.
        #[n(3)]
        dev: u64,
        /// See `dev`.
        #[n(4)]
        ino: u64,
    },
    /// /dev/null of the host, opened with `flags`.
    #[n(5)]
    Null {
        /// open(2) flags.
        #[n(0)]
        flags: u32,
    },
    /// The same open description as the descriptor `of` (which has a smaller number), as after dup(2).
    #[n(6)]
    Same {
        /// The other descriptor.
        #[n(0)]
        of: u32,
    },
}

/// A terminal: size and modes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Tty {
    /// Size.
    #[n(0)]
    pub size: Winsize,
    /// Modes, if they could be read.
    #[n(1)]
    pub modes: Option<Modes>,
    /// Nobody reads keys for the command yet: the agent says by [`Report::Reads`] when it waits for some, as if asked by
    /// [`Control::Announce`] with `polls`.
    #[n(2)]
    #[cbor(default)]
    pub announce: bool,
}

/// Terminal size, TIOCGWINSZ (ioctl_tty(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Winsize {
    /// Rows in characters.
    #[n(0)]
    pub rows: u16,
    /// Columns in characters.
    #[n(1)]
    pub cols: u16,
    /// Width in pixels.
    #[n(2)]
    pub xpixel: u16,
    /// Height in pixels.
    #[n(3)]
    pub ypixel: u16,
}

/// struct termios of Linux (asm-generic), field by field.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Modes {
    /// c_iflag
    #[n(0)]
    pub input: u32,
    /// c_oflag
    #[n(1)]
    pub output: u32,
    /// c_cflag
    #[n(2)]
    pub control: u32,
    /// c_lflag
    #[n(3)]
    pub local: u32,
    /// c_cc, 19 bytes on Linux.
    #[n(4)]
    pub special: ByteVec,
}

/// What of which machine the command sees.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct View {
    /// Absolute paths that are the host's own, besides /proc, /sys and /dev. A path the host lacks is an error.
    #[n(0)]
    pub host_paths: Vec<ByteVec>,
    /// The mount refuses every change (EROFS).
    #[n(1)]
    pub read_only: bool,
    /// Every operation that changes something is a round trip.
    #[n(2)]
    pub strict: bool,
    /// Show /etc/resolv.conf and /etc/hosts of the host (its network is used).
    #[n(3)]
    pub host_network: bool,
}

/// Opens the stream of one descriptor. Sent by the client in its open frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FdOpen {
    /// Stream id of the exec stream it belongs to.
    #[n(0)]
    pub exec: u32,
    /// The descriptor.
    #[n(1)]
    pub fd: u32,
}

/// From the client, while the command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Control {
    /// Send this signal to the process group of the command.
    #[n(0)]
    Signal {
        /// Linux signal number.
        #[n(0)]
        signal: u32,
    },
    /// The terminal has a new size; the kernel there sends SIGWINCH.
    #[n(1)]
    Resize {
        /// The new size.
        #[n(0)]
        size: Winsize,
    },
    /// Continue a stopped command (SIGCONT to its groups).
    #[n(2)]
    Continue,
    /// Say by [`Report::Reads`], once, when a process in the foreground of the command's terminal waits for input of it.
    /// Takes the place of an earlier one that was not answered yet.
    #[n(3)]
    Announce {
        /// Waiting until there is input (poll(2), select(2), epoll(7)) counts, too; without, only a read(2) does.
        #[n(0)]
        polls: bool,
    },
}

/// From the agent, while the command runs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Report {
    /// It runs.
    #[n(0)]
    Started,
    /// It never ran.
    #[n(1)]
    Failed {
        /// What failed.
        #[n(0)]
        step: Step,
        /// errno of Linux, 0 if none.
        #[n(1)]
        errno: u32,
        /// What was tried, for the user.
        #[n(2)]
        what: String,
    },
    /// It was stopped by this signal.
    #[n(2)]
    Stopped {
        /// Linux signal number.
        #[n(0)]
        signal: u32,
    },
    /// It goes on.
    #[n(3)]
    Continued,
    /// It ended. Last message.
    #[n(4)]
    Exited {
        /// Wait status as of wait(2).
        #[n(0)]
        status: u32,
        /// Changes to files sent before, see [`crate::fs::Tag`].
        #[n(1)]
        tag: u64,
        /// (fd, bytes), for each descriptor of kind [`FdKind::File`] its final position, and for each whose output is carried
        /// ([`FdKind::Tty`], [`FdKind::PipeOut`], [`FdKind::Socket`]) how many bytes of output, block headers not counted, it
        /// had yielded when the command ended: what comes later is of processes that it left behind. For each
        /// [`FdKind::PipeIn`] how many bytes had been read from it.
        #[n(2)]
        offsets: Vec<(u32, u64)>,
        /// CPU time of the command and its children in microseconds: (user, system).
        #[n(3)]
        cpu: (u64, u64),
        /// What the mount was asked for until then, where one is served.
        #[n(4)]
        mount: Option<Counts>,
    },
    /// A process of it waits for input of its terminal, as [`Tty::announce`] or [`Control::Announce`] asked to be told.
    #[n(5)]
    Reads {
        /// It waits until there is input (poll(2), select(2), epoll(7)), rather than in a read(2).
        #[n(0)]
        polls: bool,
    },
}

/// The step of setting up a command that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Step {
    /// Namespaces, mounts: the exit code is 125.
    #[n(0)]
    Setup,
    /// User namespaces are not usable and the agent is not root: the client may start it again through sudo.
    #[n(1)]
    Privilege,
    /// The working directory: 125.
    #[n(2)]
    Cwd,
    /// A descriptor: 125.
    #[n(3)]
    Descriptor,
    /// execve(2): 127 for ENOENT, else 126.
    #[n(4)]
    Exec,
}

/// Precedes each block of output of the command: what comes before it elsewhere, and its length. 20 bytes: tag u64, screen
/// u64, length u32, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputHeader {
    /// How many changes to files had been sent when it was read, see [`crate::fs::Tag`].
    pub tag: u64,
    /// How many bytes the terminal had yielded by then; 0 in what the terminal itself yields.
    pub screen: u64,
    /// Bytes that follow.
    pub len: u32,
}

impl OutputHeader {
    /// Bytes of an encoded header.
    pub const SIZE: usize = 20;

    /// Little endian.
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..8].copy_from_slice(&self.tag.to_le_bytes());
        out[8..16].copy_from_slice(&self.screen.to_le_bytes());
        out[16..].copy_from_slice(&self.len.to_le_bytes());
        out
    }

    /// The reverse of [`encode`](Self::encode).
    pub fn decode(bytes: [u8; Self::SIZE]) -> Self {
        let [tag @ .., _, _, _, _, _, _, _, _, _, _, _, _] = bytes;
        let [_, _, _, _, _, _, _, _, screen @ .., _, _, _, _] = bytes;
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, len @ ..] = bytes;
        Self { tag: u64::from_le_bytes(tag), screen: u64::from_le_bytes(screen), len: u32::from_le_bytes(len) }
    }
}
