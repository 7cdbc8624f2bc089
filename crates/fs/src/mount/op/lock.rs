//! Locks: taken at the client, so that its own processes see them.

use std::sync::Arc;

use bytes::Bytes;
use remotely_proto::fs::{Lane, Lock, LockKind, Node, Reply, Request as Ask};
use rustix::io::Errno;

use crate::mount::fs::{Fs, lock};
use crate::mount::fuse::{Answer, LockIn, lock_type};
use crate::mount::receive::unexpected;

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
        let lock_wanted = Lock {
            owner: wanted.owner,
            start: wanted.start,
            end: wanted.end.min(i64::MAX as u64),
            kind,
            flock: wanted.flock,
            pid: wanted.pid,
        };
        // What the lock protects must be there before others may see it free.
        self.settle(node).await?;
        let file = self.open_there(file).await?;
        if test {
            let answered = self.ask(Lane::Query, &[node], Ask::Getlk { file, lock: lock_wanted }, Bytes::new()).await?;
            let Reply::Lock { lock } = answered.reply else { return unexpected() };
            return Ok(Answer::lock(&lock));
        }
        self.with(|table| table.inode(node).map(|inode| inode.locked = true))?;
        let request = Ask::Setlk { file, lock: lock_wanted, wait };
        let taken = self
            .ask_numbered(Lane::Query, &[node], request, Bytes::new(), |number| {
                if wait {
                    lock(&self.waiting_locks).insert(unique, number);
                }
            })
            .await;
        lock(&self.waiting_locks).remove(&unique);
        taken.map(|_| Answer::done())
    }

    /// A signal came to who waits. Only waiting for a lock can be given up; the rest ends by itself.
    pub(super) async fn interrupt(self: &Arc<Self>, unique: u64) {
        let waiting = lock(&self.waiting_locks).get(&unique).copied();
        if let Some(id) = waiting {
            let _ = self.note(Lane::Query, &[], Ask::Cancel { id }).await;
        }
    }
}
