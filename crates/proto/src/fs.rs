//! Messages of the fs service: files of the client, mounted on the host.
//!
//! Three streams, all opened by the client (the fs server) in its first flight:
//!
//! | stream | mount to server | server to mount |
//! |---|---|---|
//! | [`Lane::Query`] | requests that change nothing, one-way notes | replies, notices |
//! | [`Lane::Change`] | requests that change something, in the order in which the command made them | replies |
//! | [`Lane::Bulk`] | nothing | file data: large replies and pushes |
//!
//! Every message is a [`crate::message`]: a CBOR head and a raw payload. The mount names nodes and files itself, so a
//! chain of requests can be sent without waiting. A node is made known to the server by [`Request::Bind`] on each lane
//! before its first use there; binding twice is harmless.

use minicbor::{Decode, Encode};

use crate::ByteVec;

/// Number of requests that the mount has sent on [`Lane::Change`], counted from 1: "everything up to here". What the
/// command lets out (output, exit status) carries it, and is held back here until that many have been applied.
pub type Tag = u64;

/// The streams of the service, in the open request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Lane {
    /// Questions and answers.
    #[n(0)]
    Query,
    /// Changes, in order.
    #[n(1)]
    Change,
    /// File data towards the mount.
    #[n(2)]
    Bulk,
}

/// An inode as the mount names it. Never used twice in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Node(#[n(0)] pub u64);

impl Node {
    /// The root of what is exposed. Bound from the start.
    pub const ROOT: Node = Node(1);
}

/// An open file as the mount names it. Never used twice in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct File(#[n(0)] pub u64);

/// A moment as statx(2) gives it, by the client's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Encode, Decode)]
pub struct Time {
    /// Seconds since 1970.
    #[n(0)]
    pub sec: i64,
    /// Nanoseconds, below 10^9.
    #[n(1)]
    pub nsec: u32,
}

/// Attributes of an inode, by the numbers of the client (statx(2)).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Attr {
    /// Device, `makedev` encoding of Linux.
    #[n(0)]
    pub dev: u64,
    /// Inode number.
    #[n(1)]
    pub ino: u64,
    /// Type and permission bits.
    #[n(2)]
    pub mode: u32,
    /// Hard links.
    #[n(3)]
    pub nlink: u32,
    /// Owner.
    #[n(4)]
    pub uid: u32,
    /// Group.
    #[n(5)]
    pub gid: u32,
    /// Device number of a device node.
    #[n(6)]
    pub rdev: u64,
    /// Bytes.
    #[n(7)]
    pub size: u64,
    /// Blocks of 512 bytes.
    #[n(8)]
    pub blocks: u64,
    /// Preferred I/O size in bytes.
    #[n(9)]
    pub blksize: u32,
    /// Last access.
    #[n(10)]
    pub atime: Time,
    /// Last change of content.
    #[n(11)]
    pub mtime: Time,
    /// Last change of the inode.
    #[n(12)]
    pub ctime: Time,
    /// Birth, zero where unknown.
    #[n(13)]
    pub btime: Time,
    /// What the user of the client may do: [`access`] bits.
    #[n(14)]
    pub access: u8,
    /// [`flag`] bits.
    #[n(15)]
    pub flags: u8,
}

/// Bits of [`Attr::access`]; as access(2).
pub mod access {
    /// Execute or search.
    pub const EXEC: u8 = 1;
    /// Write.
    pub const WRITE: u8 = 2;
    /// Read.
    pub const READ: u8 = 4;
}

/// Bits of [`Attr::flags`].
pub mod flag {
    /// It has no extended attributes and no ACL: nobody needs to ask.
    pub const NO_XATTR: u8 = 1;
    /// Changes made by others cannot be watched: trust what is known for [`super::UNWATCHED_MS`] at most.
    pub const UNWATCHED: u8 = 2;
}

/// How long attributes with [`flag::UNWATCHED`] may be trusted, in milliseconds.
pub const UNWATCHED_MS: u64 = 1000;

/// Longest name in bytes (NAME_MAX).
pub const NAME_MAX: usize = 255;
/// Most bytes in one read, write or push.
pub const DATA_MAX: usize = 1 << 20;

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// The name, as bytes.
    #[n(0)]
    pub name: ByteVec,
    /// What it names.
    #[n(1)]
    pub attr: Attr,
    /// Target, for a symbolic link.
    #[n(2)]
    pub target: Option<ByteVec>,
}

