//! Messages on their way to the mount: one bounded queue per lane, and one behind it for pushes, which must not delay
//! answers. Filled by the server's threads, emptied by the writers in `lanes`.

use bytes::Bytes;
use remotely_proto::{
    fs::{INLINE_DATA, Lane, Notice, Reply, ToMount},
    message,
};
use rustix::io::Errno;
use tokio::sync::mpsc;

/// Answers waiting on one lane.
const ANSWERS: usize = 64;
/// Answers of up to [`remotely_proto::fs::DATA_MAX`] bytes waiting on the bulk lane.
const BULK_ANSWERS: usize = 8;
/// Pushes waiting on one lane.
pub(super) const PUSHES: usize = 4;

/// Encoded messages that belong together: head and payload of each.
pub(super) type Batch = Vec<(Bytes, Bytes)>;

/// The sending ends.
pub(super) struct Out {
    query: mpsc::Sender<Batch>,
    change: mpsc::Sender<Batch>,
    bulk: mpsc::Sender<Batch>,
    push_query: mpsc::Sender<Batch>,
    push_bulk: mpsc::Sender<Batch>,
}

/// The receiving ends of one lane.
pub(super) struct Queue {
    pub(super) answers: mpsc::Receiver<Batch>,
    pub(super) pushes: mpsc::Receiver<Batch>,
}

/// The receiving ends.
pub(super) struct Queues {
    pub(super) query: Queue,
    pub(super) change: Queue,
    pub(super) bulk: Queue,
}

impl Out {
    pub(super) fn new() -> (Self, Queues) {
        let (query, query_answers) = mpsc::channel(ANSWERS);
        let (change, change_answers) = mpsc::channel(ANSWERS);
        let (bulk, bulk_answers) = mpsc::channel(BULK_ANSWERS);
        let (push_query, query_pushes) = mpsc::channel(PUSHES);
        let (push_bulk, bulk_pushes) = mpsc::channel(PUSHES);
        // Changes are never pushed; a closed queue says so.
        let (_, change_pushes) = mpsc::channel(1);
        let queues = Queues {
            query: Queue { answers: query_answers, pushes: query_pushes },
            change: Queue { answers: change_answers, pushes: change_pushes },
            bulk: Queue { answers: bulk_answers, pushes: bulk_pushes },
        };
        (Self { query, change, bulk, push_query, push_bulk }, queues)
    }

    /// Answers a request; not if none is wanted. Waits for room; does nothing once the lane has ended. Not for use in
    /// asynchronous code.
    pub(super) fn reply(&self, lane: Lane, id: u64, seen: u64, reply: Result<(Reply, Bytes), Errno>) {
        if id == 0 {
            return;
        }
        let (reply, payload) = reply.unwrap_or_else(|errno| (failed(errno), Bytes::new()));
        let lane = if payload.len() > INLINE_DATA && lane == Lane::Query { Lane::Bulk } else { lane };
        let sender = match lane {
            Lane::Query => &self.query,
            Lane::Change => &self.change,
            Lane::Bulk => &self.bulk,
        };
        let message = message::encode(&ToMount::Reply { id, seen, reply }, payload);
        // An error means that the lane has ended: nobody waits for the answer any more.
        let _ = sender.blocking_send(vec![message]);
    }

    /// Says something before everything else: to be called before any question can come.
    pub(super) fn first(&self, notice: Notice) {
        let message = message::encode(&ToMount::Notice { number: 0, notice }, Bytes::new());
        // There is room, as nothing else has been said.
        let _ = self.query.try_send(vec![message]);
    }

    /// Pushes messages that follow one another. Waits for room; false once the lane has ended. Not for use in
    /// asynchronous code.
    pub(super) fn push(&self, lane: Lane, batch: Batch) -> bool {
        let sender = if lane == Lane::Bulk { &self.push_bulk } else { &self.push_query };
        sender.blocking_send(batch).is_ok()
    }
}

fn failed(errno: Errno) -> Reply {
    Reply::Failed { errno: errno.raw_os_error().unsigned_abs() }
}
