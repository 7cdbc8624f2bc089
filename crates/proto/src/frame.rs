//! Frames: the unit of a link on the wire. Cut and made here for the mux; knows nothing of streams or their state.
//!
//! A header of 20 bytes, little endian, then the payload:
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | length | bytes of payload, at most [`PAYLOAD_MAX`] |
//! | 4 | kind | [`Kind`] |
//! | 5 | flags | of `open`: the class; zero elsewhere, ignored when received |
//! | 6..8 | reserved | zero, ignored when received |
//! | 8..12 | stream | the stream, zero for the link itself |
//! | 12..20 | seq | see below |
//!
//! Kinds below 0x80 are *numbered*: `seq` is the number of bytes of numbered frames, headers included, that its sender
//! had put on the link before this one. The first has zero; a receiver knows the next one from the last, whichever pipe
//! it came over. `ack` says in its `seq` up to where all numbered bytes have been received, so that what comes after can
//! be sent again over another pipe. Kinds from 0x80 on belong to one pipe and are never sent again: `ping` and `pong`
//! carry any token in `seq`, `widen` the number of pipes, `hello` and `pause` zero.
//!
//! A kind that is not known is skipped; on a stream it refuses that stream. Only a header that cannot be right ends a link.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Bytes of a header.
pub const HEADER: usize = 20;
/// Most bytes of payload.
pub const PAYLOAD_MAX: usize = 64 << 10;
/// Most bytes of payload in a frame that is neither data nor unknown: these are kept until they are whole.
pub const WHOLE_MAX: usize = 8 << 10;
/// Most pipes that a link has at once.
pub const PIPES_MAX: usize = 8;
/// Bytes of an ack for each pipe, and in all.
const ACK_PIPE: usize = 12;
const ACK_MAX: usize = 16 + PIPES_MAX * ACK_PIPE;
/// Kinds from here on are not numbered.
const UNNUMBERED: u8 = 0x80;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Opens a stream. Payload: service u16, body. Flags: class.
    Open,
    /// Bytes of a stream.
    Data,
    /// Payload u64: so many bytes may be sent on this stream in all, counted from its start.
    Credit,
    /// No more bytes follow on this stream in this direction.
    Eof,
    /// The sender reads no more of this stream. Payload u32: zero, or a code as that of a reset.
    Stop,
    /// What was sent on this stream is void, and nothing follows. Payload u32: the code.
    Reset,
    /// Nothing follows on this link. Payload u32: a [`goodbye`] code.
    Goodbye,
    /// The handshake. Payload: [`crate::handshake::Hello`].
    Hello,
    /// Asks for a pong with the same token.
    Ping,
    /// Answers a ping.
    Pong,
    /// Everything numbered below `seq` has been received. Payload u64: when the last numbered frame came, in microseconds by a
    /// clock of the receiver that never jumps and begins anywhere. On a link of several pipes also u64: numbered bytes
    /// received in all, those behind a gap included; and for each pipe u32: its number, u64: numbered bytes received on it.
    Ack,
    /// The sender will be silent until its next byte, however long that takes: its process is about to be stopped.
    Pause,
    /// The sender could send more if the link had more pipes than `seq` says.
    Widen,
    /// Of a later version.
    Unknown(u8),
}

/// Codes of a goodbye.
pub mod goodbye {
    /// The link was closed in order.
    pub const CLOSED: u32 = 0;
    /// The other side broke the protocol.
    pub const PROTOCOL: u32 = 1;
}