/// What changes when: identifies one state of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Stamp {
    /// Bytes.
    #[n(0)]
    pub size: u64,
    /// Last change of content.
    #[n(1)]
    pub mtime: Time,
    /// Last change of the inode.
    #[n(2)]
    pub ctime: Time,
}

impl Attr {
    /// The stamp of this state.
    pub fn stamp(&self) -> Stamp {
        Stamp { size: self.size, mtime: self.mtime, ctime: self.ctime }
    }
}

/// Names a node for the server: the inode (dev, ino) found under `name` in `parent` (or, for a node that the server
/// gave an id for in a reply, nothing needs to be sent).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Binding {
    /// The name it gets.
    #[n(0)]
    pub node: Node,
    /// A bound directory.
    #[n(1)]
    pub parent: Node,
    /// Name in it.
    #[n(2)]
    pub name: ByteVec,
    /// Device that must be found.
    #[n(3)]
    pub dev: u64,
    /// Inode that must be found.
    #[n(4)]
    pub ino: u64,
}

/// From the mount. `id` in the envelope is zero for one-way messages.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    // ---- Either lane, one-way ----
    /// Makes nodes known, in order.
    #[n(0)]
    Bind {
        /// The nodes.
        #[n(0)]
        bindings: Vec<Binding>,
    },

    // ---- Lane::Query ----
    /// One-way: these nodes are not used any more.
    #[n(1)]
    Forget {
        /// The nodes.
        #[n(0)]
        nodes: Vec<Node>,
    },
    /// One-way: withdraw a request (FUSE_INTERRUPT). A waiting lock ends with EINTR.
    #[n(2)]
    Cancel {
        /// `id` of the request.
        #[n(0)]
        id: u64,
    },
    /// One name. Reply: [`Reply::Found`].
    #[n(3)]
    Lookup {
        /// Directory.
        #[n(0)]
        parent: Node,
        /// Name.
        #[n(1)]
        name: ByteVec,
    },
    /// The whole directory with attributes. Replies: [`Reply::Listing`] until `last`. The directory is watched from
    /// before it is read.
    #[n(4)]
    List {
        /// Directory.
        #[n(0)]
        dir: Node,
        /// With more entries than this the answer is `last` with `truncated` set, and the mount asks for single names.
        #[n(1)]
        limit: u32,
    },
    /// Attributes. Reply: [`Reply::Attr`].
    #[n(5)]
    Getattr {
        /// Node.
        #[n(0)]
        node: Node,
        /// An open file of it, for a node that has no name any more.
        #[n(1)]
        file: Option<File>,
    },
    /// Opens for reading; one-way if `id` is zero. Reply: [`Reply::Attr`].
    #[n(6)]
    Open {
        /// Node.
        #[n(0)]
        node: Node,
        /// The name that the open file gets.
        #[n(1)]
        file: File,
    },
    /// One-way: closes a file that was opened on this lane.
    #[n(7)]
    Release {
        /// The file.
        #[n(0)]
        file: File,
    },
    /// Data. Reply: [`Reply::Data`], on [`Lane::Bulk`] if more than [`INLINE_DATA`] bytes.
    #[n(8)]
    Read {
        /// Node.
        #[n(0)]
        node: Node,
        /// An open file of it; without one the server opens it for itself.
        #[n(1)]
        file: Option<File>,
        /// Position in bytes.
        #[n(2)]
        offset: u64,
        /// At most this many bytes, up to [`DATA_MAX`]; fewer only at the end of the file.
        #[n(3)]
        len: u32,
    },
    /// Target of a symbolic link. Reply: [`Reply::Target`].
    #[n(9)]
    Readlink {
        /// Node.
        #[n(0)]
        node: Node,
    },
    /// getxattr(2). Reply: [`Reply::Value`].
    #[n(10)]
    Getxattr {
        /// Node.
        #[n(0)]
        node: Node,
        /// Attribute.
        #[n(1)]
        name: ByteVec,
    },
    /// listxattr(2). Reply: [`Reply::Value`] with NUL-terminated names.
    #[n(11)]
    Listxattr {
        /// Node.
        #[n(0)]
        node: Node,
    },
    /// statfs(2). Reply: [`Reply::Statfs`].
    #[n(12)]
    Statfs {
        /// Node.
        #[n(0)]
        node: Node,
    },
    /// lseek(2) with SEEK_DATA or SEEK_HOLE. Reply: [`Reply::Offset`].
    #[n(13)]
    Seek {
        /// Open file.
        #[n(0)]
        file: File,
        /// Position in bytes.
        #[n(1)]
        offset: u64,
        /// SEEK_HOLE rather than SEEK_DATA.
        #[n(2)]
        hole: bool,
    },
    /// Tests for a lock. Reply: [`Reply::Lock`].
    #[n(14)]
    Getlk {
        /// Open file.
        #[n(0)]
        file: File,
        /// The lock.
        #[n(1)]
        lock: Lock,
    },
    /// Takes or frees a lock. Reply: [`Reply::Done`]; EAGAIN if it is held and `wait` is not set.
    #[n(15)]
    Setlk {
        /// Open file.
        #[n(0)]
        file: File,
        /// The lock.
        #[n(1)]
        lock: Lock,
        /// Wait for it (F_SETLKW).
        #[n(2)]
        wait: bool,
    },

    // ---- Lane::Change ----
    /// Opens for writing (open(2) flags: access mode, O_APPEND, O_TRUNC, O_SYNC, O_DSYNC). Reply: [`Reply::Attr`].
    #[n(16)]
    OpenWrite {
        /// Node.
        #[n(0)]
        node: Node,
        /// The name that the open file gets.
        #[n(1)]
        file: File,
        /// open(2) flags.
        #[n(2)]
        flags: u32,
    },
    /// Creates and opens a regular file. Reply: [`Reply::Found`].
    #[n(17)]
    Create {
        /// Where, what, for whom.
        #[n(0)]
        make: Make,
        /// open(2) flags, O_EXCL included.
        #[n(1)]
        flags: u32,
        /// The name that the open file gets.
        #[n(2)]
        file: File,
    },
    /// mknod(2), mkdir(2) by the type in `make.mode`. Reply: [`Reply::Found`].
    #[n(18)]
    Mknod {
        /// Where, what, for whom.
        #[n(0)]
        make: Make,
        /// Device number.
        #[n(1)]
        rdev: u64,
    },
    /// symlink(2). Reply: [`Reply::Found`].
    #[n(19)]
    Symlink {
        /// Where, for whom.
        #[n(0)]
        make: Make,
        /// Target.
        #[n(1)]
        target: ByteVec,
    },
    /// O_TMPFILE. Reply: [`Reply::Found`]; `make.name` is empty, `make.parent` the directory.
    #[n(20)]
    Tmpfile {
        /// Where, what, for whom.
        #[n(0)]
        make: Make,
        /// open(2) flags.
        #[n(1)]
        flags: u32,
        /// The name that the open file gets.
        #[n(2)]
        file: File,
    },
    /// link(2). Reply: [`Reply::Found`] with the new name.
    #[n(21)]
    Link {
        /// What exists.
        #[n(0)]
        node: Node,
        /// An open file of it, if it has no name (O_TMPFILE).
        #[n(1)]
        file: Option<File>,
        /// Directory of the new name.
        #[n(2)]
        parent: Node,
        /// The new name.
        #[n(3)]
        name: ByteVec,
    },
    /// unlink(2) or rmdir(2). Reply: [`Reply::Removed`].
    #[n(22)]
    Unlink {
        /// Directory.
        #[n(0)]
        parent: Node,
        /// Name.
        #[n(1)]
        name: ByteVec,
        /// rmdir rather than unlink.
        #[n(2)]
        dir: bool,
        /// The node, if known and used further (open): the server keeps a descriptor of it.
        #[n(3)]
        keep: Option<Node>,
    },
    /// renameat2(2). Reply: [`Reply::Done`]. Nodes below keep their ids.
    #[n(23)]
    Rename {
        /// From this directory.
        #[n(0)]
        parent: Node,
        /// This name.
        #[n(1)]
        name: ByteVec,
        /// To this directory.
        #[n(2)]
        new_parent: Node,
        /// Under this name.
        #[n(3)]
        new_name: ByteVec,
        /// RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT.
        #[n(4)]
        flags: u32,
        /// The node that is replaced, if it is used further (open).
        #[n(5)]
        keep: Option<Node>,
    },
    /// Changes attributes. Reply: [`Reply::Attr`].
    #[n(24)]
    Setattr {
        /// Node.
        #[n(0)]
        node: Node,
        /// An open file of it.
        #[n(1)]
        file: Option<File>,
        /// What.
        #[n(2)]
        set: SetAttr,
    },
    /// Writes the payload. Reply: [`Reply::Attr`]. A file opened with O_APPEND appends, whatever `offset` says.
    #[n(25)]
    Write {
        /// Open file.
        #[n(0)]
        file: File,
        /// Position in bytes.
        #[n(1)]
        offset: u64,
        /// Clear set-user-id and set-group-id bits (FUSE_WRITE_KILL_SUIDGID).
        #[n(2)]
        kill_privileges: bool,
    },
    /// fsync(2) of a file or directory. Reply: [`Reply::Done`] when it is durable.
    #[n(26)]
    Fsync {
        /// Node.
        #[n(0)]
        node: Node,
        /// An open file of it.
        #[n(1)]
        file: Option<File>,
        /// fdatasync(2).
        #[n(2)]
        data_only: bool,
    },
    /// One-way: closes a file that was opened on this lane.
    #[n(27)]
    ReleaseWrite {
        /// The file.
        #[n(0)]
        file: File,
    },
    /// fallocate(2). Reply: [`Reply::Attr`].
    #[n(28)]
    Fallocate {
        /// Open file.
        #[n(0)]
        file: File,
        /// Position in bytes.
        #[n(1)]
        offset: u64,
        /// Bytes.
        #[n(2)]
        len: u64,
        /// FALLOC_FL_*.
        #[n(3)]
        mode: u32,
    },
    /// copy_file_range(2). Reply: [`Reply::Copied`].
    #[n(29)]
    CopyRange {
        /// From this open file.
        #[n(0)]
        file: File,
        /// Position in bytes.
        #[n(1)]
        offset: u64,
        /// To this open file.
        #[n(2)]
        to: File,
        /// Position in bytes.
        #[n(3)]
        to_offset: u64,
        /// Bytes.
        #[n(4)]
        len: u64,
    },
    /// setxattr(2). The payload is the value. Reply: [`Reply::Attr`].
    #[n(30)]
    Setxattr {
        /// Node.
        #[n(0)]
        node: Node,
        /// Attribute.
        #[n(1)]
        name: ByteVec,
        /// XATTR_CREATE, XATTR_REPLACE.
        #[n(2)]
        flags: u32,
    },
    /// removexattr(2). Reply: [`Reply::Attr`].
    #[n(31)]
    Removexattr {
        /// Node.
        #[n(0)]
        node: Node,
        /// Attribute.
        #[n(1)]
        name: ByteVec,
    },
    /// One-way: what of these files was read in this session, pushed or asked for. Changes nothing, but is sent on this lane
    /// before the command's end is told, so that the client has it by then.
    #[n(32)]
    Used {
        /// The files.
        #[n(0)]
        files: Vec<UsedFile>,
    },
}

