//! Pings that were going elsewhere, as a raw socket of ICMP sees them. The kernel must have been told not to answer any itself; so
//! those that are for this machine are answered here.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use remotely_proto::net::{Datagram, Open};
use rustix::net::{RecvFlags, recvfrom};
use tokio::io::unix::AsyncFd;

use super::{Exits, Packets};
use crate::outbox::Outbox;
use crate::socket;

/// How long a ping may be answered.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Pings that wait for their answer.
const WAITING_MAX: usize = 1024;

/// A ping as it was sent.
#[derive(Debug)]
struct Request {
    from: IpAddr,
    to: IpAddr,
    identifier: u16,
    sequence: u16,
    data: Bytes,
}

/// Who waits, by address and sequence number.
type Waiting = HashMap<(IpAddr, u16), (IpAddr, u16, Instant)>;

pub(super) fn capture(
    socket: OwnedFd,
    packets: Arc<Packets>,
    exits: Exits,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    let socket = socket::register(socket)?;
    Ok(async move {
        loop {
            let first = next(&socket, &packets).await;
            serve(first, &socket, &packets, &exits).await;
        }
    })
}

/// Passes on pings over one stream, until that ends.
async fn serve(first: Request, socket: &AsyncFd<OwnedFd>, packets: &Packets, exits: &Exits) {
    let Some(mut stream) = exits.open(None, &Open::Echo).await else { return };
    let (mut waiting, mut outbox, mut received) = (Waiting::new(), Outbox::default(), BytesMut::new());
    ask(first, &mut waiting, &mut outbox);
    loop {
        tokio::select! {
            request = next(socket, packets) => ask(request, &mut waiting, &mut outbox),
            chunk = stream.recv.recv() => {
                let Ok(Some(chunk)) = chunk else { return };
                received.extend_from_slice(&chunk);
                loop {
                    match Datagram::decode(&mut received) {
                        Ok(Some(Datagram { address, data })) => {
                            let (ip, sequence) = (address.ip(), address.port());
                            if let Some((to, identifier, _)) = waiting.remove(&(ip, sequence)) {
                                packets.echo(ip, to, identifier, sequence, &data);
                            }
                        }
                        Ok(None) => break,
                        Err(_) => return,
                    }
                }
            }
            sent = poll_fn(|cx| outbox.poll_send(cx, &mut stream.send)), if !outbox.is_empty() => {
                if sent.is_err() {
                    return;
                }
            }
        }
    }
}

fn ask(request: Request, waiting: &mut Waiting, outbox: &mut Outbox) {
    let Request { from, to, identifier, sequence, data } = request;
    if waiting.len() >= WAITING_MAX {
        waiting.retain(|_, (_, _, at)| at.elapsed() < ANSWER_WITHIN);
    }
    if waiting.len() < WAITING_MAX {
        waiting.insert((to, sequence), (from, identifier, Instant::now()));
        outbox.add(|out| Datagram::put(SocketAddr::new(to, sequence), &data, out));
    }
}

/// The next ping that goes elsewhere.
async fn next(socket: &AsyncFd<OwnedFd>, packets: &Packets) -> Request {
    loop {
        let Ok(mut ready) = socket.readable().await else { return std::future::pending().await };
        // In a function of its own: so much is not to be a part of what waits.
        let Ok(taken) = ready.try_io(|socket| take(socket.get_ref())) else { continue };
        match taken {
            Ok(Some(request)) if is_own(request.to, request.from) => {
                packets.echo(request.to, request.from, request.identifier, request.sequence, &request.data);
            }
            Ok(Some(request)) => return request,
            Ok(None) | Err(_) => {}
        }
    }
}

/// Whether it is for this machine.
fn is_own(to: IpAddr, from: IpAddr) -> bool {
    to.is_loopback() || to == from
}

/// What has come, if that is a ping. IPv4 comes with its header, IPv6 without, and neither says where it goes but in that: IPv6
/// tells it in a control message, for which see the kind of the socket.
fn take(socket: &OwnedFd) -> io::Result<Option<Request>> {
    let mut buffer = [MaybeUninit::uninit(); 1 << 16];
    let ((packet, _), _, from) = recvfrom(socket, &mut buffer, RecvFlags::empty())?;
    let from = from.and_then(|from| SocketAddr::try_from(from).ok()).map(|from| from.ip());
    Ok(from.and_then(|from| request_v4(from, packet)))
}

fn request_v4(from: IpAddr, packet: &[u8]) -> Option<Request> {
    let header = usize::from(packet.first()? & 15) * 4;
    let to = Ipv4Addr::from(*packet.get(16..20)?.first_chunk()?);
    let message = packet.get(header..)?;
    let &[8, 0, _, _, i1, i2, s1, s2] = message.first_chunk()? else { return None };
    let (identifier, sequence) = (u16::from_be_bytes([i1, i2]), u16::from_be_bytes([s1, s2]));
    let data = Bytes::copy_from_slice(&message[8..]);
    Some(Request { from, to: to.into(), identifier, sequence, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_known_by_its_type_and_never_read_beyond_its_end() {
        let from = IpAddr::from([192, 0, 0, 2]);
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 0, 2, 10, 0, 0, 1];
        packet.extend(b"\x08\x00\x00\x00\x00\x07\x00\x01data");
        let request = request_v4(from, &packet).unwrap();
        assert_eq!((request.to, request.identifier, request.sequence), ([10, 0, 0, 1].into(), 7, 1));
        assert_eq!(&request.data[..], b"data");
        for end in 0..packet.len() - 4 {
            assert!(request_v4(from, &packet[..end]).is_none());
        }
        packet[20] = 0;
        assert!(request_v4(from, &packet).is_none(), "a reply");
    }
}
