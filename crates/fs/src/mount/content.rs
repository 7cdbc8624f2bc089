//! Content of files on its way to the kernel: fetched ahead of what was asked, or pushed by the server, and let go once the
//! kernel has it. Decides what to fetch; does no I/O.

use std::collections::HashMap;

use bytes::Bytes;
use remotely_proto::fs::DATA_MAX;
use rustix::io::Errno;

/// Unit of keeping, in bytes: what the kernel reads ahead by itself.
pub(super) const GRANULE: u64 = 128 << 10;
/// Files up to this many bytes are fetched whole at the first read.
const WHOLE: u64 = 1 << 20;
/// How far ahead of a sequential reader is fetched at most, in granules: 16 MiB, a link of 2.5 Gbit/s at 50 ms.
const AHEAD_MAX: u64 = 128;
/// Granules of one file that the server may promise: half a gigabyte.
const PROMISED_MAX: usize = 4096;
/// How far around scattered reads that are near to each other, as page faults of a program are.
const NEAR_MAX: u64 = 8;

/// Content of one file. Thrown away as a whole when the file changes.
#[derive(Debug)]
pub(super) struct Content {
    /// Tells an answer to a question of before the change from one of after it.
    pub(super) id: u64,
    granules: HashMap<u64, Granule>,
    /// The granule after the last one read.
    next: u64,
    /// Granules to fetch ahead.
    window: u64,
    /// The server pushes what was used last time: there is no need to guess, unless something is missing.
    promised: bool,
}

#[derive(Debug)]
enum Granule {
    Asked,
    /// The server said that it will push it.
    Promised,
    /// Here, with a bit for each page that the kernel has been given: it reads around page faults, across granules.
    Ready(Bytes, u32),
    Failed(Errno),
}

/// A question to the server: granules `first..first + count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) first: u64,
    pub(super) count: u64,
}

impl Content {
    pub(super) fn new(id: u64) -> Self {
        Self { id, granules: HashMap::new(), next: 0, window: 1, promised: false }
    }

    /// The file is opened to be executed: page faults all over it will follow.
    pub(super) fn expect_faults(&mut self) {
        self.window = self.window.max(NEAR_MAX);
    }

    /// The bytes from `offset`, if all are here. Granules that were read as a whole are let go: the kernel keeps them now.
    /// The second value is the number of bytes let go.
    pub(super) fn take(&mut self, offset: u64, len: u64, size: u64) -> Result<Option<(Vec<Bytes>, usize)>, Errno> {
        let end = offset.saturating_add(len).min(size);
        if offset >= end {
            return Ok(Some((Vec::new(), 0)));
        }
        let range = offset / GRANULE..end.div_ceil(GRANULE);
        for index in range.clone() {
            match self.granules.get(&index) {
                Some(Granule::Ready(..)) => {}
                Some(&Granule::Failed(errno)) => {
                    self.granules.remove(&index);
                    return Err(errno);
                }
                _ => return Ok(None),
            }
        }
        let mut pieces = Vec::new();
        let mut freed = 0;
        for index in range {
            let Some(Granule::Ready(data, given)) = self.granules.get_mut(&index) else { break };
            let start = index * GRANULE;
            let from = (offset.saturating_sub(start) as usize).min(data.len());
            let to = ((end - start) as usize).min(data.len());
            *given |= pages(from, to, data.len());
            let (piece, used_up) = (data.slice(from..to), *given == pages(0, data.len(), data.len()));
            let ended = data.len() < GRANULE as usize;
            if used_up {
                freed += data.len();
                self.granules.remove(&index);
            }
            pieces.push(piece);
            if ended {
                break;
            }
        }
        Ok(Some((pieces, freed)))
    }

