//! Pings for the other side, by sockets that need no privilege where the host's `net.ipv4.ping_group_range` lets this user.

use std::future::{pending, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use bytes::{BufMut, BytesMut};
use remotely_proto::net::Datagram;
use remotely_session::Stream;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recvfrom, sendto, socket_with,
};
use tokio::io::unix::AsyncFd;

use crate::outbox::Outbox;

/// Types of ICMP: request and reply, of IPv4 and of IPv6.
const TYPES: [(u8, u8); 2] = [(8, 0), (128, 129)];
/// Type, code, checksum, identifier, sequence number.
const HEAD: usize = 8;

pub(super) async fn serve(stream: Stream) {
    let Stream { mut send, mut recv, .. } = stream;
    let (mut v4, mut v6) = (None, None);
    let (mut received, mut outbox) = (BytesMut::new(), Outbox::default());
    loop {
        tokio::select! {
            chunk = recv.recv() => {
                let Ok(Some(chunk)) = chunk else { return };
                received.extend_from_slice(&chunk);
                loop {
                    match Datagram::decode(&mut received) {
                        Ok(Some(datagram)) if datagram.address.is_ipv4() => request(&mut v4, &datagram),
                        Ok(Some(datagram)) => request(&mut v6, &datagram),
                        Ok(None) => break,
                        Err(_) => return,
                    }
                }
            }
            reply = reply(v4.as_ref()) => outbox.add(|out| reply.into_iter().for_each(|reply| reply.encode(out))),
            reply = reply(v6.as_ref()) => outbox.add(|out| reply.into_iter().for_each(|reply| reply.encode(out))),
            sent = poll_fn(|cx| outbox.poll_send(cx, &mut send)), if !outbox.is_empty() => {
                if sent.is_err() {
                    return;
                }
            }
        }
    }
}

fn request(slot: &mut Option<AsyncFd<OwnedFd>>, datagram: &Datagram) {
    let address = datagram.address;
    if slot.is_none() {
        match socket(address.is_ipv4()) {
            Ok(socket) => *slot = Some(socket),
            Err(error) => return tracing::debug!(%error, "no socket for pings"),
        }
    }
    let Some(socket) = slot else { return };
    let mut message = BytesMut::with_capacity(HEAD + datagram.data.len());
    message.put_u8(TYPES[usize::from(address.is_ipv6())].0);
    // Code; checksum and identifier are the kernel's to fill in.
    message.put_slice(&[0; 5]);
    message.put_u16(address.port());
    message.put_slice(&datagram.data);
    let _ = sendto(socket, &message, SendFlags::DONTWAIT, &SocketAddr::new(address.ip(), 0));
}

fn socket(v4: bool) -> io::Result<AsyncFd<OwnedFd>> {
    let (family, protocol) =
        if v4 { (AddressFamily::INET, ipproto::ICMP) } else { (AddressFamily::INET6, ipproto::ICMPV6) };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, Some(protocol))?;
    crate::socket::register(socket)
}

/// Waits for a reply; `None` for what is none.
async fn reply(socket: Option<&AsyncFd<OwnedFd>>) -> Option<Datagram> {
    let Some(socket) = socket else { return pending().await };
    let Ok(mut ready) = socket.readable().await else { return pending().await };
    ready.try_io(|socket| take(socket.get_ref())).ok()?.ok()?
}

fn take(socket: &OwnedFd) -> io::Result<Option<Datagram>> {
    let mut buffer = [MaybeUninit::uninit(); 1 << 16];
    let ((message, _), _, from) = recvfrom(socket, &mut buffer, RecvFlags::empty())?;
    let Some(Ok(address)) = from.map(SocketAddr::try_from) else { return Ok(None) };
    let kind = TYPES[usize::from(address.is_ipv6())].1;
    if message.len() < HEAD || message[0] != kind {
        return Ok(None);
    }
    let sequence = u16::from_be_bytes([message[6], message[7]]);
    let data = bytes::Bytes::copy_from_slice(&message[HEAD..]);
    Ok(Some(Datagram { address: SocketAddr::new(address.ip(), sequence), data }))
}
