//! Messages of the call service: functions of the program, run on the host. Spoken by `remotely-call` on both sides.
//!
//! One stream of a link carries all calls whose arguments are small, as [`Record`]s: defined functions, calls, and what they
//! came to, in any order. What is larger than [`INLINE_MAX`] has a stream of its own, so that it delays nothing else. What
//! such a stream is for stands in its [`Open`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::ByteVec;

/// What a stream of the service is for; the body of its open.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Open {
    /// Records in both directions. Opened by the client.
    #[n(0)]
    Calls {
        /// Where the calls go, as the agent is to name it: the hosts on the way, from the user's own on.
        #[n(0)]
        path: Vec<String>,
        /// How many links deep this may go.
        #[n(1)]
        depth_limit: u8,
    },
    /// One call with many arguments: they follow until the end of the stream. What it came to is sent back: a byte, 0 for a
    /// value and 1 for a [`Failure`], a number as in [`Record::Printed`] (u64, little endian), and that. Opened by the client.
    #[n(1)]
    Call {
        /// As in [`Define`](Record::Define).
        #[n(0)]
        signature: u64,
        /// As in [`Define`](Record::Define).
        #[n(1)]
        name: String,
    },
    /// What a call of the shared stream came to, in the same form, where that is large. Opened by the agent.
    #[n(2)]
    Answer {
        /// Its number.
        #[n(0)]
        call: u32,
    },
    /// Items of a channel, each behind its length (u32, little endian). The number of the stream is the channel's name; it
    /// is in the arguments or the value that carry the other end. Opened by either side.
    #[n(3)]
    Channel,
    /// What called functions print, as [`Line`]s behind their lengths. Opened by the agent.
    #[n(4)]
    Output,
}

/// Most bytes of arguments, or of a value, on the shared stream.
pub const INLINE_MAX: usize = 32 << 10;
/// Most bytes of a name.
pub const NAME_MAX: usize = 1 << 10;
/// Most bytes behind the length of a record.
const RECORD_MAX: usize = INLINE_MAX + 64;
/// Kind and number.
const RECORD_HEAD: usize = 5;

/// One thing said on the shared stream. As bytes: length u32, kind u8, number u32 (little endian), payload; the length counts
/// what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// From now on `slot` is this function. Towards the agent.
    Define {
        /// A number that the client has not used.
        slot: u32,
        /// Hash of the types of its arguments and of what it returns.
        signature: u64,
        /// Path of the module and name.
        name: String,
    },
    /// Run it. Towards the agent.
    Call {
        /// A number for this call; free again when it has been answered.
        call: u32,
        /// Which function.
        slot: u32,
        /// CBOR.
        arguments: Bytes,
    },
    /// Nobody waits for that any more; it is answered nevertheless. Towards the agent.
    Cancel {
        /// Which call.
        call: u32,
    },
    /// It returned. Towards the client.
    Value {
        /// Which call.
        call: u32,
        /// CBOR.
        value: Bytes,
    },
    /// It failed. Towards the client.
    Failed {
        /// Which call.
        call: u32,
        /// A [`Failure`] in CBOR.
        failure: Bytes,
    },
    /// What follows belongs behind so many bytes of [`Open::Output`], counted from its beginning. Towards the client.
    Printed {
        /// How many.
        bytes: u64,
    },
}

/// The peer's bytes are no record.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// Longer than any record may be, or shorter.
    #[error("a record of {0} bytes")]
    Length(usize),
    /// Of a kind that this build does not know.
    #[error("a record of kind {0}")]
    Kind(u8),
    /// Its payload is not what its kind asks for.
    #[error("a record of kind {0} that is cut")]
    Cut(u8),
}

const DEFINE: u8 = 0;
const CALL: u8 = 1;
const CANCEL: u8 = 2;
const VALUE: u8 = 16;
const FAILED: u8 = 17;
const PRINTED: u8 = 18;

