//! One question about a name to one server: by UDP, and again by TCP where the answer is too long for that. Used by `names` and
//! `lookup`; reads of a message no more than what tells an answer from another.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::one_port::OnePort;

/// How long a server may take.
const ANSWER_WITHIN: Duration = Duration::from_millis(2500);
/// Sockets that are kept for the next question, for each server.
const SOCKETS_KEPT: usize = 64;
/// A socket's port is guessed by others no sooner than this.
const SOCKET_FOR: Duration = Duration::from_secs(5);
/// Servers for which sockets are kept.
const SERVERS_KEPT: usize = 8;
/// Length of the header of a message.
pub(crate) const HEADER: usize = 12;

/// From where questions are asked.
#[derive(Debug)]
pub(super) enum Asker {
    /// From whatever port the kernel gives: the harder to guess for others.
    AnyPort(Sockets),
    /// From one that nobody captures.
    OnePort(OnePort),
}

impl Asker {
    /// What `server` answers. `long`: if it is cut short for a datagram, it is asked for whole.
    pub(super) async fn ask(&self, server: SocketAddr, question: &[u8], long: bool) -> io::Result<Bytes> {
        let by_datagram = async {
            match self {
                Self::AnyPort(sockets) => sockets.ask(server, question).await,
                Self::OnePort(port) => port.ask(server, question).await,
            }
        };
        let answer = timeout(ANSWER_WITHIN, by_datagram).await??;
        if long && is_cut(&answer) {
            return timeout(ANSWER_WITHIN, self.by_stream(server, question)).await?;
        }
        Ok(answer)
    }

    async fn by_stream(&self, server: SocketAddr, question: &[u8]) -> io::Result<Bytes> {
        match self {
            Self::AnyPort(_) => converse(TcpStream::connect(server).await?, question).await,
            Self::OnePort(port) => {
                let (stream, _turn) = port.connect(server).await?;
                converse(stream, question).await
            }
        }
    }
}

/// Sockets of which each carries one question at a time: so an answer needs no table to find who asked.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    idle: Mutex<HashMap<SocketAddr, Vec<(UdpSocket, Instant)>>>,
}

impl Sockets {
    async fn ask(&self, server: SocketAddr, question: &[u8]) -> io::Result<Bytes> {
        let (socket, made) = match self.kept(server) {
            Some(kept) => kept,
            None => (connected(server).await?, Instant::now()),
        };
        socket.send(question).await?;
        let mut buffer = Vec::new();
        loop {
            socket.readable().await?;
            buffer.reserve(4096);
            match socket.try_recv_buf(&mut buffer) {
                Ok(_) if answers(question, &buffer) => break,
                Ok(_) => buffer.clear(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        // One that was given up, or failed, is not used again: what it still gets would be somebody else's.
        self.keep(server, socket, made);
        Ok(buffer.into())
    }

    fn kept(&self, server: SocketAddr) -> Option<(UdpSocket, Instant)> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let sockets = idle.get_mut(&server)?;
        while let Some((socket, made)) = sockets.pop() {
            if made.elapsed() < SOCKET_FOR {
                return Some((socket, made));
            }
        }
        None
    }

    fn keep(&self, server: SocketAddr, socket: UdpSocket, made: Instant) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= SERVERS_KEPT && !idle.contains_key(&server) {
            idle.clear();
        }
        let sockets = idle.entry(server).or_default();
        if sockets.len() < SOCKETS_KEPT {
            sockets.push((socket, made));
        }
    }
}

/// A socket with a port of its own that gets nothing from anybody else.
async fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    Ok(socket)
}

/// One question by a connection.
async fn converse(mut stream: TcpStream, question: &[u8]) -> io::Result<Bytes> {
    stream.set_nodelay(true)?;
    let length = u16::try_from(question.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    if !answers(question, &answer) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(answer.into())
}

/// Whether this is an answer to that: it has its number and repeats the question, where it repeats one.
pub(super) fn answers(question: &[u8], answer: &[u8]) -> bool {
    if question.len() < HEADER || answer.len() < HEADER || question[..2] != answer[..2] || answer[2] & 0x80 == 0 {
        return false;
    }
    let asked = question_of(question);
    // A server that could not read the question does not repeat it.
    let repeats = u16::from_be_bytes([answer[4], answer[5]]) > 0;
    !repeats || asked.is_none_or(|asked| question_of(answer).is_some_and(|found| found.eq_ignore_ascii_case(asked)))
}

/// Name, type and class of the first question of a message.
pub(crate) fn question_of(message: &[u8]) -> Option<&[u8]> {
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            length @ 1..=63 => at += usize::from(length) + 1,
            // Nothing is in front of a question that it could point to.
            _ => return None,
        }
    }
    message.get(HEADER..at + 5)
}

/// Whether an answer was cut short.
fn is_cut(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & 2 != 0)
}

/// How the server took the question: 0 if there is an answer, 3 if there is no such name.
pub(super) fn code(answer: &[u8]) -> u8 {
    answer.get(3).map_or(2, |flags| flags & 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x00\x00\x01\x00\x01";

    fn answer(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut answer = QUESTION.to_vec();
        answer[2] |= 0x80;
        change(&mut answer);
        answer
    }

    #[test]
    fn only_an_answer_to_this_question_is_one() {
        assert!(answers(QUESTION, &answer(|_| ())));
        assert!(answers(QUESTION, &answer(|a| a[13] = b'D')), "case does not count");
        assert!(
            answers(
                QUESTION,
                &answer(|a| {
                    a[5] = 0;
                    a.truncate(HEADER)
                })
            ),
            "an error need not repeat it"
        );
        assert!(!answers(QUESTION, QUESTION), "a question is no answer");
        assert!(!answers(QUESTION, &answer(|a| a[1] = 0)), "of another number");
        assert!(!answers(QUESTION, &answer(|a| a[13] = b'x')), "about another name");
        assert!(!answers(QUESTION, &answer(|a| a.truncate(14))), "cut");
        assert!(!answers(QUESTION, b""));
    }
}
