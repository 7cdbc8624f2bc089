//! What waits to be sent on a stream by somebody who must not wait for it: datagrams. When the link is slower than what comes,
//! some are dropped, as a network does. Used by capture and dial.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use remotely_session::{SendError, SendStream};

/// Bytes that wait at most.
const WAITING_MAX: usize = 256 << 10;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: BytesMut,
    /// Whole records, of which some may have been sent in part.
    sending: Bytes,
}

impl Outbox {
    /// Lets a record be added, if there is room.
    pub(crate) fn add(&mut self, add: impl FnOnce(&mut BytesMut)) {
        if self.waiting.len() < WAITING_MAX {
            add(&mut self.waiting);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sending.is_empty()
    }

    /// Sends what is there; ready when all of it has been. Cancel safe.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, to: &mut SendStream) -> Poll<Result<(), SendError>> {
        loop {
            if self.sending.is_empty() {
                if self.waiting.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                self.sending = self.waiting.split().freeze();
            }
            std::task::ready!(to.poll_send(cx, &mut self.sending))?;
        }
    }
}
