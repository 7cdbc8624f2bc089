//! What comes from the peer. Nothing in it can cause a panic, or more memory than was granted.

use std::{cmp::Ordering, time::Duration};

use bytes::{Buf, Bytes};
use thiserror::Error;

use super::{
    ACK_BYTES, ACK_DELAY, End, Event, Mux, STREAMS_MAX,
    order::{length, waiting},
    pipes::Coming,
    stream::{RecvState, SendState, Stream},
    window_initial,
};
use crate::{
    frame::{FrameError, Header, Kind, Part, goodbye},
    handshake::{HandshakeError, Role, feature},
    open::{BODY_MAX, Class, Service, reset},
};

/// Opens beyond the limit that have not been answered; more of them end the link.
const REFUSED_MAX: usize = STREAMS_MAX;

/// What came cannot be right.
#[derive(Debug, Error)]
pub enum ProtocolError {
    /// No frame.
    #[error(transparent)]
    Frame(FrameError),
    /// No hello, or not one for us.
    #[error(transparent)]
    Handshake(HandshakeError),
    /// Something else than a hello came first.
    #[error("frame {0:?} before a hello")]
    NoHello(Kind),
    /// A hello came later.
    #[error("a second hello")]
    SecondHello,
    /// Frames are missing, or came twice.
    #[error("frame at {found}, expected at {expected}")]
    Gap {
        /// Position that should have come.
        expected: u64,
        /// Position that came.
        found: u64,
    },
    /// More was acknowledged than was sent.
    #[error("ack of {0}, which was never sent")]
    Ack(u64),
    /// An open with a number that is not the peer's to give, or was given before.
    #[error("open of stream {0}")]
    Number(u32),
    /// A frame for a stream that was never opened.
    #[error("frame {kind:?} on stream {stream}, which is not open")]
    Unopened {
        /// What came.
        kind: Kind,
        /// The stream.
        stream: u32,
    },
    /// More waits behind a gap than the peer may have sent.
    #[error("too much behind a gap")]
    Disorder,
    /// More bytes than were granted.
    #[error("more bytes on stream {0} than were granted")]
    Credit(u32),
    /// Bytes after the end of a stream.
    #[error("bytes on stream {0} after its end")]
    AfterEof(u32),
    /// More streams than can be refused.
    #[error("too many streams")]
    Flood,
    /// The other side says that it was us.
    #[error("the other side ended the link with code {0}")]
    Accused(u32),
}

impl Mux {
    /// Takes what was read from the first pipe. After an error, which [`end`](Self::end) tells, everything is ignored.
    pub fn input(&mut self, now: Duration, chunk: Bytes) {
        self.input_from(now, 0, chunk);
    }

    /// Takes what was read from a pipe; nothing, if the link does not have it.
    pub fn input_from(&mut self, now: Duration, pipe: u32, mut chunk: Bytes) {
        let Some(at) = self.pipes.index(pipe) else { return };
        if chunk.is_empty() {
            return;
        }
        let one = &mut self.pipes.all[at];
        (one.open, one.paused) = (true, false);
        if self.alive.is_paused() {
            self.pipes.wait_anew(now);
        }
        self.alive.on_received(now);
        self.stats.bytes_received += chunk.len() as u64;
        while self.end.is_none() {
            let result = match self.pipes.all[at].decoder.next(&mut chunk) {
                Ok(Some(part)) => {
                    // A byte behind it would have ended it already.
                    if part.header.kind == Kind::Pause && chunk.is_empty() {
                        self.on_pause(at);
                    }
                    self.part(now, at, part)
                }
                Ok(None) => return,
                Err(error) => Err(ProtocolError::Frame(error)),
            };
            if let Err(error) = result {
                self.over(match error {
                    ProtocolError::Handshake(HandshakeError::Version { ours, theirs }) => End::Version { ours, theirs },
                    error => End::Protocol(error),
                });
            }
        }
    }

    /// The peer is silent when it has said so on each pipe.
    fn on_pause(&mut self, at: usize) {
        self.pipes.all[at].paused = true;
        if self.pipes.all.iter().all(|one| one.paused) {
            self.alive.on_pause();
        }
    }

