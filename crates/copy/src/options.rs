//! What a caller of put and fetch can ask for, and how he hears how far it is.

use std::{
    fmt::{self, Debug, Formatter},
    sync::Arc,
};

use remotely_proto::file::{Receiving, Sending, Unchanged};

/// How files are copied.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directories that lead to the destination are made.
    pub parents: bool,
    /// Owners and groups (by number), set-id bits and device nodes are taken over. Needs root on the receiving side.
    pub owner: bool,
    /// Extended attributes are taken over, and with them ACLs.
    pub xattrs: bool,
    /// What was copied is durable before it takes the place of an older file, and when the transfer ends.
    pub sync: bool,
    /// What was received of a large file (from 8 MiB) stays beside its destination when the transfer is cut, and the next
    /// transfer to there goes on behind it, if the content is the same.
    pub resume: bool,
    /// Which files are not sent because they are at the destination as they are at the source.
    pub unchanged: Unchanged,
    /// Of files from 64 KiB that are at the destination in another state, only changed blocks are sent.
    pub delta: bool,
    /// Permission bits of a single file at the destination; without, those of the source.
    pub mode: Option<u32>,
    /// Who is told how far the transfer is.
    pub observer: Option<Observer>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parents: false,
            owner: false,
            xattrs: false,
            sync: true,
            resume: true,
            unchanged: Unchanged::Send,
            delta: false,
            mode: None,
            observer: None,
        }
    }
}

impl Options {
    pub(crate) fn sending(&self) -> Sending {
        Sending { xattrs: self.xattrs, unchanged: self.unchanged, delta: self.delta, resume: self.resume }
    }

    pub(crate) fn receiving(&self) -> Receiving {
        let Self { parents, owner, sync, resume, mode, .. } = *self;
        Receiving { parents, owner, sync, resume, mode }
    }
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Files that were read (by a put) or written (by a fetch), or need not be sent.
    pub files: u64,
    /// Bytes of their content, and of the file that is under way.
    pub bytes: u64,
    /// Bytes in all; known for a single file.
    pub total: Option<u64>,
}

/// A function that is told how far a transfer is, ten times a second at most, by a thread of the transfer: what keeps it keeps the
/// transfer.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(Progress) + Send + Sync>);

impl Observer {
    /// Tells this function.
    pub fn new(observe: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    pub(crate) fn tell(&self, progress: Progress) {
        (self.0)(progress);
    }
}

impl Debug for Observer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
