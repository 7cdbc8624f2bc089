//! A connection on one side: its socket and its stream, joined until both directions are over. Used by capture and dial, who
//! have made them.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use remotely_proto::message::MessageDecoder;
use remotely_proto::net::{Connected, RESET};
use remotely_session::{RecvError, RecvStream, SendError, SendStream, Stream};
use thiserror::Error;
use tokio::io::Interest;

use crate::chunk;
use crate::connection::Connection;

/// Bytes of the stream that are taken out of it before they are written: what a socket whose reader does not read holds here.
const AHEAD: usize = 256 << 10;
/// And in how many pieces.
const PIECES: usize = 64;

/// A socket that nothing will come from any more is asked after so long whether it is still there for what goes to it.
const ASK_AFTER: Duration = Duration::from_secs(60);

/// How a connection ended that did not end in order.
#[derive(Debug, Error)]
pub(crate) enum Cut {
    /// The socket failed.
    #[error("the socket failed")]
    Socket(#[from] io::Error),
    /// The other side has given it up, or the link is over.
    #[error("the other side has given it up")]
    Stream,
    /// The other side could not make it.
    #[error("the other side could not connect")]
    Refused(Connected),
}

impl From<SendError> for Cut {
    fn from(_: SendError) -> Self {
        Self::Stream
    }
}

impl From<RecvError> for Cut {
    fn from(_: RecvError) -> Self {
        Self::Stream
    }
}

/// Carries bytes in both directions until both have ended. With `answer`, the stream begins with what became of the connection
/// there. If it does not end in order, the socket is reset, and so is the stream.
pub(crate) async fn carry(socket: Connection, stream: Stream, answer: bool) -> Result<(), Cut> {
    let first = async |recv: &mut RecvStream| {
        if answer { connected(recv).await.map(|(_, first)| first) } else { Ok(Bytes::new()) }
    };
    between(socket, stream, first).await
}

/// The same behind what became of the connection, which has been taken already, with `first` behind it.
pub(crate) async fn carry_on(socket: Connection, stream: Stream, first: Bytes) -> Result<(), Cut> {
    between(socket, stream, async move |_: &mut RecvStream| Ok(first)).await
}

async fn between(
    socket: Connection,
    stream: Stream,
    first: impl AsyncFnOnce(&mut RecvStream) -> Result<Bytes, Cut>,
) -> Result<(), Cut> {
    let Stream { mut send, mut recv, .. } = stream;
    // Whatever ends this, also this process: unless it ends in order, it is seen to have been cut.
    socket.reset();
    let received = AtomicBool::new(false);
    let down = async {
        let first = first(&mut recv).await?;
        down(&mut recv, &socket, first).await?;
        received.store(true, Ordering::Relaxed);
        Ok::<(), Cut>(())
    };
    let carried = tokio::try_join!(biased; down, up(&socket, &mut send, &received));
    match carried {
        Ok(_) => {
            socket.end_in_order();
            Ok(())
        }
        Err(cut) => {
            send.reset(RESET);
            recv.stop();
            Err(cut)
        }
    }
}

/// Takes the message in front of the bytes: the other end of the connection, and bytes that have come behind it.
pub(crate) async fn connected(recv: &mut RecvStream) -> Result<(Option<SocketAddr>, Bytes), Cut> {
    let mut decoder = MessageDecoder::default();
    loop {
        decoder.push(&recv.recv().await?.ok_or(Cut::Stream)?);
        match decoder.next::<Connected>() {
            Ok(None) => {}
            Ok(Some((Connected::Yes { peer }, _))) => return Ok((peer, decoder.rest())),
            Ok(Some((no, _))) => return Err(Cut::Refused(no)),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error).into()),
        }
    }
}

/// From the socket to the stream.
async fn up(socket: &Connection, send: &mut SendStream, received: &AtomicBool) -> Result<(), Cut> {
    loop {
        readable(socket, send, received).await?;
        match chunk::read(socket) {
            Ok(chunk) if chunk.is_empty() => {
                send.finish();
                return until_received(socket, received).await;
            }
            Ok(chunk) => send.send(chunk).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for the end of the other direction, or until the socket says that nobody is there for that any more.
async fn until_received(socket: &Connection, received: &AtomicBool) -> Result<(), Cut> {
    // Whoever has closed it altogether shows when he is asked, and by nothing else.
    socket.ask_after(ASK_AFTER);
    let mut failed = pin!(socket.ready(Interest::ERROR));
    poll_fn(|cx| {
        if received.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        failed.as_mut().poll(cx).map(|_| Err(Cut::Socket(io::ErrorKind::ConnectionReset.into())))
    })
    .await
}

/// Waits for bytes of the socket. As long as bytes can come from the other side, that is how it tells that it has given up.
async fn readable(socket: &Connection, send: &SendStream, received: &AtomicBool) -> Result<(), Cut> {
    let mut stopped = pin!(send.stopped());
    poll_fn(|cx| {
        if let Poll::Ready(ready) = socket.poll_read_ready(cx) {
            return Poll::Ready(ready.map_err(Cut::Socket));
        }
        if received.load(Ordering::Relaxed) {
            stopped.as_mut().poll(cx).map(|_| Err(Cut::Stream))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// From the stream to the socket; `first` goes before.
async fn down(recv: &mut RecvStream, socket: &Connection, first: Bytes) -> Result<(), Cut> {
    let mut pieces: Vec<Bytes> = Vec::new();
    if !first.is_empty() {
        pieces.push(first);
    }
    loop {
        if !pieces.is_empty() {
            write(socket, &mut pieces).await?;
        }
        if gather(recv, &mut pieces).await? {
            write(socket, &mut pieces).await?;
            socket.finish();
            return Ok(());
        }
    }
}

/// Waits for bytes, and takes as many as there are. Whether nothing follows them.
async fn gather(recv: &mut RecvStream, pieces: &mut Vec<Bytes>) -> Result<bool, Cut> {
    // It holds memory only while there is something to write.
    if pieces.capacity() > 1 {
        *pieces = Vec::new();
    }
    let mut bytes = 0;
    poll_fn(|cx| {
        while bytes < AHEAD && pieces.len() < PIECES {
            match recv.poll_recv(cx) {
                Poll::Ready(Ok(Some(chunk))) => {
                    bytes += chunk.len();
                    pieces.push(chunk);
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(true)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending if pieces.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(false))
    })
    .await
}

async fn write(socket: &Connection, pieces: &mut Vec<Bytes>) -> io::Result<()> {
    let mut from = 0;
    while from < pieces.len() {
        let slices: Vec<IoSlice<'_>> = pieces[from..].iter().map(|piece| IoSlice::new(piece)).collect();
        let written = socket.try_write_vectored(&slices);
        match written {
            Ok(mut n) => {
                while let Some(piece) = pieces.get_mut(from).filter(|piece| piece.len() <= n) {
                    n -= piece.len();
                    *piece = Bytes::new();
                    from += 1;
                }
                if let Some(piece) = pieces.get_mut(from) {
                    piece.advance(n);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    pieces.clear();
    Ok(())
}
