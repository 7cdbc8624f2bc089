//! Cuts the stream of an output descriptor into pieces that carry the tag of their block. Used by `streams`. Does no I/O.

use bytes::{Buf, Bytes};
use remotely_proto::exec::OutputHeader;

/// The state between two chunks of the stream: a header in part, or what is left of a block.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    header: [u8; OutputHeader::SIZE],
    have: usize,
    tag: u64,
    left: usize,
}

impl Blocks {
    /// The next piece of `chunk`, which is used up when there is none. A piece is never empty, and shares the chunk's
    /// memory: the length that a block claims allocates nothing.
    pub(super) fn next(&mut self, chunk: &mut Bytes) -> Option<(u64, Bytes)> {
        while !chunk.is_empty() {
            if self.left > 0 {
                let piece = chunk.split_to(self.left.min(chunk.len()));
                self.left -= piece.len();
                return Some((self.tag, piece));
            }
            let take = (OutputHeader::SIZE - self.have).min(chunk.len());
            chunk.copy_to_slice(&mut self.header[self.have..self.have + take]);
            self.have += take;
            if self.have == OutputHeader::SIZE {
                self.have = 0;
                let header = OutputHeader::decode(self.header);
                (self.tag, self.left) = (header.tag, header.len as usize);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut all = Vec::new();
        for (tag, data) in [(1, &b"one"[..]), (1, b""), (7, b"seven"), (u64::MAX, b"last")] {
            all.extend(OutputHeader { tag, len: data.len() as u32 }.encode());
            all.extend(data);
        }
        all
    }

    #[test]
    fn however_it_is_cut_the_bytes_keep_their_tags() {
        let whole = stream();
        for size in 1..=whole.len() {
            let mut blocks = Blocks::default();
            let mut got: Vec<(u64, Vec<u8>)> = Vec::new();
            for chunk in whole.chunks(size) {
                let mut chunk = Bytes::copy_from_slice(chunk);
                while let Some((tag, piece)) = blocks.next(&mut chunk) {
                    assert!(!piece.is_empty());
                    match got.last_mut() {
                        Some((last, data)) if *last == tag => data.extend(&piece),
                        _ => got.push((tag, piece.to_vec())),
                    }
                }
            }
            assert_eq!(got, [(1, b"one".to_vec()), (7, b"seven".to_vec()), (u64::MAX, b"last".to_vec())]);
        }
    }
}
