//! The directories of a transfer by the sender's numbers: a bounded number of them, of which few are open.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

use remotely_proto::file::DIRECTORIES_MAX;
use rustix::{
    fs::{AtFlags, OFlags, StatxFlags, fcntl_getfl, makedev, statx},
    io::Errno,
};

use crate::beneath::open_directory;

/// Directories that stay open.
const OPEN_MAX: usize = 64;
/// Bytes of a path beneath the root that are told (PATH_MAX).
const PATH_SHOWN: usize = 4096;

/// An open directory.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) descriptor: OwnedFd,
    /// The file system that it is on.
    pub(super) device: u64,
    /// Its descriptor can be used for fsync(2) and the like.
    pub(super) syncable: bool,
}

impl Folder {
    pub(super) fn new(descriptor: OwnedFd) -> Result<Self, Errno> {
        let stat = statx(&descriptor, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
        let syncable = !fcntl_getfl(&descriptor)?.contains(OFlags::PATH);
        Ok(Self { device: makedev(stat.stx_dev_major, stat.stx_dev_minor), descriptor, syncable })
    }
}

/// A directory that was begun.
#[derive(Debug)]
struct Entry {
    parent: u32,
    name: Vec<u8>,
    open: Option<Rc<Folder>>,
    /// By this transfer.
    made: bool,
    /// It could not be made, which was told: what is in it is passed over.
    dead: bool,
}

/// All that have begun and not ended.
#[derive(Debug, Default)]
pub(super) struct Directories {
    entries: HashMap<u32, Entry>,
    /// Those that are open, the one that was opened first in front. The root stays open.
    opened: VecDeque<u32>,
    /// The greatest number so far. Numbers only grow, so that no directory is beneath itself.
    last: u32,
}

/// How a directory is found.
#[derive(Debug)]
pub(super) enum Found {
    Open(Rc<Folder>),
    Dead,
    /// It was there, and cannot be opened any more.
    Lost(Errno),
    /// The sender has never begun it, or has ended it.
    Unknown,
}

impl Directories {
    /// The root begins; false if there is one.
    pub(super) fn add_root(&mut self, id: u32, open: Option<Rc<Folder>>, made: bool) -> bool {
        if self.last != 0 || id == 0 {
            return false;
        }
        self.last = id;
        let dead = open.is_none();
        self.entries.insert(id, Entry { parent: 0, name: Vec::new(), open, made, dead });
        true
    }

    /// Another one begins; false if it may not.
    pub(super) fn add(&mut self, id: u32, parent: u32, name: Vec<u8>, open: Option<Rc<Folder>>, made: bool) -> bool {
        if id <= self.last || self.entries.len() >= DIRECTORIES_MAX {
            return false;
        }
        self.last = id;
        let dead = open.is_none();
        self.entries.insert(id, Entry { parent, name, open, made, dead });
        self.note_open(id);
        true
    }

    fn note_open(&mut self, id: u32) {
        self.opened.push_back(id);
        while self.opened.len() > OPEN_MAX {
            let oldest = self.opened.pop_front();
            if let Some(entry) = oldest.and_then(|id| self.entries.get_mut(&id)) {
                entry.open = None;
            }
        }
    }

    /// The directory with this number, opened from above again if need be.
    pub(super) fn find(&mut self, id: u32) -> Found {
        // Up to one that is open, then down again.
        let mut closed = Vec::new();
        let mut at = id;
        let mut open = loop {
            let Some(entry) = self.entries.get(&at) else { return Found::Unknown };
            if entry.dead {
                return Found::Dead;
            }
            if let Some(open) = &entry.open {
                break open.clone();
            }
            closed.push(at);
            at = entry.parent;
        };
        while let Some(id) = closed.pop() {
            let Some(entry) = self.entries.get_mut(&id) else { return Found::Unknown };
            match open_directory(open.descriptor.as_fd(), &entry.name).and_then(Folder::new) {
                Ok(folder) => open = Rc::new(folder),
                Err(errno) => {
                    entry.dead = true;
                    return Found::Lost(errno);
                }
            }
            entry.open = Some(open.clone());
            self.note_open(id);
        }
        Found::Open(open)
    }

    /// A directory ends. None if it is unknown; else whether it was made here and is there.
    pub(super) fn end(&mut self, id: u32) -> Option<bool> {
        let entry = self.entries.remove(&id)?;
        Some(entry.made && !entry.dead)
    }

    /// Path of a name in a directory, beneath `root`; the middle of what is very long is left out.
    pub(super) fn path(&self, root: &[u8], id: u32, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let (mut at, mut len) = (id, 0);
        while let Some(entry) = self.entries.get(&at) {
            len += entry.name.len() + 1;
            if len > PATH_SHOWN {
                names.push(b"...");
                break;
            }
            names.push(&entry.name);
            at = entry.parent;
        }
        let mut path = root.to_vec();
        for name in names.iter().rev().filter(|name| !name.is_empty()) {
            if !path.ends_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        path
    }
}
