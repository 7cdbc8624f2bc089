//! Locks: taken at the client, so that its own processes see them. Who is granted one sees what the last holder wrote.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use remotely_proto::fs::{Lane, Lock, LockKind, Node, Reply, Request as Ask};
use rustix::io::Errno;
use tokio::sync::Notify;

use crate::mount::fs::{Answered, Fs};
use crate::mount::fuse::{Answer, LockIn, lock_type};
use crate::mount::invalidate::Invalid;
use crate::mount::receive::unexpected;

/// How often a request that was interrupted is withdrawn, until it is answered.
const WITHDRAW: Duration = Duration::from_millis(100);

impl Fs {
    pub(super) async fn lock(
        self: &Arc<Self>,
        node: Node,
        unique: u64,
        file: u64,
        wanted: LockIn,
        test: bool,
        wait: bool,
    ) -> Result<Answer, Errno> {
        let kind = match wanted.kind {
            lock_type::READ => LockKind::Read,
            lock_type::WRITE => LockKind::Write,
            lock_type::UNLOCK => LockKind::Unlock,
            _ => return Err(Errno::INVAL),
        };
        let lock = Lock {
            owner: wanted.owner,
            start: wanted.start,
            end: wanted.end.min(i64::MAX as u64),
            kind,
            flock: wanted.flock,
            pid: wanted.pid,
        };
        if test {
            self.settle(node).await?;
            let file = self.open_there(file).await?;
            let answered = self.ask(Lane::Query, &[node], Ask::Getlk { file, lock }, Bytes::new()).await?;
            let Reply::Lock { lock } = answered.reply else { return unexpected() };
            return Ok(Answer::lock(&lock));
        }
        if !wait {
            self.set_lock(node, file, lock, None).await?;
            return Ok(Answer::done());
        }
        let interrupted = self.interrupts.begin(unique);
        let result = self.set_lock(node, file, lock, Some(&interrupted)).await;
        self.interrupts.end(unique);
        result.map(|()| Answer::done())
    }

    /// A signal came to who waits. Only waiting for a lock can be given up; the rest ends by itself.
    pub(super) fn interrupt(&self, unique: u64) {
        if let Some(again) = self.interrupts.interrupt(unique) {
            self.device.refuse_interrupt(again);
        }
    }

    /// Takes or frees a lock; waits for it if it can be interrupted.
    async fn set_lock(
        self: &Arc<Self>,
        node: Node,
        file: u64,
        lock: Lock,
        interrupted: Option<&Notify>,
    ) -> Result<(), Errno> {
        loop {
            let freed = tokio::select! {
                biased;
                freed = self.settle_locks(node) => freed?,
                () = event(interrupted) => return Err(Errno::INTR),
            };
            let file = {
                let there = self.open_there(file).await?;
                if lock.kind != LockKind::Unlock && !lock.flock {
                    self.with(|table| table.inode(node).map(|inode| inode.owners.add(lock.owner, file)))?;
                }
                there
            };
            let request = Ask::Setlk { file, lock, wait: interrupted.is_some() };
            match self.ask_interrupted(node, request, interrupted).await {
                Ok(_) if lock.kind == LockKind::Unlock => return Ok(()),
                Ok(_) => return self.freshen(node).await,
                // Whoever held it has closed the file meanwhile, and knew nothing of any delay.
                Err(Errno::AGAIN) if self.with(|table| Ok(table.inode(node)?.owners.settled()))? != Some(freed) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// What the lock protects must be there before others may see it free, and what closed files held must be free. Returns
    /// how often such a freeing has begun.
    async fn settle_locks(self: &Arc<Self>, node: Node) -> Result<u64, Errno> {
        loop {
            self.settle(node).await?;
            let (freed, event) = self.with(|table| {
                let event = table.event(node)?.notified_owned();
                Ok((table.inode(node)?.owners.settled(), event))
            })?;
            match freed {
                Some(freed) => return Ok(freed),
                None => event.await,
            }
        }
    }

    async fn ask_interrupted(&self, node: Node, request: Ask, interrupted: Option<&Notify>) -> Result<Answered, Errno> {
        let (id, nodes) = (AtomicU64::new(0), [node]);
        let number = |number| id.store(number, Ordering::Relaxed);
        let mut asked = pin!(self.ask_numbered(Lane::Query, &nodes, request, Bytes::new(), number));
        tokio::select! {
            biased;
            answered = &mut asked => return answered,
            () = event(interrupted) => {}
        }
        loop {
            // More than once: one that overtakes the request finds nothing to withdraw.
            let id = id.load(Ordering::Relaxed);
            self.note(Lane::Query, &[], Ask::Cancel { id }).await?;
            if let Ok(answered) = tokio::time::timeout(WITHDRAW, &mut asked).await {
                return answered;
            }
        }
    }

    /// A lock was granted. News of what its last holder did is under way or, written through a mapping, never comes: as with
    /// NFS, all that is known is forgotten, by the kernel too, before the lock is answered.
    async fn freshen(self: &Arc<Self>, node: Node) -> Result<(), Errno> {
        // Attributes that the answer of an earlier write brings are of before.
        self.settle(node).await?;
        self.with(|table| {
            table.granted(node);
            // Those who were waiting for what is thrown away ask again.
            table.wake(node);
        });
        let device = self.device.clone();
        // The kernel waits for reads under way, which are answered by other threads.
        tokio::task::spawn_blocking(move || Invalid::Inode(node).tell(&device)).await.map_err(|_| Errno::IO)
    }

    /// A process closes a descriptor: its record locks on the file go, whichever descriptor they were taken through.
    pub(super) async fn unlock_owner(self: &Arc<Self>, node: Node, file: u64, owner: u64) -> Result<(), Errno> {
        // Forgotten first: a lock that another thread takes meanwhile is one to free later.
        if self.with(|table| Ok(table.inode(node)?.owners.remove(owner)))? {
            self.settle(node).await?;
            self.unlock(node, file, owner, false).await?;
        }
        Ok(())
    }

    /// An open file ends: locks that are its own go, and that of flock(2), whose owner is given. What cannot be freed is freed
    /// by the server at the end.
    pub(super) async fn end_locks(self: &Arc<Self>, node: Node, file: u64, flock: Option<u64>) {
        let owners = self.with(|table| {
            let Ok(inode) = table.inode(node) else { return Vec::new() };
            let mut owners: Vec<_> = inode.owners.end(file).into_iter().map(|owner| (owner, false)).collect();
            owners.extend(flock.map(|owner| (owner, true)));
            if !owners.is_empty() {
                inode.owners.begin();
            }
            owners
        });
        if owners.is_empty() {
            return;
        }
        let _ = self.settle(node).await;
        for (owner, flock) in owners {
            let _ = self.unlock(node, file, owner, flock).await;
        }
        self.with(|table| {
            if let Ok(inode) = table.inode(node) {
                inode.owners.finish();
            }
            table.wake(node);
        });
    }

    /// Frees all locks of an owner on a file.
    async fn unlock(self: &Arc<Self>, node: Node, file: u64, owner: u64, flock: bool) -> Result<(), Errno> {
        let file = self.open_there(file).await?;
        let lock = Lock { owner, start: 0, end: i64::MAX as u64, kind: LockKind::Unlock, flock, pid: 0 };
        self.ask(Lane::Query, &[node], Ask::Setlk { file, lock, wait: false }, Bytes::new()).await.map(drop)
    }
}

/// Never, where nothing can be interrupted.
async fn event(interrupted: Option<&Notify>) {
    match interrupted {
        Some(event) => event.notified().await,
        None => std::future::pending().await,
    }
}
