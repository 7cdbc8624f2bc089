//! Messages on a stream: [`remotely_proto::message`] over the two halves. For services that speak in requests and replies.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use remotely_proto::{
    message::{MessageDecoder, MessageError, encode},
    mux::{RecvError, SendError},
};
use thiserror::Error;

use crate::stream::{RecvStream, SendStream};

/// Sends messages.
#[derive(Debug)]
pub struct MessageSender {
    stream: SendStream,
}

impl MessageSender {
    /// On this stream.
    pub fn new(stream: SendStream) -> Self {
        Self { stream }
    }

    /// Sends one message. Waits as [`SendStream::send`] does.
    ///
    /// Not cancel safe: when dropped before it is ready, a part of the message may have been sent.
    ///
    /// # Panics
    /// If head and payload are longer than [`MESSAGE_MAX`](remotely_proto::message::MESSAGE_MAX).
    pub async fn send<H: Encode<()>>(&mut self, head: &H, payload: Bytes) -> Result<(), SendError> {
        let (front, payload) = encode(head, payload);
        self.stream.send_all(&mut [front, payload]).await
    }

    /// No message follows.
    pub fn finish(&mut self) {
        self.stream.finish();
    }

    /// The stream itself.
    pub fn stream(&mut self) -> &mut SendStream {
        &mut self.stream
    }

    /// Gives the stream back.
    pub fn into_inner(self) -> SendStream {
        self.stream
    }
}

/// Receives messages.
#[derive(Debug)]
pub struct MessageReceiver {
    stream: RecvStream,
    decoder: MessageDecoder,
}

/// No message can be received.
#[derive(Debug, Error)]
pub enum RecvMessageError {
    /// The stream failed.
    #[error("cannot receive")]
    Recv(#[source] RecvError),
    /// What came is no message, or none of the kind asked for.
    #[error("the other side sent what is no message")]
    Message(#[source] MessageError),
    /// The stream ended within a message.
    #[error("the stream ended within a message")]
    Cut,
}

impl MessageReceiver {
    /// On this stream, at its start or between two messages.
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, decoder: MessageDecoder::default() }
    }

    /// The next message; `None` at the end of the stream. Cancel safe.
    pub async fn recv<H>(&mut self) -> Result<Option<(H, Bytes)>, RecvMessageError>
    where
        H: for<'b> Decode<'b, ()>,
    {
        loop {
            if let Some(message) = self.decoder.next().map_err(RecvMessageError::Message)? {
                return Ok(Some(message));
            }
            match self.stream.recv().await.map_err(RecvMessageError::Recv)? {
                Some(chunk) => self.decoder.push(&chunk),
                None if self.decoder.is_empty() => return Ok(None),
                None => return Err(RecvMessageError::Cut),
            }
        }
    }

    /// The stream itself.
    pub fn stream(&mut self) -> &mut RecvStream {
        &mut self.stream
    }
}
