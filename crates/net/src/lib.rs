//! The network of one side of a link, for the other: who intercepts connections, datagrams and questions about names
//! (capture), and who makes them (dial). Either side can be either. Knows nothing of how the link came about.
//!
//! | module | does |
//! |---|---|
//! | [`dial`] | serves the streams of the net service: connects, sends, asks |
//! | [`capture`] | takes what arrives at sockets that were made for it, and opens those streams |
//! | [`forward`] | leads connections on purpose: to a port that stands for another, by SOCKS |
//! | [`namespace`] | a network for one command, where such sockets get everything |
//! | [`subnet`], [`rules`] | which destinations are meant, and what a kernel has to be told for that: pure |
//! | [`own`], [`routes`], [`watch`] | what there is around: connections of our own, routes, names |
//! | [`firewall`], [`hosts`] | the elevated helper of the whole machine, and its side here |
//! | `flow`, `connection`, `chunk`, `outbox`, `socket` | what both sides stand on |

pub mod capture;
mod chunk;
mod connection;
pub mod dial;
pub mod firewall;
mod flow;
pub mod forward;
pub mod hosts;
pub mod namespace;
mod netlink;
mod outbox;
pub mod own;
pub mod routes;
pub mod rules;
mod socket;
pub mod subnet;
pub mod watch;

use std::os::fd::OwnedFd;

use remotely_session::{Incoming, Link, LinkBuilder, Pipe, Role, Settings};

/// A link from this process to itself, for what is dialled on this side as well: what is opened on the link comes out of the
/// other end.
///
/// # Panics
/// Outside of a tokio runtime with I/O and time enabled.
pub fn link_to_self() -> std::io::Result<(Link, Incoming)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let pair = || socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (a, b) = pair()?;
    let pipe = |fd: OwnedFd| Ok::<_, std::io::Error>(Pipe { reader: fd.try_clone()?, writer: fd });
    let (here, there) = (pipe(a)?, pipe(b)?);
    let agent = LinkBuilder::new(Settings { role: Role::Agent, ..Settings::default() });
    let (_, incoming) = agent.attach(there, bytes::Bytes::new());
    let (link, _) = LinkBuilder::new(Settings::default()).attach(here, bytes::Bytes::new());
    Ok((link, incoming))
}
