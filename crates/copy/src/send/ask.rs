//! Questions of a sender: is this file there already, or the beginning of it, or an older state of it? Everything else goes
//! on while they are on their way. What the answers may hold is bounded before they are asked.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use blake3::Hasher;
use bytes::{Bytes, BytesMut};
use remotely_proto::file::{ASKS_MAX, BLOCK_ENTRY, BLOCK_SIZES, BLOCKS_MAX, Hash, Item, Meta, Operation, Way};
use rustix::{
    fs::{FileType, Statx},
    io::Errno,
};

use super::{
    Place, Sender,
    attribute::{kind, same_state, stat},
    content::{Asked, Outcome, read_at},
    delta::Blocks,
};
use crate::flow::Cut;

/// Files from this size on may be continued, and leave their beginning behind when a transfer is cut.
pub(crate) const RESUME_MIN: u64 = 8 << 20;
/// Files from this size on are compared block by block, if that was asked for.
pub(crate) const DELTA_MIN: u64 = 64 << 10;
/// Bytes that all answers together may have.
const ANSWERS_MAX: usize = 16 << 20;
/// What each answer counts for besides its signature.
const ANSWER: usize = 64;
/// Bytes hashed at once.
const CHUNK: usize = 256 << 10;

/// A file that waits for its answer.
#[derive(Debug)]
pub(super) struct Ask {
    directory: u32,
    parent: Vec<u8>,
    name: Vec<u8>,
    stat: Statx,
    /// If it has other names.
    key: Option<(u64, u64)>,
    weight: usize,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Want {
    pub(crate) ask: u32,
    pub(crate) way: Way,
    pub(crate) signature: Bytes,
}

/// The task's end of the counter: hands answers to the thread, if they were asked for.
#[derive(Debug)]
pub(crate) struct Desk {
    to: mpsc::Sender<Want>,
    shared: Arc<Shared>,
}

/// The thread's end.
#[derive(Debug)]
pub(crate) struct Counter {
    from: mpsc::Receiver<Want>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Asks that wait, and how many blocks their answer may have.
    asked: Mutex<HashMap<u32, u32>>,
    /// The greatest number of a file of which no more needs to be sent.
    unwanted: AtomicU32,
}

pub(crate) fn desk() -> (Desk, Counter) {
    let (to, from) = mpsc::channel();
    let shared = Arc::new(Shared::default());
    (Desk { to, shared: shared.clone() }, Counter { from, shared })
}

impl Desk {
    /// Hands an answer on; an error says what is wrong with it. Never waits: there are no more answers than asks.
    pub(crate) fn answer(&self, want: Want) -> Result<(), String> {
        let mut asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(blocks) = asked.remove(&want.ask) else { return Err("an answer to what was not asked".into()) };
        let len = want.signature.len();
        let allowed = if matches!(want.way, Way::Blocks { .. }) { blocks as usize * BLOCK_ENTRY } else { 0 };
        if len > allowed || !len.is_multiple_of(BLOCK_ENTRY) {
            return Err(format!("a signature of {len} bytes where {allowed} are allowed"));
        }
        // The thread may be gone; then nobody needs the answer.
        let _ = self.to.send(want);
        Ok(())
    }

    /// No more of a file is wanted.
    pub(crate) fn unwanted(&self, file: u32) {
        self.shared.unwanted.fetch_max(file, Ordering::Relaxed);
    }
}

impl Counter {
    /// Whether no more of this file is wanted.
    pub(super) fn unwanted(&self, file: u32) -> bool {
        self.shared.unwanted.load(Ordering::Relaxed) == file
    }
}

impl Sender {
    /// Asks for a file. Its directory stays until it is answered.
    pub(super) fn ask(
        &mut self,
        stat: &Statx,
        meta: Meta,
        place: Place<'_>,
        key: Option<(u64, u64)>,
    ) -> Result<(), Cut> {
        let size = stat.stx_size;
        let blocks = if self.sending.delta && size >= DELTA_MIN { blocks_allowed(size) } else { 0 };
        let weight = ANSWER + blocks as usize * BLOCK_ENTRY;
        while !self.asks.is_empty()
            && (self.weight + weight > ANSWERS_MAX || self.asks.len() + self.deferred >= ASKS_MAX)
        {
            self.wait_for_one()?;
        }
        let ask = self.next_ask;
        self.next_ask += 1;
        let (directory, parent, name) = (place.directory, place.parent.to_vec(), place.name.to_vec());
        self.asks.insert(ask, Ask { directory, parent, name, stat: *stat, key, weight });
        self.weight += weight;
        self.hold(directory);
        self.counter.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(ask, blocks);
        let (unchanged, resume) = (self.sending.unchanged, self.sending.resume && size >= RESUME_MIN);
        self.out.push(Item::Ask { ask, seat: place.seat(), meta, size, unchanged, resume, blocks })
    }

    /// Something in a directory waits.
    fn hold(&mut self, directory: u32) {
        if let Some(directory) = self.directories.get_mut(&directory) {
            directory.pending += 1;
        }
    }

    /// A further name of an asked file waits for it.
    pub(super) fn defer(&mut self, directory: u32) -> Result<(), Cut> {
        self.deferred += 1;
        self.hold(directory);
        while self.deferred >= ASKS_MAX && !self.asks.is_empty() {
            self.wait_for_one()?;
        }
        Ok(())
    }

    pub(super) fn undefer(&mut self, directory: u32) -> Result<(), Cut> {
        self.deferred -= 1;
        self.settled(directory)
    }