    /// What to fetch for a read of these bytes, now and ahead; marks it as asked.
    pub(super) fn plan(&mut self, offset: u64, len: u64, size: u64) -> Vec<Ask> {
        let end = offset.saturating_add(len).min(size);
        if offset >= end {
            return Vec::new();
        }
        let all = size.div_ceil(GRANULE);
        let (first, last) = (offset / GRANULE, end.div_ceil(GRANULE));
        let missing = (first..last).any(|index| !self.granules.contains_key(&index));
        let want = if size <= WHOLE {
            if !missing {
                return Vec::new();
            }
            0..all
        } else {
            if first == self.next || first + 1 == self.next {
                self.window = (self.window * 2).min(AHEAD_MAX);
            } else if first.abs_diff(self.next) <= NEAR_MAX {
                self.window = (self.window * 2).min(NEAR_MAX);
            } else if missing {
                self.window = 1;
            }
            self.next = last;
            let ahead = last + self.window - 1;
            let untouched = !self.granules.contains_key(&(last + self.window / 2)) && last + self.window / 2 < all;
            if !missing && (self.promised || self.window < NEAR_MAX || !untouched) {
                return Vec::new();
            }
            first..ahead.clamp(last, all)
        };
        let mut asks: Vec<Ask> = Vec::new();
        for index in want {
            if self.granules.contains_key(&index) {
                continue;
            }
            self.granules.insert(index, Granule::Asked);
            match asks.last_mut() {
                Some(ask) if ask.first + ask.count == index && ask.count < DATA_MAX as u64 / GRANULE => ask.count += 1,
                _ => asks.push(Ask { first: index, count: 1 }),
            }
        }
        asks
    }

    /// An answer: `data` from the start of the first granule asked for, short only at the end of the file. Returns which
    /// granules are kept now.
    pub(super) fn fill(&mut self, ask: Ask, data: &Bytes) -> Vec<(u64, usize)> {
        let mut kept = Vec::new();
        for index in ask.first..ask.first + ask.count {
            let from = (((index - ask.first) * GRANULE) as usize).min(data.len());
            let to = (from + GRANULE as usize).min(data.len());
            if matches!(self.granules.get(&index), Some(Granule::Ready(..))) {
                continue;
            }
            self.granules.insert(index, Granule::Ready(data.slice(from..to), 0));
            kept.push((index, to - from));
        }
        kept
    }

    /// An answer that is an error: whoever reads one of these granules is told once.
    pub(super) fn fail(&mut self, ask: Ask, errno: Errno) {
        for index in ask.first..ask.first + ask.count {
            self.granules.insert(index, Granule::Failed(errno));
        }
    }

    /// Lets one granule go. Returns the bytes freed.
    pub(super) fn evict(&mut self, index: u64) -> usize {
        match self.granules.get(&index) {
            Some(Granule::Ready(data, _)) => {
                let freed = data.len();
                self.granules.remove(&index);
                freed
            }
            _ => 0,
        }
    }

    /// The server will push these granules.
    pub(super) fn promise(&mut self, granules: std::ops::Range<u64>) {
        self.promised = true;
        for index in granules.take(PROMISED_MAX) {
            self.granules.entry(index).or_insert(Granule::Promised);
        }
    }

    /// An answer that is not to be kept: who waits asks again.
    pub(super) fn forget(&mut self, ask: Ask) {
        for index in ask.first..ask.first + ask.count {
            if let Some(Granule::Asked) = self.granules.get(&index) {
                self.granules.remove(&index);
            }
        }
    }

    /// What was promised of these bytes is not waited for any more.
    pub(super) fn despair(&mut self, offset: u64, len: u64) {
        for index in offset / GRANULE..offset.saturating_add(len).div_ceil(GRANULE) {
            if let Some(Granule::Promised) = self.granules.get(&index) {
                self.granules.remove(&index);
            }
        }
    }

    /// What was promised does not come.
    pub(super) fn release(&mut self) {
        self.granules.retain(|_, granule| !matches!(granule, Granule::Promised));
    }

