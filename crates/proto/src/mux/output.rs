//! What goes to the peer, and in which order: the hello, what belongs to the link, control frames of streams, then data in
//! turn as far as pacing has room. Pieces are shared with the application's chunks, for writev(2). Whichever of several pipes
//! is asked first has what is next.

use std::{collections::VecDeque, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Event, Mux, Silence, kept,
    order::length,
    stream::{RecvState, SendState},
};
use crate::{
    frame::{HEADER, Header, Kind},
    handshake::Role,
    open::{Class, Service},
};

/// Payloads up to this size are copied behind their header rather than made a piece of their own.
const INLINE: usize = 512;
/// Headers are made in blocks of this size.
const BLOCK: usize = 4 << 10;

/// Pieces to be written to a pipe, in order.
struct Writer<'a> {
    /// Its place among the pipes.
    one: usize,
    scratch: BytesMut,
    pieces: &'a mut VecDeque<Bytes>,
    len: usize,
    frames: u64,
}

impl Writer<'_> {
    fn payload(&mut self, payload: Bytes) {
        self.len += payload.len();
        if payload.len() <= INLINE {
            return self.scratch.extend_from_slice(&payload);
        }
        self.flush();
        self.pieces.push_back(payload);
    }

    fn flush(&mut self) {
        if !self.scratch.is_empty() {
            self.pieces.push_back(self.scratch.split().freeze());
        }
    }
}

impl Mux {
    /// Appends what is to be written to the first pipe now to `pieces`, see [`output_to`](Self::output_to).
    pub fn output(&mut self, now: Duration, max: usize, pieces: &mut VecDeque<Bytes>) -> usize {
        self.output_to(now, 0, max, pieces)
    }

    /// Appends what is to be written to a pipe now to `pieces`, and stops after the frame that makes it `max` bytes. Returns how
    /// many bytes were added. What has been handed out must be written, in order, unless the pipe is [lost](Self::lose_pipe).
    ///
    /// Until the peer's hello is in, this is no more than our own.
    pub fn output_to(&mut self, now: Duration, pipe: u32, max: usize, pieces: &mut VecDeque<Bytes>) -> usize {
        let Some(one) = self.pipes.index(pipe) else { return 0 };
        if !self.pipes.all[one].open {
            return 0;
        }
        let mut writer = Writer { one, scratch: std::mem::take(&mut self.scratch), pieces, len: 0, frames: 0 };
        if writer.scratch.capacity() < BLOCK / 4 {
            writer.scratch.reserve(BLOCK);
        }
        self.put_hello(now, &mut writer);
        let announced = self.silence == Silence::Wanted && self.pipes.all[one].announced;
        if self.end.is_none() && self.peer.is_some() && self.silence != Silence::Kept && !announced {
            self.put_link(now, &mut writer);
            self.put_again(now, max, &mut writer);
            self.put_streams(now, max, &mut writer);
            if self.silence == Silence::Wanted {
                self.header(now, &mut writer, Header { len: 0, kind: Kind::Pause, flags: 0, stream: 0, seq: 0 });
                self.pipes.all[one].announced = true;
                self.keep_silence();
            } else {
                self.put_data(now, max, &mut writer);
                self.say_goodbye();
            }
        }
        if let Some(code) = self.goodbye.take()
            && self.peer.is_some()
        {
            self.put(now, &mut writer, Kind::Goodbye, 0, &code.to_le_bytes());
        }
        self.finish_output(now, writer)
    }

    /// The client's first flight: its hello and what has been queued so far, as far as goes without credit. To be sent
    /// instead of the first output; if asked for again, it is what was given before and what has been queued since.
    pub fn first_flight(&mut self, now: Duration) -> Bytes {
        let mut pieces = VecDeque::new();
        let mut writer =
            Writer { one: 0, scratch: std::mem::take(&mut self.scratch), pieces: &mut pieces, len: 0, frames: 0 };
        self.put_hello(now, &mut writer);
        if self.hello.role == Role::Client && self.peer.is_none() && self.end.is_none() {
            self.put_streams(now, usize::MAX, &mut writer);
            self.put_data(now, usize::MAX, &mut writer);
        }
        let len = self.finish_output(now, writer);
        let mut flight = BytesMut::with_capacity(self.flight.len() + len);
        flight.extend_from_slice(&self.flight);
        flight.extend(pieces);
        self.flight = flight.freeze();
        self.flight.clone()
    }

    /// Whether there is something to be written now, on a pipe that is not [blocked](Self::block_pipe).
    pub fn has_output(&self, now: Duration) -> bool {
        match &self.pipes.all[..] {
            // Whoever has a single pipe knows himself.
            [_] => self.has_output_on(0, now),
            pipes => (0..pipes.len()).any(|index| !pipes[index].blocked && self.has_output_on(index, now)),
        }
    }

