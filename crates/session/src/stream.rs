//! The application's handles of a stream. All waiting is here; what can be done and when is the mux's to say.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use bytes::Bytes;
use remotely_proto::{
    mux::{RecvError, SendError},
    open::reset,
};

use crate::shared::{Handle, Waiting, wait};

/// A stream: two directions that end apart from each other.
#[derive(Debug)]
pub struct Stream {
    /// Its number on the link: odd if the client opened it.
    pub id: u32,
    /// Bytes to the other side.
    pub send: SendStream,
    /// Bytes from the other side.
    pub recv: RecvStream,
}

impl Stream {
    pub(crate) fn new(handle: Handle, id: u32) -> Self {
        Self { id, send: SendStream { id, handle: handle.clone() }, recv: RecvStream { id, handle } }
    }
}

/// The sending half of a stream.
///
/// Dropped without [`finish`](Self::finish), it is reset: with [`reset::REFUSED`] if the other side opened the stream and
/// nothing was ever done with it, else with [`reset::CANCELLED`]. Dropped after it, what was sent still goes out.
#[derive(Debug)]
pub struct SendStream {
    id: u32,
    handle: Handle,
}

impl SendStream {
    /// Sends bytes, any number of them, without copying large ones. Waits for credit of the other side and for room in the
    /// queue (1 MiB); returns when all are queued.
    ///
    /// Not cancel safe: when dropped before it is ready, some bytes of the front may have been sent.
    pub async fn send(&mut self, data: Bytes) -> Result<(), SendError> {
        self.send_all(&mut [data]).await
    }

    /// As [`send`](Self::send), for several pieces that shall travel together.
    pub async fn send_all(&mut self, pieces: &mut [Bytes]) -> Result<(), SendError> {
        let mut next = 0;
        poll_fn(|cx| self.poll_send_all(cx, pieces, &mut next)).await
    }

    /// Sends what can be sent of `data` at once; the rest is left there. What the pipe takes is in it when this returns, for
    /// somebody waits for it. Never waits.
    pub fn try_send(&mut self, data: &mut Bytes) -> Result<(), SendError> {
        self.handle.shared().with_now(|state, _| {
            if let Some(stream) = state.streams.get_mut(&self.id) {
                stream.used = true;
            }
            state.mux.sendable(self.id)?;
            state.mux.send(self.id, data)
        })
    }

    /// As [`try_send`](Self::try_send); pending while something is left. What has been sent is gone from `data`, so that it
    /// can be called again with the rest.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), SendError>> {
        let mut pieces = [std::mem::take(data)];
        let sent = self.poll_send_all(cx, &mut pieces, &mut 0);
        [*data] = pieces;
        sent
    }

    fn poll_send_all(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &mut [Bytes],
        next: &mut usize,
    ) -> Poll<Result<(), SendError>> {
        self.handle.shared().with(|state, _| {
            if let Some(stream) = state.streams.get_mut(&self.id) {
                stream.used = true;
            }
            state.mux.sendable(self.id)?;
            while let Some(piece) = pieces.get_mut(*next) {
                state.mux.send(self.id, piece)?;
                if !piece.is_empty() {
                    let stream = state.streams.entry(self.id).or_insert_with(|| Waiting::new(true));
                    wait(&mut stream.sender, cx);
                    return Poll::Pending;
                }
                *next += 1;
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Nothing follows what was sent: the other side reads it, then the end. Returns at once.
    pub fn finish(&mut self) {
        self.act(|state, id| state.mux.finish(id));
    }

    /// Gives up: the other side is told `code` rather than what is still on its way. Does nothing after the end.
    pub fn reset(&mut self, code: u32) {
        self.act(|state, id| state.mux.reset(id, code));
    }

    /// Waits until nothing can be sent any more, and says why: the other side reads no more, or this half was reset or
    /// finished, or the link is over. Cancel safe.
    pub async fn stopped(&self) -> SendError {
        poll_fn(|cx| {
            self.handle.shared().with(|state, _| {
                if let Err(error) = state.mux.sendable(self.id) {
                    return Poll::Ready(error);
                }
                if let Some(stream) = state.streams.get_mut(&self.id)
                    && !stream.stopped.iter().any(|waker| waker.will_wake(cx.waker()))
                {
                    stream.stopped.push(cx.waker().clone());
                }
                Poll::Pending
            })
        })
        .await
    }

    fn act(&mut self, act: impl FnOnce(&mut crate::shared::State, u32)) {
        self.handle.shared().with(|state, _| {
            if let Some(stream) = state.streams.get_mut(&self.id) {
                stream.used = true;
            }
            act(state, self.id);
        });
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.handle.shared().with(|state, _| {
            let used = state.release(self.id);
            state.mux.drop_send(self.id, if used { reset::CANCELLED } else { reset::REFUSED });
        });
    }
}

/// The receiving half of a stream.
///
/// Dropped before the end of the stream, it is stopped; if the other side opened the stream and nothing was ever done with
/// it, as a refusal.
#[derive(Debug)]
pub struct RecvStream {
    id: u32,
    handle: Handle,
}

impl RecvStream {
    /// The next bytes, as they lie together; `None` at the end of the stream, and after [`stop`](Self::stop). Credit goes
    /// back to the other side as bytes are handed out. Cancel safe.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, RecvError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`recv`](Self::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, RecvError>> {
        self.handle.shared().with(|state, now| {
            let result = state.mux.recv(now, self.id);
            if let Some(stream) = state.streams.get_mut(&self.id) {
                stream.used = true;
                if result.is_pending() {
                    wait(&mut stream.receiver, cx);
                }
            }
            result
        })
    }

    /// Lets the other side be so many bytes ahead of us from the start, at most 16 MiB: for a stream that is known to carry
    /// much at once. Without it, credit grows from 256 KiB with what is taken.
    pub fn widen(&mut self, window: u64) {
        self.handle.shared().with(|state, _| state.mux.widen(self.id, window));
    }

    /// Refuses the stream.
    pub(crate) fn refuse(&mut self, code: u32) {
        self.handle.shared().with(|state, _| state.mux.stop(self.id, code));
    }

    /// Reads no more: the other side's sender gets [`SendError::Stopped`].
    pub fn stop(&mut self) {
        self.handle.shared().with(|state, _| {
            if let Some(stream) = state.streams.get_mut(&self.id) {
                stream.used = true;
            }
            state.mux.stop(self.id, 0);
        });
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.handle.shared().with(|state, _| {
            let used = state.release(self.id);
            state.mux.drop_recv(self.id, if used { 0 } else { reset::REFUSED });
        });
    }
}

impl crate::shared::State {
    /// The application lets go of one half. Says whether anything was ever done with the stream.
    fn release(&mut self, id: u32) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        let used = stream.used;
        stream.halves -= 1;
        if stream.halves == 0 {
            self.streams.remove(&id);
        }
        used
    }
}
