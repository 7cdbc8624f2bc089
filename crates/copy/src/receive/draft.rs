//! A file that is being received, under its draft name beside the place where it goes. Dropped, it is removed, unless it is
//! large enough to be continued another time.

use std::{
    fs::File,
    io::Write,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    rc::Rc,
};

use blake3::Hasher;
use remotely_proto::file::{Hash, Operation};
use rustix::{
    fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, flock, fstat, ftruncate, statat, unlinkat},
    io::Errno,
    time::{ClockId, clock_gettime},
};

use super::directory::Folder;
use crate::{
    beneath::open_entry,
    draft_name::{SLOTS, draft_name},
    flow::{Cut, Outlet},
    send::{hash_front, hash_zeros},
};

/// Where a file goes.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) folder: Rc<Folder>,
    pub(super) name: Vec<u8>,
    /// For messages.
    pub(super) path: Rc<[u8]>,
}

/// What failed with a file.
pub(super) type Fault = (Operation, Option<Errno>);

/// Bytes written and hashed at once.
const CHUNK: u64 = 256 << 10;

/// What a draft is to become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    size: u64,
    /// Seconds since 1970.
    since: i64,
}

impl Wanted {
    /// A file of this size, as of now.
    pub(super) fn now(size: u64) -> Self {
        Self { size, since: clock_gettime(ClockId::RealtimeCoarse).tv_sec }
    }
}

/// A file that is being received.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) spot: Spot,
    pub(super) file: File,
    name: Vec<u8>,
    /// Made when it is needed: it is large.
    hasher: Option<Box<Hasher>>,
    /// Everything before this is written, or a hole, and hashed.
    pub(super) at: u64,
    /// What follows on it. Pieces come as the stream cuts them; hash and page cache like them large and aligned.
    buffer: Vec<u8>,
    /// What is there stays if the transfer is cut, unless somebody else completes the file meanwhile.
    pub(super) stays: Option<Wanted>,
    placed: bool,
}

