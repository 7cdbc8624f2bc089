//! Pages of which the command has written a part. The kernel does not keep such a page as content and asks for it when it is
//! read: every object file of a build would cost round trips to be read back, behind the writes that made it. So what is
//! known of it is kept here. Pure.

use std::collections::HashMap;

use bytes::Bytes;

/// Pages of the page cache, in bytes.
const PAGE: u64 = 4096;
/// Pages kept of one file; above that nothing is.
const PAGES_MAX: usize = 512;

/// The partly written pages of one file whose content is wholly known, because they lay beyond its end before.
#[derive(Debug, Default)]
pub(super) struct Partial {
    pages: HashMap<u64, Box<[u8; PAGE as usize]>>,
}

impl Partial {
    /// The command writes this to a file of `size` bytes.
    pub(super) fn wrote(&mut self, offset: u64, data: &[u8], size: u64) {
        let end = offset + data.len() as u64;
        for index in offset / PAGE..end.div_ceil(PAGE) {
            let start = index * PAGE;
            if offset <= start && start + PAGE <= end {
                // The kernel keeps it.
                self.pages.remove(&index);
                continue;
            }
            if start >= size && self.pages.len() < PAGES_MAX {
                self.pages.entry(index).or_insert_with(|| Box::new([0; PAGE as usize]));
            }
            let Some(page) = self.pages.get_mut(&index) else { continue };
            let (from, to) = (offset.max(start), end.min(start + PAGE));
            page[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
        }
    }

    /// These bytes of a file of `size` bytes, if all of them are known here.
    pub(super) fn read(&self, offset: u64, len: u64, size: u64) -> Option<Bytes> {
        let end = (offset + len).min(size);
        if self.pages.is_empty() || offset >= end {
            return None;
        }
        let mut out = Vec::with_capacity((end - offset) as usize);
        for index in offset / PAGE..end.div_ceil(PAGE) {
            let page = self.pages.get(&index)?;
            let (from, to) = (offset.max(index * PAGE), end.min((index + 1) * PAGE));
            out.extend_from_slice(&page[(from - index * PAGE) as usize..(to - index * PAGE) as usize]);
        }
        Some(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_in_pieces_is_known() {
        let mut partial = Partial::default();
        let text: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        let mut size = 0;
        for piece in [0..3000, 3000..5000, 5000..10_000] {
            partial.wrote(piece.start as u64, &text[piece.clone()], size);
            size = piece.end as u64;
        }
        // The header is written last.
        partial.wrote(0, b"head", size);
        assert_eq!(&partial.read(0, 4096, size).unwrap()[..6], b"head\x04\x05");
        assert_eq!(partial.read(8192, 4096, size).unwrap()[..], text[8192..]);
        assert_eq!(partial.read(4096, 4096, size).unwrap()[..], text[4096..8192]);
    }

    #[test]
    fn holes_are_zero_and_old_content_is_not_guessed() {
        let mut partial = Partial::default();
        partial.wrote(10_000, b"x", 5000);
        assert_eq!(partial.read(8192, 4096, 10_001).unwrap().len(), 1809);
        assert!(partial.read(8192, 1808, 10_001).unwrap().iter().all(|&byte| byte == 0));
        // The page at the old end had content that is not known.
        partial.wrote(6000, b"y", 10_001);
        assert!(partial.read(4096, 4096, 10_001).is_none());
    }

    #[test]
    fn a_page_written_whole_is_the_kernels() {
        let mut partial = Partial::default();
        partial.wrote(0, &[1; 100], 0);
        partial.wrote(0, &[2; 4096], 100);
        assert!(partial.read(0, 100, 4096).is_none());
    }
}
