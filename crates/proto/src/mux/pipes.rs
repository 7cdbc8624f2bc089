//! The pipes of a link as the mux sees them: what is on its way on each, and which of them is to take the next frame. Counts
//! only; the bytes are the driver's.

use bytes::Bytes;

use crate::frame::{FrameDecoder, PIPES_MAX};

/// What one pipe is expected to have on its way at most: what ssh lets through in a session before it is answered.
pub(super) const PIPE_WINDOW: u64 = 2 << 20;
/// No more is put on one of several pipes: what waits in front of a full window only keeps what is behind it in order.
const LOAD_MAX: u64 = PIPE_WINDOW + (512 << 10);

/// One pipe.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) number: u32,
    pub(super) decoder: FrameDecoder,
    /// Numbered bytes handed out for it, and of these what the peer says that it has.
    pub(super) sent: u64,
    pub(super) arrived: u64,
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

impl Way {
    pub(super) fn new(number: u32) -> Self {
        Self {
            number,
            decoder: FrameDecoder::default(),
            sent: 0,
            arrived: 0,
            received: 0,
            coming: Coming::Again,
            open: true,
            greet: false,
            blocked: false,
            announced: false,
            paused: true,
        }
    }

    /// Bytes that are on their way.
    pub(super) fn load(&self) -> u64 {
        self.sent - self.arrived
    }
}

/// All pipes that there are, in the order in which they came.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) ways: Vec<Way>,
    /// There has been more than one: frames may come in any order, and more than once.
    pub(super) striped: bool,
    /// All numbers below were given to a pipe.
    pub(super) next: u32,
    /// That more would help was told since their number changed.
    pub(super) told: bool,
}

impl Ways {
    pub(super) fn new() -> Self {
        Self { ways: vec![Way::new(0)], striped: false, next: 1, told: false }
    }

    pub(super) fn index(&self, number: u32) -> Option<usize> {
        self.ways.iter().position(|way| way.number == number)
    }

    pub(super) fn is_full(&self) -> bool {
        self.ways.len() >= PIPES_MAX
    }

    /// Whether data may be put on this pipe; of one that is alone the pacing decides.
    pub(super) fn takes_data(&self, index: usize) -> bool {
        self.ways.get(index).is_some_and(|way| way.open && (self.ways.len() == 1 || way.load() < LOAD_MAX))
    }

    /// Of the pipes that can be written, the one with the least on its way that `fits`.
    pub(super) fn least(&self, fits: impl Fn(usize) -> bool) -> Option<u32> {
        let free = self.ways.iter().enumerate().filter(|(index, way)| way.open && !way.blocked && fits(*index));
        free.min_by_key(|(_, way)| way.load()).map(|(_, way)| way.number)
    }
}
