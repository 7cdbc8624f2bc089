//! The byte pipe beneath a link: two descriptors made non-blocking. Used by those who drive it, and by who passes on the bytes of a
//! link that is not its own; knows nothing of frames.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, read, retry_on_intr, writev},
    pipe::fcntl_setpipe_size,
};
use tokio::io::{Interest, unix::AsyncFd};

/// What pipes are asked to hold: fewer wake-ups of the process at the other end.
const PIPE_SIZE: usize = 1 << 20;
/// Bytes read at once. Frames are slices of these.
const READ_SIZE: usize = 256 << 10;
/// Pieces written at once (IOV_MAX).
const PIECES: usize = 1024;

/// The two ends of the way to the other side: pipes or sockets, or anything else that epoll(7) takes.
///
/// The link sets O_NONBLOCK on both, which everybody sees who shares them. The process must ignore SIGPIPE, as a Rust
/// program does from the start.
#[derive(Debug)]
pub struct Pipe {
    /// Bytes from the other side.
    pub reader: OwnedFd,
    /// Bytes to the other side.
    pub writer: OwnedFd,
}

impl Pipe {
    /// For reading and writing it as plain bytes. An error means that epoll(7) takes an end not.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub fn split(self) -> io::Result<(PipeReader, PipeWriter)> {
        prepare(&self)?;
        let reader = PipeReader { fd: register(self.reader, Interest::READABLE)?, buffer: BytesMut::new() };
        Ok((reader, PipeWriter { fd: register(Arc::new(self.writer), Interest::WRITABLE)? }))
    }
}

/// The end of a [`Pipe`] that is read. Closed when dropped.
#[derive(Debug)]
pub struct PipeReader {
    fd: AsyncFd<OwnedFd>,
    buffer: BytesMut,
}

/// The end of a [`Pipe`] that is written. Closed when dropped.
#[derive(Debug)]
pub struct PipeWriter {
    fd: AsyncFd<Arc<OwnedFd>>,
}

impl PipeReader {
    /// The next bytes, as many as there are up to a limit; none at the end of the pipe. Cancel safe.
    pub async fn read(&mut self) -> io::Result<Bytes> {
        poll_fn(|cx| self.poll_read(cx)).await
    }

    /// The next bytes, as many as there are up to a limit; none at the end of the pipe.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match read_into(self.fd.get_ref(), &mut self.buffer) {
                Err(Errno::AGAIN) => guard.clear_ready(),
                Ok(chunk) if !chunk.is_empty() && self.buffer.capacity() > 0 => {
                    // It was all there was: whatever comes from now on is told of (epoll(7), question 9).
                    guard.clear_ready();
                    return Poll::Ready(Ok(chunk));
                }
                result => return Poll::Ready(result.map_err(Into::into)),
            }
        }
    }

    /// What lies in the pipe, whether the runtime has noticed or not; none at the end of the pipe.
    pub(crate) fn read_now(&mut self) -> io::Result<Bytes> {
        Ok(read_into(self.fd.get_ref(), &mut self.buffer)?)
    }
}

impl PipeWriter {
    /// Nothing follows: the other end reads that, also where a socket's other way still has its reader here.
    pub fn finish(self) {
        // A pipe is closed by being dropped.
        let _ = rustix::net::shutdown(self.fd.get_ref(), rustix::net::Shutdown::Write);
    }

    /// Writes all of it. Not cancel safe: dropped before it is ready, some bytes of the front may have been written.
    pub async fn write_all(&mut self, bytes: Bytes) -> io::Result<()> {
        let mut pieces = VecDeque::from([bytes]);
        pieces.retain(|piece| !piece.is_empty());
        while !pieces.is_empty() {
            poll_fn(|cx| self.poll_write(cx, &mut pieces)).await?;
        }
        Ok(())
    }

    /// For who writes without the runtime.
    pub(crate) fn descriptor(&self) -> Arc<OwnedFd> {
        self.fd.get_ref().clone()
    }

    /// Writes from the front of `pieces`. Ready when something was written.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &mut VecDeque<Bytes>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            match write_pieces(self.fd.get_ref(), pieces) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

/// Makes both ends non-blocking, and as large as they may be.
pub(crate) fn prepare(pipe: &Pipe) -> io::Result<()> {
    for fd in [&pipe.reader, &pipe.writer] {
        fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
        // A socket has no such size, and a user may be over his limit of pipe memory: smaller ones work too.
        let _ = fcntl_setpipe_size(fd, PIPE_SIZE);
    }
    Ok(())
}

/// Writes from the front of `pieces` what the pipe takes at once, which is something.
pub(crate) fn write_pieces(writer: impl AsFd, pieces: &mut VecDeque<Bytes>) -> Result<(), Errno> {
    let mut slices = [IoSlice::new(&[]); 64];
    let mut large;
    let slices = if pieces.len() <= slices.len() {
        for (slice, piece) in slices.iter_mut().zip(&*pieces) {
            *slice = IoSlice::new(piece);
        }
        &slices[..pieces.len()]
    } else {
        large = Vec::with_capacity(pieces.len().min(PIECES));
        large.extend(pieces.iter().take(PIECES).map(|piece| IoSlice::new(piece)));
        &large[..]
    };
    let written = retry_on_intr(|| writev(&writer, slices))?;
    advance(pieces, written);
    Ok(())
}

/// The next bytes, as many as there are up to a limit; none at the end of the pipe.
pub(crate) fn read_into(reader: &OwnedFd, buffer: &mut BytesMut) -> Result<Bytes, Errno> {
    if buffer.capacity() < READ_SIZE / 4 {
        buffer.reserve(READ_SIZE);
    }
    let len = retry_on_intr(|| read(reader, buffer.spare_capacity_mut()).map(|(read, _)| read.len()))?;
    // SAFETY: read(2) has initialised that many bytes at the start of the spare capacity.
    unsafe { buffer.advance_mut(len) };
    Ok(buffer.split().freeze())
}

fn register<F: AsRawFd>(fd: F, interest: Interest) -> io::Result<AsyncFd<F>> {
    // SAFETY: an OwnedFd, shared or not, is open, and stays the same descriptor until the AsyncFd, which holds it, is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Drops what was written.
fn advance(pieces: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(piece) = pieces.front_mut() {
        if piece.len() > written {
            return piece.advance(written);
        }
        written -= piece.len();
        pieces.pop_front();
    }
}
