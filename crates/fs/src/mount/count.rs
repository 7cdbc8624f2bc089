//! Counts of what the kernel asks, for `--stats`. Counted by `fs` on its way in, without a lock: each request passes here.

use std::sync::atomic::{AtomicU64, Ordering};

use remotely_proto::fs::{Asked, Counts};

use super::fuse::{Op, Request};

/// Above all opcodes of linux/fuse.h; what is not below it is counted as kind 0, which is none.
const KINDS: usize = 64;

/// The counts so far.
#[derive(Debug)]
pub(super) struct Counters {
    asked: [AtomicU64; KINDS],
    waited: [AtomicU64; KINDS],
    pub(super) bytes_read: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) questions: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            asked: std::array::from_fn(|_| AtomicU64::default()),
            waited: std::array::from_fn(|_| AtomicU64::default()),
            bytes_read: AtomicU64::default(),
            bytes_written: AtomicU64::default(),
            questions: AtomicU64::default(),
        }
    }
}

impl Counters {
    /// A request came. Says which kind is to be given to [`waits`](Self::waits), if it is one that wants an answer.
    pub(super) fn came(&self, request: &Request) -> Option<usize> {
        if matches!(request.op, Op::Forget { .. } | Op::Interrupt { .. } | Op::Destroy) {
            return None;
        }
        let kind = usize::try_from(request.opcode).ok().filter(|kind| *kind < KINDS).unwrap_or(0);
        self.asked[kind].fetch_add(1, Ordering::Relaxed);
        Some(kind)
    }

    /// It could not be answered at once. Those are counted rather than the others, because this is known before the kernel
    /// has the answer: a command that has ended finds all of its requests counted.
    pub(super) fn waits(&self, kind: usize) {
        self.waited[kind].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Counts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let requests = self.asked.iter().zip(&self.waited).enumerate().filter_map(|(kind, (asked, waited))| {
            // In this order: whoever waits was counted as having come before.
            let waited = load(waited);
            let count = load(asked);
            (count > 0).then(|| Asked { opcode: kind as u32, count, hits: count.saturating_sub(waited) })
        });
        Counts {
            requests: requests.collect(),
            bytes_read: load(&self.bytes_read),
            bytes_written: load(&self.bytes_written),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, op: Op) -> Request {
        Request { unique: 1, node: 1, uid: 0, gid: 0, opcode, op }
    }

    #[test]
    fn who_waits_is_no_hit_and_who_wants_no_answer_does_not_count() {
        let counters = Counters::default();
        for waits in [false, true, false] {
            let kind = counters.came(&request(17, Op::Statfs)).unwrap();
            if waits {
                counters.waits(kind);
            }
        }
        assert_eq!(counters.came(&request(2, Op::Forget { nodes: Vec::new() })), None);
        assert_eq!(counters.came(&request(36, Op::Interrupt { unique: 1 })), None);
        counters.came(&request(u32::MAX, Op::Unknown));
        let requests = counters.snapshot().requests;
        assert_eq!(requests, [Asked { opcode: 0, count: 1, hits: 1 }, Asked { opcode: 17, count: 3, hits: 2 }]);
    }
}
