//! Watches on directories, by inotify(7). A directory is watched before it is read, so that what is told of it cannot
//! become wrong unnoticed. `tell` reads the events.

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Mutex,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};

use super::{attr, node::Key, service::Hold};

const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    // Who writes through a mapping (linkers do) is heard of only when it is gone.
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// All watches of one server.
#[derive(Debug)]
pub(super) struct Watches {
    /// None if this user has no inotify instance left.
    inotify: Option<OwnedFd>,
    wake: Option<OwnedFd>,
    table: Mutex<Table>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Table {
    by_descriptor: HashMap<i32, Key>,
    by_key: HashMap<Key, i32>,
    /// It was said that there are none left.
    warned: bool,
}

impl Watches {
    pub(super) fn new() -> Self {
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches");
        let limit = limit.ok().and_then(|text| text.trim().parse::<usize>().ok()).unwrap_or(8192);
        Self {
            inotify: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok(),
            table: Mutex::default(),
            // The user's editor wants some, too.
            limit: limit / 2,
        }
    }

    /// Where the events come from.
    pub(super) fn events(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(|descriptor| descriptor.as_fd())
    }

    /// Becomes readable when the server ends.
    pub(super) fn waker(&self) -> Option<BorrowedFd<'_>> {
        self.wake.as_ref().map(|descriptor| descriptor.as_fd())
    }

    pub(super) fn wake(&self) {
        if let Some(wake) = &self.wake {
            // It can only fail if it is readable already.
            let _ = rustix::io::write(wake, &1_u64.to_ne_bytes());
        }
    }

    /// Watches a directory. True if it is watched from now on.
    pub(super) fn add(&self, dir: BorrowedFd<'_>, key: Key) -> bool {
        let mut table = self.table.hold();
        match self.try_add(&table, dir, key) {
            Ok(descriptor) => {
                // The kernel gives the same descriptor for the same inode, and a new one for a new inode that has the
                // number of an old one; so it is asked each time.
                if let Some(old) = table.by_key.insert(key, descriptor).filter(|old| *old != descriptor) {
                    table.by_descriptor.remove(&old);
                }
                table.by_descriptor.insert(descriptor, key);
                true
            }
            Err(errno) => {
                if errno == Errno::NOSPC && !std::mem::replace(&mut table.warned, true) {
                    tracing::warn!("no inotify watches left: changes made here are noticed later");
                }
                false
            }
        }
    }

    fn try_add(&self, table: &Table, dir: BorrowedFd<'_>, key: Key) -> Result<i32, Errno> {
        let inotify = self.inotify.as_ref().ok_or(Errno::MFILE)?;
        if table.by_key.len() >= self.limit && !table.by_key.contains_key(&key) {
            return Err(Errno::NOSPC);
        }
        inotify::add_watch(inotify, attr::proc_path(dir), EVENTS)
    }

    /// True if it is watched.
    pub(super) fn contains(&self, key: Key) -> bool {
        self.table.hold().by_key.contains_key(&key)
    }

    /// The directory that an event is about.
    pub(super) fn find(&self, descriptor: i32) -> Option<Key> {
        self.table.hold().by_descriptor.get(&descriptor).copied()
    }

    /// The kernel has dropped a watch.
    pub(super) fn dropped(&self, descriptor: i32) {
        let mut table = self.table.hold();
        if let Some(key) = table.by_descriptor.remove(&descriptor)
            && table.by_key.get(&key) == Some(&descriptor)
        {
            table.by_key.remove(&key);
        }
    }

    /// Nobody asks for this directory any more.
    pub(super) fn remove(&self, key: Key) {
        let mut table = self.table.hold();
        if let Some(descriptor) = table.by_key.remove(&key) {
            table.by_descriptor.remove(&descriptor);
            if let Some(inotify) = &self.inotify {
                // Already gone is as good.
                let _ = inotify::remove_watch(inotify, descriptor);
            }
        }
    }
}
