//! Content of files on its way to the receiver: read, hashed, and looked at again in the end.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use blake3::Hasher;
use bytes::{BufMut, BytesMut};
use remotely_proto::file::{Hash, Item, Meta, Operation};
use rustix::{
    fs::{SeekFrom, Statx, seek},
    io::{Errno, pread, read, retry_on_intr},
};

use super::{
    Place, Sender,
    attribute::{meta, same_state, stat, xattrs},
    batch::SMALL,
    delta::Blocks,
};
use crate::flow::Cut;

/// Bytes read at once: what was read is hashed and sent while the CPU still has it in its cache.
const CHUNK: usize = 256 << 10;
/// So often a small file that changes is read.
const TRIES: u32 = 3;
/// How long it is left alone between them.
const PAUSE: Duration = Duration::from_millis(2);
/// What a hole is hashed as. As much as is hashed side by side at once: it is part of the executable.
pub(crate) static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// Whether a file was sent as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Sent,
    /// It is named among the failures.
    Failed,
}

/// What is known of a streamed file from the ask that went before it.
pub(super) struct Asked {
    pub(super) ask: u32,
    /// So many bytes are there, which this has hashed.
    pub(super) start: u64,
    pub(super) hasher: Hasher,
    /// What the receiver has in the file's place.
    pub(super) blocks: Option<Blocks>,
}

/// The content that a file has in one run.
struct Run {
    start: u64,
    end: u64,
}

impl Sender {
    /// Sends the content of a file.
    pub(super) fn content(
        &mut self,
        descriptor: &OwnedFd,
        before: &Statx,
        place: Place<'_>,
        asked: Option<Asked>,
    ) -> Result<Outcome, Cut> {
        let Some(meta) = self.meta(descriptor, before, place)? else { return Ok(Outcome::Failed) };
        if asked.is_none() && before.stx_size <= SMALL as u64 {
            return self.small(descriptor, *before, place, meta);
        }
        self.streamed(descriptor, before, place, meta, asked)
    }

    /// Attributes, or none if they cannot be read, which is named.
    pub(super) fn meta(&mut self, descriptor: &OwnedFd, stat: &Statx, place: Place<'_>) -> Result<Option<Meta>, Cut> {
        let mut meta = meta(stat);
        if self.sending.xattrs {
            match xattrs(descriptor) {
                Ok(found) => meta.xattrs = found,
                Err(errno) => {
                    self.fail_with(Operation::Xattr, place, errno)?;
                    return Ok(None);
                }
            }
        }
        Ok(Some(meta))
    }

    /// A file that travels in one piece with others.
    fn small(
        &mut self,
        descriptor: &OwnedFd,
        mut before: Statx,
        place: Place<'_>,
        mut meta: Meta,
    ) -> Result<Outcome, Cut> {
        for again in 1..=TRIES {
            let payload = self.out.payload();
            let start = payload.len();
            let result = read_small(descriptor, payload, usize::try_from(before.stx_size).unwrap_or(SMALL));
            let len = payload.len() - start;
            let after = result.and_then(|()| stat(descriptor));
            match after {
                Err(errno) => {
                    payload.truncate(start);
                    self.fail_with(Operation::Read, place, errno)?;
                    return Ok(Outcome::Failed);
                }
                // Files of the kernel's own have content that their size does not tell.
                Ok(after) if same_state(&before, &after) && (len as u64 == after.stx_size || after.stx_size == 0) => {
                    if len > SMALL {
                        payload.truncate(start);
                        return self.streamed(descriptor, &before, place, meta, None);
                    }
                    let hash = (*blake3::hash(&payload[start..]).as_bytes()).into();
                    self.meter.add(1, len as u64);
                    self.out.push(Item::File { seat: place.seat(), meta, size: len as u32, hash })?;
                    return Ok(Outcome::Sent);
                }
                Ok(after) => {
                    payload.truncate(start);
                    (meta.mtime, meta.mode) = (super::attribute::time(after.stx_mtime), after.stx_mode.into());
                    before = after;
                    if again < TRIES && seek(descriptor, SeekFrom::Start(0)).is_ok() {
                        std::thread::sleep(PAUSE);
                    }
                }
            }
        }
        self.fail(Operation::Changed, &place.path(), 0)?;
        Ok(Outcome::Failed)
    }

    /// A file that is sent piece by piece.
    fn streamed(
        &mut self,
        descriptor: &OwnedFd,
        before: &Statx,
        place: Place<'_>,
        meta: Meta,
        asked: Option<Asked>,
    ) -> Result<Outcome, Cut> {
        let (ask, start, hasher, blocks) = match asked {
            None => (None, 0, Hasher::new(), None),
            Some(Asked { ask, start, hasher, blocks }) => (Some(ask), start, hasher, blocks),
        };
        self.files += 1;
        let (file, size) = (self.files, before.stx_size);
        self.out.push(Item::Begin { file, seat: place.seat(), ask, start, size })?;
        let counted = self.meter.progress.bytes;
        self.meter.add(0, start);
        let mut course = Course { file, at: start, hasher, blocks };
        let result = self.runs(descriptor, size, &mut course)?;
        let result = match result {
            // The receiver has named why it takes no more.
            Ok(Flow::Unwanted) => {
                self.meter.progress.bytes = counted;
                self.out.push(Item::Broken)?;
                return Ok(Outcome::Failed);
            }
            Ok(Flow::On) => stat(descriptor).map_err(|errno| (Operation::Look, errno)),
            Err(errno) => Err((Operation::Read, errno)),
        };
        let unchanged = result.map(|after| same_state(before, &after) && (course.at == size || size == 0));
        match unchanged {
            Ok(true) => {
                let hash: Hash = (*course.hasher.finalize().as_bytes()).into();
                self.meter.add(1, 0);
                self.out.push(Item::End { meta, size: course.at, hash })?;
                return Ok(Outcome::Sent);
            }
            Ok(false) => self.fail(Operation::Changed, &place.path(), 0)?,
            Err((operation, errno)) => self.fail_with(operation, place, errno)?,
        }
        self.meter.progress.bytes = counted;
        self.out.push(Item::Broken)?;
        Ok(Outcome::Failed)
    }

