//! Where the streams that the other side opens find those who wait for them. One for each link, shared by everything of the
//! call service that lives on it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use remotely_proto::call::Open;
use remotely_session::{Class, Ended, Link, Offer, Service, Stream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// See above.
#[derive(Debug)]
pub struct Doors {
    link: Link,
    runtime: Handle,
    channels: Mutex<HashMap<u32, Door>>,
}

#[derive(Debug)]
enum Door {
    /// The stream has come before the value that names it. There are at most as many as the mux lets in.
    Arrived(Stream),
    Awaited(oneshot::Sender<Stream>),
}

impl Doors {
    /// For this link.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(link: Link) -> Arc<Self> {
        Arc::new(Self { link, runtime: Handle::current(), channels: Mutex::default() })
    }

    /// The link.
    pub fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Takes a stream that the other side has opened with [`Open::Channel`].
    pub fn offer_channel(&self, offer: Offer) {
        let id = offer.stream.id;
        let mut channels = self.lock();
        match channels.remove(&id) {
            // Whoever waited may have given up: then it is dropped, and so refused.
            Some(Door::Awaited(waiting)) => drop(waiting.send(offer.stream)),
            Some(Door::Arrived(_)) | None => drop(channels.insert(id, Door::Arrived(offer.stream))),
        }
    }

    /// A stream for a channel whose other end travels in a value, which is to name it by its number.
    pub(crate) fn open_channel(&self) -> Result<Stream, Ended> {
        self.open(Class::Normal, &Open::Channel)
    }

    pub(crate) fn open(&self, class: Class, what: &Open) -> Result<Stream, Ended> {
        let mut body = Vec::new();
        // Encoding into a Vec cannot fail.
        let Ok(()) = minicbor::encode(what, &mut body).map_err(|_| ()) else { unreachable!("a Vec takes all bytes") };
        self.link.open(Service::CALL, class, Bytes::from(body))
    }

    /// The stream that a value names; `None` when the link is over before it came.
    pub(crate) async fn claim(&self, id: u32) -> Option<Stream> {
        let coming = {
            let mut channels = self.lock();
            match channels.remove(&id) {
                Some(Door::Arrived(stream)) => return Some(stream),
                Some(Door::Awaited(_)) | None => {
                    let (sender, coming) = oneshot::channel();
                    channels.insert(id, Door::Awaited(sender));
                    coming
                }
            }
        };
        tokio::select! {
            stream = coming => stream.ok(),
            _ = self.link.ended() => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Door>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
