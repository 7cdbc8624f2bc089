//! Finds what the receiver has of a file: a window is rolled over its content, byte by byte, until it is one of the blocks of
//! the receiver's signature.

use std::{
    collections::{HashMap, HashSet},
    os::fd::OwnedFd,
};

use bytes::{Buf, Bytes, BytesMut};
use remotely_proto::file::{BLOCK_ENTRY, Item};
use rustix::io::Errno;

use super::{
    Sender,
    content::{Course, Flow, read_at},
};
use crate::{
    flow::Cut,
    signature::{Rolling, STRONG, strong},
};

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// Bits of the filter that most windows are told from all blocks by.
const FILTER_BITS: u32 = 1 << 20;

/// The signature of the receiver's file, to look blocks up in.
pub(super) struct Blocks {
    size: usize,
    filter: Vec<u64>,
    weak: HashSet<u32>,
    /// The first block with this hash.
    first: HashMap<[u8; STRONG], u32>,
    /// The hashes of all, in order.
    strong: Vec<[u8; STRONG]>,
}

impl Blocks {
    pub(super) fn new(size: u32, mut signature: &[u8]) -> Self {
        let count = signature.len() / BLOCK_ENTRY;
        let mut blocks = Self {
            size: size as usize,
            filter: vec![0; FILTER_BITS as usize / 64],
            weak: HashSet::with_capacity(count),
            first: HashMap::with_capacity(count),
            strong: Vec::with_capacity(count),
        };
        for index in 0..count as u32 {
            let weak = signature.get_u32_le();
            let mut hash = [0; STRONG];
            signature.copy_to_slice(&mut hash);
            let (word, bit) = filter_place(weak);
            blocks.filter[word] |= bit;
            blocks.weak.insert(weak);
            blocks.first.entry(hash).or_insert(index);
            blocks.strong.push(hash);
        }
        blocks
    }

    fn maybe(&self, weak: u32) -> bool {
        let (word, bit) = filter_place(weak);
        self.filter[word] & bit != 0 && self.weak.contains(&weak)
    }

    /// A block that this window is.
    fn find(&self, window: &[u8]) -> Option<u32> {
        self.first.get(&strong(window)).copied()
    }

    /// The block behind this one, if the window is that: what is the same is so in long runs.
    fn follows(&self, last: u32, window: &[u8]) -> Option<u32> {
        let next = last.checked_add(1)?;
        (*self.strong.get(next as usize)? == strong(window)).then_some(next)
    }
}

fn filter_place(weak: u32) -> (usize, u64) {
    let bit = (weak ^ weak >> 12) & (FILTER_BITS - 1);
    ((bit / 64) as usize, 1 << (bit % 64))
}

/// Blocks in a row that are to be copied.
struct Copied {
    offset: u64,
    from: u64,
    len: u64,
    last: u32,
}

impl Sender {
    /// Sends one run of data of a file, as blocks of the receiver's where it has them.
    pub(super) fn matched(
        &mut self,
        descriptor: &OwnedFd,
        start: u64,
        end: u64,
        course: &mut Course,
    ) -> Result<Result<Flow, Errno>, Cut> {
        let Some(blocks) = course.blocks.take() else { return Ok(Ok(Flow::On)) };
        let result = self.roll(descriptor, start, end, course, &blocks);
        course.blocks = Some(blocks);
        result
    }

    fn roll(
        &mut self,
        descriptor: &OwnedFd,
        start: u64,
        end: u64,
        course: &mut Course,
        blocks: &Blocks,
    ) -> Result<Result<Flow, Errno>, Cut> {
        let size = blocks.size;
        let mut copied: Option<Copied> = None;
        // Content behind `course.at`, read up to `read`; the window begins `at` bytes into it.
        let mut buffer = BytesMut::new();
        let (mut read, mut at) = (start, 0);
        let mut rolling: Option<Rolling> = None;
        loop {
            if buffer.len() - at < size && read < end {
                let most = usize::try_from(end - read).unwrap_or(usize::MAX).min(CHUNK.max(size));
                buffer.reserve(most);
                let before = buffer.len();
                if let Err(errno) = read_at(descriptor, &mut buffer, read, most) {
                    return Ok(Err(errno));
                }
                course.hasher.update(&buffer[before..]);
                read += (buffer.len() - before) as u64;
                if self.counter.unwanted(course.file) {
                    return Ok(Ok(Flow::Unwanted));
                }
                if buffer.len() == before {
                    // The end came early.
                    break;
                }
                continue;
            }
            if buffer.len() - at < size {
                break;
            }
            let window = &buffer[at..at + size];
            let last = copied.as_ref().filter(|_| at == 0).map(|copied| copied.last);
            let found = last.and_then(|last| blocks.follows(last, window)).or_else(|| {
                let sum = rolling.get_or_insert_with(|| Rolling::new(window));
                if blocks.maybe(sum.value()) { blocks.find(window) } else { None }
            });
            if let Some(block) = found {
                self.literal(&mut buffer, at, course, &mut copied)?;
                self.copy(course, block, size, &mut copied)?;
                buffer.advance(size);
                (at, rolling) = (0, None);
                continue;
            }
            if let (Some(rolling), Some(&into)) = (&mut rolling, buffer.get(at + size)) {
                rolling.roll(buffer[at], into);
            } else {
                rolling = None;
            }
            at += 1;
            if at >= CHUNK {
                self.literal(&mut buffer, at, course, &mut copied)?;
                at = 0;
            }
        }
        let rest = buffer.len();
        self.literal(&mut buffer, rest, course, &mut copied)?;
        self.send_copied(&mut copied)?;
        Ok(Ok(Flow::On))
    }

    /// The first `len` bytes are sent as they are.
    fn literal(
        &mut self,
        buffer: &mut BytesMut,
        len: usize,
        course: &mut Course,
        copied: &mut Option<Copied>,
    ) -> Result<(), Cut> {
        if len == 0 {
            return Ok(());
        }
        self.send_copied(copied)?;
        let mut content: Bytes = buffer.split_to(len).freeze();
        while !content.is_empty() {
            let part = content.split_to(content.len().min(CHUNK));
            let (offset, len) = (course.at, part.len() as u32);
            course.at += u64::from(len);
            self.meter.add(0, len.into());
            self.out.send(Item::Data { offset, len }, part)?;
        }
        Ok(())
    }

    /// The next bytes are a block of the receiver's.
    fn copy(&mut self, course: &mut Course, block: u32, size: usize, copied: &mut Option<Copied>) -> Result<(), Cut> {
        let (from, len) = (u64::from(block) * size as u64, size as u64);
        match copied {
            Some(run) if run.from + run.len == from => (run.len, run.last) = (run.len + len, block),
            _ => {
                self.send_copied(copied)?;
                *copied = Some(Copied { offset: course.at, from, len, last: block });
            }
        }
        course.at += len;
        self.meter.add(0, len);
        Ok(())
    }

    fn send_copied(&mut self, copied: &mut Option<Copied>) -> Result<(), Cut> {
        match copied.take() {
            Some(Copied { offset, from, len, .. }) => self.out.push(Item::Copy { offset, from, len }),
            None => Ok(()),
        }
    }
}
