//! Drafts that are complete take their place here, durably if that is asked for. What replaces nothing takes it at once and is
//! made durable with everything else in the end; what replaces a file is made durable before, many at a time.

use std::{collections::HashMap, os::fd::OwnedFd};

use remotely_proto::file::Operation;
use rustix::{
    fs::{RenameFlags, fsync, renameat, renameat_with, syncfs},
    io::{Errno, fcntl_dupfd_cloexec},
};

use super::draft::{Draft, Fault, Spot};

/// Drafts that wait together: each is an open descriptor, and a sync takes about the same time for all.
const QUEUE: usize = 128;

/// Where complete drafts go.
#[derive(Debug)]
pub(super) struct Settler {
    sync: bool,
    /// There is one file only, which needs no sync of a whole disk.
    single: bool,
    queue: Vec<Draft>,
    /// A descriptor on each file system that something was placed on.
    disks: HashMap<u64, OwnedFd>,
}

/// What became of a draft: the bytes of the file, or what failed.
pub(super) type Settled = Result<u64, (Spot, Fault)>;

impl Settler {
    pub(super) fn new(sync: bool, single: bool) -> Self {
        Self { sync, single, queue: Vec::new(), disks: HashMap::new() }
    }

    /// Takes a complete draft. Says what became of it and of others; with nothing, it waits for company.
    pub(super) fn place(&mut self, draft: Draft) -> Vec<Settled> {
        if !self.sync {
            return vec![replace(draft)];
        }
        if self.single {
            return vec![place_durably(draft)];
        }
        self.note_disk(&draft);
        let dir = &draft.spot.folder.descriptor;
        match renameat_with(dir, draft.name(), dir, draft.spot.name.as_slice(), RenameFlags::NOREPLACE) {
            Ok(()) => vec![Ok(placed(draft))],
            // It is there already, or this file system cannot tell.
            Err(Errno::EXIST | Errno::INVAL | Errno::NOSYS) => {
                self.queue.push(draft);
                if self.queue.len() >= QUEUE { self.flush() } else { Vec::new() }
            }
            Err(errno) => vec![refused(draft, Operation::Rename, errno)],
        }
    }

    /// Places all that wait.
    pub(super) fn flush(&mut self) -> Vec<Settled> {
        if self.queue.is_empty() {
            return Vec::new();
        }
        let synced = self.sync_disks();
        let settle = |draft| match synced {
            Ok(()) => replace(draft),
            Err(errno) => refused(draft, Operation::Sync, errno),
        };
        self.queue.drain(..).map(settle).collect()
    }

    /// Makes all that was placed durable.
    pub(super) fn finish(&mut self) -> Result<(), Errno> {
        if self.sync && !self.single { self.sync_disks() } else { Ok(()) }
    }

    fn sync_disks(&self) -> Result<(), Errno> {
        self.disks.values().try_for_each(syncfs)
    }

    fn note_disk(&mut self, draft: &Draft) {
        let folder = &draft.spot.folder;
        self.note_device(folder.device, |from| {
            if folder.syncable {
                fcntl_dupfd_cloexec(&folder.descriptor, from)
            } else {
                fcntl_dupfd_cloexec(&draft.file, from)
            }
        });
    }

    /// Something was made on a file system: it is synced in the end.
    pub(super) fn note_device(&mut self, device: u64, open: impl FnOnce(i32) -> Result<OwnedFd, Errno>) {
        if self.sync
            && !self.disks.contains_key(&device)
            && let Ok(descriptor) = open(3)
        {
            self.disks.insert(device, descriptor);
        }
    }
}

fn placed(draft: Draft) -> u64 {
    let bytes = draft.at;
    draft.placed();
    bytes
}

fn replace(draft: Draft) -> Settled {
    let dir = &draft.spot.folder.descriptor;
    match renameat(dir, draft.name(), dir, draft.spot.name.as_slice()) {
        Ok(()) => Ok(placed(draft)),
        Err(errno) => refused(draft, Operation::Rename, errno),
    }
}

fn place_durably(draft: Draft) -> Settled {
    if let Err(errno) = fsync(&draft.file) {
        return refused(draft, Operation::Sync, errno);
    }
    let spot = draft.spot.clone();
    let bytes = replace(draft)?;
    if spot.folder.syncable
        && let Err(errno) = fsync(&spot.folder.descriptor)
    {
        return Err((spot, (Operation::Sync, Some(errno))));
    }
    Ok(bytes)
}

fn refused(draft: Draft, operation: Operation, errno: Errno) -> Settled {
    let spot = draft.spot.clone();
    draft.discard();
    Err((spot, (operation, Some(errno))))
}
