//! The state of one stream, both directions. Changed by the mux alone, from the application's side and from the wire's.

use std::time::Duration;

use bytes::Bytes;

use super::{QUEUE_MAX, credit::Credit, queue::ByteQueue};
use crate::open::{Class, Service};

/// Chunks to send up to this size are copied together.
const SEND_COPY: usize = 1 << 10;
/// Received chunks up to this size are copied, so that they do not keep a read buffer alive that is many times larger.
const RECV_COPY: usize = 16 << 10;

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) class: Class,
    /// Opened by this side.
    pub(super) ours: bool,
    /// The open frame, until it is sent.
    pub(super) open: Option<(Service, Bytes)>,
    pub(super) send: SendHalf,
    pub(super) recv: RecvHalf,
    /// It is in the schedule.
    pub(super) scheduled: bool,
    /// It is in the list of those with control frames to send.
    pub(super) due: bool,
}

impl Stream {
    /// With `window` bytes of credit in each direction.
    pub(super) fn new(now: Duration, class: Class, window: u64, open: Option<(Service, Bytes)>) -> Self {
        Self {
            class,
            ours: open.is_some(),
            open,
            send: SendHalf {
                state: SendState::Open,
                queue: ByteQueue::new(SEND_COPY),
                granted: window,
                offered: 0,
                waiting: false,
                held: true,
            },
            recv: RecvHalf {
                state: RecvState::Open,
                queue: ByteQueue::new(RECV_COPY),
                credit: Credit::new(now, window),
                grant_due: false,
                held: true,
            },
            scheduled: false,
            due: false,
        }
    }

    /// Nobody here holds it any more and nothing of it will be sent.
    pub(super) fn over(&self) -> bool {
        let sent = matches!(self.send.state, SendState::Finished | SendState::Reset(_) | SendState::Stopped(_));
        let received = matches!(self.recv.state, RecvState::Eof | RecvState::Reset(_) | RecvState::Stopped(_));
        !self.send.held && !self.recv.held && sent && received && !self.due
    }
}

/// What this side sends.
#[derive(Debug)]
pub(super) struct SendHalf {
    pub(super) state: SendState,
    pub(super) queue: ByteQueue,
    /// Bytes that the peer takes in all.
    pub(super) granted: u64,
    /// Bytes taken from the application in all; never more than granted.
    pub(super) offered: u64,
    /// The application has more and waits.
    pub(super) waiting: bool,
    /// The application has not let go of it.
    pub(super) held: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendState {
    Open,
    /// An eof follows the queue.
    Finishing,
    /// The eof is sent.
    Finished,
    /// A reset is due.
    Resetting(u32),
    /// The reset is sent.
    Reset(u32),
    /// The peer reads no more.
    Stopped(u32),
}

impl SendHalf {
    /// Bytes that can be taken from the application now, with `queue_max` at most in the queue.
    pub(super) fn room(&self, queue_max: usize) -> usize {
        let credit = self.granted - self.offered;
        queue_max.saturating_sub(self.queue.len()).min(usize::try_from(credit).unwrap_or(usize::MAX))
    }

    /// The waiting application should be called: there is credit, and the queue is half empty.
    pub(super) fn wake(&mut self) -> bool {
        let wake = self.waiting && self.granted > self.offered && self.queue.len() <= QUEUE_MAX / 2;
        self.waiting &= !wake;
        wake
    }

    /// Something can be sent in its turn.
    pub(super) fn ready(&self) -> bool {
        match self.state {
            SendState::Open => !self.queue.is_empty(),
            SendState::Finishing => true,
            _ => false,
        }
    }

    /// Ends this half in another way than by eof. False if it is over already.
    pub(super) fn abandon(&mut self, state: SendState) -> bool {
        let open = matches!(self.state, SendState::Open | SendState::Finishing);
        if open {
            self.state = state;
            self.queue.clear();
            self.waiting = false;
        }
        open
    }
}

/// What the peer sends.
#[derive(Debug)]
pub(super) struct RecvHalf {
    pub(super) state: RecvState,
    pub(super) queue: ByteQueue,
    pub(super) credit: Credit,
    /// A credit frame is due.
    pub(super) grant_due: bool,
    /// The application has not let go of it.
    pub(super) held: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecvState {
    Open,
    /// Nothing follows what is in the queue.
    Eof,
    /// The peer has reset it.
    Reset(u32),
    /// A stop is due.
    Stopping(u32),
    /// The stop is sent.
    Stopped(u32),
}

impl RecvHalf {
    /// Ends this half in another way than by eof. False if it is over already.
    pub(super) fn abandon(&mut self, state: RecvState) -> bool {
        let open = self.state == RecvState::Open;
        if open {
            self.state = state;
            self.queue.clear();
            self.grant_due = false;
        }
        open
    }
}
