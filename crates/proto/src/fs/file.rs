//! What files are on the wire: inodes as the mount names them, their attributes, names, and the lanes all of it travels on.

use minicbor::{Decode, Encode};

use crate::ByteVec;

/// Number of requests that the mount has sent on [`Lane::Change`](super::Lane::Change), counted from 1: "everything up to here". What the
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

impl Time {
    /// Whether two inodes of the same number, born at these times, may be one: zero is not known.
    pub fn same_birth(self, other: Self) -> bool {
        self == other || [self, other].contains(&Self::default())
    }
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
    /// Birth time that it must have, where the file system knows it: numbers are given again. Zero if unknown.
    #[n(5)]
    pub btime: Time,
}

/// Data replies above this many bytes travel on [`Lane::Bulk`](super::Lane::Bulk).
pub const INLINE_DATA: usize = 16 << 10;

/// Unit of pushed data in bytes.
pub const PUSH_BLOCK: u64 = 128 << 10;
