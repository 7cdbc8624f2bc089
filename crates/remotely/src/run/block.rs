//! Cuts the stream of an output descriptor into pieces with the header of their block. Used by `streams`. Does no I/O.

use bytes::{Buf, Bytes};
use remotely_proto::exec::OutputHeader;

/// The state between two chunks of the stream: a header in part, or what is left of a block.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    header: [u8; OutputHeader::SIZE],
    have: usize,
    place: Place,
    left: usize,
}

/// What comes before a piece: changes to files, and bytes of the terminal. See [`OutputHeader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) tag: u64,
    pub(super) screen: u64,
}

impl Blocks {
    /// The next piece of `chunk`, which is used up when there is none. A piece is never empty, and shares the chunk's
    /// memory: the length that a block claims allocates nothing.
    pub(super) fn next(&mut self, chunk: &mut Bytes) -> Option<(Place, Bytes)> {
        while !chunk.is_empty() {
            if self.left > 0 {
                let piece = chunk.split_to(self.left.min(chunk.len()));
                self.left -= piece.len();
                return Some((self.place, piece));
            }
            let take = (OutputHeader::SIZE - self.have).min(chunk.len());
            chunk.copy_to_slice(&mut self.header[self.have..self.have + take]);
            self.have += take;
            if self.have == OutputHeader::SIZE {
                self.have = 0;
                let header = OutputHeader::decode(self.header);
                self.place = Place { tag: header.tag, screen: header.screen };
                self.left = header.len as usize;
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
            all.extend(OutputHeader { tag, screen: !tag, len: data.len() as u32 }.encode());
            all.extend(data);
        }
        all
    }

    #[test]
    fn however_it_is_cut_the_bytes_keep_their_place() {
        let whole = stream();
        for size in 1..=whole.len() {
            let mut blocks = Blocks::default();
            let mut got: Vec<(u64, Vec<u8>)> = Vec::new();
            for chunk in whole.chunks(size) {
                let mut chunk = Bytes::copy_from_slice(chunk);
                while let Some((Place { tag, screen }, piece)) = blocks.next(&mut chunk) {
                    assert!(!piece.is_empty());
                    assert_eq!(screen, !tag);
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
