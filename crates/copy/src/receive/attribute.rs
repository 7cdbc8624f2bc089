//! Attributes of what was received: owner, extended attributes, mode, times, in the order in which none undoes another.

use std::os::fd::AsFd;

use remotely_proto::{
    file::{Meta, Operation, Receiving, Xattr},
    fs::Time,
};
use rustix::{
    fs::{
        AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr, futimens,
        utimensat,
    },
    io::Errno,
};

use super::draft::Fault;

/// What a receiver takes over of attributes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Owners, and bits that act with their rights.
    owner: bool,
    /// Instead of a single file's own.
    mode: Option<u32>,
}

impl Taken {
    pub(super) fn new(receiving: &Receiving, root: bool) -> Self {
        Self { owner: receiving.owner && root, mode: receiving.mode }
    }

    /// Whether what acts with the rights of others may be made.
    pub(super) fn owner(self) -> bool {
        self.owner
    }

    /// The permission bits of a file. Set-id bits without the owner would give away the rights of whoever receives.
    pub(super) fn mode(self, meta: &Meta, single: bool) -> u32 {
        match self.mode.filter(|_| single) {
            Some(mode) => mode & 0o7777,
            None if self.owner => meta.mode & 0o7777,
            None => meta.mode & 0o1777,
        }
    }

    /// Applies what can be, and says what cannot.
    pub(super) fn apply(self, descriptor: impl AsFd, meta: &Meta, single: bool) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut note = |operation, result: Result<(), Errno>| {
            if let Err(errno) = result {
                faults.push((operation, Some(errno)));
            }
        };
        if self.owner {
            note(Operation::SetOwner, fchown(&descriptor, uid(meta), gid(meta)));
        }
        for Xattr { name, value } in meta.xattrs.iter().filter(|xattr| self.takes(&xattr.name)) {
            note(Operation::Xattr, fsetxattr(&descriptor, name.as_slice(), value, XattrFlags::empty()));
        }
        note(Operation::SetMode, fchmod(&descriptor, Mode::from_raw_mode(self.mode(meta, single))));
        note(Operation::SetTimes, futimens(&descriptor, &times(meta)));
        faults
    }

    /// The same for a name that must not be opened or followed; it has no extended attributes that anybody may set.
    pub(super) fn apply_name(self, dir: impl AsFd, name: &[u8], meta: &Meta) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.owner
            && let Err(errno) = chownat(&dir, name, uid(meta), gid(meta), AtFlags::SYMLINK_NOFOLLOW)
        {
            faults.push((Operation::SetOwner, Some(errno)));
        }
        if let Err(errno) = utimensat(&dir, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW) {
            faults.push((Operation::SetTimes, Some(errno)));
        }
        faults
    }

    /// What a security module of the sender's machine says means nothing here.
    fn takes(self, name: &[u8]) -> bool {
        let owners = name == b"security.capability" || name.starts_with(b"trusted.");
        name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") || (self.owner && owners)
    }
}

fn uid(meta: &Meta) -> Option<Uid> {
    // All ones means that nothing is changed.
    (meta.uid != u32::MAX).then(|| Uid::from_raw(meta.uid))
}

fn gid(meta: &Meta) -> Option<Gid> {
    (meta.gid != u32::MAX).then(|| Gid::from_raw(meta.gid))
}

fn times(meta: &Meta) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.sec, tv_nsec: time.nsec.min(999_999_999).into() };
    Timestamps { last_access: spec(meta.atime), last_modification: spec(meta.mtime) }
}

/// Whether these may be the same moment, of which a file system has kept less than nanoseconds.
pub(super) fn same_time(a: Time, b: Time) -> bool {
    a.sec == b.sec && (a.nsec == b.nsec || a.nsec == 0 || b.nsec == 0)
}
