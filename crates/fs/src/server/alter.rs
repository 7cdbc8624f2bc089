//! Changes to inodes that exist: content, size, owner, mode, times, extended attributes. Each looks at the state before and
//! after, so that the watcher can tell our own changes from those of others.

use std::{
    io::IoSlice,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use remotely_proto::fs::{Attr, File, Node, SetAttr, SetTime};
use rustix::{
    fs::{
        AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, Statx, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
        Uid, XattrFlags, chmodat, chownat, copy_file_range, fallocate, fchmod, fdatasync, fsync, ftruncate,
        removexattr, setxattr, utimensat,
    },
    io::{Errno, ReadWriteFlags, pwrite, pwritev2, retry_on_intr},
};

use super::{
    attr::{self, proc_path},
    file::OpenFile,
    make::data_flags,
    open::Located,
    service::{Hold, Service},
};

/// Bytes written at once. For a write of a megabyte the page cache takes folios of that size, which are dear: half the speed.
const PIECE: usize = 256 << 10;

/// Where a write goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// Position in bytes.
    At(u64),
    /// Wherever the end is by then.
    End,
}

impl Service {
    /// Opens for writing.
    pub(super) fn open_write(&self, node: Node, file: File, flags: u32) -> Result<Attr, Errno> {
        let found = self.locate(node)?;
        let descriptor = Arc::new(self.reopen(&found, data_flags(flags))?);
        self.files.add(file, node, Arc::clone(&descriptor));
        self.changed(node, &descriptor, &found.stat)
    }

    /// Writes all of `data`, or fails.
    pub(super) fn write(&self, file: File, place: Place, data: &Bytes, kill_privileges: bool) -> Result<Attr, Errno> {
        let (open, descriptor) = self.opened(file)?;
        let before = attr::stat(&descriptor)?;
        let mut written = 0;
        while written < data.len() {
            let left = &data[written..];
            let count = match place {
                Place::End => {
                    retry_on_intr(|| pwritev2(&descriptor, &[IoSlice::new(left)], 0, ReadWriteFlags::APPEND))?
                }
                Place::At(offset) => {
                    let at = offset.checked_add(written as u64).filter(|at| i64::try_from(*at).is_ok());
                    let at = at.ok_or(Errno::FBIG)?;
                    retry_on_intr(|| pwrite(&descriptor, &left[..left.len().min(PIECE)], at))?
                }
            };
            match count {
                0 => return Err(Errno::IO),
                count => written += count,
            }
        }
        self.counters.bytes_written.fetch_add(data.len() as u64, Ordering::Relaxed);
        if kill_privileges {
            drop_privilege_bits(&descriptor, &before)?;
        }
        self.changed(open.node, &descriptor, &before)
    }

    /// fallocate(2).
    pub(super) fn fallocate(&self, file: File, offset: u64, len: u64, mode: u32) -> Result<Attr, Errno> {
        let (open, descriptor) = self.opened(file)?;
        let before = attr::stat(&descriptor)?;
        let mode = FallocateFlags::from_bits_retain(mode);
        retry_on_intr(|| fallocate(&descriptor, mode, offset, len))?;
        self.changed(open.node, &descriptor, &before)
    }

