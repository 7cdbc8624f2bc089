//! What the server answers, and tells unasked.

use minicbor::{Decode, Encode};

use super::{Attr, Entry, Lock, Node, Stamp};
use crate::ByteVec;

/// The head of every message from the server.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToMount {
    /// Answers a request.
    #[n(0)]
    Reply {
        /// `id` of the request.
        #[n(0)]
        id: u64,
        /// What was seen is not older than every [`Notice`](super::Notice) up to this number: a reply that crossed a later notice about
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
    /// Pushed before it is asked for: a directory, like a [`Reply::Listing`](super::Reply::Listing). Pieces with the same path follow one
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
        /// Same meaning as in [`Reply::Listing`](super::Reply::Listing).
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
    /// for it instead of asking. On [`Lane::Query`](super::Lane::Query), ahead of the data.
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
        /// Runs of bytes: (position, length), multiples of [`PUSH_BLOCK`](super::PUSH_BLOCK) but for the last length of a file.
        #[n(3)]
        runs: Vec<(u64, u64)>,
    },
    /// No more data follows: what was planned and has not come must be asked for. On [`Lane::Bulk`](super::Lane::Bulk).
    #[n(6)]
    PushEnd,
    /// The root. First message on [`Lane::Query`](super::Lane::Query), so that the mount need not ask.
    #[n(7)]
    Root {
        /// Its attributes.
        #[n(0)]
        attr: Attr,
    },
    /// [`Notice::Stale`] of a directory that was pushed, or is on its way, and that the mount has not given a number yet.
    #[n(8)]
    StaleAt {
        /// Where, from the root.
        #[n(0)]
        path: Vec<ByteVec>,
    },
    /// [`Notice::Changed`] in such a directory. A [`Notice::PushListing`] of it that comes later is older, if its `seen` is.
    #[n(9)]
    ChangedAt {
        /// Where, from the root.
        #[n(0)]
        path: Vec<ByteVec>,
        /// Device of the directory.
        #[n(1)]
        dev: u64,
        /// Inode of the directory.
        #[n(2)]
        ino: u64,
        /// Same meaning as in [`Notice::Changed`].
        #[n(3)]
        names: Vec<(ByteVec, Option<Entry>)>,
    },
    /// No more [`Notice::PushPlan`] follows: [`Notice::PushData`], which is on another lane, is of use from here on.
    #[n(10)]
    PushPlanned,
}