    /// Sends all runs of data of a file.
    fn runs(&mut self, descriptor: &OwnedFd, size: u64, course: &mut Course) -> Result<Result<Flow, Errno>, Cut> {
        while course.at < size || size == 0 {
            let run = match next_run(descriptor, course.at, size) {
                Ok(run) => run,
                Err(errno) => return Ok(Err(errno)),
            };
            self.hash_hole(course, run.start)?;
            let flow = match &course.blocks {
                Some(_) => self.matched(descriptor, run.start, run.end, course)?,
                None => self.plain(descriptor, &run, course)?,
            };
            match flow {
                Ok(Flow::On) if course.at == run.end => {}
                // The end came early: the size will tell.
                other => return Ok(other),
            }
        }
        Ok(Ok(Flow::On))
    }

    fn plain(&mut self, descriptor: &OwnedFd, run: &Run, course: &mut Course) -> Result<Result<Flow, Errno>, Cut> {
        let mut buffer = BytesMut::new();
        while course.at < run.end {
            if self.counter.unwanted(course.file) {
                return Ok(Ok(Flow::Unwanted));
            }
            let most = usize::try_from(run.end - course.at).unwrap_or(CHUNK).min(CHUNK);
            buffer.reserve(CHUNK);
            match read_at(descriptor, &mut buffer, course.at, most) {
                Ok(()) if buffer.is_empty() => return Ok(Ok(Flow::On)),
                Ok(()) => {}
                Err(errno) => return Ok(Err(errno)),
            }
            let chunk = buffer.split().freeze();
            course.hasher.update(&chunk);
            let (offset, len) = (course.at, chunk.len() as u32);
            course.at += u64::from(len);
            self.meter.add(0, len.into());
            self.out.send(Item::Data { offset, len }, chunk)?;
        }
        Ok(Ok(Flow::On))
    }

    fn hash_hole(&mut self, course: &mut Course, end: u64) -> Result<(), Cut> {
        self.meter.add(0, end - course.at);
        hash_zeros(&mut course.hasher, end - course.at, || self.out.check())?;
        course.at = end;
        Ok(())
    }
}

/// How far the content of a file has been sent.
pub(super) struct Course {
    pub(super) file: u32,
    pub(super) at: u64,
    pub(super) hasher: Hasher,
    pub(super) blocks: Option<Blocks>,
}

/// Whether more of a file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    On,
    Unwanted,
}

/// Hashes so many zeros. Looks now and then whether that is still wanted.
pub(crate) fn hash_zeros<E>(
    hasher: &mut Hasher,
    mut len: u64,
    mut check: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    while len > 0 {
        let part = len.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..part as usize]);
        len -= part;
        if len & 0xff_ffff < ZEROS.len() as u64 {
            check()?;
        }
    }
    Ok(())
}

/// The next run of data at or behind `at`. One that is empty ends the file: a hole is behind it.
fn next_run(descriptor: &OwnedFd, at: u64, size: u64) -> Result<Run, Errno> {
    // What has no size that means anything is read up to its end.
    let end = if size == 0 { u64::MAX } else { size };
    let start = match seek(descriptor, SeekFrom::Data(at)) {
        Ok(start) => start.min(end),
        Err(Errno::NXIO) if size > 0 => return Ok(Run { start: size, end: size }),
        // No holes on this file system.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NXIO) => return Ok(Run { start: at, end }),
        Err(errno) => return Err(errno),
    };
    let hole = seek(descriptor, SeekFrom::Hole(start)).unwrap_or(end);
    Ok(Run { start, end: hole.clamp(start, end) })
}

/// Reads from the present position up to the end, or past what is small.
fn read_small(descriptor: &OwnedFd, to: &mut BytesMut, size: usize) -> Result<(), Errno> {
    let start = to.len();
    while to.len() - start <= SMALL {
        let room = SMALL + 1 - (to.len() - start);
        let spare = to.spare_capacity_mut();
        let room = room.min(spare.len());
        let len = retry_on_intr(|| read(descriptor, &mut spare[..room]).map(|(read, _)| read.len()))?;
        // SAFETY: read(2) has initialised that many bytes at the start of the spare capacity.
        unsafe { to.advance_mut(len) };
        // With all that was expected, only a look at the inode can tell whether there is more.
        if len == 0 || (size > 0 && to.len() - start == size) {
            break;
        }
    }
    Ok(())
}

/// Reads up to `most` bytes to the end of a buffer that has room for them, fewer only at the end of the file.
pub(crate) fn read_at(descriptor: impl AsFd, to: &mut BytesMut, mut at: u64, most: usize) -> Result<(), Errno> {
    let end = to.len() + most;
    while to.len() < end {
        let room = end - to.len();
        let spare = to.spare_capacity_mut();
        let room = room.min(spare.len());
        let len = retry_on_intr(|| pread(&descriptor, &mut spare[..room], at).map(|(read, _)| read.len()))?;
        // SAFETY: pread(2) has initialised that many bytes at the start of the spare capacity.
        unsafe { to.advance_mut(len) };
        at += len as u64;
        if len == 0 {
            break;
        }
    }
    Ok(())
}
