//! What a sender does with each name that is not a directory.

use std::os::fd::{BorrowedFd, OwnedFd};

use remotely_proto::{
    file::{Item, Operation, Reason, Unchanged},
    fs::Time,
};
use rustix::{
    fs::{FileType, Mode, OFlags, Statx, makedev, readlinkat},
    io::Errno,
};

use super::{
    Place, Sender,
    ask::{DELTA_MIN, RESUME_MIN},
    attribute::{identity, kind, meta, stat, stat_entry, time},
    content::Outcome,
};
use crate::{beneath::open_entry, draft_name::is_draft_name, flow::Cut};

/// Longest path by which a hard link names its file.
const LINK_PATH_MAX: usize = 16 << 10;

/// A file with several names, of which one was met.
#[derive(Debug)]
pub(super) enum Linked {
    /// It was sent under this path.
    Sent { path: Vec<u8>, size: u64, mtime: Time },
    /// It waits for an answer; these names wait for it.
    Asked { links: Vec<(u32, Vec<u8>, Vec<u8>)> },
}

impl Sender {
    /// Sends what has this name.
    pub(super) fn entry(&mut self, dir: BorrowedFd<'_>, listed: FileType, place: Place<'_>) -> Result<(), Cut> {
        if is_draft_name(place.name) {
            return self.skip(Reason::Unfinished, place);
        }
        if listed != FileType::RegularFile {
            return self.other(dir, place);
        }
        match open_file(dir, place.name) {
            Ok((descriptor, stat)) if kind(&stat) == FileType::RegularFile => self.file(descriptor, &stat, place),
            Ok(_) => self.fail(Operation::Changed, &place.path(), 0),
            Err(errno) => self.fail_with(Operation::Open, place, errno),
        }
    }

    /// A symbolic link, fifo, device node or socket.
    fn other(&mut self, dir: BorrowedFd<'_>, place: Place<'_>) -> Result<(), Cut> {
        let stat = match stat_entry(dir, place.name) {
            Ok(stat) => stat,
            Err(errno) => return self.fail_with(Operation::Look, place, errno),
        };
        let (seat, meta) = (place.seat(), meta(&stat));
        match kind(&stat) {
            FileType::Symlink => match readlinkat(dir, place.name, Vec::new()) {
                Ok(target) => self.out.push(Item::Symlink { seat, target: target.into_bytes().into(), meta }),
                Err(errno) => self.fail_with(Operation::Read, place, errno),
            },
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                let device = makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
                self.out.push(Item::Special { seat, meta, device })
            }
            FileType::Socket => self.skip(Reason::Socket, place),
            _ => self.fail(Operation::Changed, &place.path(), 0),
        }
    }

    /// A regular file: its content, another name of what was sent, or a question first.
    pub(super) fn file(&mut self, descriptor: OwnedFd, stat: &Statx, place: Place<'_>) -> Result<(), Cut> {
        let key = (stat.stx_nlink > 1).then(|| identity(stat));
        if let Some(key) = key {
            match self.links.get_mut(&key) {
                Some(Linked::Sent { path, size, mtime }) => {
                    let (target, size, mtime) = (path.clone().into(), *size, *mtime);
                    return self.out.push(Item::Link { seat: place.seat(), target, size, mtime });
                }
                Some(Linked::Asked { links }) => {
                    links.push((place.directory, place.parent.to_vec(), place.name.to_vec()));
                    return self.defer(place.directory);
                }
                None => {}
            }
        }
        let size = stat.stx_size;
        let asked = self.sending.unchanged != Unchanged::Send
            || (self.sending.delta && size >= DELTA_MIN)
            || (self.sending.resume && size >= RESUME_MIN);
        if asked {
            let Some(meta) = self.meta(&descriptor, stat, place)? else { return Ok(()) };
            drop(descriptor);
            if let Some(key) = key {
                self.links.insert(key, Linked::Asked { links: Vec::new() });
            }
            return self.ask(stat, meta, place, key);
        }
        let outcome = self.content(&descriptor, stat, place, None)?;
        if let (Some(key), Outcome::Sent) = (key, outcome) {
            self.sent_linked(key, stat, place);
        }
        Ok(())
    }

    /// The file with this identity is there under a name.
    fn sent_linked(&mut self, key: (u64, u64), stat: &Statx, place: Place<'_>) {
        let (path, size, mtime) = (place.path(), stat.stx_size, time(stat.stx_mtime));
        // A path that would burst a message is not worth it: the next name is sent as a file.
        if path.len() <= LINK_PATH_MAX {
            self.links.insert(key, Linked::Sent { path, size, mtime });
        }
    }

    /// An asked file has come to its end: the names that waited for it follow. If it could not be sent, the first of them is
    /// tried in its place.
    pub(super) fn linked_answered(
        &mut self,
        key: (u64, u64),
        stat: Option<&Statx>,
        place: Place<'_>,
    ) -> Result<(), Cut> {
        let waiting = match self.links.remove(&key) {
            Some(Linked::Asked { links }) => links,
            _ => Vec::new(),
        };
        if let Some(stat) = stat {
            self.sent_linked(key, stat, place);
        }
        for (directory, parent, name) in waiting {
            let place = Place { directory, parent: &parent, name: &name };
            let opened = self.reopen(&place.path()).and_then(|fd| super::stat(&fd).map(|stat| (fd, stat)));
            match opened {
                Ok((descriptor, stat)) => self.file(descriptor, &stat, place)?,
                Err(errno) => self.fail_with(Operation::Open, place, errno)?,
            }
            self.undefer(directory)?;
        }
        Ok(())
    }
}

fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(OwnedFd, Statx), Errno> {
    let descriptor = open_entry(dir, name, OFlags::RDONLY, Mode::empty())?;
    let stat = stat(&descriptor)?;
    Ok((descriptor, stat))
}
