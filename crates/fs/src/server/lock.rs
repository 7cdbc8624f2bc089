//! Locks of the mount's processes, held here so that processes of here see them. Each owner gets an open file description
//! of its own per file and kind of lock (F_OFD_SETLK, flock(2)): so owners conflict with each other, too.

use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use remotely_proto::fs::{File, Lane, Lock, LockKind, Reply, Request};
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};

use super::{
    attr,
    node::Key,
    service::{Hold, Service},
    thread,
};

/// Owners with locks, and owners that wait.
const DESCRIPTIONS_MAX: usize = 4096;
const WAITERS_MAX: usize = 256;
/// How often a lock that is waited for is tried, at first and after a while.
const RETRY_FIRST: Duration = Duration::from_millis(2);
const RETRY_LAST: Duration = Duration::from_millis(50);

/// All locks.
#[derive(Debug, Default)]
pub(super) struct LockTable {
    descriptions: Mutex<HashMap<Holder, Arc<Description>>>,
    waiting: Mutex<HashMap<u64, Arc<Waiter>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Holder {
    key: Key,
    owner: u64,
    flock: bool,
}

#[derive(Debug)]
struct Description {
    descriptor: OwnedFd,
    /// It had a lock at some time.
    used: AtomicBool,
}

/// A request that may have to wait, from when it comes in.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    cancelled: Mutex<bool>,
    changed: Condvar,
}

impl Waiter {
    fn cancel(&self) {
        *self.cancelled.hold() = true;
        self.changed.notify_all();
    }