    fn part(&mut self, now: Duration, at: usize, part: Part) -> Result<(), ProtocolError> {
        let Part { header, payload, first, last } = part;
        if last {
            self.stats.frames_received += 1;
        }
        if first {
            match (header.kind, self.peer) {
                (Kind::Hello, Some(_)) => return Err(ProtocolError::SecondHello),
                (Kind::Hello, None) | (_, Some(_)) => {}
                (kind, None) => return Err(ProtocolError::NoHello(kind)),
            }
        }
        if !header.kind.numbered() {
            return self.take(now, &header, payload, first);
        }
        if first {
            self.pipes.all[at].coming = self.coming(&header)?;
        }
        match &mut self.pipes.all[at].coming {
            Coming::Now(offset) => {
                let begin = *offset;
                *offset += payload.len();
                // On another pipe it may have come whole meanwhile.
                if header.seq == self.received {
                    self.next_part(now, &header, payload, begin)?;
                    if last {
                        self.arrived += length(&header);
                        self.advance(now, &header)?;
                    }
                }
            }
            Coming::Later(pieces) => {
                pieces.push(waiting(payload));
                if last {
                    let pieces = std::mem::take(pieces);
                    self.put_aside(now, header, pieces)?;
                }
            }
            Coming::Again => {}
        }
        if last {
            self.pipes.all[at].received += length(&header);
            self.received_at = now;
            let urgent = self.arrived - self.acked >= ACK_BYTES;
            let due = if urgent { now } else { now + ACK_DELAY };
            self.ack_at = Some(self.ack_at.map_or(due, |at| at.min(due)));
        }
        Ok(())
    }

    /// What is to be done with a numbered frame.
    fn coming(&self, header: &Header) -> Result<Coming, ProtocolError> {
        let striped = self.pipes.striped;
        match header.seq.cmp(&self.received) {
            Ordering::Equal => Ok(Coming::Now(0)),
            Ordering::Greater if striped => Ok(Coming::Later(Vec::new())),
            Ordering::Less if striped && header.seq + length(header) <= self.received => Ok(Coming::Again),
            _ => Err(ProtocolError::Gap { expected: self.received, found: header.seq }),
        }
    }

    /// A frame that was not next when it began.
    fn put_aside(&mut self, now: Duration, header: Header, pieces: Vec<Bytes>) -> Result<(), ProtocolError> {
        match header.seq.cmp(&self.received) {
            Ordering::Less => Ok(()),
            Ordering::Equal => {
                self.arrived += length(&header);
                self.whole(now, &header, pieces)?;
                self.advance(now, &header)
            }
            Ordering::Greater => {
                if self.order.put(header, pieces) {
                    self.arrived += length(&header);
                }
                if self.order.is_overfull() { Err(ProtocolError::Disorder) } else { Ok(()) }
            }
        }
    }

    /// A frame is complete: what waits behind it is next.
    fn advance(&mut self, now: Duration, header: &Header) -> Result<(), ProtocolError> {
        (self.received, self.delivered) = (self.received + length(header), 0);
        while self.end.is_none()
            && let Some((header, pieces)) = self.order.take(self.received)
        {
            self.whole(now, &header, pieces)?;
            (self.received, self.delivered) = (self.received + length(&header), 0);
        }
        match self.order.overlaps(self.received) {
            Some(found) => Err(ProtocolError::Gap { expected: self.received, found }),
            None => Ok(()),
        }
    }

    /// All of the frame that is next.
    fn whole(&mut self, now: Duration, header: &Header, pieces: Vec<Bytes>) -> Result<(), ProtocolError> {
        if pieces.is_empty() {
            return self.next_part(now, header, Bytes::new(), 0);
        }
        let mut begin = 0;
        for piece in pieces {
            let len = piece.len();
            self.next_part(now, header, piece, begin)?;
            begin += len;
        }
        Ok(())
    }

