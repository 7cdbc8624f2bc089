//! SOCKS: a connection says first where it is to lead. Version 5 (RFC 1928) without passwords, version 4 and its names (4a); CONNECT
//! only, as `ssh -D` does.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use remotely_proto::net::{Connected, Open, Place};
use remotely_session::Link;
use tokio::sync::watch;

use crate::capture;
use crate::connection::Connection;
use crate::flow::{self, Cut};

/// A connection has so long to say where it is to lead.
const SAID_WITHIN: Duration = Duration::from_secs(30);
/// Most bytes that this takes: the longest names and user names.
const SAID_MAX: usize = 1024;

const NO_PASSWORD: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;

/// Leads one connection to where it says.
pub(super) async fn serve(socket: Connection, there: &watch::Receiver<Option<Link>>) -> Result<(), Cut> {
    let said = tokio::time::timeout(SAID_WITHIN, listen(&socket)).await;
    let Ok(said) = said else {
        socket.reset();
        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
    };
    let (to, version, rest) = said?;
    let Some(mut stream) = capture::open_through(there, &Open::Connect { to }).await else {
        let _ = say(&socket, &version.reply(Err(libc::ENETUNREACH))).await;
        return Err(Cut::Stream);
    };
    match flow::connected(&mut stream.recv).await {
        Ok((peer, first)) => {
            say(&socket, &version.reply(Ok(peer))).await?;
            if !rest.is_empty() {
                stream.send.send(rest).await?;
            }
            flow::carry_on(socket, stream, first).await
        }
        Err(cut) => {
            let errno = match &cut {
                Cut::Refused(Connected::No { errno: 0, .. }) => libc::EHOSTUNREACH,
                Cut::Refused(Connected::No { errno, .. }) => errno.cast_signed(),
                _ => libc::EIO,
            };
            let _ = say(&socket, &version.reply(Err(errno))).await;
            Err(cut)
        }
    }
}

/// How it wants to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Four,
    Five,
}

impl Version {
    fn reply(self, connected: Result<Option<SocketAddr>, i32>) -> Vec<u8> {
        match self {
            Self::Four => {
                let code = if connected.is_ok() { 90 } else { 91 };
                vec![0, code, 0, 0, 0, 0, 0, 0]
            }
            Self::Five => {
                let code = match connected {
                    Ok(_) => 0,
                    Err(libc::ENETUNREACH) => 3,
                    Err(libc::EHOSTUNREACH | libc::ETIMEDOUT) => 4,
                    Err(libc::ECONNREFUSED) => 5,
                    Err(_) => 1,
                };
                let mut reply = vec![5, code, 0];
                match connected.ok().flatten() {
                    Some(SocketAddr::V6(at)) => {
                        reply.put_u8(4);
                        reply.put_slice(&at.ip().octets());
                        reply.put_u16(at.port());
                    }
                    Some(SocketAddr::V4(at)) => {
                        reply.put_u8(1);
                        reply.put_slice(&at.ip().octets());
                        reply.put_u16(at.port());
                    }
                    None => reply.put_slice(&[1, 0, 0, 0, 0, 0, 0]),
                }
                reply
            }
        }
    }
}