    /// copy_file_range(2), until all is copied or the source ends.
    pub(super) fn copy_range(&self, from: (File, u64), to: (File, u64), len: u64) -> Result<(u64, Attr), Errno> {
        let (_, source) = self.opened(from.0)?;
        let (open, target) = self.opened(to.0)?;
        let before = attr::stat(&target)?;
        let (mut at, mut to_at) = (from.1, to.1);
        while at - from.1 < len {
            let left = usize::try_from(len - (at - from.1)).unwrap_or(usize::MAX).min(1 << 30);
            // The offsets are moved by the kernel.
            match copy_file_range(&source, Some(&mut at), &target, Some(&mut to_at), left) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) if at == from.1 => return Err(errno),
                Err(_) => break,
            }
        }
        let copied = at - from.1;
        self.counters.bytes_written.fetch_add(copied, Ordering::Relaxed);
        Ok((copied, self.changed(open.node, &target, &before)?))
    }

    /// chmod(2), chown(2), truncate(2), utimensat(2), as far as asked for. Times last, because the others move them; mode
    /// after owner, because a new owner takes the set-user-id bit away.
    pub(super) fn setattr(&self, node: Node, file: Option<File>, set: &SetAttr) -> Result<Attr, Errno> {
        let open = file.and_then(|file| self.files.find(file).ok()).map(|open| open.descriptor(self)).transpose()?;
        let found = match &open {
            Some(descriptor) => Located { stat: attr::stat(descriptor)?, descriptor: Arc::clone(descriptor) },
            None => self.locate(node)?,
        };
        // Through /proc, because our descriptor may be one that cannot be worked with (O_PATH); it is not followed further.
        let path = proc_path(found.as_fd());
        if let Some(size) = set.size {
            self.truncate(&found, open.is_some(), size)?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            let valid = |id: Option<u32>| if id == Some(u32::MAX) { Err(Errno::INVAL) } else { Ok(id) };
            let (uid, gid) = (valid(set.uid)?.map(Uid::from_raw), valid(set.gid)?.map(Gid::from_raw));
            chownat(found.as_fd(), "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = set.mode {
            chmodat(CWD, &path, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?;
        }
        if set.atime.is_some() || set.mtime.is_some() {
            let times = Timestamps { last_access: timespec(set.atime)?, last_modification: timespec(set.mtime)? };
            utimensat(CWD, &path, &times, AtFlags::empty())?;
        }
        self.changed(node, &found.descriptor, &found.stat)
    }

    fn truncate(&self, found: &Located, open: bool, size: u64) -> Result<(), Errno> {
        if i64::try_from(size).is_err() {
            return Err(Errno::INVAL);
        }
        if open {
            match retry_on_intr(|| ftruncate(&found.descriptor, size)) {
                // Opened for reading, or with O_PATH.
                Err(Errno::INVAL | Errno::BADF) => {}
                result => return result,
            }
        }
        if found.kind() == FileType::Directory {
            return Err(Errno::ISDIR);
        }
        let writable = self.reopen(found, OFlags::WRONLY)?;
        retry_on_intr(|| ftruncate(&writable, size))
    }

    /// setxattr(2).
    pub(super) fn setxattr(&self, node: Node, name: &[u8], value: &Bytes, flags: u32) -> Result<Attr, Errno> {
        let found = self.locate(node)?;
        setxattr(proc_path(found.as_fd()), name, value, XattrFlags::from_bits_retain(flags))?;
        self.changed(node, &found.descriptor, &found.stat)
    }

    /// removexattr(2).
    pub(super) fn removexattr(&self, node: Node, name: &[u8]) -> Result<Attr, Errno> {
        let found = self.locate(node)?;
        removexattr(proc_path(found.as_fd()), name)?;
        self.changed(node, &found.descriptor, &found.stat)
    }

    /// fsync(2) and fdatasync(2). Runs on the pool.
    pub(super) fn fsync(&self, node: Node, open: Option<Arc<OpenFile>>, data_only: bool) -> Result<(), Errno> {
        let descriptor = match open {
            Some(open) => open.descriptor(self)?,
            None => {
                let found = self.locate(node)?;
                let descriptor = match self.reopen(&found, OFlags::RDONLY) {
                    Err(Errno::ACCESS) => self.reopen(&found, OFlags::WRONLY),
                    descriptor => descriptor,
                };
                Arc::new(descriptor?)
            }
        };
        retry_on_intr(|| if data_only { fdatasync(&descriptor) } else { fsync(&descriptor) })
    }

    fn opened(&self, file: File) -> Result<(Arc<OpenFile>, Arc<OwnedFd>), Errno> {
        let open = self.files.find(file)?;
        let descriptor = open.descriptor(self)?;
        Ok((open, descriptor))
    }

    /// Attributes after a change, which is remembered as ours.
    fn changed(&self, node: Node, descriptor: &OwnedFd, before: &Statx) -> Result<Attr, Errno> {
        let after = attr::stat(descriptor)?;
        self.known.hold().changed(before, &after);
        Ok(self.node_attr(node, descriptor, &after))
    }
}

/// Writing takes set-user-id and set-group-id away; the kernel spares root, but the writer there need not be root.
fn drop_privilege_bits(descriptor: impl AsFd, before: &Statx) -> Result<(), Errno> {
    let mode = u32::from(before.stx_mode) & 0o7777;
    let group = if mode & libc::S_IXGRP == 0 { 0 } else { libc::S_ISGID };
    let dropped = mode & !(libc::S_ISUID | group);
    if dropped == mode { Ok(()) } else { fchmod(descriptor, Mode::from_raw_mode(dropped)) }
}

fn timespec(time: Option<SetTime>) -> Result<Timespec, Errno> {
    match time {
        None => Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }),
        Some(SetTime::Now) => Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_NOW }),
        Some(SetTime::At(time)) if time.nsec < 1_000_000_000 => {
            Ok(Timespec { tv_sec: time.sec, tv_nsec: time.nsec.into() })
        }
        Some(SetTime::At(_)) => Err(Errno::INVAL),
    }
}
