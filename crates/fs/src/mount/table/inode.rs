//! One inode as the mount knows it: what may be shown of it, and what the kernel and the server were told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use remotely_proto::ByteVec;
use remotely_proto::fs::{Attr, Node, UNWATCHED_MS, flag};
use tokio::sync::Notify;

use super::name::Directory;
use crate::mount::content::{Content, GRANULE};
use crate::mount::late::Late;
use crate::mount::owners::Owners;
use crate::mount::partial::Partial;

/// The kernel keeps what is watched until it is told otherwise.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);
pub(in super::super) const UNWATCHED: Duration = Duration::from_millis(UNWATCHED_MS);

/// Granules of a file whose use is noted: 128 GiB.
const USED_MAX: u64 = 1 << 20;

/// One inode of the client.
pub(in super::super) struct Inode {
    pub(in super::super) attr: Attr,
    /// Attributes must be asked for before they are shown.
    pub(in super::super) stale: bool,
    /// They may not be trusted after this moment, because nobody watches.
    pub(in super::super) expires: Option<Instant>,
    pub(in super::super) target: Option<ByteVec>,
    /// How often the kernel was told of it.
    pub(in super::super) lookups: u64,
    /// Names it has in directories that are known.
    pub(in super::super) names: u32,
    /// Where the server finds it.
    pub(in super::super) place: Option<(Node, ByteVec)>,
    /// On which lanes the server was told that.
    pub(in super::super) bound: u8,
    /// Open files of the kernel.
    pub(in super::super) opens: u32,
    /// Writes that the server has not answered.
    pub(in super::super) writes: u32,
    /// Writes so far.
    sent: u64,
    /// Writes that failed after their caller had gone on.
    pub(in super::super) late: Late,
    /// What the kernel takes for its size.
    pub(in super::super) shown_size: u64,
    /// Who may hold locks on it.
    pub(in super::super) owners: Owners,
    /// Number of the last notice about it.
    pub(in super::super) noticed: u64,
    /// When a change of our own to it was last answered: see `Age`.
    pub(super) answered: u64,
    /// The attributes are those after a change of our own: what somebody else did to the content just before shows in
    /// nothing but a notice.
    pub(super) by_us: bool,
    pub(in super::super) event: Option<Arc<Notify>>,
    pub(in super::super) directory: Option<Box<Directory>>,
    pub(in super::super) content: Option<Box<Content>>,
    /// Pages that the command wrote a part of.
    pub(in super::super) partial: Partial,
    /// A bit for each granule that the kernel has been given.
    pub(in super::super) used: Vec<u64>,
    /// It was made or written by the command.
    pub(in super::super) written: bool,
}

impl Inode {
    pub(super) fn new(attr: Attr, place: Option<(Node, ByteVec)>) -> Self {
        let mut inode = Self {
            shown_size: attr.size,
            attr: attr.clone(),
            stale: false,
            expires: None,
            target: None,
            lookups: 0,
            names: 0,
            place,
            bound: 0,
            opens: 0,
            writes: 0,
            sent: 0,
            late: Late::default(),
            owners: Owners::default(),
            noticed: 0,
            answered: 0,
            by_us: false,
            event: None,
            directory: None,
            content: None,
            partial: Partial::default(),
            used: Vec::new(),
            written: false,
        };
        inode.set_attr(attr);
        inode
    }

    pub(super) fn set_attr(&mut self, attr: Attr) {
        self.expires = (attr.flags & flag::UNWATCHED != 0).then(|| Instant::now() + UNWATCHED);
        self.attr = attr;
        self.stale = false;
    }

    /// What was kept of its content is not what is there.
    pub(in super::super) fn drop_content(&mut self) {
        self.content = None;
        self.partial = Partial::default();
    }

    /// We write this. Call before the size counts as shown.
    pub(in super::super) fn wrote(&mut self, offset: u64, data: &[u8]) {
        self.content = None;
        self.sent += 1;
        self.written = true;
        self.partial.wrote(offset, data, self.shown_size);
        self.shown_size = self.shown_size.max(offset + data.len() as u64);
    }

    /// The kernel was given these bytes.
    pub(in super::super) fn used(&mut self, offset: u64, len: u64) {
        let (first, last) = (offset / GRANULE, (offset + len.max(1)).div_ceil(GRANULE).min(USED_MAX));
        for index in first..last {
            let word = (index / 64) as usize;
            if self.used.len() <= word {
                self.used.resize(word + 1, 0);
            }
            self.used[word] |= 1 << (index % 64);
        }
    }

    /// Runs of granules that were used.
    pub(super) fn used_runs(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let all =
            (0..self.used.len() as u64 * 64).filter(|index| self.used[(index / 64) as usize] >> (index % 64) & 1 != 0);
        for index in all {
            match runs.last_mut() {
                Some(run) if run.1 == index => run.1 += 1,
                _ => runs.push((index, index + 1)),
            }
        }
        runs
    }

    /// These bytes, if the command wrote them itself and the kernel did not keep them.
    pub(in super::super) fn written_pages(&self, offset: u64, len: u64) -> Option<Bytes> {
        self.partial.read(offset, len, self.shown_size)
    }

    /// Writes so far, and how many of them the server has answered; it does so in order.
    pub(in super::super) fn sent_and_answered(&self) -> (u64, u64) {
        (self.sent, self.sent - u64::from(self.writes))
    }

    /// The attributes may be too old for what is read to be theirs.
    pub(in super::super) fn is_doubtful(&self) -> bool {
        self.stale || self.has_expired()
    }

    /// Nobody watches it, and it has not been looked at for a while.
    pub(in super::super) fn has_expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= Instant::now())
    }

    /// The attributes may be shown as they are.
    pub(in super::super) fn is_fresh(&self) -> bool {
        !self.is_doubtful() && self.writes == 0
    }

    /// What the kernel is shown: the attributes that are known, or these, if the server has just told them.
    pub(in super::super) fn show(&mut self, told: Option<Attr>) -> Attr {
        let shown = told.filter(|_| !self.is_fresh()).unwrap_or_else(|| self.attr.clone());
        if self.writes == 0 {
            self.shown_size = shown.size;
        }
        shown
    }

    /// How long the kernel may keep the attributes.
    pub(in super::super) fn attr_valid(&self) -> Duration {
        if self.is_fresh() { remaining(self.expires) } else { Duration::ZERO }
    }

    pub(in super::super) fn is_directory(&self) -> bool {
        self.attr.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// How long what expires then may be kept.
pub(super) fn remaining(expires: Option<Instant>) -> Duration {
    expires.map_or(FOREVER, |at| at.saturating_duration_since(Instant::now()))
}