    /// True if it was cancelled before the time was over.
    fn pause(&self, time: Duration) -> bool {
        let cancelled = self.cancelled.hold();
        let wait = self.changed.wait_timeout_while(cancelled, time, |cancelled| !*cancelled);
        *wait.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl LockTable {
    /// A request has come in. If it may wait it can be cancelled from now on; none if there are too many, or one with this number.
    pub(super) fn expect(&self, id: u64, request: &Request) -> Option<Arc<Waiter>> {
        if !matches!(request, Request::Setlk { wait: true, .. }) {
            return None;
        }
        let mut waiting = self.waiting.hold();
        if waiting.len() >= WAITERS_MAX || waiting.contains_key(&id) {
            return None;
        }
        Some(Arc::clone(waiting.entry(id).or_default()))
    }

    /// Withdraws a request that waits; any other is answered anyhow.
    pub(super) fn cancel(&self, id: u64) {
        if let Some(waiter) = self.waiting.hold().get(&id) {
            waiter.cancel();
        }
    }

    /// Only whoever was expected is done: the peer can give two requests the same number.
    fn done(&self, id: u64, waiter: Option<&Arc<Waiter>>) {
        let mut waiting = self.waiting.hold();
        if let Some(waiter) = waiter
            && waiting.get(&id).is_some_and(|known| Arc::ptr_eq(known, waiter))
        {
            waiting.remove(&id);
        }
    }

    /// Frees all.
    pub(super) fn end(&self) {
        self.waiting.hold().values().for_each(|waiter| waiter.cancel());
        let descriptions = std::mem::take(&mut *self.descriptions.hold());
        drop(descriptions);
    }

    fn find(&self, holder: &Holder) -> Option<Arc<Description>> {
        self.descriptions.hold().get(holder).cloned()
    }

    /// An owner that got nothing needs no description.
    fn drop_unused(&self, holder: &Holder) {
        let mut descriptions = self.descriptions.hold();
        if descriptions.get(holder).is_some_and(|description| !description.used.load(Ordering::SeqCst)) {
            descriptions.remove(holder);
        }
    }
}

impl Service {
    /// What is in the way of a lock.
    pub(super) fn getlk(&self, file: File, lock: Lock) -> Result<Lock, Errno> {
        let (holder, file) = self.holder(file, &lock)?;
        let description = match self.locks.find(&holder) {
            Some(description) => description,
            None => Arc::new(self.describe(&file)?),
        };
        let mut asked = range(&lock)?;
        ofd(&description.descriptor, libc::F_OFD_GETLK, &mut asked)?;
        let kind = match i32::from(asked.l_type) {
            libc::F_RDLCK => LockKind::Read,
            libc::F_WRLCK => LockKind::Write,
            _ => return Ok(Lock { kind: LockKind::Unlock, ..lock }),
        };
        let start = asked.l_start.unsigned_abs();
        let end = if asked.l_len == 0 { i64::MAX as u64 } else { start + asked.l_len.unsigned_abs() - 1 };
        // -1: another description holds it, which need not be a process.
        Ok(Lock { start, end, kind, pid: u32::try_from(asked.l_pid).unwrap_or(0), ..lock })
    }

    /// Takes or frees a lock. False: it is waited for, and answered when it is there.
    pub(super) fn setlk(
        self: &Arc<Self>,
        id: u64,
        file: File,
        lock: Lock,
        wait: bool,
        waiter: Option<Arc<Waiter>>,
    ) -> Result<bool, Errno> {
        let result = self.try_setlk(file, &lock);
        match result {
            Err((Errno::AGAIN, Some((holder, description)))) if wait => {
                let Some(waiter) = waiter else {
                    self.locks.drop_unused(&holder);
                    return Err(Errno::NOLCK);
                };
                let service = Arc::clone(self);
                let expected = Arc::clone(&waiter);
                let started = thread::start("fs-lock", move || {
                    let reply = service.wait(&holder, &description, &lock, &waiter);
                    service.locks.done(id, Some(&waiter));
                    let reply = reply.map(|()| (Reply::Done, Bytes::new()));
                    service.out.reply(Lane::Query, id, service.notices.last(), reply);
                });
                started.map(|()| false).map_err(|_| {
                    self.locks.done(id, Some(&expected));
                    Errno::NOLCK
                })
            }
            result => {
                self.locks.done(id, waiter.as_ref());
                if let Err((_, Some((holder, _)))) = &result {
                    self.locks.drop_unused(holder);
                }
                result.map(|()| true).map_err(|(errno, _)| errno)
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "the caller goes on with what was tried")]
    fn try_setlk(&self, file: File, lock: &Lock) -> Result<(), (Errno, Option<(Holder, Arc<Description>)>)> {
        let failed = |errno| (errno, None);
        let (holder, file) = self.holder(file, lock).map_err(failed)?;
        range(lock).map_err(failed)?;
        if lock.kind == LockKind::Unlock {
            return self.unlock(&holder, lock).map_err(failed);
        }
        let description = match self.locks.find(&holder) {
            Some(description) => description,
            None => {
                let new = Arc::new(self.describe(&file).map_err(failed)?);
                let mut descriptions = self.locks.descriptions.hold();
                if descriptions.len() >= DESCRIPTIONS_MAX || self.is_ending() {
                    return Err(failed(Errno::NOLCK));
                }
                Arc::clone(descriptions.entry(holder).or_insert(new))
            }
        };
        attempt(&description, lock).map_err(|errno| (errno, Some((holder, description))))
    }

    fn unlock(&self, holder: &Holder, lock: &Lock) -> Result<(), Errno> {
        let Some(description) = self.locks.find(holder) else { return Ok(()) };
        attempt(&description, lock)?;
        if lock.flock || (lock.start == 0 && lock.end >= i64::MAX as u64) {
            self.locks.descriptions.hold().remove(holder);
        }
        Ok(())
    }

    fn wait(&self, holder: &Holder, description: &Description, lock: &Lock, waiter: &Waiter) -> Result<(), Errno> {
        let mut pause = RETRY_FIRST;
        loop {
            if waiter.pause(pause) {
                self.locks.drop_unused(holder);
                return Err(Errno::INTR);
            }
            match attempt(description, lock) {
                Err(Errno::AGAIN) => pause = (pause * 2).min(RETRY_LAST),
                result => return result,
            }
        }
    }

    fn holder(&self, file: File, lock: &Lock) -> Result<(Holder, Arc<OwnedFd>), Errno> {
        let descriptor = self.files.find(file)?.descriptor(self)?;
        let key = attr::key(&attr::stat(&descriptor)?);
        Ok((Holder { key, owner: lock.owner, flock: lock.flock }, descriptor))
    }

    fn describe(&self, file: &OwnedFd) -> Result<Description, Errno> {
        let writable = if self.read_only { Err(Errno::ROFS) } else { self.reopen_checked(file.as_fd(), OFlags::RDWR) };
        let descriptor = match writable {
            Err(Errno::ACCESS | Errno::ROFS | Errno::PERM | Errno::TXTBSY | Errno::ISDIR) => {
                self.reopen_checked(file.as_fd(), OFlags::RDONLY)?
            }
            descriptor => descriptor?,
        };
        Ok(Description { descriptor, used: AtomicBool::new(false) })
    }
}

/// Tries once. EAGAIN if someone else is in the way.
fn attempt(description: &Description, lock: &Lock) -> Result<(), Errno> {
    let result = if lock.flock {
        let operation = match lock.kind {
            LockKind::Read => FlockOperation::NonBlockingLockShared,
            LockKind::Write => FlockOperation::NonBlockingLockExclusive,
            LockKind::Unlock => FlockOperation::Unlock,
        };
        flock(&description.descriptor, operation)
    } else {
        ofd(&description.descriptor, libc::F_OFD_SETLK, &mut range(lock)?)
    };
    match result {
        Ok(()) => {
            description.used.store(true, Ordering::SeqCst);
            Ok(())
        }
        Err(Errno::ACCESS) => Err(Errno::AGAIN),
        Err(errno) => Err(errno),
    }
}

fn range(lock: &Lock) -> Result<libc::flock, Errno> {
    let start = i64::try_from(lock.start).map_err(|_| Errno::INVAL)?;
    let end = i64::try_from(lock.end).unwrap_or(i64::MAX);
    if end < start {
        return Err(Errno::INVAL);
    }
    let kind = match lock.kind {
        LockKind::Read => libc::F_RDLCK,
        LockKind::Write => libc::F_WRLCK,
        LockKind::Unlock => libc::F_UNLCK,
    };
    Ok(libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        // Zero: to the end, wherever that will be.
        l_len: if end == i64::MAX { 0 } else { end - start + 1 },
        l_pid: 0,
    })
}

fn ofd(descriptor: &OwnedFd, command: libc::c_int, range: &mut libc::flock) -> Result<(), Errno> {
    // SAFETY: the descriptor is open, and the kernel reads and writes one `struct flock`, which `range` is.
    let result = unsafe { libc::fcntl(descriptor.as_raw_fd(), command, std::ptr::from_mut(range)) };
    if result == -1 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}
