//! Messages on a stream: a CBOR head and a raw payload behind a length prefix. Used by services that speak in requests and
//! replies; plain byte streams do without.
//!
//! Layout: total length u32, head length u32 (both little endian, the total counts head and payload), head, payload.

use bytes::{Buf, Bytes, BytesMut};
use minicbor::{Decode, Encode};
use thiserror::Error;

/// Most bytes of head and payload together.
pub const MESSAGE_MAX: usize = 4 << 20;

const PREFIX: usize = 8;

/// The peer's bytes are no message.
#[derive(Debug, Error)]
pub enum MessageError {
    /// Longer than [`MESSAGE_MAX`].
    #[error("message of {0} bytes is longer than {MESSAGE_MAX}")]
    TooLong(usize),
    /// The head is longer than the message.
    #[error("message head of {head} bytes in a message of {total}")]
    HeadLength {
        /// Head.
        head: usize,
        /// Head and payload.
        total: usize,
    },
    /// The head is not what was expected.
    #[error("message head does not decode")]
    Head(#[source] minicbor::decode::Error),
}

/// A message as bytes: prefix and head in the first piece, the payload, not copied, in the second.
///
/// # Panics
/// If head and payload are longer than [`MESSAGE_MAX`]; the sender's own bug.
pub fn encode(head: &impl Encode<()>, payload: Bytes) -> (Bytes, Bytes) {
    let mut out = vec![0; PREFIX];
    // Encoding into a Vec cannot fail.
    let Ok(()) = minicbor::encode(head, &mut out).map_err(|_| ()) else { unreachable!("a Vec takes all bytes") };
    let head_len = out.len() - PREFIX;
    let total = head_len + payload.len();
    assert!(total <= MESSAGE_MAX, "message of {total} bytes");
    out[..4].copy_from_slice(&(total as u32).to_le_bytes());
    out[4..PREFIX].copy_from_slice(&(head_len as u32).to_le_bytes());
    (out.into(), payload)
}

/// Cuts a byte stream into messages. Holds at most one message and one chunk.
#[derive(Debug, Default)]
pub struct MessageDecoder {
    buffer: BytesMut,
}

impl MessageDecoder {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// Whether nothing of a further message has come.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes out what came and is no message yet: the stream goes on in another way.
    pub fn rest(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }

    /// The next message, if all of it is there. The head is decoded; the payload is shared, not copied.
    #[expect(clippy::should_implement_trait, reason = "each message may have a head of another type")]
    pub fn next<H>(&mut self) -> Result<Option<(H, Bytes)>, MessageError>
    where
        H: for<'b> Decode<'b, ()>,
    {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        let [a, b, c, d, e, f, g, h] = *prefix;
        let total = u32::from_le_bytes([a, b, c, d]) as usize;
        let head_len = u32::from_le_bytes([e, f, g, h]) as usize;
        if total > MESSAGE_MAX {
            return Err(MessageError::TooLong(total));
        }
        if head_len > total {
            return Err(MessageError::HeadLength { head: head_len, total });
        }
        if self.buffer.len() < PREFIX + total {
            self.buffer.reserve(PREFIX + total - self.buffer.len());
            return Ok(None);
        }
        let mut message = self.buffer.split_to(PREFIX + total).freeze();
        message.advance(PREFIX);
        let head = message.split_to(head_len);
        Ok(Some((minicbor::decode(&head).map_err(MessageError::Head)?, message)))
    }
}
