//! Open files of the kernel: what is known of each, and of which failed writes it has been told. Used by the operations on
//! open files; asks nobody.

use std::sync::Arc;

use remotely_proto::ByteVec;
use remotely_proto::fs::Node;
use rustix::io::Errno;

use super::fs::{Fs, lock};

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
    /// Number of the last late error that was told through it: see [`Late`](super::late::Late).
    told: u64,
    /// The same, by a write.
    told_write: u64,
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
            let handle = Handle { node, flags, at, names: None, unreported: 0, told, told_write: told };
            lock(&self.files).insert(file, handle);
        });
    }

    /// The open file as it is now; EBADF if there is none.
    pub(super) fn handle(&self, file: u64) -> Result<Handle, Errno> {
        lock(&self.files).get(&file).cloned().ok_or(Errno::BADF)
    }

    /// So many bytes were written through an open file.
    pub(super) fn wrote_through(&self, file: u64, len: u64) {
        if let Some(handle) = lock(&self.files).get_mut(&file) {
            handle.unreported += len;
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
        self.late(node, file, |handle, last| std::mem::replace(&mut handle.told, last))
    }

    /// The same for a write, which leaves it to be told by fsync(2) and close(2): the kernel may have cut what write(2) was
    /// given in parts, and says nothing of an error that is not that of the first.
    pub(super) fn tell_late_to_write(self: &Arc<Self>, node: Node, file: u64) -> Result<(), Errno> {
        self.late(node, file, |handle, last| {
            let told = handle.told.max(handle.told_write);
            handle.told_write = last;
            told
        })
    }

    /// The same for a close, which tells it and leaves it to be told: a close of one descriptor of several, as at the end of
    /// a process that was forked, is looked at by nobody.
    pub(super) fn mention_late(self: &Arc<Self>, node: Node, file: u64) -> Result<(), Errno> {
        self.late(node, file, |handle, _| handle.told)
    }

    /// `told` says up to which one it was told, and notes that it is now up to the last.
    fn late(self: &Arc<Self>, node: Node, file: u64, told: impl FnOnce(&mut Handle, u64) -> u64) -> Result<(), Errno> {
        self.with(|table| {
            let late = &mut table.inode(node)?.late;
            let mut files = lock(&self.files);
            let Some(handle) = files.get_mut(&file) else { return Ok(()) };
            let told = told(handle, late.last());
            late.since(told).map_or(Ok(()), Err)
        })
    }
}
