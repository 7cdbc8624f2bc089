//! Messages of the file service: files and whole trees copied over one stream. Spoken by `remotely-copy` on both sides.
//!
//! The client opens the stream and sends a [`Request`]. From then on one side is the sender, the other the receiver, and both
//! speak in [`crate::message`]s: towards the receiver a head of `Vec<Item>` whose payload is the content of all its items, one
//! behind the other; towards the sender one [`Answer`] a message. Nobody waits for an answer but to an [`Item::Ask`].
//!
//! The sender numbers directories, asks and streamed files itself, so that everything can be sent without waiting.

use minicbor::{Decode, Encode, bytes::ByteArray};

use crate::{ByteVec, fs::Time};

/// A BLAKE3 hash of the content of a file, its holes being zeros.
pub type Hash = ByteArray<32>;

/// Most directories that may be begun and not ended.
pub const DIRECTORIES_MAX: usize = 1 << 16;
/// Most asks that may wait for their answer.
pub const ASKS_MAX: usize = 1 << 14;
/// Most blocks in one signature.
pub const BLOCKS_MAX: u32 = 1 << 16;
/// Bytes of a block in a signature: its rolling checksum, little endian, and the start of its BLAKE3 hash.
pub const BLOCK_ENTRY: usize = 4 + 16;
/// Least and largest block of a signature.
pub const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=(64 << 20);
/// Most bytes of extended attributes of one file, names and values.
pub const XATTRS_MAX: usize = 1 << 20;

/// What the client asks for; first message on the stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// The client sends, the agent receives.
    #[n(0)]
    Put {
        /// A path on the host: absolute, or beneath the home directory. None: a new temporary directory takes it.
        #[n(0)]
        destination: Option<ByteVec>,
        /// How it is received.
        #[n(1)]
        receiving: Receiving,
    },
    /// The agent sends, the client receives.
    #[n(1)]
    Fetch {
        /// A path on the host: absolute, or beneath the home directory.
        #[n(0)]
        source: ByteVec,
        /// How it is sent.
        #[n(1)]
        sending: Sending,
    },
}

/// How a receiver behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Receiving {
    /// Directories that lead to the destination are made.
    #[n(0)]
    pub parents: bool,
    /// Owners, set-id bits and device nodes are taken over, where the receiver is root.
    #[n(1)]
    pub owner: bool,
    /// What was written is durable when the transfer is done, and before it takes the place of anything.
    #[n(2)]
    pub sync: bool,
    /// What was received of a large file stays for the next try when the transfer is cut.
    #[n(3)]
    pub resume: bool,
    /// Permission bits for a single file, instead of those of the source.
    #[n(4)]
    pub mode: Option<u32>,
}

/// How a sender behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Sending {
    /// Extended attributes, and with them ACLs, are sent.
    #[n(0)]
    pub xattrs: bool,
    /// What is not sent because it is there.
    #[n(1)]
    pub unchanged: Unchanged,
    /// Only those blocks are sent that the file at the destination does not have.
    #[n(2)]
    pub delta: bool,
    /// The receiver is asked whether it has the beginning of a large file.
    #[n(3)]
    pub resume: bool,
}

/// What becomes of files that are at the destination as they are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Unchanged {
    /// They are sent.
    #[default]
    #[n(0)]
    Send,
    /// What has the same size and time of change is not.
    #[n(1)]
    Stamp,
    /// What has the same size and BLAKE3 hash is not.
    #[n(2)]
    Hash,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Seat {
    /// A directory that was begun; zero for what the destination is for the root.
    #[n(0)]
    pub directory: u32,
    /// One component, never a path; empty for the root.
    #[n(1)]
    pub name: ByteVec,
}

/// Attributes of a file of any type.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Meta {
    /// Type and permission bits.
    #[n(0)]
    pub mode: u32,
    /// Owner, by the sender's numbers.
    #[n(1)]
    pub uid: u32,
    /// Group, by the sender's numbers.
    #[n(2)]
    pub gid: u32,
    /// Last access.
    #[n(3)]
    pub atime: Time,
    /// Last change of content.
    #[n(4)]
    pub mtime: Time,
    /// Extended attributes, if they were asked for.
    #[n(5)]
    pub xattrs: Vec<Xattr>,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Xattr {
    /// Name with its class, as in `user.origin`.
    #[n(0)]
    pub name: ByteVec,
    /// Value.
    #[n(1)]
    pub value: ByteVec,
}

