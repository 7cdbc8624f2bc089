//! A UDP socket for the other side: one for each family, made when it is first needed. What cannot be sent is dropped.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::BytesMut;
use remotely_proto::net::Datagram;
use remotely_session::Stream;
use tokio::net::UdpSocket;

use crate::outbox::Outbox;

/// Datagrams taken from a socket before others have their turn.
const BATCH: usize = 64;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 1 << 16]);
}

pub(super) async fn serve(stream: Stream) {
    let Stream { mut send, mut recv, .. } = stream;
    let (mut v4, mut v6): (Option<UdpSocket>, Option<UdpSocket>) = (None, None);
    let (mut received, mut outbox) = (BytesMut::new(), Outbox::default());
    loop {
        tokio::select! {
            chunk = recv.recv() => {
                let Ok(Some(chunk)) = chunk else { return };
                received.extend_from_slice(&chunk);
                loop {
                    match Datagram::decode(&mut received) {
                        Ok(Some(datagram)) => {
                            let socket = if datagram.address.is_ipv4() { &mut v4 } else { &mut v6 };
                            send_to(socket, &datagram).await;
                        }
                        Ok(None) => break,
                        Err(_) => return,
                    }
                }
            }
            () = readable(v4.as_ref()) => take(v4.as_ref(), &mut outbox),
            () = readable(v6.as_ref()) => take(v6.as_ref(), &mut outbox),
            sent = poll_fn(|cx| outbox.poll_send(cx, &mut send)), if !outbox.is_empty() => {
                if sent.is_err() {
                    return;
                }
            }
        }
    }
}

async fn readable(socket: Option<&UdpSocket>) {
    match socket {
        Some(socket) => drop(socket.readable().await),
        None => pending().await,
    }
}

async fn send_to(slot: &mut Option<UdpSocket>, datagram: &Datagram) {
    if slot.is_none() {
        let any: SocketAddr = match datagram.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        *slot = match UdpSocket::bind(any).await {
            Ok(socket) => {
                let _ = socket.set_broadcast(true);
                Some(socket)
            }
            // A host without this family.
            Err(error) => return tracing::debug!(%error, "no socket for datagrams"),
        };
    }
    if let Some(socket) = slot {
        let _ = socket.send_to(&datagram.data, datagram.address).await;
    }
}

/// Takes what a socket has, up to a limit.
fn take(socket: Option<&UdpSocket>, outbox: &mut Outbox) {
    let Some(socket) = socket else { return };
    BUFFER.with_borrow_mut(|buffer| {
        for _ in 0..BATCH {
            match socket.try_recv_from(buffer) {
                Ok((bytes, from)) => outbox.add(|out| Datagram::put(from, &buffer[..bytes], out)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // What an earlier datagram met.
                Err(_) => {}
            }
        }
    });
}
