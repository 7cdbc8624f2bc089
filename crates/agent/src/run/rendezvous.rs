//! Where streams that belong together meet, in whatever order they are offered: those of descriptors with their command,
//! and the three lanes of the file service. Filled by [`crate::run::serve`], emptied by [`crate::run::exec`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use remotely_proto::exec::FdOpen;
use remotely_proto::fs::Lane;
use remotely_session::Stream;
use tokio::sync::Notify;

/// Most streams that wait to be claimed.
const WAITING_MAX: usize = 4096;

/// Streams that have been offered and not yet been claimed.
#[derive(Default)]
pub(crate) struct Rendezvous {
    streams: Mutex<Streams>,
    arrived: Notify,
}

#[derive(Default)]
struct Streams {
    fds: HashMap<(u32, u32), Stream>,
    lanes: [Option<Stream>; 3],
}

impl Rendezvous {
    /// A stream of a descriptor came. Refused (dropped) if there are too many, or one of its name.
    pub(crate) fn offer_fd(&self, name: FdOpen, stream: Stream) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.fds.len() < WAITING_MAX {
            streams.fds.entry((name.exec, name.fd)).or_insert(stream);
        }
        drop(streams);
        self.arrived.notify_waiters();
    }

    /// A lane came.
    pub(crate) fn offer_lane(&self, lane: Lane, mut stream: Stream) {
        // What the command used last time is pushed at once: it must not wait for credit, a round trip for each doubling.
        stream.recv.widen(match lane {
            Lane::Query => 2 << 20,
            Lane::Change => 0,
            Lane::Bulk => 8 << 20,
        });
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).lanes[lane as usize].get_or_insert(stream);
        self.arrived.notify_waiters();
    }

    /// Waits for the stream of a descriptor.
    pub(crate) async fn claim_fd(&self, exec: u32, fd: u32) -> Stream {
        self.claim(|streams| streams.fds.remove(&(exec, fd))).await
    }

    /// Waits for the lanes: queries, changes, bulk.
    pub(crate) async fn claim_lanes(&self) -> (Stream, Stream, Stream) {
        self.claim(|streams| match &mut streams.lanes {
            [query @ Some(_), change @ Some(_), bulk @ Some(_)] => Some((query.take()?, change.take()?, bulk.take()?)),
            _ => None,
        })
        .await
    }

    /// Nobody will claim what is left of a command.
    pub(crate) fn forget(&self, exec: u32) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).fds.retain(|(of, _), _| *of != exec);
    }

    async fn claim<T>(&self, take: impl Fn(&mut Streams) -> Option<T>) -> T {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            // Before looking, so that one that arrives meanwhile is not missed.
            arrived.as_mut().enable();
            if let Some(found) = take(&mut self.streams.lock().unwrap_or_else(PoisonError::into_inner)) {
                return found;
            }
            arrived.await;
        }
    }
}
