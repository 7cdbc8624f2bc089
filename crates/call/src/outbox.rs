//! Records on their way to a stream, from many threads: as they come while nothing waits, else gathered and sent together.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use remotely_session::SendStream;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Bytes that may wait before those who add to them are to wait as well.
const ROOM: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// There is something to send, or it is over.
    work: Notify,
    /// There is room again, or it is over.
    room: Notify,
}

#[derive(Debug)]
struct State {
    stream: SendStream,
    /// What the stream has not taken yet.
    sending: Bytes,
    gathered: BytesMut,
    /// Nothing is sent any more.
    over: bool,
}

impl Outbox {
    pub(crate) fn new(stream: SendStream, runtime: &Handle) -> Arc<Self> {
        let state = State { stream, sending: Bytes::new(), gathered: BytesMut::new(), over: false };
        let outbox = Arc::new(Self { state: Mutex::new(state), work: Notify::new(), room: Notify::new() });
        runtime.spawn(outbox.clone().pump());
        outbox
    }

    /// Adds what `write` writes, whole. With `at_once`, and nothing before it, it goes out before this returns; otherwise as
    /// soon as the runtime comes to it, together with what is added until then. Never waits; see [`room`](Self::room).
    pub(crate) fn push(&self, at_once: bool, write: impl FnOnce(&mut BytesMut)) {
        let mut state = self.lock();
        if state.over {
            return;
        }
        let idle = state.is_empty();
        write(&mut state.gathered);
        if idle && !(at_once && state.send()) {
            drop(state);
            self.work.notify_one();
        }
    }

    /// Adds what `write` writes, whole, to what [`send`](Self::send) sends.
    pub(crate) fn add(&self, write: impl FnOnce(&mut BytesMut)) {
        let mut state = self.lock();
        if !state.over {
            write(&mut state.gathered);
        }
    }

    /// Sends what has been added, as far as goes before this returns. Never waits.
    pub(crate) fn send(&self) {
        let mut state = self.lock();
        if !state.over && !state.send() {
            drop(state);
            self.work.notify_one();
        }
    }

    /// Waits while too much is waiting. Cancel safe.
    pub(crate) async fn room(&self) {
        if self.lock().has_room() {
            return;
        }
        loop {
            let freed = self.room.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.lock().has_room() {
                return;
            }
            freed.await;
        }
    }

    /// Ends the stream behind what has been sent; what waits is dropped.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if !state.over {
            state.over = true;
            state.stream.finish();
        }
        drop(state);
        self.work.notify_one();
        self.room.notify_waiters();
    }

    async fn pump(self: Arc<Self>) {
        loop {
            self.work.notified().await;
            let sent = poll_fn(|cx| {
                let mut state = self.lock();
                let State { stream, sending, gathered, over } = &mut *state;
                loop {
                    if *over {
                        return Poll::Ready(Err(()));
                    }
                    if sending.is_empty() {
                        *sending = gathered.split().freeze();
                    }
                    if sending.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    match stream.poll_send(cx, sending) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(())) => self.room.notify_waiters(),
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(())),
                    }
                }
            });
            if sent.await.is_err() {
                return self.close();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.sending.is_empty() && self.gathered.is_empty()
    }

    fn has_room(&self) -> bool {
        self.over || self.gathered.len() < ROOM
    }

    /// Whether nothing is left.
    fn send(&mut self) -> bool {
        if self.sending.is_empty() && !self.gathered.is_empty() {
            self.sending = self.gathered.split().freeze();
            // That the stream is over shows at its other half.
            let _ = self.stream.try_send(&mut self.sending);
        }
        self.is_empty()
    }
}