/// What a sender says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Item {
    /// First of all: what is sent.
    #[n(0)]
    Root {
        /// Its absolute path on the sender.
        #[n(0)]
        path: ByteVec,
        /// Its name; none for a path that ends in no name (`/`, `.`, `..`): its content is meant.
        #[n(1)]
        name: Option<ByteVec>,
        /// Bytes of a single file; none for a directory.
        #[n(2)]
        size: Option<u64>,
    },
    /// A directory begins.
    #[n(1)]
    Directory {
        /// Its number, never used twice.
        #[n(0)]
        id: u32,
        /// Where it is.
        #[n(1)]
        seat: Seat,
        /// Type and permission bits, for the time up to its end.
        #[n(2)]
        mode: u32,
    },
    /// Nothing follows in a directory.
    #[n(2)]
    DirectoryEnd {
        /// Its number.
        #[n(0)]
        id: u32,
        /// For the directory, if it was made for this.
        #[n(1)]
        meta: Meta,
    },
    /// A whole file. Payload: its content.
    #[n(3)]
    File {
        /// Where it goes.
        #[n(0)]
        seat: Seat,
        /// Attributes.
        #[n(1)]
        meta: Meta,
        /// Bytes of payload.
        #[n(2)]
        size: u32,
        /// Of the content.
        #[n(3)]
        hash: Hash,
    },
    /// A file begins whose content follows as [`Data`](Item::Data) and [`Copy`](Item::Copy), in ascending order, up to its
    /// [`End`](Item::End) or [`Broken`](Item::Broken). What is between them is a hole.
    #[n(4)]
    Begin {
        /// Its number, greater than that of the one before.
        #[n(0)]
        file: u32,
        /// Where it goes.
        #[n(1)]
        seat: Seat,
        /// The ask that this follows, which ends with it.
        #[n(2)]
        ask: Option<u32>,
        /// So many bytes are taken from what is there already, as said in [`Way::From`].
        #[n(3)]
        start: u64,
        /// Expected bytes.
        #[n(4)]
        size: u64,
    },
    /// Content. Payload.
    #[n(5)]
    Data {
        /// Position in bytes.
        #[n(0)]
        offset: u64,
        /// Bytes of payload.
        #[n(1)]
        len: u32,
    },
    /// Content that the file at the destination has, of which the receiver gave the signature.
    #[n(6)]
    Copy {
        /// Position in the new file.
        #[n(0)]
        offset: u64,
        /// Position in the file that is there.
        #[n(1)]
        from: u64,
        /// Bytes.
        #[n(2)]
        len: u64,
    },
    /// The file that was begun is complete.
    #[n(7)]
    End {
        /// Attributes.
        #[n(0)]
        meta: Meta,
        /// Bytes.
        #[n(1)]
        size: u64,
        /// Of the content.
        #[n(2)]
        hash: Hash,
    },
    /// The file that was begun cannot be completed; a [`Failed`](Item::Failed) says why.
    #[n(8)]
    Broken,
    /// What of this file is there? The answer is a [`Answer::Want`].
    #[n(9)]
    Ask {
        /// Its number, never used twice.
        #[n(0)]
        ask: u32,
        /// Where the file goes.
        #[n(1)]
        seat: Seat,
        /// Attributes; applied at once if the file is there as it is here.
        #[n(2)]
        meta: Meta,
        /// Bytes.
        #[n(3)]
        size: u64,
        /// When the file need not be sent.
        #[n(4)]
        unchanged: Unchanged,
        /// Whether the beginning of it may be taken from an earlier try.
        #[n(5)]
        resume: bool,
        /// A signature of the file that is there is welcome if it has at most so many blocks.
        #[n(6)]
        blocks: u32,
    },
    /// An ask that nothing follows: what was kept for it can go.
    #[n(10)]
    Forget {
        /// Its number.
        #[n(0)]
        ask: u32,
    },
    /// The file that is there has the right content.
    #[n(11)]
    Keep {
        /// Where it is.
        #[n(0)]
        seat: Seat,
        /// Attributes.
        #[n(1)]
        meta: Meta,
    },
    /// A symbolic link.
    #[n(12)]
    Symlink {
        /// Where it goes.
        #[n(0)]
        seat: Seat,
        /// Where it leads.
        #[n(1)]
        target: ByteVec,
        /// Attributes.
        #[n(2)]
        meta: Meta,
    },
    /// A fifo or a device node.
    #[n(13)]
    Special {
        /// Where it goes.
        #[n(0)]
        seat: Seat,
        /// Attributes; the mode tells the type.
        #[n(1)]
        meta: Meta,
        /// Device number, `makedev` encoding of Linux.
        #[n(2)]
        device: u64,
    },
    /// Another name of a file that was sent before.
    #[n(14)]
    Link {
        /// Where it goes.
        #[n(0)]
        seat: Seat,
        /// Path of that file, beneath the root.
        #[n(1)]
        target: ByteVec,
        /// Bytes that file must have.
        #[n(2)]
        size: u64,
        /// Last change that it must have.
        #[n(3)]
        mtime: Time,
    },
    /// Something could not be sent.
    #[n(15)]
    Failed(#[n(0)] Failure),
    /// Something is not sent on purpose.
    #[n(16)]
    Skipped(#[n(0)] Skipped),
    /// Last of all. The stream ends behind it.
    #[n(17)]
    Finish,
}

/// What a receiver says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// To an [`Item::Ask`].
    #[n(0)]
    Want {
        /// Its number.
        #[n(0)]
        ask: u32,
        /// What to send.
        #[n(1)]
        way: Way,
    },
    /// Something could not be received.
    #[n(1)]
    Failed {
        /// What.
        #[n(0)]
        failure: Failure,
        /// The number of a file of which no more needs to be sent.
        #[n(1)]
        file: Option<u32>,
    },
    /// Something was not taken over on purpose.
    #[n(2)]
    Skipped(#[n(0)] Skipped),
    /// To [`Item::Finish`]; also before it, when nothing at all can be received. The stream ends behind it.
    #[n(3)]
    Done {
        /// Absolute path of the root on the receiver; empty if there is none.
        #[n(0)]
        path: ByteVec,
        /// Files in place that were sent.
        #[n(1)]
        files: u64,
        /// Files that needed not be sent.
        #[n(2)]
        unchanged: u64,
        /// Bytes of content of the former.
        #[n(3)]
        bytes: u64,
        /// Of a single file.
        #[n(4)]
        hash: Option<Hash>,
    },
}

/// What to send of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Way {
    /// All.
    #[n(0)]
    Whole,
    /// Nothing: it is there.
    #[n(1)]
    Nothing,
    /// What follows on so many bytes, if they have this hash.
    #[n(2)]
    From {
        /// Bytes that are there.
        #[n(0)]
        len: u64,
        /// Of them.
        #[n(1)]
        hash: Hash,
    },
    /// All, unless this is its hash.
    #[n(3)]
    Unless {
        /// Of the file that is there.
        #[n(0)]
        hash: Hash,
    },
    /// What is not in these blocks. Payload: the signature, [`BLOCK_ENTRY`] bytes for each whole block of the file that is there.
    #[n(4)]
    Blocks {
        /// Bytes in a block.
        #[n(0)]
        size: u32,
    },
}

