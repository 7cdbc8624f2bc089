//! Questions about names, asked of a server that is this side: passed on over one stream, answered when their replies come. Those that
//! nobody answers are told so, before the asker gives up on its own.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use remotely_proto::net::{Open, Question, Reply};
use remotely_session::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Exits, open_on};
use crate::dial::question::HEADER;
use crate::outbox::Outbox;

/// Questions that wait for their answer.
const WAITING_MAX: usize = 4096;
/// Questions that wait to be asked.
const QUEUE: usize = 1024;
/// How long one may wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may be idle.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// Connections at a time.
const CONNECTIONS_MAX: usize = 256;
/// Datagrams taken before others have their turn.
const BATCH: usize = 64;
/// Most bytes of a datagram of DNS with extensions, in practice.
const DATAGRAM_MAX: usize = 4096;

/// A question and who gets the answer.
#[derive(Debug)]
struct Asked {
    message: Bytes,
    asker: Asker,
}

#[derive(Debug)]
enum Asker {
    Datagram(Arc<UdpSocket>, SocketAddr),
    Connection(oneshot::Sender<Bytes>),
}

impl Asked {
    fn answer(self, message: Bytes) {
        let message = if message.is_empty() { failure(&self.message) } else { message };
        match self.asker {
            Asker::Datagram(socket, to) => drop(socket.try_send_to(&message, to)),
            Asker::Connection(to) => drop(to.send(message)),
        }
    }
}

/// "The server failed", to this question.
fn failure(question: &[u8]) -> Bytes {
    let mut answer = BytesMut::from(question);
    if let Some(flags) = answer.get_mut(2..4) {
        // An answer, for which recursion was available.
        flags.copy_from_slice(&[flags[0] & 0x79 | 0x80, 0x82]);
    }
    answer.freeze()
}

pub(super) fn capture(
    by_datagram: Vec<OwnedFd>,
    by_stream: Vec<OwnedFd>,
    exits: &Exits,
    tasks: &mut JoinSet<()>,
) -> io::Result<()> {
    let (there, of_there) = mpsc::channel(QUEUE);
    let (here, of_here) = mpsc::channel(QUEUE);
    let ways = Ways { there, here, exits: exits.clone() };
    for socket in by_datagram {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        tasks.spawn(datagrams(socket, ways.clone()));
    }
    for listener in by_stream {
        rustix::io::ioctl_fionbio(&listener, true)?;
        tasks.spawn(connections(TcpListener::from_std(listener.into())?, ways.clone()));
    }
    tasks.spawn(pass_on(of_there, exits.clone(), Side::There));
    tasks.spawn(pass_on(of_here, exits.clone(), Side::Here));
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    There,
    Here,
}

/// To whom a question goes.
#[derive(Debug, Clone)]
struct Ways {
    there: mpsc::Sender<Asked>,
    here: mpsc::Sender<Asked>,
    exits: Exits,
}

impl Ways {
    fn of(&self, message: &[u8]) -> &mpsc::Sender<Asked> {
        let naming = &self.exits.naming;
        let is_of_there = naming.domains.is_empty() || naming.domains.iter().any(|domain| domain.has(message));
        let is_cut = naming.here_without_link && self.exits.there.borrow().is_none();
        if is_of_there && !is_cut { &self.there } else { &self.here }
    }
}

