//! Data of regular files, together with the state of the file that it comes from.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use remotely_proto::fs::{DATA_MAX, File, Node, Reply, Stamp};
use rustix::{
    buffer::spare_capacity,
    fs::{FileType, OFlags},
    io::{Errno, pread, retry_on_intr},
};

use super::{
    attr,
    service::{Hold, Service},
};

/// How often a file that is being written is read again before the data goes out with the older of the two states.
const TRIES: usize = 4;

impl Service {
    pub(super) fn read(&self, node: Node, file: Option<File>, offset: u64, len: u32) -> Result<(Reply, Bytes), Errno> {
        let open = file.and_then(|file| self.files.find(file).ok()).map(|open| open.descriptor(self)).transpose()?;
        let len = (len as usize).min(DATA_MAX);
        let read = match &open {
            Some(descriptor) => match self.read_consistent(descriptor, offset, len) {
                // Opened for writing only.
                Err(Errno::BADF) => self.read_consistent(self.open_for_reading(node)?, offset, len),
                read => read,
            },
            None => self.read_consistent(self.open_for_reading(node)?, offset, len),
        };
        let (stamp, data) = read?;
        self.record.read(self, node, offset, data.len());
        self.latest.asked(node);
        self.counters.bytes_read.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok((Reply::Data { stamp }, data))
    }

    /// Reads up to `len` bytes; fewer only at the end of the file.
    pub(super) fn read_consistent(
        &self,
        descriptor: impl AsFd,
        offset: u64,
        len: usize,
    ) -> Result<(Stamp, Bytes), Errno> {
        let mut before = attr::stat(&descriptor)?;
        let tells = self.mount_kinds.of(attr::key(&before).dev, descriptor.as_fd()).tells;
        for last in (0..TRIES).rev() {
            // The sizes that sysfs and the like give mean nothing.
            let left = usize::try_from(before.stx_size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let data = read_at(&descriptor, offset, if tells { len.min(left) } else { len })?;
            let after = attr::stat(&descriptor)?;
            if last == 0 || attr::stamp(&before) == attr::stamp(&after) {
                return Ok((attr::stamp(&before), data));
            }
            before = after;
        }
        Err(Errno::IO)
    }

    /// A descriptor for reading, kept for the next time.
    pub(super) fn open_for_reading(&self, node: Node) -> Result<Arc<OwnedFd>, Errno> {
        let (key, born) = {
            let nodes = self.nodes.hold();
            let inode = nodes.get(node).ok_or(Errno::STALE)?;
            (inode.key, inode.born)
        };
        if self.hidden.inode(key) {
            return Err(Errno::STALE);
        }
        if let Some(descriptor) = self.readers.find(key, born) {
            return Ok(descriptor);
        }
        let found = self.locate(node)?;
        if found.kind() == FileType::Directory {
            return Err(Errno::ISDIR);
        }
        let descriptor = Arc::new(self.reopen(&found, OFlags::RDONLY)?);
        self.readers.keep(key, found.born(), Arc::clone(&descriptor));
        Ok(descriptor)
    }
}

fn read_at(descriptor: impl AsFd, offset: u64, len: usize) -> Result<Bytes, Errno> {
    let mut data: Vec<u8> = Vec::with_capacity(len);
    while data.len() < len {
        let at = offset.checked_add(data.len() as u64).filter(|at| i64::try_from(*at).is_ok()).ok_or(Errno::INVAL)?;
        // A Vec may have more room than was asked for; what is read into it beyond that is cut off below.
        if retry_on_intr(|| pread(&descriptor, spare_capacity(&mut data), at))? == 0 {
            break;
        }
    }
    data.truncate(len);
    Ok(data.into())
}
