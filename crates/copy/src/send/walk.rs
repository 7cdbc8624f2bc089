//! The way of a sender through a tree: names first, deepest last, with a bounded number of open directories.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use remotely_proto::file::{DIRECTORIES_MAX, Item, Operation, Seat};
use rustix::{
    fs::{Dir, FileType, Mode, OFlags, Statx},
    io::Errno,
};

use super::{
    Begun, Place, Sender,
    attribute::{meta, stat, stat_entry, xattrs},
};
use crate::{
    beneath::{open_chain, open_entry},
    flow::Cut,
};

/// Directories above the present one that stay open.
const OPEN_LEVELS: usize = 64;

/// A directory on the way.
struct Level {
    id: u32,
    /// Beneath the root.
    path: Vec<u8>,
    /// None while it is far above.
    descriptor: Option<OwnedFd>,
    /// What is in it and was not looked at; last first.
    entries: Vec<(Vec<u8>, FileType)>,
}

impl Sender {
    /// Sends a source that is a directory.
    pub(super) fn tree(&mut self, root: OwnedFd, root_stat: &Statx) -> Result<(), Cut> {
        let again = rustix::io::fcntl_dupfd_cloexec(&root, 3);
        let again = match again {
            Ok(again) => again,
            Err(errno) => return self.fail(Operation::Open, &[], errno.raw_os_error().unsigned_abs()),
        };
        self.source.root = Some(again);
        let place = Place { directory: 0, parent: b"", name: b"" };
        let mut levels = Vec::new();
        levels.extend(self.begin(root, root_stat, place)?);
        while let Some(level) = levels.last_mut() {
            self.take_answers()?;
            let Some((name, kind)) = level.entries.pop() else {
                let id = level.id;
                levels.pop();
                self.walked(id)?;
                continue;
            };
            let place = Place { directory: level.id, parent: &level.path, name: &name };
            if level.descriptor.is_none() {
                match self.open_again(place.parent) {
                    Ok(descriptor) => level.descriptor = Some(descriptor),
                    Err(errno) => self.fail_with(Operation::Open, place, errno)?,
                }
            }
            let Some(dir) = level.descriptor.as_ref().map(AsFd::as_fd) else { continue };
            let kind = match kind {
                // Some file systems do not say.
                FileType::Unknown => stat_entry(dir, place.name).map_or(kind, |stat| super::kind(&stat)),
                kind => kind,
            };
            if kind != FileType::Directory {
                self.entry(dir, kind, place)?;
                continue;
            }
            let below = self.enter(dir, place)?;
            if let Some(below) = below {
                levels.push(below);
                if let Some(far) = levels.len().checked_sub(OPEN_LEVELS + 1) {
                    levels[far].descriptor = None;
                }
            }
        }
        self.wait_for_all()
    }

    /// Opens a directory of the source by its path beneath the root.
    fn open_again(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let Some(root) = &self.source.root else { return Err(Errno::BADF) };
        let chain: Vec<_> = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).collect();
        open_chain(root.as_fd(), &chain, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn enter(&mut self, dir: BorrowedFd<'_>, place: Place<'_>) -> Result<Option<Level>, Cut> {
        let opened = open_entry(dir, place.name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        let found = opened.and_then(|descriptor| stat(&descriptor).map(|stat| (descriptor, stat)));
        match found {
            Ok((descriptor, stat)) => self.begin(descriptor, &stat, place),
            Err(errno) => {
                self.fail_with(Operation::Open, place, errno)?;
                Ok(None)
            }
        }
    }

    /// Begins a directory and lists it.
    fn begin(&mut self, descriptor: OwnedFd, stat: &Statx, place: Place<'_>) -> Result<Option<Level>, Cut> {
        while self.directories.len() >= DIRECTORIES_MAX {
            if self.asks.is_empty() {
                self.fail_with(Operation::Open, place, Errno::LOOP)?;
                return Ok(None);
            }
            self.wait_for_one()?;
        }
        let mut meta = meta(stat);
        if self.sending.xattrs {
            match xattrs(&descriptor) {
                Ok(found) => meta.xattrs = found,
                Err(errno) => self.fail_with(Operation::Xattr, place, errno)?,
            }
        }
        let id = self.next_directory;
        self.next_directory += 1;
        let mode = meta.mode;
        self.directories.insert(id, Begun { parent: place.directory, meta, pending: 0, walked: false });
        if let Some(parent) = self.directories.get_mut(&place.directory) {
            parent.pending += 1;
        }
        let seat = Seat { directory: place.directory, name: place.name.to_vec().into() };
        self.out.push(Item::Directory { id, seat, mode })?;
        let entries = match list(&descriptor) {
            Ok(entries) => entries,
            Err((entries, errno)) => {
                self.fail_with(Operation::List, place, errno)?;
                entries
            }
        };
        Ok(Some(Level { id, path: place.path(), descriptor: Some(descriptor), entries }))
    }

    fn walked(&mut self, id: u32) -> Result<(), Cut> {
        if let Some(directory) = self.directories.get_mut(&id) {
            directory.walked = true;
        }
        self.end_directories(id)
    }

    /// Something in a directory, or a directory in it, has come to its end.
    pub(super) fn settled(&mut self, id: u32) -> Result<(), Cut> {
        if let Some(directory) = self.directories.get_mut(&id) {
            directory.pending -= 1;
        }
        self.end_directories(id)
    }

    /// Ends a directory of which nothing is left to be sent, and those above it for which it was the last.
    fn end_directories(&mut self, mut id: u32) -> Result<(), Cut> {
        while let Some(directory) = self.directories.get(&id)
            && directory.walked
            && directory.pending == 0
        {
            let Some(Begun { parent, meta, .. }) = self.directories.remove(&id) else { break };
            self.out.push(Item::DirectoryEnd { id, meta })?;
            if let Some(above) = self.directories.get_mut(&parent) {
                above.pending -= 1;
            }
            id = parent;
        }
        Ok(())
    }
}

type Entries = Vec<(Vec<u8>, FileType)>;

/// What is in a directory, in the order of the disk from the end on. With an error, what was found before it.
fn list(descriptor: &OwnedFd) -> Result<Entries, (Entries, Errno)> {
    let mut found = Vec::new();
    let mut failed = None;
    match Dir::read_from(descriptor) {
        Ok(dir) => {
            for entry in dir {
                match entry {
                    Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                    Ok(entry) => found.push((entry.ino(), entry.file_name().to_bytes().to_vec(), entry.file_type())),
                    Err(errno) => {
                        failed = Some(errno);
                        break;
                    }
                }
            }
        }
        Err(errno) => failed = Some(errno),
    }
    found.sort_unstable_by_key(|&(ino, ..)| std::cmp::Reverse(ino));
    let entries = found.into_iter().map(|(_, name, kind)| (name, kind)).collect();
    match failed {
        None => Ok(entries),
        Some(errno) => Err((entries, errno)),
    }
}
