//! What comes from the peer. Nothing in it can cause a panic, or more memory than was granted.

use std::time::Duration;

use bytes::{Buf, Bytes};
use thiserror::Error;

use super::{
    ACK_BYTES, ACK_DELAY, End, Event, Mux, STREAMS_MAX,
    stream::{RecvState, SendState, Stream},
    window_initial,
};
use crate::{
    frame::{FrameError, HEADER, Header, Kind, Part, goodbye},
    handshake::{HandshakeError, Role},
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
    /// Takes what was read. After an error, which [`end`](Self::end) tells, everything is ignored.
    pub fn input(&mut self, now: Duration, mut chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.alive.on_received(now);
        self.stats.bytes_received += chunk.len() as u64;
        while self.end.is_none() {
            let result = match self.decoder.next(&mut chunk) {
                Ok(Some(part)) => {
                    // A byte behind it would have ended it already.
                    if part.header.kind == Kind::Pause && chunk.is_empty() {
                        self.alive.on_pause();
                    }
                    self.part(now, part)
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

    fn part(&mut self, now: Duration, part: Part) -> Result<(), ProtocolError> {
        let Part { header, payload, first, last } = part;
        if first {
            self.first_part(&header)?;
        }
        if last {
            self.stats.frames_received += 1;
            if header.kind.numbered() {
                self.count(now, HEADER as u64 + u64::from(header.len));
            }
        }
        match header.kind {
            Kind::Hello => self.on_hello(&payload),
            Kind::Open => self.on_open(now, &header, payload),
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
            Kind::Unknown(_) => {
                if first {
                    self.on_unknown(header.stream);
                }
                Ok(())
            }
        }
    }

    /// What holds for all frames.
    fn first_part(&self, header: &Header) -> Result<(), ProtocolError> {
        let Header { kind, stream, seq, .. } = *header;
        match (kind, self.peer) {
            (Kind::Hello, Some(_)) => return Err(ProtocolError::SecondHello),
            (Kind::Hello, None) | (_, Some(_)) => {}
            (_, None) => return Err(ProtocolError::NoHello(kind)),
        }
        if kind.numbered() && seq != self.received {
            return Err(ProtocolError::Gap { expected: self.received, found: seq });
        }
        let of_stream = matches!(kind, Kind::Data | Kind::Credit | Kind::Eof | Kind::Stop | Kind::Reset);
        if of_stream && !self.was_opened(stream) {
            return Err(ProtocolError::Unopened { kind, stream });
        }
        Ok(())
    }

    /// Numbered bytes have come and are to be acknowledged.
    fn count(&mut self, now: Duration, len: u64) {
        self.received += len;
        self.received_at = now;
        let at = if self.received - self.acked >= ACK_BYTES { now } else { now + ACK_DELAY };
        self.ack_at = Some(self.ack_at.map_or(at, |due| due.min(at)));
    }

    fn on_ack(&mut self, now: Duration, position: u64, mut payload: Bytes) -> Result<(), ProtocolError> {
        let arrived = Duration::from_micros(payload.get_u64_le());
        if self.pace.on_ack(now, position, arrived) { Ok(()) } else { Err(ProtocolError::Ack(position)) }
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
