//! Takes what arrives at sockets that somebody has made for it, and has the other side of a link make it: connections,
//! datagrams, questions about names, pings. Knows nothing of how it comes to arrive there.

mod connections;
mod datagrams;
mod domain;
mod echo;
mod names;
mod packet;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use remotely_proto::net::{Found, Open, Surroundings};
use remotely_session::{Class, Link, MessageReceiver, Service, Stream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::connections::Original;
use self::connections::Refused;
pub use self::domain::{Domain, DomainError};
pub use self::packet::Packets;
use crate::socket;

/// How long what is captured waits for a link that is being made again.
const LINK_WITHIN: Duration = Duration::from_secs(30);

/// Which addresses the other side dials; all others are dialled on this one.
pub type Wanted = Arc<dyn Fn(IpAddr, u16) -> bool + Send + Sync>;

/// Who dials what.
#[derive(Clone)]
pub struct Exits {
    /// The link to the other side; `None` while there is none.
    pub there: watch::Receiver<Option<Link>>,
    /// A link to whoever dials on this side, see [`link_to_self`](crate::link_to_self).
    pub here: Link,
    /// What goes there.
    pub wanted: Wanted,
    /// Who is asked about names.
    pub naming: Naming,
    /// Where those connect to who make the link. One that was captured before that was known is reset, so that it is made again; `None`
    /// where none can be captured.
    pub left_alone: Option<watch::Receiver<Vec<SocketAddr>>>,
}

/// Who is asked about names.
#[derive(Debug, Clone, Default)]
pub struct Naming {
    /// Whom the other side asks; whoever it asks itself, if nobody is named.
    pub nameserver: Option<SocketAddr>,
    /// What the other side is asked about; everything, if there are none. All else is asked for here.
    pub domains: Vec<Domain>,
    /// While there is no link, everything is asked for here: who makes the next link has to find the host.
    pub here_without_link: bool,
}

impl Exits {
    /// Opens a stream to whoever dials this address; for names and what has no address, the other side. Waits for a link that is
    /// not there; `None` if it does not come. Cancel safe.
    async fn open(&self, to: Option<SocketAddr>, open: &Open) -> Option<Stream> {
        if to.is_none_or(|to| (self.wanted)(to.ip(), to.port())) {
            return open_through(&self.there, open).await;
        }
        open_on(&self.here, open)
    }
}

/// The link, waited for while there is none; `None` if it does not come. Cancel safe.
async fn link(there: &watch::Receiver<Option<Link>>) -> Option<Link> {
    if let Some(link) = there.borrow().clone() {
        return Some(link);
    }
    let mut there = there.clone();
    let link = tokio::time::timeout(LINK_WITHIN, there.wait_for(Option::is_some)).await.ok()?.ok()?;
    link.clone()
}

/// Opens a stream over the link, which is waited for. `None` if it does not come. Cancel safe.
pub(crate) async fn open_through(there: &watch::Receiver<Option<Link>>, open: &Open) -> Option<Stream> {
    open_on(&link(there).await?, open)
}

/// Opens a stream over this link. `None` if that is over, or has as many as it may.
pub(crate) fn open_on(link: &Link, open: &Open) -> Option<Stream> {
    let mut body = Vec::new();
    // Encoding into a Vec cannot fail.
    minicbor::encode(open, &mut body).ok()?;
    link.open(Service::NET, Class::Normal, body.into()).ok()
}

impl fmt::Debug for Exits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Exits").field("there", &*self.there.borrow()).finish_non_exhaustive()
    }
}

/// Asks the other side of a link what it knows of its network; `None` if it does not say.
pub async fn ask_surroundings(link: &Link) -> Option<Surroundings> {
    let body = minicbor::to_vec(Open::Surroundings).ok()?;
    let stream = link.open(Service::NET, Class::Control, body.into()).ok()?;
    let answer = MessageReceiver::new(stream.recv).recv().await.ok()??;
    Some(answer.0)
}

/// The sockets at which everything arrives; each may be missing.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Listening for connections, and how it is told where those were going.
    pub connections: Vec<(OwnedFd, Original)>,
    /// Datagrams that were going elsewhere, with IP_RECVORIGDSTADDR.
    pub datagrams: Vec<OwnedFd>,
    /// Listening for questions about names: for datagrams, for connections.
    pub names: (Vec<OwnedFd>, Vec<OwnedFd>),
    /// Raw, for ICMP of IPv4 and of IPv6.
    pub echo: Vec<OwnedFd>,
    /// How datagrams and pings are answered.
    pub packets: Option<Packets>,
}

/// What is captured at some sockets. Ends when dropped; connections that are there are reset.
#[derive(Debug)]
#[must_use = "dropped, nothing is captured any more"]
pub struct Capture {
    tasks: JoinSet<()>,
}

impl Capture {
    /// Begins. An error means that a socket is none of those that it should be.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub fn start(sockets: Sockets, exits: &Exits) -> io::Result<Self> {
        socket::allow_descriptors();
        let mut tasks = JoinSet::new();
        let refused = Arc::new(Refused::default());
        for (listener, original) in sockets.connections {
            tasks.spawn(connections::capture(listener, original, exits.clone(), refused.clone())?);
        }
        let packets = sockets.packets.map(Arc::new);
        if let Some(packets) = &packets {
            for socket in sockets.datagrams {
                tasks.spawn(datagrams::capture(socket, packets.clone(), exits.clone())?);
            }
            for socket in sockets.echo {
                tasks.spawn(echo::capture(socket, packets.clone(), exits.clone())?);
            }
        }
        let (by_datagram, by_stream) = sockets.names;
        names::capture(by_datagram, by_stream, exits, &mut tasks)?;
        Ok(Self { tasks })
    }

    /// How many of its tasks there are; for tests.
    pub fn is_running(&self) -> bool {
        !self.tasks.is_empty()
    }
}

/// Has the other side tell names of its network, until the link is over or this is dropped. `take` must not wait.
pub async fn hosts(link: &Link, auto: bool, seeds: Vec<String>, mut take: impl FnMut(Found)) {
    let Some(stream) = open_on(link, &Open::Hosts { auto, seeds }) else { return };
    let mut names = MessageReceiver::new(stream.recv);
    loop {
        match names.recv::<Found>().await {
            Ok(Some((found, _))) => take(found),
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "the host tells no more names"),
        }
    }
}