/// Which parts of a file were read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UsedFile {
    /// Device of the file.
    #[n(0)]
    pub dev: u64,
    /// Inode of the file.
    #[n(1)]
    pub ino: u64,
    /// Runs of blocks of [`PUSH_BLOCK`] bytes: (first, past the last), ascending and apart.
    #[n(2)]
    pub runs: Vec<(u64, u64)>,
}

/// A new inode.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Make {
    /// Directory.
    #[n(0)]
    pub parent: Node,
    /// Name in it.
    #[n(1)]
    pub name: ByteVec,
    /// The id that the new node gets; bound on all lanes once the reply is in.
    #[n(2)]
    pub node: Node,
    /// Type and permission bits, before umask.
    #[n(3)]
    pub mode: u32,
    /// umask of the caller; the server lets it, or a default ACL, act.
    #[n(4)]
    pub umask: u32,
    /// User and group of the caller; acted upon only where the client is root.
    #[n(5)]
    pub caller: (u32, u32),
}

/// Attributes to set; absent ones stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct SetAttr {
    /// Permission bits.
    #[n(0)]
    pub mode: Option<u32>,
    /// Owner.
    #[n(1)]
    pub uid: Option<u32>,
    /// Group.
    #[n(2)]
    pub gid: Option<u32>,
    /// Bytes.
    #[n(3)]
    pub size: Option<u64>,
    /// Last access.
    #[n(4)]
    pub atime: Option<SetTime>,
    /// Last change of content.
    #[n(5)]
    pub mtime: Option<SetTime>,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum SetTime {
    /// The server's now (UTIME_NOW).
    #[n(0)]
    Now,
    /// This.
    #[n(1)]
    At(#[n(0)] Time),
}

/// A lock, either fcntl(2) record locks or flock(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Lock {
    /// Whose; a number of the mount's kernel.
    #[n(0)]
    pub owner: u64,
    /// First byte.
    #[n(1)]
    pub start: u64,
    /// Last byte, `i64::MAX` to the end of the file.
    #[n(2)]
    pub end: u64,
    /// Kind.
    #[n(3)]
    pub kind: LockKind,
    /// flock(2) rather than fcntl(2); covers the whole file.
    #[n(4)]
    pub flock: bool,
    /// Process that holds it, in replies.
    #[n(5)]
    pub pid: u32,
}