    /// Whether there is something to be written to this pipe now.
    pub(super) fn has_output_on(&self, index: usize, now: Duration) -> bool {
        if !self.hello_sent || self.goodbye.is_some() {
            return true;
        }
        let one = &self.pipes.all[index];
        if self.end.is_some() || self.peer.is_none() || self.silence == Silence::Kept || !one.open {
            return false;
        }
        if self.silence == Silence::Wanted {
            return !one.announced;
        }
        let link = self.ping || self.pong.is_some() || self.widen || one.greet;
        let streams = (!self.due.is_empty() || !self.refused.is_empty()) && self.may_number();
        let data = if self.room_on(index, now) {
            !self.schedule.is_empty()
        } else {
            self.schedule.has_control() && self.may_number()
        };
        let urgent = link || streams || self.kept.has_again();
        urgent || data || self.ack_at.is_some_and(|at| at <= now) || self.may_close()
    }

    fn finish_output(&mut self, now: Duration, mut writer: Writer<'_>) -> usize {
        writer.flush();
        self.scratch = writer.scratch;
        self.stats.frames_sent += writer.frames;
        self.stats.bytes_sent += writer.len as u64;
        if writer.len > 0 {
            self.alive.on_sent(now);
        }
        writer.len
    }

    /// One frame with a small payload.
    fn put(&mut self, now: Duration, writer: &mut Writer<'_>, kind: Kind, stream: u32, payload: &[u8]) {
        let seq = self.pace.position();
        let header = Header { len: payload.len() as u32, kind, flags: 0, stream, seq };
        self.header(now, writer, header);
        writer.scratch.extend_from_slice(payload);
        writer.len += payload.len();
        self.keep(writer.one, header, || vec![Bytes::copy_from_slice(payload)]);
    }

    fn header(&mut self, now: Duration, writer: &mut Writer<'_>, header: Header) {
        header.encode(&mut writer.scratch);
        writer.len += HEADER;
        writer.frames += 1;
        if header.kind.numbered() {
            self.pace.on_sent(now, length(&header), self.peer.is_some());
            self.pipes.all[writer.one].put(now, length(&header));
        }
    }

    /// Keeps a frame that was just sent, if it may have to be sent again.
    fn keep(&mut self, one: usize, header: Header, payload: impl FnOnce() -> Vec<Bytes>) {
        if self.pipes.striped && header.kind.numbered() {
            let one = &self.pipes.all[one];
            let (pipe, pipe_sent) = (Some(one.number), one.sent);
            self.kept.push(kept::Frame { header, payload: payload(), pipe, pipe_sent });
        }
    }

    fn put_hello(&mut self, now: Duration, writer: &mut Writer<'_>) {
        if !std::mem::replace(&mut self.hello_sent, true) {
            let payload = self.hello.encode();
            let len = payload.len() as u32;
            self.header(now, writer, Header { len, kind: Kind::Hello, flags: 0, stream: 0, seq: 0 });
            writer.payload(payload.into());
        }
    }

    /// Ack, ping and pong. An ack goes along with anything else that is sent.
    fn put_link(&mut self, now: Duration, writer: &mut Writer<'_>) {
        if self.ack_at.is_some() && self.has_output_on(writer.one, now) {
            self.put_ack(now, writer);
        }
        if std::mem::take(&mut self.pipes.all[writer.one].greet) {
            self.ping = true;
        }
        if std::mem::take(&mut self.widen) {
            let seq = self.pipes.all.len() as u64;
            self.header(now, writer, Header { len: 0, kind: Kind::Widen, flags: 0, stream: 0, seq });
        }
        if std::mem::take(&mut self.ping) {
            self.header(now, writer, Header { len: 0, kind: Kind::Ping, flags: 0, stream: 0, seq: 0 });
        }
        if let Some(seq) = self.pong.take() {
            self.header(now, writer, Header { len: 0, kind: Kind::Pong, flags: 0, stream: 0, seq });
        }
    }

    fn put_ack(&mut self, now: Duration, writer: &mut Writer<'_>) {
        self.ack_at = None;
        self.acked = self.arrived;
        let at = self.received_at.as_micros() as u64;
        let several = if self.pipes.striped { &self.pipes.all[..] } else { &[] };
        let len = 8 + if self.pipes.striped { 8 + 12 * several.len() as u32 } else { 0 };
        let mut payload = BytesMut::with_capacity(len as usize);
        payload.put_u64_le(at);
        if self.pipes.striped {
            payload.put_u64_le(self.arrived);
        }
        for one in several {
            payload.put_u32_le(one.number);
            payload.put_u64_le(one.received);
        }
        self.header(now, writer, Header { len, kind: Kind::Ack, flags: 0, stream: 0, seq: self.received });
        writer.payload(payload.freeze());
    }

