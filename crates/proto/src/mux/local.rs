//! What the application does with streams. Nothing here waits: what cannot be done now is told by an event later.

use std::{task::Poll, time::Duration};

use bytes::{Buf, Bytes};
use thiserror::Error;

use super::{
    Mux, QUEUE_MAX, STREAMS_MAX, Silence,
    stream::{RecvState, SendState, Stream},
    window_initial,
};
use crate::{
    frame::goodbye,
    mux::End,
    open::{BODY_MAX, Class, Service, reset},
};

/// No stream can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The link is over, or is being closed.
    #[error("the link is over")]
    Over,
    /// All numbers of streams have been used: two thousand million.
    #[error("the link has no stream numbers left")]
    Exhausted,
}

/// Nothing can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The peer reads no more.
    #[error("the other side reads no more")]
    Stopped,
    /// The stream was given up: refused by the peer, or reset here.
    #[error("the stream was reset with code {0}")]
    Reset(u32),
    /// The link is over.
    #[error("the link is over")]
    Ended,
}

/// Nothing more can be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecvError {
    /// The peer gave up the stream, or refused it.
    #[error("the stream was reset with code {0}")]
    Reset(u32),
    /// The link ended before the stream did.
    #[error("the link is over")]
    Ended,
}

impl Mux {
    /// Opens a stream. Data may be sent on it at once. If the peer refuses, both halves show a reset; so they do at once if
    /// the body is longer than [`BODY_MAX`] or there are [`STREAMS_MAX`] streams.
    pub fn open(&mut self, now: Duration, service: Service, class: Class, body: Bytes) -> Result<u32, OpenError> {
        if self.end.is_some() || self.close_by.is_some() {
            return Err(OpenError::Over);
        }
        let id = self.next_id;
        self.next_id = id.checked_add(2).ok_or(OpenError::Exhausted)?;
        let failed = match () {
            () if body.len() > BODY_MAX => Some(reset::TOO_LONG),
            () if self.own_streams >= STREAMS_MAX => Some(reset::LIMIT),
            () => None,
        };
        self.own_streams += 1;
        let window = window_initial(service, self.hello.role);
        let mut stream = Stream::new(now, class, window, Some((service, body)));
        if let Some(code) = failed {
            stream.open = None;
            stream.send.abandon(SendState::Reset(code));
            stream.recv.abandon(RecvState::Reset(code));
        }
        self.streams.insert(id, stream);
        if failed.is_none() {
            self.due(id);
        }
        Ok(id)
    }

    /// Takes bytes off the front of `data`, as many as there is credit and room for. If some are left,
    /// [`Event::Writable`](super::Event::Writable) follows.
    pub fn send(&mut self, id: u32, data: &mut Bytes) -> Result<(), SendError> {
        self.sendable(id)?;
        // Before there is a pipe, all that credit allows is to go with the first flight.
        let queue_max = if self.peer.is_some() { QUEUE_MAX } else { usize::MAX };
        let Some(stream) = self.streams.get_mut(&id) else { return Err(SendError::Ended) };
        let half = &mut stream.send;
        let part = data.split_to(half.room(queue_max).min(data.len()));
        half.offered += part.len() as u64;
        half.waiting = data.has_remaining();
        if !part.is_empty() {
            half.queue.push(part);
            self.schedule(id);
        }
        Ok(())
    }

    /// How far the sending half of a stream has come: (bytes handed out, bytes that wait for their turn). `None` if there is
    /// no such stream any more, or it was given up.
    pub fn sent(&self, id: u32) -> Option<(u64, usize)> {
        let half = &self.streams.get(&id)?.send;
        let waiting = half.queue.len();
        // What was given up has emptied its queue without sending it.
        let given_up = matches!(half.state, SendState::Resetting(_) | SendState::Reset(_) | SendState::Stopped(_));
        (!given_up).then(|| (half.offered - waiting as u64, waiting))
    }

    /// Whether anything can be sent on this stream, now or later.
    pub fn sendable(&self, id: u32) -> Result<(), SendError> {
        let Some(stream) = self.streams.get(&id) else { return Err(SendError::Ended) };
        match stream.send.state {
            SendState::Stopped(0) => Err(SendError::Stopped),
            SendState::Stopped(code) | SendState::Resetting(code) | SendState::Reset(code) => {
                Err(SendError::Reset(code))
            }
            _ if self.end.is_some() || self.close_by.is_some() => Err(SendError::Ended),
            SendState::Open => Ok(()),
            // The sender's own doing, like a write after shutdown(2).
            SendState::Finishing | SendState::Finished => Err(SendError::Stopped),
        }
    }

    /// Nothing follows what was sent. Does nothing on a half that is over.
    pub fn finish(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.send.state == SendState::Open {
            stream.send.state = SendState::Finishing;
            self.schedule(id);
        }
    }