impl Record {
    /// Appends it as bytes.
    ///
    /// # Panics
    /// If arguments or value are longer than [`INLINE_MAX`], or a name longer than [`NAME_MAX`]; the sender's own bug.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Record::Define { slot, signature, name } => {
                assert!(name.len() <= NAME_MAX, "a name of {} bytes", name.len());
                head(out, DEFINE, *slot, 8 + name.len());
                out.put_u64_le(*signature);
                out.put_slice(name.as_bytes());
            }
            Record::Call { call, slot, arguments } => {
                assert!(arguments.len() <= INLINE_MAX, "arguments of {} bytes", arguments.len());
                head(out, CALL, *call, 4 + arguments.len());
                out.put_u32_le(*slot);
                out.put_slice(arguments);
            }
            Record::Cancel { call } => head(out, CANCEL, *call, 0),
            Record::Printed { bytes } => {
                head(out, PRINTED, 0, 8);
                out.put_u64_le(*bytes);
            }
            Record::Value { call, value: payload } | Record::Failed { call, failure: payload } => {
                assert!(payload.len() <= INLINE_MAX, "an answer of {} bytes", payload.len());
                let kind = if matches!(self, Record::Value { .. }) { VALUE } else { FAILED };
                head(out, kind, *call, payload.len());
                out.put_slice(payload);
            }
        }
    }

    /// Takes the next one off the front of what has come, if all of it is there.
    pub fn decode(from: &mut BytesMut) -> Result<Option<Self>, RecordError> {
        let Some(prefix) = from.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix) as usize;
        if !(RECORD_HEAD..=RECORD_MAX.max(NAME_MAX + 64)).contains(&length) {
            return Err(RecordError::Length(length));
        }
        if from.len() < 4 + length {
            return Ok(None);
        }
        from.advance(4);
        let mut record = from.split_to(length).freeze();
        let (kind, number) = (record.get_u8(), record.get_u32_le());
        let cut = |_| RecordError::Cut(kind);
        Ok(Some(match kind {
            DEFINE => {
                let signature = record.try_get_u64_le().map_err(cut)?;
                let name = String::from_utf8(record.into()).map_err(|_| RecordError::Cut(kind))?;
                Record::Define { slot: number, signature, name }
            }
            CALL => {
                let slot = record.try_get_u32_le().map_err(cut)?;
                Record::Call { call: number, slot, arguments: record }
            }
            CANCEL => Record::Cancel { call: number },
            VALUE => Record::Value { call: number, value: record },
            FAILED => Record::Failed { call: number, failure: record },
            PRINTED => Record::Printed { bytes: record.try_get_u64_le().map_err(cut)? },
            _ => return Err(RecordError::Kind(kind)),
        }))
    }
}

fn head(out: &mut BytesMut, kind: u8, number: u32, payload: usize) {
    out.put_u32_le((RECORD_HEAD + payload) as u32);
    out.put_u8(kind);
    out.put_u32_le(number);
}

/// Why a call came to nothing on the host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    /// What kind of failure.
    #[n(0)]
    pub kind: FailureKind,
    /// In words: the error's own message, or that of the panic.
    #[n(1)]
    pub message: String,
    /// What caused it, and what caused that: messages, outermost first.
    #[n(2)]
    pub chain: Vec<String>,
    /// Name of the error's type, if it is an error that the function returned.
    #[n(3)]
    pub type_name: Option<String>,
    /// The error itself in CBOR, if it can be serialised.
    #[n(4)]
    pub value: Option<ByteVec>,
    /// The stack at a panic; that of an error where it recorded one.
    #[n(5)]
    pub backtrace: Option<String>,
}

impl Failure {
    /// One without particulars.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), chain: Vec::new(), type_name: None, value: None, backtrace: None }
    }
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum FailureKind {
    /// The function returned an error.
    #[n(0)]
    Error,
    /// The function panicked.
    #[n(1)]
    Panic,
    /// The program there has no such function, or one with other types.
    #[n(2)]
    Unknown,
    /// The arguments do not decode.
    #[n(3)]
    Arguments,
    /// What it returned does not encode.
    #[n(4)]
    Value,
    /// It was cancelled before it returned.
    #[n(5)]
    Cancelled,
}

