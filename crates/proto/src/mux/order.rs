//! Frames that came before their turn, on a link of several pipes. Bounded: a peer that is one of ours keeps what it sends
//! before it is told of a gap below [`KEPT_MAX`](super::kept::KEPT_MAX), and any other is not believed.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::kept;
use crate::frame::{HEADER, Header};

/// Pieces up to this size are copied, so that they do not keep a read buffer alive that is many times larger.
const COPY: usize = 16 << 10;
/// Bytes and frames that wait, with what a sender may be beyond its own bound.
const BYTES_MAX: u64 = kept::KEPT_MAX + (1 << 20);
const FRAMES_MAX: usize = kept::FRAMES_MAX + (16 << 10);

/// Frames behind a gap, by position.
#[derive(Debug, Default)]
pub(super) struct Order {
    frames: BTreeMap<u64, (Header, Vec<Bytes>)>,
    bytes: u64,
}

impl Order {
    /// A frame that is not next. False if it is there already.
    pub(super) fn put(&mut self, header: Header, pieces: Vec<Bytes>) -> bool {
        if self.frames.contains_key(&header.seq) {
            return false;
        }
        self.bytes += length(&header);
        self.frames.insert(header.seq, (header, pieces));
        true
    }

    /// The frame at `position`, if it is there.
    pub(super) fn take(&mut self, position: u64) -> Option<(Header, Vec<Bytes>)> {
        if self.frames.is_empty() {
            return None;
        }
        let (header, pieces) = self.frames.remove(&position)?;
        self.bytes -= length(&header);
        Some((header, pieces))
    }

    /// A frame that begins before `position` cannot be next any more.
    pub(super) fn overlaps(&self, position: u64) -> Option<u64> {
        self.frames.keys().next().copied().filter(|&first| first < position)
    }

    pub(super) fn is_overfull(&self) -> bool {
        self.bytes > BYTES_MAX || self.frames.len() > FRAMES_MAX
    }
}

/// Numbered bytes of a frame.
pub(super) fn length(header: &Header) -> u64 {
    HEADER as u64 + u64::from(header.len)
}

/// A piece that may have to wait for long.
pub(super) fn waiting(piece: Bytes) -> Bytes {
    if piece.len() <= COPY { Bytes::copy_from_slice(&piece) } else { piece }
}
