//! Frames that were sent and not acknowledged, kept while a link has several pipes: those of a pipe that is lost are sent again.
//! Payloads are shared with what is being written.

use std::collections::VecDeque;

use bytes::Bytes;

use super::order::length;
use crate::frame::Header;

/// Bytes that may be sent beyond what was acknowledged without a gap.
pub(super) const KEPT_MAX: u64 = 32 << 20;
/// Frames of these.
pub(super) const FRAMES_MAX: usize = 64 << 10;

/// One frame, in case it has to be sent again.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) header: Header,
    pub(super) payload: Vec<Bytes>,
    /// The pipe it was put on, `None` while it waits to be sent again; and what had been put on that with it.
    pub(super) pipe: Option<u32>,
    pub(super) pipe_sent: u64,
}

/// All of them, by position.
#[derive(Debug, Default)]
pub(super) struct Kept {
    frames: VecDeque<Frame>,
    /// Positions of those that are to be sent again.
    again: VecDeque<u64>,
    /// What was sent before that is not kept.
    pub(super) from: u64,
}

impl Kept {
    pub(super) fn push(&mut self, frame: Frame) {
        self.frames.push_back(frame);
    }

    /// All before `position` has arrived.
    pub(super) fn confirm(&mut self, position: u64) {
        while self.frames.front().is_some_and(|frame| frame.header.seq + length(&frame.header) <= position) {
            self.frames.pop_front();
        }
        while self.again.front().is_some_and(|&seq| seq < position) {
            self.again.pop_front();
        }
    }

    /// A pipe is gone, of whose bytes so many have arrived: the rest is to be sent again.
    pub(super) fn lose(&mut self, pipe: u32, arrived: u64) {
        for frame in self.frames.iter_mut().filter(|frame| frame.pipe == Some(pipe) && frame.pipe_sent > arrived) {
            frame.pipe = None;
            self.again.push_back(frame.header.seq);
        }
        self.again.make_contiguous().sort_unstable();
    }

    pub(super) fn has_again(&self) -> bool {
        !self.again.is_empty()
    }

    /// The next frame that is to be sent again.
    pub(super) fn again(&mut self) -> Option<&mut Frame> {
        let seq = self.again.pop_front()?;
        let at = self.frames.binary_search_by_key(&seq, |frame| frame.header.seq).ok()?;
        self.frames.get_mut(at)
    }

    pub(super) fn is_full(&self) -> bool {
        self.frames.len() >= FRAMES_MAX
    }
}