    /// A part of the frame that is next, of which some may have come on a pipe that was lost.
    fn next_part(
        &mut self,
        now: Duration,
        header: &Header,
        mut payload: Bytes,
        begin: usize,
    ) -> Result<(), ProtocolError> {
        let first = begin == 0 && self.delivered == 0;
        if first {
            self.admit(header)?;
        }
        let end = begin + payload.len();
        payload.advance(self.delivered.saturating_sub(begin).min(payload.len()));
        self.delivered = self.delivered.max(end);
        self.take(now, header, payload, first)
    }

    fn take(&mut self, now: Duration, header: &Header, payload: Bytes, first: bool) -> Result<(), ProtocolError> {
        match header.kind {
            Kind::Hello => self.on_hello(&payload),
            Kind::Open => self.on_open(now, header, payload),
            Kind::Data => self.on_data(header.stream, payload),
            Kind::Credit => self.on_credit(header.stream, payload),
            Kind::Eof => self.on_eof(header.stream),
            Kind::Stop => self.on_stop(header.stream, payload),
            Kind::Reset => self.on_reset(header.stream, payload),
            Kind::Goodbye => self.on_goodbye(payload),
            Kind::Ping => {
                // One answer serves any number of questions: a flood of pings costs nothing.
                self.pong = Some(header.seq);
                Ok(())
            }
            Kind::Pong | Kind::Pause => Ok(()),
            Kind::Ack => self.on_ack(now, header.seq, payload),
            Kind::Widen => {
                self.on_widen(header.seq);
                Ok(())
            }
            Kind::Unknown(_) => {
                if first {
                    self.on_unknown(header.stream);
                }
                Ok(())
            }
        }
    }

    /// A frame of a stream is for one that was opened.
    fn admit(&self, header: &Header) -> Result<(), ProtocolError> {
        let Header { kind, stream, .. } = *header;
        let of_stream = matches!(kind, Kind::Data | Kind::Credit | Kind::Eof | Kind::Stop | Kind::Reset);
        if of_stream && !self.was_opened(stream) {
            return Err(ProtocolError::Unopened { kind, stream });
        }
        Ok(())
    }

    fn on_ack(&mut self, now: Duration, position: u64, mut payload: Bytes) -> Result<(), ProtocolError> {
        let arrived = Duration::from_micros(payload.get_u64_le());
        let mut total = position;
        let mut counted = |number: u32, count: u64| {
            // Of a pipe that is gone here nobody wants to know.
            let Some(index) = self.pipes.index(number) else { return Ok(()) };
            if self.pipes.all[index].confirm(now, count) { Ok(()) } else { Err(ProtocolError::Ack(count)) }
        };
        if payload.has_remaining() {
            total = payload.get_u64_le();
            while payload.has_remaining() {
                counted(payload.get_u32_le(), payload.get_u64_le())?;
            }
        } else {
            counted(0, position)?;
        }
        if position > total || !self.pace.on_ack(now, total, arrived) {
            return Err(ProtocolError::Ack(total));
        }
        self.confirmed = self.confirmed.max(position);
        self.kept.confirm(self.confirmed);
        if self.pace.is_narrow() && !std::mem::replace(&mut self.pipes.told, true) {
            match self.hello.role {
                Role::Client => self.events.push_back(Event::Narrow(self.pipes.all.len())),
                Role::Agent => self.widen = self.peer.is_some_and(|(_, both)| both.features & feature::PIPES != 0),
            }
        }
        Ok(())
    }

    /// What the agent would have wider.
    fn on_widen(&mut self, pipes: u64) {
        // What was said before the last pipe came is out of date.
        if self.hello.role == Role::Client && pipes == self.pipes.all.len() as u64 {
            self.events.push_back(Event::Narrow(self.pipes.all.len()));
        }
    }

    fn was_opened(&self, stream: u32) -> bool {
        let odd = stream % 2 == 1;
        let limit =
            if odd == (self.hello.role == Role::Client) { self.next_id } else { self.peer_id.saturating_add(1) };
        stream != 0 && stream < limit
    }

    fn on_hello(&mut self, payload: &[u8]) -> Result<(), ProtocolError> {
        self.peer = Some(self.hello.negotiate(payload).map_err(ProtocolError::Handshake)?);
        self.events.push_back(Event::Linked);
        Ok(())
    }

