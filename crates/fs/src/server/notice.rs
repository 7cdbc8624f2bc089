//! Notices on their way to the mount. Queueing never waits: a watcher or a change must not depend on how fast the mount
//! reads. If too many pile up they are replaced by the one that says "forget everything".

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use remotely_proto::fs::{Notice, ToMount};
use tokio::sync::Notify;

use super::service::Hold;

/// Names in waiting notices.
const WAITING_MAX: usize = 64 << 10;

/// The queue, and the number of the last notice in it.
#[derive(Debug, Default)]
pub(super) struct NoticeQueue {
    last: AtomicU64,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    notices: VecDeque<ToMount>,
    weight: usize,
}

impl NoticeQueue {
    /// Number of the last notice: to be read before the system calls of a reply, and sent with it as `seen`.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Ordering::SeqCst)
    }

    /// Numbers a notice and queues it.
    pub(super) fn push(&self, notice: Notice) {
        let mut waiting = self.waiting.hold();
        let number = self.last.fetch_add(1, Ordering::SeqCst) + 1;
        waiting.weight += weight(&notice);
        if waiting.weight > WAITING_MAX {
            waiting.notices.clear();
            waiting.weight = 1;
            waiting.notices.push_back(ToMount::Notice { number, notice: Notice::Overflow });
        } else {
            waiting.notices.push_back(ToMount::Notice { number, notice });
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// The next notice. Cancel safe.
    pub(super) async fn next(&self) -> ToMount {
        loop {
            let arrived = self.arrived.notified();
            if let Some(notice) = self.take() {
                return notice;
            }
            arrived.await;
        }
    }

    /// The next notice, if there is one.
    pub(super) fn take(&self) -> Option<ToMount> {
        let mut waiting = self.waiting.hold();
        let message = waiting.notices.pop_front()?;
        if let ToMount::Notice { notice, .. } = &message {
            waiting.weight = waiting.weight.saturating_sub(weight(notice));
        }
        Some(message)
    }
}

fn weight(notice: &Notice) -> usize {
    match notice {
        Notice::Changed { names, .. } => names.len().max(1),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use remotely_proto::fs::Node;

    use super::*;

    #[test]
    fn too_many_become_one_that_says_so() {
        let queue = NoticeQueue::default();
        for _ in 0..=WAITING_MAX {
            queue.push(Notice::Stale { dir: Node::ROOT });
        }
        let number = queue.last();
        assert_eq!(queue.take(), Some(ToMount::Notice { number, notice: Notice::Overflow }));
        assert_eq!(queue.take(), None);
    }
}