    /// Gives up the sending half: what was sent is void. Does nothing on a half that is over.
    pub fn reset(&mut self, id: u32, code: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.send.abandon(SendState::Resetting(code)) {
            self.due(id);
        }
    }

    /// The next bytes that were received; `None` at the end of the stream. If there are none yet,
    /// [`Event::Readable`](super::Event::Readable) follows. Credit for them goes back to the peer.
    pub fn recv(&mut self, now: Duration, id: u32) -> Poll<Result<Option<Bytes>, RecvError>> {
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Err(RecvError::Ended)) };
        let half = &mut stream.recv;
        if let Some(chunk) = half.queue.pop(usize::MAX) {
            let due = half.credit.take(now, chunk.len(), self.pace.rtt(), &mut self.growth);
            if due && half.state == RecvState::Open && !half.grant_due {
                half.grant_due = true;
                self.due(id);
            }
            return Poll::Ready(Ok(Some(chunk)));
        }
        match half.state {
            RecvState::Eof | RecvState::Stopping(0) | RecvState::Stopped(0) => Poll::Ready(Ok(None)),
            RecvState::Reset(code) | RecvState::Stopping(code) | RecvState::Stopped(code) => {
                Poll::Ready(Err(RecvError::Reset(code)))
            }
            RecvState::Open if self.end.is_some() => Poll::Ready(Err(RecvError::Ended)),
            RecvState::Open => Poll::Pending,
        }
    }

    /// Lets the peer be so many bytes ahead of the application from the start, as far as the link's budget goes and at most
    /// [`WINDOW_MAX`](super::WINDOW_MAX): for a stream that is known to carry much at once.
    pub fn widen(&mut self, id: u32, window: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let half = &mut stream.recv;
        if half.credit.widen(window, &mut self.growth) && half.state == RecvState::Open && !half.grant_due {
            half.grant_due = true;
            self.due(id);
        }
    }

    /// Reads no more. The peer's sender learns `code`: zero means no more than that, anything else is a reset.
    pub fn stop(&mut self, id: u32, code: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.recv.queue.clear();
        if stream.recv.abandon(RecvState::Stopping(code)) {
            self.due(id);
        }
    }

    /// The application lets go of the sending half, which is reset with `code` unless it is over or finished.
    pub fn drop_send(&mut self, id: u32, code: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.send.held = false;
        if stream.send.state == SendState::Open {
            self.reset(id, code);
        }
        self.settle(id);
    }

    /// The application lets go of the receiving half, which is stopped with `code` unless it is over.
    pub fn drop_recv(&mut self, id: u32, code: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.recv.held = false;
        self.stop(id, code);
        self.settle(id);
    }

    /// Announces to the peer that nothing will come for a while, so that it does not give this side up: this process is about
    /// to be stopped. What is urgent still goes out with the announcement, and from then on nothing does until
    /// [`resume`](Self::resume) or [`close`](Self::close).
    pub fn hold(&mut self) {
        if self.close_by.is_none() && self.silence == Silence::No {
            self.silence = Silence::Wanted;
            self.pipes.all.iter_mut().for_each(|one| one.announced = false);
        }
    }

    /// When it was announced on each pipe, nothing more is sent.
    pub(super) fn keep_silence(&mut self) {
        if self.silence == Silence::Wanted && self.pipes.all.iter().all(|one| one.announced || !one.open) {
            self.silence = Silence::Kept;
        }
    }

    /// Whether the announcement of [`hold`](Self::hold) has been handed out.
    pub fn held(&self) -> bool {
        self.silence == Silence::Kept
    }

    /// Goes on after [`hold`](Self::hold). The peer is told at once; what it has sent meanwhile may still be on its way, so
    /// its silence counts from now.
    pub fn resume(&mut self, now: Duration) {
        if std::mem::replace(&mut self.silence, Silence::No) == Silence::Kept {
            self.ping = true;
            self.alive.start(now);
        }
    }

    /// Closes the link when all that was sent before has been handed out, and after
    /// [`Config::dead_after`](super::Config::dead_after) in any case.
    pub fn close(&mut self, now: Duration) {
        if self.peer.is_none() {
            return self.over(End::Closed);
        }
        self.resume(now);
        self.close_by.get_or_insert(now + self.config.dead_after);
    }

    /// Closing, and nothing is left to be sent.
    pub(super) fn say_goodbye(&mut self) {
        if self.may_close() && self.end.is_none() {
            self.goodbye = Some(goodbye::CLOSED);
            self.over(End::Closed);
        }
    }

    pub(super) fn may_close(&self) -> bool {
        let sent = self.schedule.is_empty() && self.due.is_empty() && self.refused.is_empty();
        self.close_by.is_some() && sent && !self.kept.has_again()
    }
}