    fn on_open(&mut self, now: Duration, header: &Header, mut payload: Bytes) -> Result<(), ProtocolError> {
        let id = header.stream;
        let theirs = (id % 2 == 1) == (self.hello.role == Role::Agent);
        if !theirs || id <= self.peer_id {
            return Err(ProtocolError::Number(id));
        }
        self.peer_id = id;
        let service = Service(payload.get_u16_le());
        let refusal = match () {
            () if payload.len() > BODY_MAX => Some(reset::TOO_LONG),
            () if self.peer_streams >= STREAMS_MAX => Some(reset::LIMIT),
            () if self.close_by.is_some() => Some(reset::REFUSED),
            () => None,
        };
        if let Some(code) = refusal {
            self.refused.push_back((id, code));
            return if self.refused.len() > REFUSED_MAX { Err(ProtocolError::Flood) } else { Ok(()) };
        }
        let class = Class::from_code(header.flags);
        self.peer_streams += 1;
        let window = window_initial(service, self.hello.role.peer());
        self.streams.insert(id, Stream::new(now, class, window, None));
        // A copy, so that it does not keep the read buffer alive for as long as it waits to be looked at.
        let body = Bytes::copy_from_slice(&payload);
        self.events.push_back(Event::Opened { id, service, class, body });
        Ok(())
    }

    fn on_data(&mut self, id: u32, payload: Bytes) -> Result<(), ProtocolError> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        let half = &mut stream.recv;
        match half.state {
            RecvState::Open => {}
            RecvState::Stopping(_) | RecvState::Stopped(_) => return Ok(()),
            RecvState::Eof | RecvState::Reset(_) => return Err(ProtocolError::AfterEof(id)),
        }
        if !half.credit.receive(payload.len()) {
            return Err(ProtocolError::Credit(id));
        }
        if payload.is_empty() {
            return Ok(());
        }
        if half.queue.is_empty() {
            self.events.push_back(Event::Readable(id));
        }
        half.queue.push(payload);
        Ok(())
    }

    fn on_credit(&mut self, id: u32, mut payload: Bytes) -> Result<(), ProtocolError> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        stream.send.granted = stream.send.granted.max(payload.get_u64_le());
        if stream.send.wake() {
            self.events.push_back(Event::Writable(id));
        }
        Ok(())
    }

    fn on_eof(&mut self, id: u32) -> Result<(), ProtocolError> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        match stream.recv.state {
            RecvState::Open => stream.recv.state = RecvState::Eof,
            RecvState::Stopping(_) | RecvState::Stopped(_) => return Ok(()),
            RecvState::Eof | RecvState::Reset(_) => return Err(ProtocolError::AfterEof(id)),
        }
        stream.recv.grant_due = false;
        self.events.push_back(Event::Readable(id));
        self.settle(id);
        Ok(())
    }

    fn on_stop(&mut self, id: u32, mut payload: Bytes) -> Result<(), ProtocolError> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if stream.send.abandon(SendState::Stopped(payload.get_u32_le())) {
            self.events.push_back(Event::Stopped(id));
            self.settle(id);
        }
        Ok(())
    }

    fn on_reset(&mut self, id: u32, mut payload: Bytes) -> Result<(), ProtocolError> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if stream.recv.abandon(RecvState::Reset(payload.get_u32_le())) {
            self.events.push_back(Event::Readable(id));
            self.settle(id);
        }
        Ok(())
    }

    /// A frame that this version does not know, on a stream: it may have mattered, so the stream cannot go on.
    fn on_unknown(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let sending = stream.send.abandon(SendState::Resetting(reset::UNSUPPORTED));
        let receiving = stream.recv.abandon(RecvState::Stopping(reset::UNSUPPORTED));
        if sending {
            self.events.push_back(Event::Stopped(id));
        }
        if receiving {
            self.events.push_back(Event::Readable(id));
        }
        if sending || receiving {
            self.due(id);
        }
    }

    fn on_goodbye(&mut self, mut payload: Bytes) -> Result<(), ProtocolError> {
        match payload.get_u32_le() {
            goodbye::CLOSED => {
                self.over(End::Closed);
                Ok(())
            }
            code => Err(ProtocolError::Accused(code)),
        }
    }
}
