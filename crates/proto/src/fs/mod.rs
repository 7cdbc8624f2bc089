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

mod answer;
mod count;
mod file;
mod request;

pub use answer::{Notice, Reply, Statfs, ToMount};
pub use count::{Asked, Counts};
pub use file::{
    Attr, Binding, DATA_MAX, Entry, File, INLINE_DATA, Lane, NAME_MAX, Node, PUSH_BLOCK, Stamp, Tag, Time,
    UNWATCHED_MS, access, flag,
};
pub use request::{Lock, LockKind, Make, Request, SetAttr, SetTime, ToServer, UsedInode};
