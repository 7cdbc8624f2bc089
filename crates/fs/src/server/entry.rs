//! Entries: a name, the attributes of what it names, and a link's target.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use rustix::{
    fs::{FileType, Mode, OFlags, Statx, openat, readlinkat},
    io::Errno,
};

use remotely_proto::fs::{Attr, Entry, Node, Stamp};

use super::{
    attr::{self, Outlook, Seat},
    mount_kind::MountKind,
    node::Key,
    open::Located,
    service::{Hold, Service},
};

/// A directory whose entries are wanted.
#[derive(Debug)]
pub(super) struct Directory<'a> {
    pub(super) descriptor: BorrowedFd<'a>,
    pub(super) key: Key,
    /// Changes in it are heard of.
    pub(super) watched: bool,
    kind: MountKind,
}

/// When something was seen, as far as the mount is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// The last notice.
    pub(super) seen: u64,
    tick: u64,
}

impl Service {
    /// To be taken before the system calls of an answer.
    pub(super) fn moment(&self) -> Moment {
        let known = self.known.hold();
        Moment { seen: self.notices.last(), tick: known.tick() }
    }

    /// An answer tells these states, seen after `moment`.
    pub(super) fn told(&self, moment: Moment, states: impl IntoIterator<Item = (Key, Stamp)>) {
        let mut known = self.known.hold();
        for (key, stamp) in states {
            known.told(key, &stamp, moment.tick);
        }
    }

    /// A directory that was found, watched from now on if `watch` and if that is possible.
    pub(super) fn directory<'a>(&self, found: &'a Located, watch: bool) -> Directory<'a> {
        let key = found.key();
        let kind = self.mount_kinds.of(key.dev, found.as_fd());
        let watched =
            kind.tells && if watch { self.watches.add(found.as_fd(), key) } else { self.watches.contains(key) };
        Directory { descriptor: found.as_fd(), key, watched, kind }
    }

    /// True if a name with what it names is kept from the mount.
    pub(super) fn is_hidden(&self, dir: &Directory<'_>, name: &[u8], key: Key) -> bool {
        self.hidden.found(dir.key, name, key, || {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(dir.descriptor, name, flags, Mode::empty()).ok().map(Arc::new)
        })
    }

    /// True if a name is kept from the mount, whatever it names.
    pub(super) fn is_hidden_name(&self, dir: &Directory<'_>, name: &[u8]) -> bool {
        self.hidden.name(dir.key, name)
    }

    /// What a name names now. ENOENT if it is hidden.
    pub(super) fn entry(&self, dir: &Directory<'_>, name: &[u8]) -> Result<Entry, Errno> {
        self.entry_at(dir, name, Seat::Name(dir.descriptor, name))
    }

    /// The same, seen from a given seat.
    pub(super) fn entry_at(&self, dir: &Directory<'_>, name: &[u8], seat: Seat<'_>) -> Result<Entry, Errno> {
        let stat = attr::stat_name(dir.descriptor, name)?;
        if self.is_hidden(dir, name, attr::key(&stat)) {
            return Err(Errno::NOENT);
        }
        self.entry_of(dir, name, seat, &stat)
    }

    /// The same for a state that was just seen.
    pub(super) fn entry_of(
        &self,
        dir: &Directory<'_>,
        name: &[u8],
        seat: Seat<'_>,
        stat: &Statx,
    ) -> Result<Entry, Errno> {
        let target = match attr::kind(stat) {
            FileType::Symlink => Some(readlinkat(dir.descriptor, name, Vec::new())?.into_bytes().into()),
            _ => None,
        };
        Ok(Entry { name: name.to_vec().into(), attr: self.entry_attr(dir, name, seat, stat), target })
    }

    fn entry_attr(&self, dir: &Directory<'_>, name: &[u8], seat: Seat<'_>, stat: &Statx) -> Attr {
        let key = attr::key(stat);
        // The root of another file system does not change with the directory it is mounted on.
        let (kind, watched) = if key.dev == dir.key.dev {
            (dir.kind, dir.watched)
        } else {
            let kind = self.mount_kinds.known(key.dev).or_else(|| {
                let found = self.step((dir.descriptor, dir.key), name).ok()?;
                Some(self.mount_kinds.of(found.key().dev, found.as_fd()))
            });
            let kind = kind.unwrap_or(MountKind::UNKNOWN);
            (kind, kind.tells)
        };
        attr::attr(&self.identity, stat, seat, Outlook { watched, local: kind.tells, births: kind.births })
    }

    /// Attributes of what a descriptor of `node` is open on.
    pub(super) fn node_attr(&self, node: Node, descriptor: impl AsFd, stat: &Statx) -> Attr {
        let descriptor = descriptor.as_fd();
        let kind = self.mount_kinds.of(attr::key(stat).dev, descriptor);
        let watched = kind.tells && self.is_watched(node);
        attr::attr(
            &self.identity,
            stat,
            Seat::Open(descriptor),
            Outlook { watched, local: kind.tells, births: kind.births },
        )
    }
}