impl Draft {
    /// Makes an empty one. What an earlier transfer left of it is removed; one that is under way is left alone.
    pub(super) fn create(spot: Spot) -> Result<Self, Fault> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        for slot in 0..SLOTS {
            let name = draft_name(&spot.name, slot);
            // Twice, since the first time may only have made room.
            for _ in 0..2 {
                match open_entry(&spot.folder.descriptor, &name, flags, Mode::RUSR | Mode::WUSR) {
                    Ok(descriptor) => {
                        if flock(&descriptor, FlockOperation::NonBlockingLockExclusive).is_err() {
                            break;
                        }
                        return Ok(Self::new(spot, descriptor, name));
                    }
                    Err(Errno::EXIST) => {
                        let Some(left) = take_over(&spot, &name) else { break };
                        drop((unlinkat(&spot.folder.descriptor, &name, AtFlags::empty()), left));
                    }
                    Err(errno) => return Err((Operation::Create, Some(errno))),
                }
            }
        }
        Err((Operation::Create, Some(Errno::EXIST)))
    }

    /// The beginning of at most `size` bytes that an earlier transfer has left, if there is one.
    pub(super) fn left(spot: Spot, size: u64, outlet: &Outlet) -> Option<Self> {
        let name = draft_name(&spot.name, 0);
        let descriptor = take_over(&spot, &name)?;
        let len = u64::try_from(fstat(&descriptor).ok()?.st_size).ok()?.min(size);
        let mut draft = Self::new(spot, descriptor, name);
        draft.stays = Some(Wanted::now(size));
        draft.at = len;
        // What is too long for this source is not of it.
        ftruncate(&draft.file, len).ok()?;
        draft.hasher = Some(Box::new(hash_front(draft.file.as_fd(), len, || outlet.check()).ok()?.ok()?));
        Some(draft)
    }

    fn new(spot: Spot, descriptor: OwnedFd, name: Vec<u8>) -> Self {
        Self {
            spot,
            file: descriptor.into(),
            name,
            hasher: None,
            at: 0,
            buffer: Vec::new(),
            stays: None,
            placed: false,
        }
    }

    /// Hash of all that is there.
    pub(super) fn hash(&mut self) -> Hash {
        (*self.hasher().finalize().as_bytes()).into()
    }

    fn hasher(&mut self) -> &mut Hasher {
        self.hasher.get_or_insert_default()
    }

    /// Starts anew.
    pub(super) fn clear(&mut self) -> Result<(), Fault> {
        self.hasher = None;
        self.buffer.clear();
        self.at = 0;
        ftruncate(&self.file, 0).map_err(|errno| (Operation::Write, Some(errno)))
    }

    /// Writes what follows at `offset`, which is not before what was written.
    pub(super) fn write(&mut self, offset: u64, mut content: &[u8], outlet: &Outlet) -> Result<(), Fault> {
        self.skip(offset, outlet)?;
        while !content.is_empty() {
            let room = (CHUNK - self.end() % CHUNK) as usize;
            let (part, rest) = content.split_at(room.min(content.len()));
            content = rest;
            if self.buffer.is_empty() && part.len() as u64 == CHUNK {
                self.put(part)?;
                continue;
            }
            self.buffer.reserve_exact(if self.buffer.capacity() == 0 { CHUNK as usize } else { 0 });
            self.buffer.extend_from_slice(part);
            if self.end().is_multiple_of(CHUNK) {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// The position behind all that came.
    fn end(&self) -> u64 {
        self.at + self.buffer.len() as u64
    }

    fn flush(&mut self) -> Result<(), Fault> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.put(&buffer);
        buffer.clear();
        self.buffer = buffer;
        result
    }

    fn put(&mut self, content: &[u8]) -> Result<(), Fault> {
        self.file.write_all_at(content, self.at).map_err(|error| (Operation::Write, Some(errno(&error))))?;
        self.hasher().update(content);
        self.at += content.len() as u64;
        Ok(())
    }

    /// Writes all of a file that is empty yet.
    pub(super) fn write_whole(&mut self, content: &[u8], hash: &Hash) -> Result<(), Fault> {
        if blake3::hash(content).as_bytes() != &**hash {
            return Err((Operation::Compare, None));
        }
        self.file.write_all(content).map_err(|error| (Operation::Write, Some(errno(&error))))?;
        self.at = content.len() as u64;
        Ok(())
    }

    /// Leaves a hole up to `offset`. That may take long; with the outlet it ends.
    pub(super) fn skip(&mut self, offset: u64, outlet: &Outlet) -> Result<(), Fault> {
        let gap = offset.checked_sub(self.end()).ok_or((Operation::Write, Some(Errno::INVAL)))?;
        if gap > 0 {
            self.flush()?;
            // A size that this file system cannot have is refused before it is hashed.
            ftruncate(&self.file, offset).map_err(|errno| (Operation::Write, Some(errno)))?;
            let hashed = hash_zeros(self.hasher(), gap, || outlet.check());
            hashed.map_err(|Cut| (Operation::Write, Some(Errno::CANCELED)))?;
            self.at = offset;
        }
        Ok(())
    }

    /// Whether all of it is there as it was sent.
    pub(super) fn complete(&mut self, size: u64, hash: &Hash, outlet: &Outlet) -> Result<(), Fault> {
        self.skip(size, outlet)?;
        self.flush()?;
        if self.at != size || self.hash() != *hash {
            return Err((Operation::Compare, None));
        }
        Ok(())
    }

    /// The name that it has until it is placed.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// It has its own name now.
    pub(super) fn placed(mut self) {
        self.placed = true;
    }

    /// It will not be continued, whatever its size.
    pub(super) fn discard(mut self) {
        self.stays = None;
    }

    /// Whether another transfer has put what this was to be in its place.
    fn overtaken(&self, wanted: Wanted) -> bool {
        let there = statat(&self.spot.folder.descriptor, self.spot.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
        there.is_ok_and(|there| u64::try_from(there.st_size) == Ok(wanted.size) && there.st_ctime >= wanted.since)
    }
}

/// Removes what an earlier transfer has left of a file that needs nothing any more.
pub(super) fn clear_left(spot: &Spot) {
    let name = draft_name(&spot.name, 0);
    if let Some(left) = take_over(spot, &name) {
        drop((unlinkat(&spot.folder.descriptor, &name, AtFlags::empty()), left));
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let continued = self.at > 0 && self.stays.is_some_and(|wanted| !self.overtaken(wanted));
        if !self.placed && !continued {
            // Nobody is left to be told.
            let _ = unlinkat(&self.spot.folder.descriptor, &self.name, AtFlags::empty());
        }
    }
}

/// A draft that a transfer has left which is no more: one of our own, under this name alone, and locked by nobody.
fn take_over(spot: &Spot, name: &[u8]) -> Option<OwnedFd> {
    let dir = &spot.folder.descriptor;
    let descriptor = open_entry(dir, name, OFlags::RDWR, Mode::empty()).ok()?;
    let stat = fstat(&descriptor).ok()?;
    let ours = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_nlink == 1
        && stat.st_uid == rustix::process::geteuid().as_raw();
    if !ours || flock(&descriptor, FlockOperation::NonBlockingLockExclusive).is_err() {
        return None;
    }
    // Who had the lock may have placed or removed it just now.
    let named = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    ((named.st_dev, named.st_ino) == (stat.st_dev, stat.st_ino)).then_some(descriptor)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