    /// Acts on the answers that are there.
    pub(super) fn take_answers(&mut self) -> Result<(), Cut> {
        while !self.asks.is_empty()
            && let Ok(want) = self.counter.from.try_recv()
        {
            self.answered(want)?;
        }
        Ok(())
    }

    /// Acts on the next answer, and waits for it if need be.
    pub(super) fn wait_for_one(&mut self) -> Result<(), Cut> {
        let want = match self.counter.from.try_recv() {
            Ok(want) => want,
            Err(_) => {
                self.out.flush()?;
                self.counter.from.recv().map_err(|_| Cut)?
            }
        };
        self.answered(want)
    }

    /// Acts on all answers that are to come.
    pub(super) fn wait_for_all(&mut self) -> Result<(), Cut> {
        while !self.asks.is_empty() {
            self.wait_for_one()?;
        }
        Ok(())
    }

    fn answered(&mut self, Want { ask: number, way, signature }: Want) -> Result<(), Cut> {
        let Some(ask) = self.asks.remove(&number) else { return Ok(()) };
        self.weight -= ask.weight;
        let place = Place { directory: ask.directory, parent: &ask.parent, name: &ask.name };
        let sent = if way == Way::Nothing {
            self.meter.add(1, ask.stat.stx_size);
            Some(ask.stat)
        } else {
            self.follow(number, &ask, place, way, &signature)?
        };
        if let Some(key) = ask.key {
            self.linked_answered(key, sent.as_ref(), place)?;
        }
        self.settled(ask.directory)
    }

    /// Sends what an answer asks for. Returns the state of the file that is there then, if it is.
    fn follow(
        &mut self,
        number: u32,
        ask: &Ask,
        place: Place<'_>,
        way: Way,
        signature: &[u8],
    ) -> Result<Option<Statx>, Cut> {
        let opened = self.reopen(&place.path()).and_then(|descriptor| stat(&descriptor).map(|now| (descriptor, now)));
        let (descriptor, now) = match opened {
            Ok((descriptor, now)) if kind(&now) == FileType::RegularFile => (descriptor, now),
            Ok(_) => {
                self.out.push(Item::Forget { ask: number })?;
                self.fail(Operation::Changed, &place.path(), 0)?;
                return Ok(None);
            }
            Err(errno) => {
                self.out.push(Item::Forget { ask: number })?;
                self.fail_with(Operation::Open, place, errno)?;
                return Ok(None);
            }
        };
        let mut asked = None;
        // What was asked for another state of the file is of no use.
        if same_state(&ask.stat, &now) {
            match way {
                Way::From { len, hash } => asked = self.continued(number, &descriptor, &now, len, &hash)?,
                Way::Unless { hash } => {
                    if self.hash_is(&descriptor, now.stx_size, &hash)?.is_some() {
                        let Some(meta) = self.meta(&descriptor, &now, place)? else { return Ok(None) };
                        self.meter.add(1, now.stx_size);
                        self.out.push(Item::Keep { seat: place.seat(), meta })?;
                        return Ok(Some(now));
                    }
                }
                Way::Blocks { size } if BLOCK_SIZES.contains(&size) && u64::from(size) <= now.stx_size => {
                    let blocks = Some(Blocks::new(size, signature));
                    asked = Some(Asked { ask: number, start: 0, hasher: Hasher::new(), blocks });
                }
                Way::Whole | Way::Nothing | Way::Blocks { .. } => {}
            }
        }
        if asked.is_none() {
            self.out.push(Item::Forget { ask: number })?;
        }
        let outcome = self.content(&descriptor, &now, place, asked)?;
        Ok((outcome == Outcome::Sent).then_some(now))
    }

    /// Whether the receiver has the beginning of the file.
    fn continued(
        &mut self,
        ask: u32,
        descriptor: &OwnedFd,
        now: &Statx,
        len: u64,
        hash: &Hash,
    ) -> Result<Option<Asked>, Cut> {
        if len == 0 || len > now.stx_size {
            return Ok(None);
        }
        let hasher = self.hash_is(descriptor, len, hash)?;
        Ok(hasher.map(|hasher| Asked { ask, start: len, hasher, blocks: None }))
    }

    /// The hasher of the first `len` bytes, if they have this hash. A file that cannot be read fails when it is sent.
    fn hash_is(&mut self, descriptor: &OwnedFd, len: u64, hash: &Hash) -> Result<Option<Hasher>, Cut> {
        let hasher = hash_front(descriptor, len, || self.out.check())?;
        Ok(hasher.ok().filter(|hasher| hasher.finalize().as_bytes() == &**hash))
    }
}

/// Hashes the first `len` bytes of a file; fewer only if it has fewer.
pub(crate) fn hash_front<E>(
    descriptor: impl AsFd,
    len: u64,
    mut check: impl FnMut() -> Result<(), E>,
) -> Result<Result<Hasher, Errno>, E> {
    let mut hasher = Hasher::new();
    let mut buffer = BytesMut::with_capacity(CHUNK);
    let mut at = 0;
    while at < len {
        check()?;
        buffer.clear();
        let most = usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK);
        match read_at(&descriptor, &mut buffer, at, most) {
            Ok(()) if buffer.is_empty() => break,
            Ok(()) => {}
            Err(errno) => return Ok(Err(errno)),
        }
        hasher.update(&buffer);
        at += buffer.len() as u64;
    }
    Ok(Ok(hasher))
}

/// How many blocks a signature for a file of this size may have: four for each of the size that suits it.
fn blocks_allowed(size: u64) -> u32 {
    let blocks = size.isqrt().saturating_mul(4);
    u32::try_from(blocks).unwrap_or(BLOCKS_MAX).clamp(256, BLOCKS_MAX)
}