    /// What was on a pipe that is gone.
    fn put_again(&mut self, now: Duration, max: usize, writer: &mut Writer<'_>) {
        while writer.len < max && self.kept.has_again() {
            let Some(frame) = self.kept.again() else { continue };
            let one = &mut self.pipes.all[writer.one];
            one.put(now, length(&frame.header));
            (frame.pipe, frame.pipe_sent) = (Some(one.number), one.sent);
            frame.header.encode(&mut writer.scratch);
            writer.len += HEADER;
            writer.frames += 1;
            frame.payload.iter().for_each(|piece| writer.payload(piece.clone()));
        }
    }

    /// Control frames of streams.
    fn put_streams(&mut self, now: Duration, max: usize, writer: &mut Writer<'_>) {
        while writer.len < max
            && self.may_number()
            && let Some((id, code)) = self.refused.pop_front()
        {
            self.put(now, writer, Kind::Reset, id, &code.to_le_bytes());
            self.put(now, writer, Kind::Stop, id, &code.to_le_bytes());
        }
        while writer.len < max
            && self.may_number()
            && let Some(id) = self.due.pop_front()
        {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.due = false;
            let class = stream.class;
            let open = stream.open.take();
            let grant = std::mem::take(&mut stream.recv.grant_due).then(|| stream.recv.credit.grant());
            let reset = if let SendState::Resetting(code) = stream.send.state { Some(code) } else { None };
            if let Some(code) = reset {
                stream.send.state = SendState::Reset(code);
            }
            let stop = if let RecvState::Stopping(code) = stream.recv.state { Some(code) } else { None };
            if let Some(code) = stop {
                stream.recv.state = RecvState::Stopped(code);
            }
            if let Some((service, body)) = open {
                self.put_open(now, writer, id, class, service, body);
            }
            if let Some(grant) = grant {
                self.put(now, writer, Kind::Credit, id, &grant.to_le_bytes());
            }
            if let Some(code) = reset {
                self.put(now, writer, Kind::Reset, id, &code.to_le_bytes());
            }
            if let Some(code) = stop {
                self.put(now, writer, Kind::Stop, id, &code.to_le_bytes());
            }
            self.settle(id);
        }
    }

    fn put_open(
        &mut self,
        now: Duration,
        writer: &mut Writer<'_>,
        id: u32,
        class: Class,
        service: Service,
        body: Bytes,
    ) {
        let (len, seq) = (2 + body.len() as u32, self.pace.position());
        let header = Header { len, kind: Kind::Open, flags: class.code(), stream: id, seq };
        self.header(now, writer, header);
        writer.scratch.put_u16_le(service.0);
        writer.len += 2;
        self.keep(writer.one, header, || vec![Bytes::copy_from_slice(&service.0.to_le_bytes()), body.clone()]);
        writer.payload(body);
    }

    fn put_data(&mut self, now: Duration, max: usize, writer: &mut Writer<'_>) {
        while writer.len < max
            && self.may_number()
            && let Some((class, id)) = self.schedule.pop(self.room_on(writer.one, now))
        {
            let sent = self.put_turn(now, writer, id);
            let more = self.streams.get_mut(&id).is_some_and(|stream| {
                stream.scheduled = stream.send.ready();
                stream.scheduled
            });
            self.schedule.done(class, id, sent, more);
        }
        if self.room_on(writer.one, now) && self.schedule.is_empty() {
            self.pace.on_idle();
        }
    }

    /// Whether paced data may be put on this pipe now.
    fn room_on(&self, index: usize, now: Duration) -> bool {
        self.pace.room_at().is_some_and(|at| at <= now) && self.pipes.takes_data(index) && self.may_number()
    }

    /// One frame of data of this stream, and the eof if it was the last. Returns how many bytes were used.
    fn put_turn(&mut self, now: Duration, writer: &mut Writer<'_>, id: u32) -> u64 {
        let before = self.pace.position();
        let frame_max = self.pace.frame_max();
        // What was stopped or reset since it was scheduled has nothing to send any more.
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.send.ready()) else { return 0 };
        let len = stream.send.queue.len().min(frame_max);
        if len > 0 {
            let header = Header { len: len as u32, kind: Kind::Data, flags: 0, stream: id, seq: before };
            self.header(now, writer, header);
            let Some(stream) = self.streams.get_mut(&id) else { return 0 };
            let mut left = len;
            let mut kept = Vec::new();
            while left > 0
                && let Some(chunk) = stream.send.queue.pop(left)
            {
                left -= chunk.len();
                if self.pipes.striped {
                    kept.push(chunk.clone());
                }
                writer.payload(chunk);
            }
            if stream.send.wake() {
                self.events.push_back(Event::Writable(id));
            }
            self.keep(writer.one, header, || kept);
        }
        let Some(stream) = self.streams.get_mut(&id) else { return 0 };
        if stream.send.state == SendState::Finishing && stream.send.queue.is_empty() {
            stream.send.state = SendState::Finished;
            self.put(now, writer, Kind::Eof, id, &[]);
            self.settle(id);
        }
        self.pace.position() - before
    }
}