    /// Lets everything go that is here; what is on its way comes.
    pub(super) fn clear(&mut self) {
        self.granules.retain(|_, granule| matches!(granule, Granule::Asked | Granule::Promised));
    }
}

/// A bit for each page of a granule of `len` bytes that lies in `from..to` as a whole.
fn pages(from: usize, to: usize, len: usize) -> u32 {
    const PAGE: usize = 4096;
    let first = from.div_ceil(PAGE);
    let last = if to == len { to.div_ceil(PAGE) } else { to / PAGE };
    (first..last).fold(0, |bits, page| bits | 1 << page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_is_asked_for_whole_and_once() {
        let mut content = Content::new(1);
        assert_eq!(content.plan(4096, 100, 300_000), [Ask { first: 0, count: 3 }]);
        assert_eq!(content.plan(0, 4096, 300_000), []);
        let data = Bytes::from((0..300_000u32).map(|i| i as u8).collect::<Vec<_>>());
        content.fill(Ask { first: 0, count: 3 }, &data);
        let (pieces, _) = content.take(131_000, 1000, 300_000).unwrap().unwrap();
        assert_eq!(pieces.concat(), data[131_000..132_000]);
        let (pieces, _) = content.take(299_000, 4096, 300_000).unwrap().unwrap();
        assert_eq!(pieces.concat(), data[299_000..]);
    }

    #[test]
    fn a_sequential_reader_is_kept_ahead_of() {
        let size = 1 << 30;
        let mut content = Content::new(1);
        let mut asked = 0;
        for index in 0..1000 {
            for ask in content.plan(index * GRANULE, GRANULE, size) {
                asked = asked.max(ask.first + ask.count);
                content.fill(ask, &Bytes::from(vec![0; (ask.count * GRANULE) as usize]));
            }
            assert!(asked > index);
            content.take(index * GRANULE, GRANULE, size).unwrap().unwrap();
        }
        assert!(asked >= 1000 + AHEAD_MAX / 2 - 1, "{asked}");
        assert!(content.granules.len() as u64 <= AHEAD_MAX + 1);
    }

    #[test]
    fn scattered_reads_fetch_little() {
        let mut content = Content::new(1);
        let asks: u64 = (0..100)
            .flat_map(|i| content.plan(((i * 7919) % 8000) * GRANULE, 4096, 1 << 30))
            .map(|ask| ask.count)
            .sum();
        assert!(asks <= 130, "{asks}");
    }

    #[test]
    fn what_was_not_read_stays_though_the_end_was() {
        let size = 2 * GRANULE;
        let mut content = Content::new(1);
        let ask = content.plan(0, 4096, size)[0];
        content.fill(ask, &Bytes::from(vec![7; size as usize]));
        // Around a page fault near the middle: the end of one granule, the front of the next.
        content.take(GRANULE - 65536, 131072, size).unwrap().unwrap();
        content.take(GRANULE + 65536, 65536, size).unwrap().unwrap();
        assert_eq!(content.granules.len(), 1, "the second is used up, the first is not");
        assert!(content.take(0, 65536, size).unwrap().is_some());
        assert!(content.granules.is_empty());
    }

    #[test]
    fn a_failure_is_told_once() {
        let mut content = Content::new(1);
        let ask = content.plan(0, 10, 10)[0];
        content.fail(ask, Errno::IO);
        assert_eq!(content.take(0, 10, 10).unwrap_err(), Errno::IO);
        assert!(content.take(0, 10, 10).unwrap().is_none());
    }

    #[test]
    fn what_shrank_ends_early() {
        let mut content = Content::new(1);
        let ask = content.plan(0, GRANULE * 2, GRANULE * 2)[0];
        content.fill(ask, &Bytes::from_static(b"short"));
        let (pieces, _) = content.take(0, GRANULE * 2, GRANULE * 2).unwrap().unwrap();
        assert_eq!(pieces.concat(), b"short");
    }
}
