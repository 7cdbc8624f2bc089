//! The sender: walks a source, reads it, and says what is in it. One thread, started by the client for a put and by the agent
//! for a fetch. Waits for nothing but room in the stream, and answers to what it asked.

mod ask;
mod attribute;
mod batch;
mod content;
mod delta;
mod entry;
mod walk;

use std::{
    collections::HashMap,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use remotely_proto::ByteVec;
use remotely_proto::file::{Failure, Item, Meta, Operation, Reason, Seat, Sending, Skipped};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, Statx, openat},
    io::Errno,
};

use self::{
    ask::Ask,
    attribute::{kind, stat},
    batch::Batch,
    entry::Linked,
};
pub(crate) use self::{
    ask::{Counter, Desk, RESUME_MIN, Want, desk, hash_front},
    content::{ZEROS, hash_zeros, read_at},
};
use crate::{
    beneath::{join, open_chain},
    error::Side,
    flow::{Cut, Meter, Outlet},
    notes::Notes,
};

/// Bytes of a path that are told.
const PATH_SHOWN: usize = 8192;

/// What a sender is to do.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) source: PathBuf,
    pub(crate) sending: Sending,
    pub(crate) side: Side,
    pub(crate) notes: Notes,
    pub(crate) meter: Meter,
}

/// What it found.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Absolute path of the source.
    pub(crate) path: PathBuf,
    /// Whether it is a directory.
    pub(crate) tree: bool,
}

/// Sends the source. What fails is in the notes, and told to the other side.
pub(crate) fn run(job: Job, outlet: Outlet, counter: Counter) -> Result<Sent, Cut> {
    let path = std::path::absolute(&job.source).unwrap_or_else(|_| job.source.clone());
    let mut sender = Sender {
        source: Source { path: path.as_os_str().as_bytes().to_vec(), root: None },
        sending: job.sending,
        side: job.side,
        notes: job.notes,
        meter: job.meter,
        out: Batch::new(outlet),
        counter,
        asks: HashMap::new(),
        weight: 0,
        next_ask: 0,
        directories: HashMap::new(),
        next_directory: 1,
        files: 0,
        links: HashMap::new(),
        deferred: 0,
    };
    let tree = match sender.open_source(&path) {
        Ok((descriptor, stat)) => {
            let tree = kind(&stat) == FileType::Directory;
            sender.root(&job.source, (!tree).then_some(stat.stx_size))?;
            if tree {
                sender.tree(descriptor, &stat)?
            } else {
                sender.single(descriptor, &stat)?
            }
            tree
        }
        Err((operation, errno)) => {
            sender.fail(operation, &[], errno.map_or(0, |errno| errno.raw_os_error().unsigned_abs()))?;
            false
        }
    };
    sender.meter.tell();
    sender.out.push(Item::Finish)?;
    sender.out.flush()?;
    Ok(Sent { path, tree })
}

/// What is sent, and how its parts are found again.
#[derive(Debug)]
struct Source {
    path: Vec<u8>,
    /// The directory, if it is one.
    root: Option<OwnedFd>,
}

/// A file of the source, by the directory that it is in. The root file of a transfer has no name.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    directory: u32,
    parent: &'a [u8],
    name: &'a [u8],
}

impl Place<'_> {
    /// The path beneath the root.
    fn path(&self) -> Vec<u8> {
        join(self.parent, self.name)
    }

    fn seat(&self) -> Seat {
        Seat { directory: self.directory, name: self.name.to_vec().into() }
    }
}

/// A directory that was begun.
#[derive(Debug)]
struct Begun {
    parent: u32,
    meta: Meta,
    /// Directories in it that have not ended, and files and links that wait for an answer.
    pending: usize,
    /// All that is in it has been looked at.
    walked: bool,
}

struct Sender {
    source: Source,
    sending: Sending,
    side: Side,
    notes: Notes,
    meter: Meter,
    out: Batch,
    counter: Counter,
    asks: HashMap<u32, Ask>,
    /// Bytes that the answers to all asks may have.
    weight: usize,
    next_ask: u32,
    directories: HashMap<u32, Begun>,
    next_directory: u32,
    /// Files that were begun, streamed ones only.
    files: u32,
    links: HashMap<(u64, u64), Linked>,
    /// Links that wait for their file, which waits for an answer.
    deferred: usize,
}

impl Sender {
    /// Opens the source itself: symbolic links that lead there are followed.
    fn open_source(&self, path: &Path) -> Result<(OwnedFd, Statx), (Operation, Option<Errno>)> {
        let probe = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let stat_probe = stat(probe.map_err(|errno| (Operation::Open, Some(errno)))?);
        match kind(&stat_probe.map_err(|errno| (Operation::Look, Some(errno)))?) {
            FileType::RegularFile | FileType::Directory => {}
            // Nothing is opened that would wait, or do something.
            _ => return Err((Operation::Type, None)),
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let descriptor = openat(CWD, path, flags, Mode::empty()).map_err(|errno| (Operation::Open, Some(errno)))?;
        let stat = stat(&descriptor).map_err(|errno| (Operation::Look, Some(errno)))?;
        Ok((descriptor, stat))
    }

    fn root(&mut self, path: &Path, size: Option<u64>) -> Result<(), Cut> {
        self.meter.progress.total = size;
        self.meter.tell();
        // Rust takes `dir/.` for `dir`: what is written decides.
        let text = path.as_os_str().as_bytes();
        let text = &text[..text.iter().rposition(|&byte| byte != b'/').map_or(0, |end| end + 1)];
        let last = text.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let name = (!matches!(last, b"" | b"." | b"..")).then(|| last.to_vec().into());
        self.out.push(Item::Root { path: self.source.path.clone().into(), name, size })
    }

    /// Sends a source that is a file.
    fn single(&mut self, descriptor: OwnedFd, stat: &Statx) -> Result<(), Cut> {
        let place = Place { directory: 0, parent: b"", name: b"" };
        self.file(descriptor, stat, place)?;
        self.wait_for_all()
    }

    /// Opens a file of the source again, by its path beneath the root.
    fn reopen(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        match &self.source.root {
            None => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
                openat(CWD, self.source.path.as_slice(), flags, Mode::empty())
            }
            Some(root) => {
                let chain: Vec<_> = path.split(|&byte| byte == b'/').collect();
                open_chain(std::os::fd::AsFd::as_fd(root), &chain, OFlags::RDONLY)
            }
        }
    }

    /// Names what failed, here and there. `path` is beneath the root.
    fn fail(&mut self, operation: Operation, path: &[u8], errno: u32) -> Result<(), Cut> {
        let failure = Failure { operation, path: self.shown(path), errno };
        self.notes.failed(self.side, failure.clone());
        self.out.push(Item::Failed(failure))
    }

    /// A path beneath the root, as it is told: what is very long is cut.
    fn shown(&self, path: &[u8]) -> ByteVec {
        let mut whole = join(&self.source.path, path);
        whole.truncate(PATH_SHOWN);
        whole.into()
    }

    fn fail_with(&mut self, operation: Operation, place: Place<'_>, errno: Errno) -> Result<(), Cut> {
        self.fail(operation, &place.path(), errno.raw_os_error().unsigned_abs())
    }

    fn skip(&mut self, reason: Reason, place: Place<'_>) -> Result<(), Cut> {
        let skipped = Skipped { path: self.shown(&place.path()), reason };
        self.notes.skipped(self.side, skipped.clone());
        self.out.push(Item::Skipped(skipped))
    }
}
