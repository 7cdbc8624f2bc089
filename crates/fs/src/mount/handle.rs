//! Open files of the kernel: what is known of each, and of which failed writes it has been told. Used by the operations on
//! open files; asks nobody.

use std::sync::Arc;

use remotely_proto::ByteVec;
use remotely_proto::fs::Node;
use rustix::io::Errno;

use super::fs::{Fs, lock};

/// The kernel gives what write(2) was given in parts, of a megabyte or little less; a smaller write was all of it.
const PART: u64 = 512 << 10;

/// An open file of the kernel: a description, which several descriptors and processes may share.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    pub(super) node: Node,
    pub(super) flags: u32,
    pub(super) at: Opened,
    /// The names of a directory as they were when reading began.
    pub(super) names: Option<Arc<Vec<(ByteVec, Node)>>>,
    /// Bytes written of which no close has waited to hear how it went.
    unreported: u64,
    /// Where the last write ended, if it may have been a part of what one write(2) was given.
    part_to: Option<u64>,
    /// Number of the last late error that was told through it: see [`Late`](super::late::Late).
    told: u64,
}

/// Whether the server has this file open too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// No: everything was answered here so far, and it is a directory or has just been opened.
    Here,
    /// For reading.
    Query,
    /// For writing.
    Change,
}

impl Fs {
    /// The kernel gets a new open file.
    pub(super) fn add_handle(self: &Arc<Self>, file: u64, node: Node, flags: u32, at: Opened) {
        self.with(|table| {
            let told = table.inode(node).map_or(0, |inode| inode.late.told_before());
            let handle = Handle { node, flags, at, names: None, unreported: 0, part_to: None, told };
            lock(&self.files).insert(file, handle);
        });
    }

    /// The open file as it is now; EBADF if there is none.
    pub(super) fn handle(&self, file: u64) -> Result<Handle, Errno> {
        lock(&self.files).get(&file).cloned().ok_or(Errno::BADF)
    }

    /// So many bytes were written through an open file.
    pub(super) fn wrote_through(&self, file: u64, offset: u64, len: u64) {
        if let Some(handle) = lock(&self.files).get_mut(&file) {
            handle.unreported += len;
            handle.part_to = (len >= PART).then_some(offset + len);
        }
    }

    /// Bytes written through an open file for which no close has waited.
    pub(super) fn unreported(&self, file: u64) -> u64 {
        lock(&self.files).get(&file).map_or(0, |handle| handle.unreported)
    }

    /// A close has waited for so many of them.
    pub(super) fn reported(&self, file: u64, len: u64) {
        if let Some(handle) = lock(&self.files).get_mut(&file) {
            handle.unreported = handle.unreported.saturating_sub(len);
        }
    }

    /// The failure of an earlier write to this file, if it was not told through this open file; now it is.
    pub(super) fn tell_late(self: &Arc<Self>, node: Node, file: u64) -> Result<(), Errno> {
        self.late(node, file, |_| true)
    }

    /// The same for a write that is to begin. If it is not the first part of a write(2), that comes back shorter than it was
    /// and without any error: the next one tells.
    pub(super) fn tell_late_at(self: &Arc<Self>, node: Node, file: u64, offset: u64) -> Result<(), Errno> {
        self.late(node, file, |handle| handle.part_to.take() != Some(offset))
    }

    /// The same for a close, which tells it and leaves it to be told: a close of one descriptor of several, as at the end of
    /// a process that was forked, is looked at by nobody.
    pub(super) fn mention_late(self: &Arc<Self>, node: Node, file: u64) -> Result<(), Errno> {
        self.late(node, file, |_| false)
    }

    fn late(self: &Arc<Self>, node: Node, file: u64, told: impl FnOnce(&mut Handle) -> bool) -> Result<(), Errno> {
        self.with(|table| {
            let inode = table.inode(node)?;
            let mut files = lock(&self.files);
            let Some(handle) = files.get_mut(&file) else { return Ok(()) };
            let Some(errno) = inode.late.since(handle.told) else { return Ok(()) };
            if told(handle) {
                handle.told = inode.late.last();
            }
            Err(errno)
        })
    }
}