/// Something that failed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    /// What failed.
    #[n(0)]
    pub operation: Operation,
    /// Absolute path.
    #[n(1)]
    pub path: ByteVec,
    /// Error number of Linux; zero where `operation` says it all.
    #[n(2)]
    pub errno: u32,
}

/// Something left out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Skipped {
    /// Absolute path.
    #[n(0)]
    pub path: ByteVec,
    /// Why.
    #[n(1)]
    pub reason: Reason,
}

/// What was done when something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Operation {
    /// Finding out what it is.
    #[n(0)]
    Look,
    /// Opening it to read.
    #[n(1)]
    Open,
    /// Reading it.
    #[n(2)]
    Read,
    /// Listing a directory.
    #[n(3)]
    List,
    /// Opening a directory to put something in.
    #[n(4)]
    Enter,
    /// Making a file.
    #[n(5)]
    Create,
    /// Writing it.
    #[n(6)]
    Write,
    /// Making it durable.
    #[n(7)]
    Sync,
    /// Putting it in its place.
    #[n(8)]
    Rename,
    /// Making a directory.
    #[n(9)]
    MakeDirectory,
    /// Making a symbolic link.
    #[n(10)]
    Symlink,
    /// Making a further name of a file.
    #[n(11)]
    Link,
    /// Making a fifo or a device node.
    #[n(12)]
    MakeSpecial,
    /// Setting owner and group.
    #[n(13)]
    SetOwner,
    /// Setting permission bits.
    #[n(14)]
    SetMode,
    /// Setting times.
    #[n(15)]
    SetTimes,
    /// Reading or setting an extended attribute.
    #[n(16)]
    Xattr,
    /// What was written has not the hash of what was read.
    #[n(17)]
    Compare,
    /// It changed while it was read.
    #[n(18)]
    Changed,
    /// Its name is none that may be made here.
    #[n(19)]
    Name,
    /// It is neither a regular file nor a directory, but is asked for by name, or is to be replaced by a file.
    #[n(20)]
    Type,
}

/// Why something was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Reason {
    /// A socket has no meaning elsewhere.
    #[n(0)]
    Socket,
    /// Device nodes are made by root only, and only with owners.
    #[n(1)]
    Device,
    /// It is the unfinished file of another transfer.
    #[n(2)]
    Unfinished,
    /// Owners were asked for, but only root can give files away. Said once, of the root.
    #[n(3)]
    Owner,
}