impl Kind {
    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Kind::Open => 1,
            Kind::Data => 2,
            Kind::Credit => 3,
            Kind::Eof => 4,
            Kind::Stop => 5,
            Kind::Reset => 6,
            Kind::Goodbye => 7,
            Kind::Hello => 0x80,
            Kind::Ping => 0x81,
            Kind::Pong => 0x82,
            Kind::Ack => 0x83,
            Kind::Pause => 0x84,
            Kind::Widen => 0x85,
            Kind::Unknown(code) => code,
        }
    }

    /// The reverse of [`code`](Self::code).
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Kind::Open,
            2 => Kind::Data,
            3 => Kind::Credit,
            4 => Kind::Eof,
            5 => Kind::Stop,
            6 => Kind::Reset,
            7 => Kind::Goodbye,
            0x80 => Kind::Hello,
            0x81 => Kind::Ping,
            0x82 => Kind::Pong,
            0x83 => Kind::Ack,
            0x84 => Kind::Pause,
            0x85 => Kind::Widen,
            code => Kind::Unknown(code),
        }
    }

    /// Whether `seq` is a position and the frame counts.
    pub fn numbered(self) -> bool {
        self.code() < UNNUMBERED
    }

    /// Whether the payload may be handed on in parts.
    fn in_parts(self) -> bool {
        matches!(self, Kind::Data | Kind::Unknown(_))
    }

    /// Whether a payload can be that long.
    fn takes(self, len: usize) -> bool {
        match self {
            Kind::Open => (2..=WHOLE_MAX).contains(&len),
            Kind::Data | Kind::Unknown(_) => len <= PAYLOAD_MAX,
            Kind::Credit => len == 8,
            Kind::Ack => len == 8 || ((16..=ACK_MAX).contains(&len) && (len - 16).is_multiple_of(ACK_PIPE)),
            Kind::Stop | Kind::Reset | Kind::Goodbye => len == 4,
            Kind::Hello => len <= WHOLE_MAX,
            Kind::Eof | Kind::Ping | Kind::Pong | Kind::Pause | Kind::Widen => len == 0,
        }
    }
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload.
    pub len: u32,
    /// What it is.
    pub kind: Kind,
    /// Of an open: the class.
    pub flags: u8,
    /// The stream, zero for the link.
    pub stream: u32,
    /// Position, acknowledged position or token, by kind.
    pub seq: u64,
}

impl Header {
    /// As on the wire.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u32_le(self.len);
        out.put_u8(self.kind.code());
        out.put_u8(self.flags);
        out.put_u16_le(0);
        out.put_u32_le(self.stream);
        out.put_u64_le(self.seq);
    }

    /// The reverse of [`encode`](Self::encode); refuses lengths that the kind cannot have.
    pub fn decode(bytes: &[u8; HEADER]) -> Result<Self, FrameError> {
        let mut bytes = &bytes[..];
        let len = bytes.get_u32_le();
        let kind = Kind::from_code(bytes.get_u8());
        let flags = bytes.get_u8();
        let _reserved = bytes.get_u16_le();
        let header = Header { len, kind, flags, stream: bytes.get_u32_le(), seq: bytes.get_u64_le() };
        if !kind.takes(len as usize) {
            return Err(FrameError::Length { kind, len });
        }
        Ok(header)
    }
}

/// The peer's bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// No frame of this kind is that long.
    #[error("frame {kind:?} with {len} bytes of payload")]
    Length {
        /// Kind.
        kind: Kind,
        /// Bytes of payload.
        len: u32,
    },
}

/// A frame, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The head of the frame.
    pub header: Header,
    /// Payload, shared with the chunk that it came in. All of it, except of data and unknown frames.
    pub payload: Bytes,
    /// The frame begins with this part.
    pub first: bool,
    /// The frame ends with this part.
    pub last: bool,
}

/// Cuts chunks into frames. Keeps a header or the payload of a small frame at most; data passes through as it comes.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    /// The beginning of a header, or of a payload that is wanted whole.
    partial: BytesMut,
    /// The frame that is being received, and how many bytes of its payload are still to come.
    current: Option<(Header, usize)>,
}

