//! Questions about names from one port, which is known before the first: rules that capture questions can leave these alone. They are
//! told apart by numbers that are chosen here. Used by `question`.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::question::{HEADER, answers};

/// Questions under way, for each family.
const WAITING_MAX: usize = 1024;
/// Most bytes of an answer in a datagram, in practice.
const DATAGRAM_MAX: usize = 4096;
/// Ports that are tried until one is free for both families.
const TRIES: usize = 16;

/// A port for questions of our own, UDP and TCP, of both families.
#[derive(Debug)]
pub struct OnePort {
    port: u16,
    v4: Arc<Side>,
    /// `None` where there is no IPv6.
    v6: Option<Arc<Side>>,
    /// There can be one connection to a server from one port.
    stream: tokio::sync::Mutex<()>,
    _readers: JoinSet<()>,
}

#[derive(Debug)]
struct Side {
    socket: UdpSocket,
    waiting: Mutex<HashMap<u16, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    server: SocketAddr,
    question: Vec<u8>,
    to: oneshot::Sender<Vec<u8>>,
}

impl OnePort {
    /// A free one.
    ///
    /// # Errors
    /// There is none, or there are too many open files.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub fn take() -> io::Result<Self> {
        let mut last = io::Error::from_raw_os_error(libc::EADDRINUSE);
        for _ in 0..TRIES {
            let v4 = bound((Ipv4Addr::UNSPECIFIED, 0).into())?;
            let port = v4.local_addr()?.port();
            match bound((Ipv6Addr::UNSPECIFIED, port).into()) {
                Ok(v6) => return Ok(Self::of(port, v4, Some(v6))),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(_) => return Ok(Self::of(port, v4, None)),
            }
        }
        Err(last)
    }

    fn of(port: u16, v4: UdpSocket, v6: Option<UdpSocket>) -> Self {
        let mut readers = JoinSet::new();
        let mut side = |socket| {
            let side = Arc::new(Side { socket, waiting: Mutex::default() });
            readers.spawn(side.clone().read());
            side
        };
        let (v4, v6) = (side(v4), v6.map(&mut side));
        Self { port, v4, v6, stream: tokio::sync::Mutex::new(()), _readers: readers }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What `server` answers to a datagram. Waits without end. Cancel safe.
    pub(super) async fn ask(&self, server: SocketAddr, question: &[u8]) -> io::Result<Bytes> {
        let side = match server.ip() {
            IpAddr::V4(_) => Some(&self.v4),
            IpAddr::V6(_) => self.v6.as_ref(),
        };
        side.ok_or(io::ErrorKind::AddrNotAvailable)?.ask(server, question).await
    }

    /// A connection from the port, and for how long nobody else has one. It is reset when it is dropped, so that the next one need not
    /// wait for it to be forgotten.
    pub(super) async fn connect(&self, server: SocketAddr) -> io::Result<(TcpStream, impl Sized + '_)> {
        let turn = self.stream.lock().await;
        let (socket, any) = match server.ip() {
            IpAddr::V4(_) => (TcpSocket::new_v4()?, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => (TcpSocket::new_v6()?, Ipv6Addr::UNSPECIFIED.into()),
        };
        socket.set_reuseaddr(true)?;
        rustix::net::sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO))?;
        socket.bind(SocketAddr::new(any, self.port))?;
        Ok((socket.connect(server).await?, turn))
    }
}

fn bound(at: SocketAddr) -> io::Result<UdpSocket> {
    let domain = if at.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
    let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(domain, rustix::net::SocketType::DGRAM, flags, None)?;
    if at.is_ipv6() {
        // The other family has a socket of its own.
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &at)?;
    UdpSocket::from_std(socket.into())
}

impl Side {
    async fn ask(&self, server: SocketAddr, question: &[u8]) -> io::Result<Bytes> {
        let given = question.get(..2).ok_or(io::ErrorKind::InvalidInput)?;
        let (to, answer) = oneshot::channel();
        let (number, asked) = self.wait(server, question, to)?;
        let _forget = Forget { side: self, number };
        self.socket.send_to(&asked, server).await?;
        let mut answer = answer.await.map_err(|_| io::ErrorKind::ConnectionAborted)?;
        answer[..2].copy_from_slice(given);
        Ok(answer.into())
    }

    /// The question with a number that no other one has.
    fn wait(&self, server: SocketAddr, question: &[u8], to: oneshot::Sender<Vec<u8>>) -> io::Result<(u16, Vec<u8>)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let number = loop {
            let mut random = [0; 2];
            getrandom(&mut random, GetRandomFlags::empty())?;
            let number = u16::from_be_bytes(random);
            if !waiting.contains_key(&number) {
                break number;
            }
        };
        let asked = [&number.to_be_bytes()[..], &question[2..]].concat();
        waiting.insert(number, Waiting { server, question: asked.clone(), to });
        Ok((number, asked))
    }

    async fn read(self: Arc<Self>) {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            // What fails is a server that nobody listens at: its question goes unanswered in time.
            let Ok((bytes, from)) = self.socket.recv_from(&mut buffer).await else { continue };
            self.answer(from, &buffer[..bytes]);
        }
    }

    fn answer(&self, from: SocketAddr, message: &[u8]) {
        let Some(number) = message.first_chunk().copied().map(u16::from_be_bytes) else { return };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_meant = |asked: &Waiting| asked.server == from && answers(&asked.question, message);
        if message.len() >= HEADER
            && waiting.get(&number).is_some_and(is_meant)
            && let Some(Waiting { to, .. }) = waiting.remove(&number)
        {
            let _ = to.send(message.to_vec());
        }
    }
}

/// A question that was given up waits no longer.
struct Forget<'a> {
    side: &'a Side,
    number: u16,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.side.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x00\x00\x01\x00\x01";

    #[tokio::test]
    async fn many_questions_from_one_port_each_get_their_answer() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = server.local_addr().unwrap();
        let one = Arc::new(OnePort::take().unwrap());
        let port = one.port();
        let mut asking = JoinSet::new();
        for n in 0..50_u8 {
            let one = one.clone();
            asking.spawn(async move {
                let mut question = QUESTION.to_vec();
                question[13] = b'a' + n % 26;
                let answer = one.ask(at, &question).await.unwrap();
                assert_eq!((&answer[..2], &answer[12..]), (&question[..2], &question[12..]));
            });
        }
        let mut asked = Vec::new();
        for _ in 0..50 {
            let mut buffer = [0; 512];
            let (bytes, from) = server.recv_from(&mut buffer).await.unwrap();
            assert_eq!(from.port(), port);
            asked.push((buffer[..bytes].to_vec(), from));
        }
        // The last one first, and each after one that is about something else.
        for (mut message, from) in asked.into_iter().rev() {
            message[2] |= 0x80;
            let mut wrong = message.clone();
            wrong[13] = b'?';
            server.send_to(&wrong, from).await.unwrap();
            server.send_to(&message, from).await.unwrap();
        }
        while let Some(done) = asking.join_next().await {
            done.unwrap();
        }
        assert!(one.v4.waiting.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn connections_follow_each_other_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let one = OnePort::take().unwrap();
        for _ in 0..3 {
            let (connecting, accepted) = tokio::join!(one.connect(at), listener.accept());
            assert_eq!(accepted.unwrap().1.port(), one.port());
            drop(connecting.unwrap());
        }
    }
}
