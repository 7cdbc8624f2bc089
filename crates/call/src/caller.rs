//! The client's side: sends calls, and hands out what they came to. Many at once, over one stream, in any order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use remotely_proto::call::{Failure, INLINE_MAX, Open, Record};
use remotely_session::{Class, Ended, RecvStream, Stream};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use crate::doors::Doors;
use crate::number::Numbered;
use crate::outbox::Outbox;
use crate::remote::{Entry, Remote};
use crate::runner::{Incomplete, all};
use crate::wire;

/// Most bytes that a call may come to, unless told otherwise.
const ANSWER_MAX: usize = 256 << 20;

/// Calls functions over one link. Clones call over the same.
#[derive(Debug, Clone)]
pub struct Caller {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    doors: Arc<Doors>,
    outbox: Arc<Outbox>,
    calls: Mutex<Calls>,
    /// How many bytes have been taken of what was printed there.
    shown: watch::Receiver<u64>,
}

#[derive(Debug, Default)]
struct Calls {
    waiting: Numbered<oneshot::Sender<Answered>>,
    slots: HashMap<&'static str, Vec<(u64, u32)>>,
    defined: u32,
    next: u32,
    /// The stream has ended.
    over: bool,
}

type Answered = Result<Result<Bytes, Box<Failure>>, CallError>;

/// Why a call has no value.
#[derive(Debug, Clone, Error)]
pub enum CallError {
    /// The arguments cannot be sent.
    #[error("the arguments cannot be sent: {0}")]
    Encode(String),
    /// What came back is not what the function returns.
    #[error("what came back is not a value of the function: {0}")]
    Decode(String),
    /// It failed there.
    #[error("{}", .0.message)]
    Failed(Box<Failure>),
    /// The link ended first.
    #[error("the link ended before the call was answered")]
    Over,
}

impl Caller {
    /// Over this link, which need not have a pipe yet. `path` names the hosts from the user's own to the one that is called;
    /// no more than `depth_limit` links may be opened one in the other. `shown` tells how many bytes of [`Open::Output`] have
    /// been taken: an answer waits for what was printed before it. When its sender is gone, nothing waits.
    pub fn new(
        doors: Arc<Doors>,
        path: Vec<String>,
        depth_limit: u8,
        shown: watch::Receiver<u64>,
    ) -> Result<Self, Ended> {
        let Stream { send, recv, .. } = doors.open(Class::Normal, &Open::Calls { path, depth_limit })?;
        let outbox = Outbox::new(send, doors.runtime());
        let inner = Arc::new(Inner { doors, outbox, calls: Mutex::default(), shown });
        let reading = Reading(inner.clone());
        inner.doors.runtime().spawn(reading.read(recv));
        Ok(Self { inner })
    }

    /// Runs a function there. Calls that are made before others have been answered travel together.
    ///
    /// Dropping the future cancels the call: an async function is ended there at its next await, any other can ask
    /// [`here::is_cancelled`](crate::here::is_cancelled).
    pub async fn call<F: Remote>(&self, arguments: F::Args) -> Result<F::Output, CallError> {
        let inner = &self.inner;
        inner.outbox.room().await;
        let encoded = wire::encode(&arguments, &inner.doors).map_err(CallError::Encode)?;
        // Ends of channels that have travelled are there now, and there alone.
        drop(arguments);
        let arguments = encoded;
        let answered = if arguments.len() <= INLINE_MAX {
            let Some((call, answer)) = inner.start(F::entry(), arguments.into()) else { return Err(CallError::Over) };
            let mut cancelling = Cancelling { inner, call: Some(call) };
            let answered = answer.await;
            cancelling.call = None;
            answered.map_err(|_| CallError::Over)?
        } else {
            inner.call_apart(F::entry(), arguments.into()).await
        };
        let value = answered?.map_err(CallError::Failed)?;
        wire::decode(&value, &inner.doors).map_err(CallError::Decode)
    }

    /// Takes a stream that the other side has opened with [`Open::Answer`].
    pub fn take_answer(&self, call: u32, stream: Stream) {
        let (inner, mut recv) = (self.inner.clone(), stream.recv);
        self.inner.doors.runtime().spawn(async move {
            recv.widen(16 << 20);
            let answer = inner.answer(&mut recv).await;
            let waiting = inner.calls().waiting.remove(&call);
            if let Some(waiting) = waiting {
                let _ = waiting.send(answer);
            }
        });
    }

    /// Ends the stream: nothing can be called any more, and what has not been answered fails.
    pub fn close(&self) {
        self.inner.outbox.close();
    }
}