async fn datagrams(socket: Arc<UdpSocket>, ways: Ways) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        for _ in 0..BATCH {
            let Ok((bytes, from)) = socket.try_recv_from(&mut buffer) else { break };
            if bytes >= HEADER {
                let message = Bytes::copy_from_slice(&buffer[..bytes]);
                // Full: it is lost, as on any network, and asked again.
                let way = ways.of(&message);
                let _ = way.try_send(Asked { message, asker: Asker::Datagram(socket.clone(), from) });
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn connections(listener: TcpListener, ways: Ways) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if tasks.len() < CONNECTIONS_MAX => match accepted {
                Ok((socket, _)) => drop(tasks.spawn(converse(socket, ways.clone()))),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// One connection, one question after the other.
async fn converse(mut socket: TcpStream, ways: Ways) -> io::Result<()> {
    socket.set_nodelay(true)?;
    loop {
        let length = timeout(IDLE_FOR, socket.read_u16()).await??;
        let mut message = vec![0; length.into()];
        timeout(IDLE_FOR, socket.read_exact(&mut message)).await??;
        if message.len() < HEADER {
            return Ok(());
        }
        let (to, answer) = oneshot::channel();
        let way = ways.of(&message);
        let question = Asked { message: message.into(), asker: Asker::Connection(to) };
        if way.send(question).await.is_err() {
            return Ok(());
        }
        let Ok(Ok(answer)) = timeout(ANSWER_WITHIN + IDLE_FOR, answer).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        socket.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}

/// Passes questions on, over one stream for as long as that works, then over the next.
async fn pass_on(mut questions: mpsc::Receiver<Asked>, exits: Exits, side: Side) {
    while let Some(first) = questions.recv().await {
        let stream = match side {
            Side::There => exits.open(None, &Open::Names { server: exits.naming.nameserver }).await,
            Side::Here => open_on(&exits.here, &Open::Names { server: None }),
        };
        match stream {
            Some(stream) => serve(first, &mut questions, stream).await,
            None => first.answer(Bytes::new()),
        }
    }
}

async fn serve(first: Asked, questions: &mut mpsc::Receiver<Asked>, mut stream: Stream) {
    let mut waiting = Table::default();
    let (mut outbox, mut received) = (Outbox::default(), BytesMut::new());
    waiting.ask(first, &mut outbox);
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    let over = loop {
        tokio::select! {
            Some(asked) = questions.recv() => waiting.ask(asked, &mut outbox),
            chunk = stream.recv.recv() => match chunk {
                Ok(Some(chunk)) => {
                    received.extend_from_slice(&chunk);
                    while let Some(Reply { number, message }) = Reply::decode(&mut received) {
                        waiting.answer(number, message);
                    }
                }
                Ok(None) | Err(_) => break waiting,
            },
            sent = poll_fn(|cx| outbox.poll_send(cx, &mut stream.send)), if !outbox.is_empty() => {
                if sent.is_err() {
                    break waiting;
                }
            }
            _ = clock.tick(), if !waiting.asked.is_empty() => waiting.expire(),
        }
    };
    over.asked.into_values().for_each(|(asked, _)| asked.answer(Bytes::new()));
}

/// Who waits for an answer.
#[derive(Debug, Default)]
struct Table {
    asked: HashMap<u32, (Asked, Instant)>,
    next: u32,
}

impl Table {
    fn ask(&mut self, asked: Asked, outbox: &mut Outbox) {
        if self.asked.len() >= WAITING_MAX {
            return asked.answer(Bytes::new());
        }
        self.next = self.next.wrapping_add(1);
        let long = matches!(asked.asker, Asker::Connection(_));
        let question = Question { number: self.next, long, message: asked.message.clone() };
        outbox.add(|out| question.encode(out));
        self.asked.insert(self.next, (asked, Instant::now()));
    }

    fn answer(&mut self, number: u32, message: Bytes) {
        if let Some((asked, _)) = self.asked.remove(&number) {
            asked.answer(message);
        }
    }

    fn expire(&mut self) {
        let old: Vec<u32> =
            self.asked.iter().filter(|(_, (_, at))| at.elapsed() > ANSWER_WITHIN).map(|(n, _)| *n).collect();
        old.into_iter().for_each(|number| self.answer(number, Bytes::new()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_answers_the_question_it_is_about() {
        let question = b"\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x00\x00\x01\x00\x01";
        let answer = failure(question);
        assert_eq!((&answer[..2], answer[2], answer[3]), (&b"\x12\x34"[..], 0x81, 0x82));
        assert_eq!(answer[4..], question[4..]);
        assert_eq!(&failure(b"x")[..], b"x");
    }
}
