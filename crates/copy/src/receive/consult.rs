//! Answers to a sender that asks what is there of a file: the same, its beginning, an older state, or nothing.

use std::os::fd::{AsFd, OwnedFd};

use bytes::{Bytes, BytesMut};
use remotely_proto::{
    file::{BLOCK_SIZES, Meta, Operation, Unchanged, Way},
    fs::Time,
};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, statat},
    io::Errno,
};

use super::{
    attribute::{Taken, same_time},
    draft::{Draft, Fault, Spot},
};
use crate::{
    beneath::open_entry,
    flow::Outlet,
    send::{RESUME_MIN, hash_front, read_at},
    signature::sign,
};

/// Smallest block that a signature has by itself, in bytes.
const BLOCK_MIN: u64 = 2 << 10;
/// Bytes read at once.
const CHUNK: u64 = 1 << 20;

/// What a sender asks for.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) spot: &'a Spot,
    pub(super) meta: &'a Meta,
    pub(super) size: u64,
    pub(super) unchanged: Unchanged,
    pub(super) resume: bool,
    pub(super) blocks: u32,
}

/// What is kept for the file that follows.
#[derive(Debug)]
pub(super) enum Kept {
    /// Its beginning.
    Front(Draft),
    /// The file in its place, and its size.
    Basis(Basis),
}

/// A file that content is copied from.
#[derive(Debug)]
pub(super) struct Basis {
    pub(super) file: OwnedFd,
    pub(super) size: u64,
}

/// What is told, and what is kept for it.
#[derive(Debug)]
pub(super) struct Consulted {
    pub(super) way: Way,
    pub(super) signature: Bytes,
    pub(super) kept: Option<Kept>,
}

impl Consulted {
    pub(super) fn plain(way: Way) -> Self {
        Self { way, signature: Bytes::new(), kept: None }
    }
}

/// Finds out what is there.
pub(super) fn consult(question: &Question<'_>, outlet: &Outlet) -> Consulted {
    let Question { spot, meta, size, unchanged, resume, blocks } = *question;
    let there = regular(spot);
    if let Some(stat) = &there
        && u64::try_from(stat.st_size) == Ok(size)
    {
        match unchanged {
            Unchanged::Send => {}
            Unchanged::Stamp if same_time(mtime(stat), meta.mtime) => return Consulted::plain(Way::Nothing),
            Unchanged::Stamp => {}
            Unchanged::Hash => {
                let opened = open_entry(&spot.folder.descriptor, &spot.name, OFlags::RDONLY, Mode::empty());
                if let Ok(descriptor) = opened
                    && let Ok(Ok(hasher)) = hash_front(&descriptor, size, || outlet.check())
                {
                    let hash = (*hasher.finalize().as_bytes()).into();
                    return Consulted::plain(Way::Unless { hash });
                }
            }
        }
    }
    if resume
        && size >= RESUME_MIN
        && let Some(mut draft) = Draft::left(spot.clone(), size, outlet)
        && draft.at > 0
    {
        let way = Way::From { len: draft.at, hash: draft.hash() };
        return Consulted { way, signature: Bytes::new(), kept: Some(Kept::Front(draft)) };
    }
    if blocks > 0
        && there.is_some()
        && let Ok(Some(consulted)) = signed(spot, blocks, outlet)
    {
        return consulted;
    }
    Consulted::plain(Way::Whole)
}

/// Gives a file that is right the attributes of the sender's. What cannot be opened for that is left as it is.
pub(super) fn keep(spot: &Spot, meta: &Meta, taken: Taken, single: bool) -> Vec<Fault> {
    let opened = open_entry(&spot.folder.descriptor, &spot.name, OFlags::RDONLY, Mode::empty());
    match opened {
        Ok(descriptor) => taken.apply(&descriptor, meta, single),
        Err(Errno::ACCESS) => Vec::new(),
        Err(errno) => vec![(Operation::Open, Some(errno))],
    }
}

/// The regular file that is in the place.
pub(super) fn regular(spot: &Spot) -> Option<Stat> {
    let stat = statat(&spot.folder.descriptor, spot.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(stat)
}

fn mtime(stat: &Stat) -> Time {
    Time { sec: stat.st_mtime, nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or_default() }
}

/// The signature of the file that is there, with at most so many blocks.
fn signed(spot: &Spot, most: u32, outlet: &Outlet) -> Result<Option<Consulted>, Errno> {
    let file = open_entry(&spot.folder.descriptor, &spot.name, OFlags::RDONLY, Mode::empty())?;
    let stat = fstat(&file)?;
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    // What leads elsewhere than to a file was replaced since it was looked at.
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || size < BLOCK_MIN {
        return Ok(None);
    }
    let block = size.isqrt().next_power_of_two().max(BLOCK_MIN).max(size.div_ceil(most.into()));
    let Some(block) = u32::try_from(block).ok().filter(|block| BLOCK_SIZES.contains(block)) else { return Ok(None) };
    let (mut signature, mut buffer, mut at) = (Vec::new(), BytesMut::new(), 0);
    let step = u64::from(block) * (CHUNK / u64::from(block)).max(1);
    while at < size {
        if outlet.check().is_err() {
            return Ok(None);
        }
        buffer.clear();
        let most = usize::try_from(step.min(size - at)).unwrap_or_default();
        buffer.reserve(most);
        read_at(file.as_fd(), &mut buffer, at, most)?;
        if buffer.is_empty() {
            break;
        }
        // Only whole blocks count; a short read is the end.
        buffer.chunks_exact(block as usize).for_each(|block| sign(block, &mut signature));
        at += step;
    }
    let kept = Some(Kept::Basis(Basis { file, size }));
    Ok(Some(Consulted { way: Way::Blocks { size: block }, signature: signature.into(), kept }))
}
