//! Connections that are made on purpose: to a port or a path that stands for another one behind the link, as with `ssh -L`, `-R` and
//! `-D`. Called by who has been told which; captures nothing.

mod socks;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use remotely_proto::message::{MessageDecoder, encode};
use remotely_proto::net::{Connected, Listening, Open, Place};
use remotely_session::{Link, Offer, Stream, reset};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::capture::{self, open_on};
use crate::connection::{Connection, Listener};
use crate::dial::Dialer;
use crate::flow::{self, Cut};
use crate::link_to_self;

/// When there are no descriptors left, so long until the next try.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Where connections lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Towards {
    /// There, all of them.
    Place(Place),
    /// Where each says, by SOCKS (version 4, 4a or 5, without passwords).
    Anywhere,
}

/// Waits on this side for connections that lead somewhere on the other.
#[derive(Debug)]
pub struct Entrance {
    listener: Listener,
}

impl Entrance {
    /// Begins to listen. A name is none of this side's: look it up before.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2); `InvalidInput` for a name.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub fn at(place: &Place) -> io::Result<Self> {
        let listener = match place {
            Place::Address(at) => Listener::at_address(*at),
            Place::Path(path) => Listener::at_path(path),
            Place::Name { .. } => Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(Self { listener: listener? })
    }

    /// The address, with the port that was chosen; `None` if it is a path.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.address()
    }

    /// Carries connections until dropped; those that are there are reset then.
    pub async fn serve(self, to: Towards, there: watch::Receiver<Option<Link>>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => drop(connections.spawn(lead(socket, to.clone(), there.clone()))),
                    Err(error) => {
                        tracing::debug!(%error, "cannot accept a connection");
                        tokio::time::sleep(AGAIN_AFTER).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn lead(socket: Connection, to: Towards, there: watch::Receiver<Option<Link>>) {
    let led = match to {
        Towards::Anywhere => socks::serve(socket, &there).await,
        Towards::Place(to) => match capture::open_through(&there, &Open::Connect { to }).await {
            Some(stream) => flow::carry(socket, stream, true).await,
            None => {
                socket.reset();
                Err(Cut::Stream)
            }
        },
    };
    if let Err(cut) = led {
        tracing::debug!(%cut, "connection cut");
    }
}

/// Places on the other side where connections are waited for that lead somewhere on this one. Clones are the same.
#[derive(Clone)]
pub struct Exit {
    places: Arc<Mutex<HashMap<u32, Towards>>>,
    next: Arc<AtomicU32>,
    dialer: Dialer,
    /// To whoever dials on this side.
    here: watch::Receiver<Option<Link>>,
}

/// The other side does not listen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// It said why.
    #[error("{}", why.escape_debug())]
    Refused {
        /// errno of Linux.
        errno: u32,
        /// In words.
        why: String,
    },
    /// The link was lost, or the other side has no such service.
    #[error("the other side did not answer")]
    Lost,
}

/// While this is held, the other side listens.
#[derive(Debug)]
pub struct Held {
    stream: Stream,
    exit: Exit,
    number: u32,
    /// Where, unless it is a path.
    pub address: Option<SocketAddr>,
}

impl Exit {
    /// With nothing waited for yet.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub fn new(dialer: Dialer) -> io::Result<Self> {
        let (link, incoming) = link_to_self()?;
        tokio::spawn(dialer.clone().serve_all(incoming));
        let here = watch::channel(Some(link)).1;
        Ok(Self { places: Arc::default(), next: Arc::default(), dialer, here })
    }

    /// Has the other side of `link` listen there. Cancel safe.
    pub async fn listen(&self, link: &Link, at: Place, to: Towards) -> Result<Held, ListenError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let stream = open_on(link, &Open::Listen { at, number }).ok_or(ListenError::Lost)?;
        self.places.lock().unwrap_or_else(PoisonError::into_inner).insert(number, to);
        let mut held = Held { stream, exit: self.clone(), number, address: None };
        let mut decoder = MessageDecoder::default();
        loop {
            match held.stream.recv.recv().await {
                Ok(Some(bytes)) => decoder.push(&bytes),
                Ok(None) | Err(_) => return Err(ListenError::Lost),
            }
            match decoder.next::<Listening>() {
                Ok(None) => {}
                Ok(Some((Listening::Yes { at }, _))) => {
                    held.address = at;
                    return Ok(held);
                }
                Ok(Some((Listening::No { errno, why }, _))) => return Err(ListenError::Refused { errno, why }),
                Err(_) => return Err(ListenError::Lost),
            }
        }
    }

    /// Serves a stream that the other side has opened, to its end: a connection that has arrived where it listens. Any other is refused.
    pub async fn serve(self, offer: Offer) {
        let to = match minicbor::decode(&offer.body) {
            Ok(Open::Arrived { number, .. }) => {
                self.places.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
            }
            _ => None,
        };
        match to {
            Some(Towards::Place(to)) => self.dialer.connect(to, offer.stream).await,
            Some(Towards::Anywhere) => drop(self.anywhere(offer.stream).await),
            None => offer.refuse(reset::REFUSED),
        }
    }

    async fn anywhere(self, mut stream: Stream) -> Result<(), Cut> {
        let (asking, asked) = UnixStream::pair()?;
        stream.send.send(encode(&Connected::Yes { peer: None }, Bytes::new()).0).await?;
        let carried = flow::carry(asking.into(), stream, false);
        let (carried, served) = tokio::join!(carried, socks::serve(asked.into(), &self.here));
        carried.and(served)
    }
}

impl fmt::Debug for Exit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Exit").field("places", &self.places).finish_non_exhaustive()
    }
}

impl Held {
    /// Waits until the other side listens no more, because the link is over. Cancel safe.
    pub async fn ended(&mut self) {
        while let Ok(Some(_)) = self.stream.recv.recv().await {}
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.exit.places.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}
