//! The pipes of a link as the mux sees them: what is on its way on each, and which of them is to take the next frame. Counts
//! only; the bytes are the driver's.

use std::time::Duration;

use bytes::Bytes;

use crate::frame::{FrameDecoder, PIPES_MAX};

/// What one pipe is expected to have on its way at most: what ssh lets through in a session before it is answered.
pub(super) const PIPE_WINDOW: u64 = 2 << 20;
/// No more is put on one of several pipes: what waits in front of a full window only keeps what is behind it in order.
const LOAD_MAX: u64 = PIPE_WINDOW + (512 << 10);

/// One pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) number: u32,
    pub(super) decoder: FrameDecoder,
    /// Numbered bytes handed out for it, and of these what the peer says that it has.
    pub(super) sent: u64,
    pub(super) arrived: u64,
    /// Since when the peer has said nothing new of what is on its way, if there are several pipes.
    pub(super) waits_since: Duration,
    /// Numbered bytes of whole frames that came on it.
    pub(super) received: u64,
    /// The frame that is coming.
    pub(super) coming: Coming,
    /// The peer reads it, as far as is known.
    pub(super) open: bool,
    /// The peer is to learn that this side reads it.
    pub(super) greet: bool,
    /// The driver has bytes for it that it does not take.
    pub(super) blocked: bool,
    /// That nothing will come was said on it: by this side, by the peer.
    pub(super) announced: bool,
    pub(super) paused: bool,
}

/// What is done with the numbered frame that is coming on a pipe.
#[derive(Debug)]
pub(super) enum Coming {
    /// It is the next one: handed on as it comes, so many bytes of it have.
    Now(usize),
    /// Another one comes before it.
    Later(Vec<Bytes>),
    /// It came before.
    Again,
}

impl Pipe {
    pub(super) fn new(number: u32) -> Self {
        Self {
            number,
            decoder: FrameDecoder::default(),
            sent: 0,
            arrived: 0,
            waits_since: Duration::ZERO,
            received: 0,
            coming: Coming::Again,
            open: true,
            greet: false,
            blocked: false,
            announced: false,
            paused: true,
        }
    }

    /// So many bytes more are put on it.
    pub(super) fn put(&mut self, now: Duration, bytes: u64) {
        if self.load() == 0 {
            self.waits_since = now;
        }
        self.sent += bytes;
    }

    /// The peer has so many bytes of it. False if it cannot.
    pub(super) fn confirm(&mut self, now: Duration, bytes: u64) -> bool {
        if bytes > self.sent {
            return false;
        }
        if bytes > self.arrived {
            (self.arrived, self.waits_since) = (bytes, now);
        }
        true
    }

    /// Bytes that are on their way.
    pub(super) fn load(&self) -> u64 {
        self.sent - self.arrived
    }
}

/// All pipes that there are, in the order in which they came.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) all: Vec<Pipe>,
    /// There has been more than one: frames may come in any order, and more than once.
    pub(super) striped: bool,
    /// All numbers below were given to a pipe.
    pub(super) next: u32,
    /// That more would help was told since their number changed.
    pub(super) told: bool,
}

impl Pipes {
    pub(super) fn new() -> Self {
        Self { all: vec![Pipe::new(0)], striped: false, next: 1, told: false }
    }

    pub(super) fn index(&self, number: u32) -> Option<usize> {
        self.all.iter().position(|one| one.number == number)
    }

    /// Whether one of several has carried nothing for so long, though the others may: what is behind its gap waits forever.
    pub(super) fn is_stuck(&self, now: Duration, limit: Duration) -> bool {
        self.all.len() > 1 && self.all.iter().any(|one| one.load() > 0 && now >= one.waits_since + limit)
    }

    /// What is on its way is waited for from now on.
    pub(super) fn wait_anew(&mut self, now: Duration) {
        self.all.iter_mut().for_each(|one| one.waits_since = now);
    }

    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= PIPES_MAX
    }

    /// Whether data may be put on this pipe; of one that is alone the pacing decides.
    pub(super) fn takes_data(&self, index: usize) -> bool {
        self.all.get(index).is_some_and(|one| one.open && (self.all.len() == 1 || one.load() < LOAD_MAX))
    }

    /// Of the pipes that can be written, the one with the least on its way that `fits`.
    pub(super) fn least(&self, fits: impl Fn(usize) -> bool) -> Option<u32> {
        let free = self.all.iter().enumerate().filter(|(index, one)| one.open && !one.blocked && fits(*index));
        free.min_by_key(|(_, one)| one.load()).map(|(_, one)| one.number)
    }
}