impl FrameDecoder {
    /// The next part, taken off the front of `chunk`; `None` when all of the chunk is used up. After an error there is
    /// nothing more to be had.
    pub fn next(&mut self, chunk: &mut Bytes) -> Result<Option<Part>, FrameError> {
        let (header, missing) = match self.current {
            Some(current) => current,
            None => {
                let Some(header) = self.header(chunk)? else { return Ok(None) };
                (header, header.len as usize)
            }
        };
        self.current = Some((header, missing));
        if header.kind.in_parts() {
            if missing > 0 && chunk.is_empty() {
                return Ok(None);
            }
            let first = missing == header.len as usize;
            let payload = chunk.split_to(missing.min(chunk.len()));
            let missing = missing - payload.len();
            self.current = (missing > 0).then_some((header, missing));
            return Ok(Some(Part { header, payload, first, last: missing == 0 }));
        }
        let payload = if self.partial.is_empty() && chunk.len() >= missing {
            chunk.split_to(missing)
        } else {
            let part = chunk.split_to(missing.min(chunk.len()));
            self.partial.extend_from_slice(&part);
            self.current = Some((header, missing - part.len()));
            if missing > part.len() {
                return Ok(None);
            }
            self.partial.split().freeze()
        };
        self.current = None;
        Ok(Some(Part { header, payload, first: true, last: true }))
    }

    fn header(&mut self, chunk: &mut Bytes) -> Result<Option<Header>, FrameError> {
        if self.partial.is_empty()
            && let Some(bytes) = chunk.first_chunk::<HEADER>()
        {
            let header = Header::decode(bytes)?;
            chunk.advance(HEADER);
            return Ok(Some(header));
        }
        let part = chunk.split_to((HEADER - self.partial.len()).min(chunk.len()));
        self.partial.extend_from_slice(&part);
        let Some(bytes) = self.partial.first_chunk::<HEADER>() else { return Ok(None) };
        let header = Header::decode(bytes)?;
        self.partial.clear();
        Ok(Some(header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, stream: u32, seq: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Header { len: payload.len() as u32, kind, flags: 0, stream, seq }.encode(&mut out);
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn any_chopping_gives_the_same_frames() {
        let mut wire = frame(Kind::Open, 1, 0, b"\x01\x00body");
        wire.extend(frame(Kind::Data, 1, 26, b"hello world"));
        wire.extend(frame(Kind::Unknown(0x33), 1, 57, b"later"));
        wire.extend(frame(Kind::Eof, 1, 82, b""));
        wire.extend(frame(Kind::Credit, 1, 102, &7u64.to_le_bytes()));
        for size in 1..wire.len() {
            let mut decoder = FrameDecoder::default();
            let mut seen: Vec<(Header, Vec<u8>)> = Vec::new();
            let mut open = false;
            for chunk in wire.chunks(size) {
                let mut chunk = Bytes::copy_from_slice(chunk);
                while let Some(part) = decoder.next(&mut chunk).unwrap() {
                    assert_eq!(part.first, !open);
                    match seen.last_mut() {
                        Some(frame) if open => frame.1.extend_from_slice(&part.payload),
                        _ => seen.push((part.header, part.payload.to_vec())),
                    }
                    open = !part.last;
                }
                assert!(chunk.is_empty());
            }
            assert!(!open);
            let payloads: Vec<_> = seen.iter().map(|(_, payload)| payload.clone()).collect();
            let credit = 7u64.to_le_bytes();
            assert_eq!(payloads, [&b"\x01\x00body"[..], b"hello world", b"later", b"", &credit], "chunks of {size}");
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for (kind, len) in [(Kind::Data, PAYLOAD_MAX + 1), (Kind::Open, 1), (Kind::Credit, 4), (Kind::Ack, 1)] {
            let mut bytes = Vec::new();
            Header { len: len as u32, kind, flags: 0, stream: 0, seq: 0 }.encode(&mut bytes);
            let result = FrameDecoder::default().next(&mut bytes.into());
            assert_eq!(result, Err(FrameError::Length { kind, len: len as u32 }));
        }
    }

    #[test]
    fn kinds_have_their_numbers() {
        for code in 0..=u8::MAX {
            assert_eq!(Kind::from_code(code).code(), code);
        }
    }
}
