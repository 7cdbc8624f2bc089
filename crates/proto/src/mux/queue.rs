//! Bytes in order, waiting to be sent or to be taken. Used by both halves of a stream; the bound is theirs to keep.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// When so many copied bytes are together, the next ones start anew, so that a slice of them keeps little alive.
const TAIL_MAX: usize = 32 << 10;

/// A queue of chunks. Large ones are shared; small ones are copied together, so that neither a million chunks of a byte
/// nor a byte that keeps a large buffer alive costs more memory than the bytes are worth.
#[derive(Debug)]
pub(super) struct ByteQueue {
    copy_up_to: usize,
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    len: usize,
}

impl ByteQueue {
    /// Chunks of up to `copy_up_to` bytes are copied.
    pub(super) fn new(copy_up_to: usize) -> Self {
        Self { copy_up_to, chunks: VecDeque::new(), tail: BytesMut::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.copy_up_to);
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        self.len += chunk.len();
        if chunk.len() <= self.copy_up_to {
            self.tail.extend_from_slice(&chunk);
            if self.tail.len() >= TAIL_MAX {
                self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
            }
        } else {
            if !self.tail.is_empty() {
                self.chunks.push_back(self.tail.split().freeze());
            }
            self.chunks.push_back(chunk);
        }
    }

    /// The next bytes, at most `max` of them, as they lie together; `None` if there are none.
    pub(super) fn pop(&mut self, max: usize) -> Option<Bytes> {
        let Some(front) = self.chunks.front_mut() else {
            if self.tail.is_empty() {
                return None;
            }
            let chunk = self.tail.split_to(max.min(self.tail.len())).freeze();
            self.len -= chunk.len();
            return Some(chunk);
        };
        let chunk = if front.len() > max { front.split_to(max) } else { self.chunks.pop_front()? };
        self.len -= chunk.len();
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_across_copied_and_shared_chunks() {
        let mut queue = ByteQueue::new(4);
        for chunk in [&b"ab"[..], b"cd", b"efghij", b"k", b"lmnopqrst", b"u"] {
            queue.push(Bytes::copy_from_slice(chunk));
        }
        assert_eq!(queue.len(), 21);
        let mut seen = Vec::new();
        while let Some(chunk) = queue.pop(5) {
            assert!(!chunk.is_empty() && chunk.len() <= 5);
            seen.extend_from_slice(&chunk);
        }
        assert_eq!(seen, b"abcdefghijklmnopqrstu");
        assert!(queue.is_empty());
    }

    #[test]
    fn small_chunks_lie_together() {
        let mut queue = ByteQueue::new(16);
        for _ in 0..1000 {
            queue.push(Bytes::from_static(b"x"));
        }
        assert_eq!(queue.pop(usize::MAX).unwrap().len(), 1000);
    }
}
