//! Waits for connections on this side for the other one, which connects each to where it belongs.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use remotely_proto::message::encode;
use remotely_proto::net::{Listening, Open, Place};
use remotely_session::{Class, Link, Service, Stream};
use tokio::task::JoinSet;

use super::{lookup, resolv::Resolvers};
use crate::connection::{Connection, Listener};
use crate::flow;

/// When there are no descriptors left, so long until the next try.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Listens until the other side ends the stream. Connections that are there end with the link.
pub(super) async fn serve(at: Place, number: u32, resolvers: &Resolvers, link: Link, mut stream: Stream) {
    let bound = bind(at, resolvers).await;
    let answer = match &bound {
        Ok(listener) => Listening::Yes { at: listener.address() },
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::EIO).cast_unsigned();
            Listening::No { errno, why: error.to_string() }
        }
    };
    tracing::debug!(?answer, "listen");
    let sent = stream.send.send(encode(&answer, Bytes::new()).0).await;
    let (Ok(()), Ok(listener)) = (sent, bound) else {
        stream.send.finish();
        return stream.recv.stop();
    };
    let until_ended = async { while let Ok(Some(_)) = stream.recv.recv().await {} };
    tokio::select! {
        () = until_ended => {}
        () = accept(&listener, number, &link) => {}
    }
    stream.send.finish();
}

async fn bind(at: Place, resolvers: &Resolvers) -> io::Result<Listener> {
    match at {
        Place::Address(at) => Listener::at_address(at),
        Place::Path(path) => Listener::at_path(&path),
        Place::Name { name, port } => {
            let mut last = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
            for ip in lookup::addresses(&name, resolvers).await {
                match Listener::at_address(SocketAddr::new(ip, port)) {
                    Ok(listener) => return Ok(listener),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

async fn accept(listener: &Listener, number: u32, link: &Link) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, from)) => drop(connections.spawn(hand_over(socket, from, number, link.clone()))),
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn hand_over(socket: Connection, from: Option<SocketAddr>, number: u32, link: Link) {
    let mut body = Vec::new();
    // Encoding into a Vec cannot fail.
    let Ok(()) = minicbor::encode(Open::Arrived { number, from }, &mut body).map_err(|_| ()) else { return };
    match link.open(Service::NET, Class::Normal, body.into()) {
        Ok(stream) => drop(flow::carry(socket, stream, true).await),
        Err(_) => socket.reset(),
    }
}