/// Hears where it is to lead; with what has come behind that.
async fn listen(socket: &Connection) -> Result<(Place, Version, Bytes), Cut> {
    let mut said = BytesMut::new();
    let mut greeted = false;
    loop {
        match hear(&mut said, &mut greeted) {
            Heard::More => more(socket, &mut said).await?,
            Heard::Greeting => say(socket, &[5, NO_PASSWORD]).await?,
            Heard::To(to, version) => return Ok((to, version, said.freeze())),
            Heard::Bad(reply) => {
                let _ = say(socket, reply).await;
                return Err(io::Error::from(io::ErrorKind::InvalidData).into());
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    More,
    /// Of version 5; it is answered, then the request follows.
    Greeting,
    To(Place, Version),
    /// What cannot be; with the reply.
    Bad(&'static [u8]),
}

const BAD_COMMAND: Heard = Heard::Bad(&[5, 7, 0, 1, 0, 0, 0, 0, 0, 0]);
const BAD_ADDRESS: Heard = Heard::Bad(&[5, 8, 0, 1, 0, 0, 0, 0, 0, 0]);
const BAD_FOUR: Heard = Heard::Bad(&[0, 91, 0, 0, 0, 0, 0, 0]);

/// Takes off the front of what was said what is whole of it.
fn hear(said: &mut BytesMut, greeted: &mut bool) -> Heard {
    match said.first() {
        None => Heard::More,
        Some(5) if !*greeted => {
            let Some(&methods) = said.get(1) else { return Heard::More };
            let end = 2 + usize::from(methods);
            if said.len() < end {
                return Heard::More;
            }
            let offered = said.split_to(end);
            *greeted = true;
            if offered[2..].contains(&NO_PASSWORD) { Heard::Greeting } else { Heard::Bad(&[5, NO_METHOD]) }
        }
        Some(5) => five(said),
        Some(4) => four(said),
        Some(_) => Heard::Bad(&[]),
    }
}

fn five(said: &mut BytesMut) -> Heard {
    let &[_, command, _, kind, next, ..] = &said[..] else { return Heard::More };
    if command != CONNECT {
        return BAD_COMMAND;
    }
    let (start, length) = match kind {
        1 => (4, 4),
        4 => (4, 16),
        3 => (5, usize::from(next)),
        _ => return BAD_ADDRESS,
    };
    if said.len() < start + length + 2 {
        return Heard::More;
    }
    said.advance(start);
    let address = said.split_to(length);
    let port = said.get_u16();
    match (kind, <[u8; 4]>::try_from(&address[..]), <[u8; 16]>::try_from(&address[..])) {
        (1, Ok(v4), _) => to(Ipv4Addr::from(v4).into(), port, Version::Five),
        (4, _, Ok(v6)) => to(Ipv6Addr::from(v6).into(), port, Version::Five),
        _ => name(&address, port, Version::Five).unwrap_or(BAD_ADDRESS),
    }
}

fn four(said: &mut BytesMut) -> Heard {
    let &[_, command, p, q, a, b, c, d, ref texts @ ..] = &said[..] else { return Heard::More };
    if command != CONNECT {
        return BAD_FOUR;
    }
    let port = u16::from_be_bytes([p, q]);
    let ip = Ipv4Addr::new(a, b, c, d);
    // 0.0.0.x, x not 0, says that a name follows behind the user's.
    let named = [a, b, c] == [0, 0, 0] && d != 0;
    let mut ends = texts.iter().enumerate().filter(|&(_, byte)| *byte == 0).map(|(at, _)| at);
    let Some(user) = ends.next() else { return Heard::More };
    if !named {
        said.advance(8 + user + 1);
        return to(ip.into(), port, Version::Four);
    }
    let Some(end) = ends.next() else { return Heard::More };
    let found = name(&texts[user + 1..end], port, Version::Four);
    said.advance(8 + end + 1);
    found.unwrap_or(BAD_FOUR)
}

fn to(ip: IpAddr, port: u16, version: Version) -> Heard {
    Heard::To(Place::Address(SocketAddr::new(ip, port)), version)
}

fn name(bytes: &[u8], port: u16, version: Version) -> Option<Heard> {
    let name = std::str::from_utf8(bytes).ok().filter(|name| !name.is_empty())?.to_owned();
    Some(Heard::To(Place::Name { name, port }, version))
}

async fn more(socket: &Connection, said: &mut BytesMut) -> Result<(), Cut> {
    if said.len() >= SAID_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidData).into());
    }
    loop {
        socket.readable().await?;
        match socket.try_read_buf(said) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

async fn say(socket: &Connection, mut bytes: &[u8]) -> Result<(), Cut> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write_vectored(&[io::IoSlice::new(bytes)]) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is heard of it at last, and how many bytes are left, however it is cut.
    fn heard(bytes: &[u8]) -> (Heard, usize) {
        let mut last = Vec::new();
        for cut in 1..=bytes.len() {
            let (mut said, mut greeted) = (BytesMut::new(), false);
            let mut found = Heard::More;
            for chunk in bytes.chunks(cut) {
                if matches!(found, Heard::To(..) | Heard::Bad(_)) {
                    said.extend_from_slice(chunk);
                    continue;
                }
                said.extend_from_slice(chunk);
                found = hear(&mut said, &mut greeted);
                if found == Heard::Greeting {
                    found = hear(&mut said, &mut greeted);
                }
            }
            last.push((found, said.len()));
        }
        let first = last.remove(0);
        assert!(last.iter().all(|other| *other == first), "{first:?} {last:?}");
        first
    }

    fn place(text: &str, version: Version) -> Heard {
        let at = text.parse().map(Place::Address);
        let named = || text.rsplit_once(':').map(|(name, port)| (name.to_owned(), port.parse().unwrap()));
        let place = at.unwrap_or_else(|_| named().map(|(name, port)| Place::Name { name, port }).unwrap());
        Heard::To(place, version)
    }

    #[test]
    fn requests() {
        let five = |tail: &[u8]| [&[5, 2, 2, 0, 5, 1, 0], tail].concat();
        assert_eq!(heard(&five(&[1, 10, 0, 0, 1, 0, 80])), (place("10.0.0.1:80", Version::Five), 0));
        let v6 = [&[4][..], &"fd00::1".parse::<Ipv6Addr>().unwrap().octets(), &[1, 187]].concat();
        assert_eq!(heard(&five(&v6)), (place("[fd00::1]:443", Version::Five), 0));
        let named = [&[3, 3][..], b"web", &[0, 80], b"GET"].concat();
        assert_eq!(heard(&five(&named)), (place("web:80", Version::Five), 3));
        assert_eq!(heard(b"\x04\x01\x00\x50\x0a\x00\x00\x01me\0"), (place("10.0.0.1:80", Version::Four), 0));
        assert_eq!(heard(b"\x04\x01\x00\x50\x00\x00\x00\x01me\0web\0GET"), (place("web:80", Version::Four), 3));
    }

    #[test]
    fn what_cannot_be() {
        assert_eq!(heard(&[5, 1, 2]).0, Heard::Bad(&[5, NO_METHOD]));
        assert_eq!(heard(&[5, 1, 0, 5, 2, 0, 1, 1, 2, 3, 4, 0, 80]).0, BAD_COMMAND);
        assert_eq!(heard(&[5, 1, 0, 5, 1, 0, 9, 1, 2, 3, 4, 0, 80]).0, BAD_ADDRESS);
        assert_eq!(heard(&[5, 1, 0, 5, 1, 0, 3, 0, 0, 80]).0, BAD_ADDRESS);
        assert_eq!(heard(&[5, 1, 0, 5, 1, 0, 3, 1, 0xff, 0, 80]).0, BAD_ADDRESS);
        assert_eq!(heard(b"\x04\x02\x00\x50\x0a\x00\x00\x01\0").0, BAD_FOUR);
        assert_eq!(heard(b"GET / HTTP/1.1\r\n").0, Heard::Bad(&[]));
    }

    #[test]
    fn replies() {
        let at = Some("10.0.0.1:80".parse().unwrap());
        assert_eq!(Version::Five.reply(Ok(at)), [5, 0, 0, 1, 10, 0, 0, 1, 0, 80]);
        assert_eq!(Version::Five.reply(Ok(None)).len(), 10);
        assert_eq!(Version::Five.reply(Err(libc::ECONNREFUSED))[1], 5);
        assert_eq!(Version::Four.reply(Ok(at))[1], 90);
        assert_eq!(Version::Four.reply(Err(libc::EPERM))[1], 91);
    }
}