impl Inner {
    fn start(&self, entry: &'static Entry, arguments: Bytes) -> Option<(u32, oneshot::Receiver<Answered>)> {
        let mut calls = self.calls();
        if calls.over {
            return None;
        }
        let alone = calls.waiting.is_empty();
        let (slot, new) = calls.slot(entry);
        let (sender, answer) = oneshot::channel();
        while calls.waiting.contains_key(&calls.next) {
            calls.next = calls.next.wrapping_add(1);
        }
        let call = calls.next;
        calls.next = call.wrapping_add(1);
        calls.waiting.insert(call, sender);
        // Under the lock: a function has to be defined before it is called.
        self.outbox.push(alone, |out| {
            if new {
                Record::Define { slot, signature: entry.signature, name: entry.name.into() }.encode(out);
            }
            Record::Call { call, slot, arguments }.encode(out);
        });
        Some((call, answer))
    }

    async fn call_apart(&self, entry: &'static Entry, arguments: Bytes) -> Answered {
        let open = Open::Call { signature: entry.signature, name: entry.name.into() };
        let Stream { mut send, mut recv, .. } =
            self.doors.open(Class::Normal, &open).map_err(|Ended| CallError::Over)?;
        recv.widen(16 << 20);
        let sending = async {
            // A host that does not want them all answers nevertheless.
            if send.send(arguments).await.is_ok() {
                send.finish();
            }
            std::future::pending().await
        };
        tokio::select! {
            answer = self.answer(&mut recv) => answer,
            never = sending => never,
        }
    }

    fn hand_out(&self, answers: &mut Vec<(u32, Result<Bytes, Box<Failure>>)>) {
        let mut calls = self.calls();
        let waiting: Vec<_> =
            answers.drain(..).filter_map(|(call, answer)| Some((calls.waiting.remove(&call)?, answer))).collect();
        drop(calls);
        for (waiting, answer) in waiting {
            let _ = waiting.send(Ok(answer));
        }
    }

    /// Waits until so much has been taken of what was printed.
    async fn has_shown(&self, bytes: u64) {
        let _ = self.shown.clone().wait_for(|shown| *shown >= bytes).await;
    }

    /// What a call came to, from a stream of its own.
    async fn answer(&self, recv: &mut RecvStream) -> Answered {
        let mut bytes = match all(recv, ANSWER_MAX).await {
            Ok(bytes) => bytes.freeze(),
            Err(Incomplete::Lost) => return Err(CallError::Over),
            Err(error) => return Err(CallError::Decode(error.to_string())),
        };
        let (Ok(kind), Ok(printed)) = (bytes.try_get_u8(), bytes.try_get_u64_le()) else { return Err(CallError::Over) };
        self.has_shown(printed).await;
        match kind {
            0 => Ok(Ok(bytes)),
            _ => minicbor::decode(&bytes)
                .map(|failure| Err(Box::new(failure)))
                .map_err(|error| CallError::Decode(error.to_string())),
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// The number of a function, and whether the other side does not know it yet.
    fn slot(&mut self, entry: &'static Entry) -> (u32, bool) {
        let known = self.slots.entry(entry.name).or_default();
        if let Some((_, slot)) = known.iter().find(|(signature, _)| *signature == entry.signature) {
            return (*slot, false);
        }
        let slot = self.defined;
        self.defined += 1;
        known.push((entry.signature, slot));
        (slot, true)
    }
}

/// Says that nobody waits any more, when dropped before the answer.
struct Cancelling<'a> {
    inner: &'a Inner,
    call: Option<u32>,
}

impl Drop for Cancelling<'_> {
    fn drop(&mut self) {
        // The number stays taken until the answer comes.
        if let Some(call) = self.call {
            self.inner.outbox.push(true, |out| Record::Cancel { call }.encode(out));
        }
    }
}

/// Takes answers, until the stream ends; then there are none any more.
struct Reading(Arc<Inner>);

impl Reading {
    async fn read(self, mut recv: RecvStream) {
        let (mut received, mut answers) = (BytesMut::new(), Vec::new());
        while let Ok(Some(chunk)) = recv.recv().await {
            received.extend_from_slice(&chunk);
            loop {
                match Record::decode(&mut received) {
                    Ok(Some(Record::Value { call, value })) => answers.push((call, Ok(value))),
                    Ok(Some(Record::Failed { call, failure })) => match minicbor::decode(&failure) {
                        Ok(failure) => answers.push((call, Err(Box::new(failure)))),
                        Err(error) => return tracing::warn!(%error, "what came is no failure"),
                    },
                    Ok(Some(Record::Printed { bytes })) => {
                        self.0.hand_out(&mut answers);
                        self.0.has_shown(bytes).await;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => return tracing::warn!(%error, "what came is no answer"),
                }
            }
            self.0.hand_out(&mut answers);
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let waiting = {
            let mut calls = self.0.calls();
            calls.over = true;
            std::mem::take(&mut calls.waiting)
        };
        drop(waiting);
        self.0.outbox.close();
    }
}
