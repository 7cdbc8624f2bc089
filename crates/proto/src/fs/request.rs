//! What the mount asks, tells, and has changed.

use minicbor::{Decode, Encode};

use super::{Binding, File, Node, Time};
use crate::ByteVec;

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
    /// One name. Reply: [`Reply::Found`](super::Reply::Found).
    #[n(3)]
    Lookup {
        /// Directory.
        #[n(0)]
        parent: Node,
        /// Name.
        #[n(1)]
        name: ByteVec,
    },
    /// The whole directory with attributes. Replies: [`Reply::Listing`](super::Reply::Listing) until `last`. The directory is watched from
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
    /// Attributes. Reply: [`Reply::Attr`](super::Reply::Attr).
    #[n(5)]
    Getattr {
        /// Node.
        #[n(0)]
        node: Node,
        /// An open file of it, for a node that has no name any more.
        #[n(1)]
        file: Option<File>,
    },
    /// Opens for reading; one-way if `id` is zero. Reply: [`Reply::Attr`](super::Reply::Attr).
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
    /// Data. Reply: [`Reply::Data`](super::Reply::Data), on [`Lane::Bulk`](super::Lane::Bulk) if more than [`INLINE_DATA`](super::INLINE_DATA) bytes.
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
        /// At most this many bytes, up to [`DATA_MAX`](super::DATA_MAX); fewer only at the end of the file.
        #[n(3)]
        len: u32,
    },
    /// Target of a symbolic link. Reply: [`Reply::Target`](super::Reply::Target).
    #[n(9)]
    Readlink {
        /// Node.
        #[n(0)]
        node: Node,
    },
    /// getxattr(2). Reply: [`Reply::Value`](super::Reply::Value).
    #[n(10)]
    Getxattr {
        /// Node.
        #[n(0)]
        node: Node,
        /// Attribute.
        #[n(1)]
        name: ByteVec,
    },
    /// listxattr(2). Reply: [`Reply::Value`](super::Reply::Value) with NUL-terminated names.
    #[n(11)]
    Listxattr {
        /// Node.
        #[n(0)]
        node: Node,
    },
    /// statfs(2). Reply: [`Reply::Statfs`](super::Reply::Statfs).
    #[n(12)]
    Statfs {
        /// Node.
        #[n(0)]
        node: Node,
    },
    /// lseek(2) with SEEK_DATA or SEEK_HOLE. Reply: [`Reply::Offset`](super::Reply::Offset).
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
    /// Tests for a lock. Reply: [`Reply::Lock`](super::Reply::Lock).
    #[n(14)]
    Getlk {
        /// Open file.
        #[n(0)]
        file: File,
        /// The lock.
        #[n(1)]
        lock: Lock,
    },
    /// Takes or frees a lock. Reply: [`Reply::Done`](super::Reply::Done); EAGAIN if it is held and `wait` is not set.
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
    /// Opens for writing (open(2) flags: access mode, O_TRUNC, O_SYNC, O_DSYNC). Reply: [`Reply::Attr`](super::Reply::Attr).
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
    /// Creates and opens a regular file. Reply: [`Reply::Found`](super::Reply::Found).
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
    /// mknod(2), mkdir(2) by the type in `make.mode`. Reply: [`Reply::Found`](super::Reply::Found).
    #[n(18)]
    Mknod {
        /// Where, what, for whom.
        #[n(0)]
        make: Make,
        /// Device number.
        #[n(1)]
        rdev: u64,
    },
    /// symlink(2). Reply: [`Reply::Found`](super::Reply::Found).
    #[n(19)]
    Symlink {
        /// Where, for whom.
        #[n(0)]
        make: Make,
        /// Target.
        #[n(1)]
        target: ByteVec,
    },
    /// O_TMPFILE. Reply: [`Reply::Found`](super::Reply::Found); `make.name` is empty, `make.parent` the directory.
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
    /// link(2). Reply: [`Reply::Found`](super::Reply::Found) with the new name.
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
    /// unlink(2) or rmdir(2). Reply: [`Reply::Removed`](super::Reply::Removed).
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
    /// renameat2(2). Reply: [`Reply::Done`](super::Reply::Done). Nodes below keep their ids.
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
    /// Changes attributes. Reply: [`Reply::Attr`](super::Reply::Attr).
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
    /// Writes the payload. Reply: [`Reply::Attr`](super::Reply::Attr).
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
        /// Write at the end, wherever that is by then: the descriptor has O_APPEND at this moment.
        #[n(3)]
        append: bool,
    },
    /// fsync(2) of a file or directory. Reply: [`Reply::Done`](super::Reply::Done) when it is durable.
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
    /// fallocate(2). Reply: [`Reply::Attr`](super::Reply::Attr).
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
    /// copy_file_range(2). Reply: [`Reply::Copied`](super::Reply::Copied).
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
    /// setxattr(2). The payload is the value. Reply: [`Reply::Attr`](super::Reply::Attr).
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
    /// removexattr(2). Reply: [`Reply::Attr`](super::Reply::Attr).
    #[n(31)]
    Removexattr {
        /// Node.
        #[n(0)]
        node: Node,
        /// Attribute.
        #[n(1)]
        name: ByteVec,
    },
    /// One-way: these were used in this session, pushed or asked for. Changes nothing, but is sent on this lane
    /// before the command's end is told, so that the client has it by then.
    #[n(32)]
    Used {
        /// They.
        #[n(0)]
        inodes: Vec<UsedInode>,
    },
}

/// A directory in which a name was looked for, or a file that was read, and which parts of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UsedInode {
    /// Device of it.
    #[n(0)]
    pub dev: u64,
    /// Inode of it.
    #[n(1)]
    pub ino: u64,
    /// Of a file: runs of blocks of [`PUSH_BLOCK`](super::PUSH_BLOCK) bytes: (first, past the last), ascending and apart.
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
