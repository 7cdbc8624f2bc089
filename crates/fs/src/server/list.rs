//! Whole directories with attributes. Used to answer and to push.

use std::{mem::MaybeUninit, os::fd::BorrowedFd};

use rustix::{
    fs::{OFlags, RawDir, RawDirEntry},
    io::Errno,
    process::fchdir,
};

use remotely_proto::fs::{Entry, Stamp};

use super::{
    attr::{self, Seat},
    entry::Directory,
    node::Key,
    service::Service,
    thread,
};

/// Entries in one message.
const PIECE_ENTRIES: usize = 256;
/// Names and targets in one message, in bytes; attributes come on top.
const PIECE_BYTES: usize = 32 << 10;

/// A piece of a listing.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) entries: Vec<Entry>,
    /// No more follow.
    pub(super) last: bool,
    /// There were more than the limit.
    pub(super) truncated: bool,
}

impl Piece {
    /// The states it tells.
    pub(super) fn states(&self) -> impl Iterator<Item = (Key, Stamp)> + '_ {
        self.entries.iter().map(|entry| (Key { dev: entry.attr.dev, ino: entry.attr.ino }, entry.attr.stamp()))
    }
}

impl Service {
    /// Reads a directory, which should be watched already, and hands on the pieces. Stops early if `hand_on` says false.
    pub(super) fn list(
        &self,
        dir: &Directory<'_>,
        limit: u32,
        mut hand_on: impl FnMut(Piece) -> bool,
    ) -> Result<(), Errno> {
        let open = self.reopen_checked(dir.descriptor, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let visit = Visit::enter(dir.descriptor);
        let mut buffer = [MaybeUninit::uninit(); 32 << 10];
        let mut names = RawDir::new(&open, &mut buffer);
        let (mut entries, mut bytes, mut count) = (Vec::new(), 0, 0_u32);
        while let Some(raw) = names.next() {
            let raw = match raw {
                // It was removed, and somebody still has it open.
                Err(Errno::NOENT) => break,
                raw => raw?,
            };
            if matches!(raw.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let Some(entry) = self.listed(dir, &raw, &visit)? else { continue };
            if count == limit {
                hand_on(Piece { entries, last: true, truncated: true });
                return Ok(());
            }
            count += 1;
            bytes += entry.name.len() + entry.target.as_ref().map_or(0, |target| target.len());
            entries.push(entry);
            if entries.len() >= PIECE_ENTRIES || bytes >= PIECE_BYTES {
                bytes = 0;
                if !hand_on(Piece { entries: std::mem::take(&mut entries), last: false, truncated: false }) {
                    return Ok(());
                }
            }
        }
        hand_on(Piece { entries, last: true, truncated: false });
        Ok(())
    }

    /// None for what is hidden, or gone again.
    fn listed(&self, dir: &Directory<'_>, raw: &RawDirEntry<'_>, visit: &Visit) -> Result<Option<Entry>, Errno> {
        let name = raw.file_name().to_bytes();
        let seat =
            if visit.inside { Seat::Here(dir.descriptor, raw.file_name()) } else { Seat::Name(dir.descriptor, name) };
        match self.entry_at(dir, name, seat) {
            Ok(entry) => Ok(Some(entry)),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            // It may be read but not searched.
            Err(Errno::ACCESS) if !self.is_hidden_name(dir, name) => {
                let attr = attr::unseen(raw.file_type(), dir.key.dev, raw.ino());
                Ok(Some(Entry { name: name.to_vec().into(), attr, target: None }))
            }
            Err(Errno::ACCESS) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// This thread's stay in a directory. It leaves again, because a working directory keeps a file system from being
/// unmounted.
struct Visit {
    inside: bool,
}

impl Visit {
    fn enter(dir: BorrowedFd<'_>) -> Self {
        Self { inside: thread::is_alone() && fchdir(dir).is_ok() }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.inside {
            // `/` can always be entered.
            let _ = rustix::process::chdir("/");
        }
    }
}