/// Kind of lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum LockKind {
    /// Shared.
    #[n(0)]
    Read,
    /// Exclusive.
    #[n(1)]
    Write,
    /// None: frees.
    #[n(2)]
    Unlock,
}

/// Data replies above this many bytes travel on [`Lane::Bulk`].
pub const INLINE_DATA: usize = 16 << 10;

/// The head of every message from the mount.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ToServer {
    /// Matches the reply; zero if none is wanted.
    #[n(0)]
    pub id: u64,
    /// What.
    #[n(1)]
    pub request: Request,
}

/// The head of every message from the server.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToMount {
    /// Answers a request.
    #[n(0)]
    Reply {
        /// `id` of the request.
        #[n(0)]
        id: u64,
        /// What was seen is not older than every [`Notice`] up to this number: a reply that crossed a later notice about
        /// the same node or name is not kept.
        #[n(1)]
        seen: u64,
        /// The answer.
        #[n(2)]
        reply: Reply,
    },
    /// Unasked.
    #[n(1)]
    Notice {
        /// Number of this notice, from 1. Zero for a push.
        #[n(0)]
        number: u64,
        /// What.
        #[n(1)]
        notice: Notice,
    },
}

/// Answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// It failed.
    #[n(0)]
    Failed {
        /// errno of Linux.
        #[n(0)]
        errno: u32,
    },
    /// It is done.
    #[n(1)]
    Done,
    /// Attributes after the operation.
    #[n(2)]
    Attr {
        /// They.
        #[n(0)]
        attr: Attr,
    },
    /// A name and what it names.
    #[n(3)]
    Found {
        /// It.
        #[n(0)]
        entry: Entry,
        /// Attributes of the directory after, if the name was made by this request.
        #[n(1)]
        parent: Option<Attr>,
    },
    /// Part of a directory.
    #[n(4)]
    Listing {
        /// Entries, without `.` and `..`.
        #[n(0)]
        entries: Vec<Entry>,
        /// No more follow.
        #[n(1)]
        last: bool,
        /// Above the limit: the entries so far are not all.
        #[n(2)]
        truncated: bool,
        /// The directory is watched: names that are here, and names that are not, stay known until a notice.
        #[n(3)]
        watched: bool,
    },
    /// The payload is what was read; shorter than asked only at the end of the file.
    #[n(5)]
    Data {
        /// State of the file it comes from.
        #[n(0)]
        stamp: Stamp,
    },
    /// Target of a symbolic link.
    #[n(6)]
    Target {
        /// It.
        #[n(0)]
        target: ByteVec,
    },
    /// The payload is the value or the list of names.
    #[n(7)]
    Value,
    /// File system figures.
    #[n(8)]
    Statfs {
        /// They.
        #[n(0)]
        statfs: Statfs,
    },
    /// A position.
    #[n(9)]
    Offset {
        /// Bytes.
        #[n(0)]
        offset: u64,
    },
    /// A lock that is in the way, or one of kind Unlock.
    #[n(10)]
    Lock {
        /// It.
        #[n(0)]
        lock: Lock,
    },
    /// Bytes copied, and attributes of the target after.
    #[n(11)]
    Copied {
        /// Bytes.
        #[n(0)]
        len: u64,
        /// Attributes.
        #[n(1)]
        attr: Attr,
    },
    /// A name is gone: attributes of the directory after.
    #[n(12)]
    Removed {
        /// They.
        #[n(0)]
        parent: Attr,
    },
}