/// A line that was printed on the host, without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// On standard error rather than on standard output.
    pub is_error: bool,
    /// What was printed; a very long line comes in parts.
    pub bytes: Bytes,
}

/// Most bytes of one [`Line`].
pub const LINE_MAX: usize = 16 << 10;

impl Line {
    /// Appends it as bytes: length u32 (of what follows), 0 or 1, and the bytes.
    ///
    /// # Panics
    /// If it is longer than [`LINE_MAX`].
    pub fn encode(&self, out: &mut BytesMut) {
        assert!(self.bytes.len() <= LINE_MAX, "a line of {} bytes", self.bytes.len());
        out.put_u32_le(1 + self.bytes.len() as u32);
        out.put_u8(self.is_error.into());
        out.put_slice(&self.bytes);
    }

    /// Takes the next one off the front of what has come, if all of it is there.
    pub fn decode(from: &mut BytesMut) -> Result<Option<Self>, RecordError> {
        let Some(mut line) = item(from, LINE_MAX + 1)? else { return Ok(None) };
        if line.is_empty() {
            return Err(RecordError::Length(0));
        }
        Ok(Some(Self { is_error: line.get_u8() == 1, bytes: line }))
    }
}

/// Takes the next item of a channel, which may have so many bytes, off the front of what has come, if all of it is there.
pub fn item(from: &mut BytesMut, max: usize) -> Result<Option<Bytes>, RecordError> {
    let Some(prefix) = from.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix) as usize;
    if length > max {
        return Err(RecordError::Length(length));
    }
    if from.len() < 4 + length {
        return Ok(None);
    }
    from.advance(4);
    Ok(Some(from.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_however_they_are_cut() {
        let records = [
            Record::Define { slot: 3, signature: u64::MAX, name: "a::b".into() },
            Record::Call { call: 7, slot: 3, arguments: Bytes::from(vec![1; INLINE_MAX]) },
            Record::Cancel { call: 7 },
            Record::Value { call: 7, value: Bytes::new() },
            Record::Failed { call: 8, failure: Bytes::from_static(b"x") },
            Record::Printed { bytes: u64::MAX - 1 },
        ];
        let mut bytes = BytesMut::new();
        records.iter().for_each(|record| record.encode(&mut bytes));
        let (mut received, mut found) = (BytesMut::new(), Vec::new());
        for chunk in bytes.chunks(7) {
            received.extend_from_slice(chunk);
            while let Some(record) = Record::decode(&mut received).unwrap() {
                found.push(record);
            }
        }
        assert_eq!(found, records);
        assert!(received.is_empty());
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let decode = |bytes: &[u8]| Record::decode(&mut BytesMut::from(bytes));
        assert_eq!(decode(&[0xff; 16]), Err(RecordError::Length(u32::MAX as usize)));
        assert_eq!(decode(&[0; 16]), Err(RecordError::Length(0)));
        assert_eq!(decode(&[5, 0, 0, 0, 99, 0, 0, 0, 0]), Err(RecordError::Kind(99)));
        assert_eq!(decode(&[5, 0, 0, 0, 0, 0, 0, 0, 0]), Err(RecordError::Cut(DEFINE)));
        assert_eq!(decode(&[6, 0, 0, 0, 1, 0, 0, 0, 0, 9]), Err(RecordError::Cut(CALL)));
        assert_eq!(decode(&[5, 0, 0, 0, 2, 0]), Ok(None));
    }

    #[test]
    fn lines_come_back_and_long_items_are_refused() {
        let line = Line { is_error: true, bytes: Bytes::from_static(b"\xff x") };
        let mut bytes = BytesMut::new();
        line.encode(&mut bytes);
        assert_eq!(Line::decode(&mut bytes), Ok(Some(line)));
        assert_eq!(item(&mut BytesMut::from(&[9, 0, 0, 0][..]), 8), Err(RecordError::Length(9)));
        assert_eq!(Line::decode(&mut BytesMut::from(&[0, 0, 0, 0][..])), Err(RecordError::Length(0)));
    }
}
