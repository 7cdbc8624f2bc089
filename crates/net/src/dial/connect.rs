//! One TCP connection for the other side.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use bytes::Bytes;
use remotely_proto::message::encode;
use remotely_proto::net::{Connected, Place};
use remotely_session::Stream;
use tokio::net::{TcpStream, UnixStream};

use super::{lookup, resolv::Resolvers};
use crate::connection::Connection;
use crate::flow;

/// An address that does not answer has so long before the next one of the same name is tried.
const NEXT_AFTER: Duration = Duration::from_secs(3);

/// Connects, says what came of it, and carries the bytes.
pub(super) async fn serve(to: Place, resolvers: &Resolvers, mut stream: Stream) {
    let connected = tokio::select! {
        connected = connect(to, resolvers) => connected,
        // Nobody wants it any more.
        _ = stream.send.stopped() => return,
    };
    let (answer, socket) = match connected {
        Ok((peer, socket)) => (Connected::Yes { peer }, Some(socket)),
        Err(no) => (no, None),
    };
    tracing::trace!(?answer, "connect");
    let (answer, _) = encode(&answer, Bytes::new());
    if stream.send.send(answer).await.is_err() {
        return;
    }
    match socket {
        Some(socket) => {
            if let Err(cut) = flow::carry(socket, stream, false).await {
                tracing::trace!(%cut, "connection cut");
            }
        }
        None => {
            stream.send.finish();
            stream.recv.stop();
        }
    }
}

async fn connect(to: Place, resolvers: &Resolvers) -> Result<(Option<SocketAddr>, Connection), Connected> {
    match to {
        Place::Address(address) => one(address).await.map_err(|error| refused(&error)),
        Place::Path(at) => path(&at).await.map_err(|error| refused(&error)),
        // Elsewhere, as above: most connections are to addresses.
        Place::Name { name, port } => Box::pin(by_name(name, port, resolvers)).await,
    }
}

async fn by_name(
    name: String,
    port: u16,
    resolvers: &Resolvers,
) -> Result<(Option<SocketAddr>, Connection), Connected> {
    let addresses = lookup::addresses(&name, resolvers).await;
    let mut last = Connected::No { errno: 0, why: format!("{name} has no address there") };
    let count = addresses.len();
    for (n, ip) in addresses.into_iter().enumerate() {
        let attempt = one(SocketAddr::new(ip, port));
        let attempt = match n + 1 < count {
            true => tokio::time::timeout(NEXT_AFTER, attempt).await.unwrap_or_else(|e| Err(e.into())),
            false => attempt.await,
        };
        match attempt {
            Ok(connected) => return Ok(connected),
            Err(error) => last = refused(&error),
        }
    }
    Err(last)
}

async fn one(address: SocketAddr) -> io::Result<(Option<SocketAddr>, Connection)> {
    Ok((Some(address), TcpStream::connect(address).await?.into()))
}

async fn path(path: &[u8]) -> io::Result<(Option<SocketAddr>, Connection)> {
    Ok((None, UnixStream::connect(OsStr::from_bytes(path)).await?.into()))
}

fn refused(error: &io::Error) -> Connected {
    let errno = match error.kind() {
        io::ErrorKind::TimedOut => libc::ETIMEDOUT,
        _ => error.raw_os_error().unwrap_or(libc::EIO),
    };
    Connected::No { errno: errno.cast_unsigned(), why: error.to_string() }
}
