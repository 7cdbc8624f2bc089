//! Between a stream and a thread: bounded channels, a task that fills or empties them, and what the thread sees of them.
//! Knows messages, but not what they say.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use minicbor::{Decode, Encode};
use remotely_proto::message::{self, MESSAGE_MAX};
use remotely_session::{RecvError, RecvStream, SendError, SendStream};
use tokio::sync::mpsc;

use crate::options::{Observer, Progress};

/// Messages that wait for room in the stream: of a quarter of a megabyte at most.
const OUTLET: usize = 8;
/// Chunks that wait for the thread: of 256 KiB at most, of 64 as a rule.
const INLET: usize = 24;
/// Lengths of a message and of its head.
const PREFIX: usize = 8;
/// How often an observer is told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// The stream is over, or nobody wants what is done for it.
#[derive(Debug)]
pub(crate) struct Cut;

/// Where a thread puts its messages.
#[derive(Debug, Clone)]
pub(crate) struct Outlet(mpsc::Sender<(Bytes, Bytes)>);

/// What a thread has put there.
pub(crate) type Outgoing = mpsc::Receiver<(Bytes, Bytes)>;

pub(crate) fn outlet() -> (Outlet, Outgoing) {
    let (to, from) = mpsc::channel(OUTLET);
    (Outlet(to), from)
}

impl Outlet {
    /// Waits for room. For threads only.
    pub(crate) fn send(&self, head: &impl Encode<()>, payload: Bytes) -> Result<(), Cut> {
        self.0.blocking_send(message::encode(head, payload)).map_err(|_| Cut)
    }

    /// Fails when nobody reads any more.
    pub(crate) fn check(&self) -> Result<(), Cut> {
        if self.0.is_closed() { Err(Cut) } else { Ok(()) }
    }
}

/// Moves what a thread puts out into a stream, and ends the stream when the thread is done. Ends early, and the thread with
/// it, when the stream takes no more.
pub(crate) async fn carry_out(mut from: Outgoing, mut send: SendStream, wire: &AtomicU64) {
    while let Some((front, payload)) = from.recv().await {
        wire.fetch_add((front.len() + payload.len()) as u64, Ordering::Relaxed);
        if let Err(error) = send.send_all(&mut [front, payload]).await {
            if error != SendError::Stopped {
                tracing::debug!(%error, "the other side takes no more");
            }
            return;
        }
    }
    send.finish();
}

/// What comes from a stream.
#[derive(Debug)]
pub(crate) enum Chunk {
    Bytes(Bytes),
    /// The stream ended in order.
    End,
}

pub(crate) fn inlet() -> (mpsc::Sender<Chunk>, Inlet) {
    let (to, from) = mpsc::channel(INLET);
    (to, Inlet { from, front: Bytes::new(), ended: false })
}

/// Moves what comes from a stream to a thread. Ends with the stream, or when the thread wants no more, which the other side
/// is told. Says what cut the stream.
pub(crate) async fn carry_in(mut recv: RecvStream, to: mpsc::Sender<Chunk>, wire: &AtomicU64) -> Option<RecvError> {
    loop {
        let chunk = match recv.recv().await {
            Ok(Some(bytes)) => {
                wire.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Chunk::Bytes(bytes)
            }
            Ok(None) => Chunk::End,
            Err(error) => {
                tracing::debug!(%error, "the other side sends no more");
                return Some(error);
            }
        };
        let end = matches!(chunk, Chunk::End);
        if to.send(chunk).await.is_err() {
            recv.stop();
            return None;
        }
        if end {
            return None;
        }
    }
}

/// What a thread takes its messages from, without copying their payload.
#[derive(Debug)]
pub(crate) struct Inlet {
    from: mpsc::Receiver<Chunk>,
    front: Bytes,
    ended: bool,
}

/// No message can be had.
#[derive(Debug)]
pub(crate) enum InletError {
    /// The stream was cut.
    Cut,
    /// What came is no message.
    Message(String),
}

impl Inlet {
    /// Puts back what was read before the thread took over.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        self.front = bytes;
    }

    /// The head of the next message and the length of its payload, which must then be taken by [`piece`](Self::piece). None
    /// at the end. For threads only.
    pub(crate) fn message<H>(&mut self) -> Result<Option<(H, usize)>, InletError>
    where
        H: for<'b> Decode<'b, ()>,
    {
        if self.front.is_empty() && !self.fill()? {
            return Ok(None);
        }
        let prefix = self.whole(PREFIX)?;
        let mut lengths = &prefix[..];
        let (total, head_len) = (lengths.get_u32_le() as usize, lengths.get_u32_le() as usize);
        if total > MESSAGE_MAX || head_len > total {
            return Err(InletError::Message(format!("a message of {total} bytes with a head of {head_len}")));
        }
        let head = self.whole(head_len)?;
        let head = minicbor::decode(&head).map_err(|error| InletError::Message(error.to_string()))?;
        Ok(Some((head, total - head_len)))
    }

    /// The next bytes of a payload, at least one and at most so many.
    pub(crate) fn piece(&mut self, most: usize) -> Result<Bytes, InletError> {
        if self.front.is_empty() && !self.fill()? {
            return Err(InletError::Cut);
        }
        Ok(self.front.split_to(most.min(self.front.len())))
    }

    /// So many bytes together.
    pub(crate) fn whole(&mut self, len: usize) -> Result<Bytes, InletError> {
        if self.front.len() >= len {
            return Ok(self.front.split_to(len));
        }
        let mut bytes = BytesMut::with_capacity(len);
        while bytes.len() < len {
            let piece = self.piece(len - bytes.len())?;
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// Waits for the next chunk. False at the end.
    fn fill(&mut self) -> Result<bool, InletError> {
        while self.front.is_empty() {
            if self.ended {
                return Ok(false);
            }
            match self.from.blocking_recv() {
                Some(Chunk::Bytes(bytes)) => self.front = bytes,
                Some(Chunk::End) => self.ended = true,
                None => return Err(InletError::Cut),
            }
        }
        Ok(true)
    }
}

/// Counts, and tells an observer now and then.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) progress: Progress,
    observer: Option<Observer>,
    told: Instant,
}

impl Meter {
    pub(crate) fn new(observer: Option<Observer>) -> Self {
        Self { progress: Progress::default(), observer, told: Instant::now() }
    }

    pub(crate) fn add(&mut self, files: u64, bytes: u64) {
        self.progress.files += files;
        self.progress.bytes += bytes;
        if self.observer.is_some() && self.told.elapsed() >= TELL_EVERY {
            self.tell();
        }
    }

    pub(crate) fn tell(&mut self) {
        if let Some(observer) = &self.observer {
            observer.tell(self.progress);
            self.told = Instant::now();
        }
    }
}