/// statvfs(3) figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Statfs {
    /// Blocks of `frsize`.
    #[n(0)]
    pub blocks: u64,
    /// Free.
    #[n(1)]
    pub bfree: u64,
    /// Free for users.
    #[n(2)]
    pub bavail: u64,
    /// Inodes.
    #[n(3)]
    pub files: u64,
    /// Free inodes.
    #[n(4)]
    pub ffree: u64,
    /// Block size for I/O.
    #[n(5)]
    pub bsize: u32,
    /// Fragment size.
    #[n(6)]
    pub frsize: u32,
    /// Longest name.
    #[n(7)]
    pub namelen: u32,
}

/// Unasked news from the server.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Notice {
    /// Someone else changed what is under these names in a watched directory: the state now; `None`: no such name.
    #[n(0)]
    Changed {
        /// Directory.
        #[n(0)]
        dir: Node,
        /// Names and what they name now. With an entry, its content may have changed too: compare the stamp.
        #[n(1)]
        names: Vec<(ByteVec, Option<Entry>)>,
    },
    /// Too much changed to tell: forget what is known of this directory and the attributes and content of all in it.
    #[n(1)]
    Stale {
        /// Directory.
        #[n(0)]
        dir: Node,
    },
    /// Events were lost: forget everything.
    #[n(2)]
    Overflow,
    /// Pushed before it is asked for: a directory, like a [`Reply::Listing`]. Pieces with the same path follow one
    /// another until `last`.
    #[n(3)]
    PushListing {
        /// Where, from the root: names of directories.
        #[n(0)]
        path: Vec<ByteVec>,
        /// Entries.
        #[n(1)]
        entries: Vec<Entry>,
        /// No more follow.
        #[n(2)]
        last: bool,
        /// Same meaning as in a reply.
        #[n(3)]
        seen: u64,
        /// Same meaning as in [`Reply::Listing`].
        #[n(4)]
        watched: bool,
    },
    /// Pushed before it is asked for: the payload is content of a regular file, found in a directory pushed before.
    #[n(4)]
    PushData {
        /// Device of the file.
        #[n(0)]
        dev: u64,
        /// Inode of the file.
        #[n(1)]
        ino: u64,
        /// Position in bytes.
        #[n(2)]
        offset: u64,
        /// State of the file it comes from.
        #[n(3)]
        stamp: Stamp,
    },
    /// What [`Notice::PushData`] will bring of a regular file, found in a directory pushed before: whoever needs it waits
    /// for it instead of asking. On [`Lane::Query`], ahead of the data.
    #[n(5)]
    PushPlan {
        /// Device of the file.
        #[n(0)]
        dev: u64,
        /// Inode of the file.
        #[n(1)]
        ino: u64,
        /// State of the file it will come from, if it does not change before.
        #[n(2)]
        stamp: Stamp,
        /// Runs of bytes: (position, length), multiples of [`PUSH_BLOCK`] but for the last length of a file.
        #[n(3)]
        runs: Vec<(u64, u64)>,
    },
    /// No more data follows: what was planned and has not come must be asked for. On [`Lane::Bulk`].
    #[n(6)]
    PushEnd,
    /// The root. First message on [`Lane::Query`], so that the mount need not ask.
    #[n(7)]
    Root {
        /// Its attributes.
        #[n(0)]
        attr: Attr,
    },
    /// A directory that was pushed has changed before the mount gave it a number: forget what was pushed of it.
    #[n(8)]
    PushStale {
        /// Where, from the root.
        #[n(0)]
        path: Vec<ByteVec>,
    },
}

/// Unit of pushed data in bytes.
pub const PUSH_BLOCK: u64 = 128 << 10;
