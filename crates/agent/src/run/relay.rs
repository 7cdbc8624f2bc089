//! Bytes between a stream and our end of a pipe, socket or pty of a command. One task for each direction; what one side
//! does not take waits in the kernel of the other. Called by [`crate::run::exec`].

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use remotely_proto::exec::OutputHeader;
use remotely_session::{RecvError, RecvStream, SendError, SendStream};
use rustix::io::Errno;
use rustix::net::Shutdown;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::{Notify, watch};

use crate::run::input::Input;
use crate::sys;

/// Most bytes in one block of output.
const BLOCK_MAX: usize = 64 << 10;
/// Most bytes that [`Output::drain`] takes in of a pty: it holds less than that, and its count of what is there is that of
/// one of several buffers.
const PTY_DRAIN_MAX: u64 = 256 << 10;
/// A pty that has room again does not always say so.
const PTY_RETRY: Duration = Duration::from_millis(50);

/// What the other end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A pipe.
    Pipe,
    /// A stream socket.
    Socket,
    /// The master of a pty.
    Pty,
}

/// Our end of a descriptor of the command.
#[derive(Debug)]
pub(crate) struct End {
    fd: AsyncFd<OwnedFd>,
    kind: Kind,
    /// Nobody is to use it any more.
    gone: watch::Sender<bool>,
}

impl End {
    /// Takes it over; it is made non-blocking. Must be called in a runtime.
    pub(crate) fn new(fd: OwnedFd, kind: Kind) -> io::Result<Arc<Self>> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let interest = match kind {
            // Only of a pipe does an error say that the reader is gone.
            Kind::Pipe => Interest::READABLE | Interest::WRITABLE | Interest::ERROR,
            _ => Interest::READABLE | Interest::WRITABLE,
        };
        Ok(Arc::new(Self { fd: sys::register(fd, interest)?, kind, gone: watch::Sender::new(false) }))
    }

    /// Whether it is the master of a pty.
    pub(crate) fn is_pty(&self) -> bool {
        self.kind == Kind::Pty
    }

    /// The descriptor, for ioctls.
    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }

    async fn is_gone(&self) {
        // The sender lives as long as `self`.
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let ready = if self.kind == Kind::Pty {
                match tokio::time::timeout(PTY_RETRY, self.fd.writable()).await {
                    Ok(ready) => Some(ready?),
                    Err(_) => None,
                }
            } else {
                Some(self.fd.writable().await?)
            };
            match rustix::io::write(self.fd.get_ref(), bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::AGAIN) => {
                    if let Some(mut ready) = ready {
                        ready.clear_ready();
                    }
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until it can be written to. Cancel safe.
    pub(crate) async fn writable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.fd.writable().await
    }

    /// Returns when nobody can read any more what is written here. Only for pipes; others show it by EPIPE.
    pub(crate) async fn reader_gone(&self) {
        if self.kind != Kind::Pipe || self.fd.ready(Interest::ERROR).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Writes what the stream brings to a socket or a pty; pipes have [`Input`]. Ends when the stream or
/// the reader does.
pub(crate) async fn feed(end: Arc<End>, mut from: RecvStream) {
    loop {
        let received = tokio::select! {
            biased;
            () = end.is_gone() => return from.stop(),
            received = from.recv() => received,
        };
        match received {
            Ok(Some(bytes)) => {
                let written = tokio::select! {
                    biased;
                    () = end.is_gone() => return from.stop(),
                    written = end.write_all(&bytes) => written,
                };
                if written.is_err() {
                    return from.stop();
                }
            }
            Ok(None) => break,
            // No end of input: the command must not take what it has for all there was. It is killed soon.
            Err(RecvError::Reset(_) | RecvError::Ended) => return end.is_gone().await,
        }
    }
    if end.kind == Kind::Socket {
        let _ = rustix::net::shutdown(end.fd.get_ref(), Shutdown::Write);
    }
}

/// Output of the command on its way to the client.
#[derive(Debug)]
pub(crate) struct Output {
    end: Arc<End>,
    /// Changes to files that the mount has sent; read after the output, so that it is never too low.
    changes: Arc<AtomicU64>,
    /// Bytes read, without headers. Changes under the lock only.
    count: Arc<AtomicU64>,
    /// What was read from these is told before what was written after it.
    inputs: Arc<[Arc<Input>]>,
    /// The terminal, if this is something else: what it yielded is shown before what was written after it.
    screen: Screen,
    state: Mutex<State>,
    /// There is something in the queue, or the end is known.
    queued: Notify,
}

/// The terminal, as other output looks at it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Screen {
    output: Weak<Output>,
    /// Stays when that is over.
    count: Arc<AtomicU64>,
}

impl Screen {
    /// Of the output of a terminal.
    pub(crate) fn of(terminal: &Arc<Output>) -> Self {
        Self { output: Arc::downgrade(terminal), count: terminal.count() }
    }

    /// Bytes that it has yielded so far.
    fn seen(&self) -> u64 {
        if let Some(output) = self.output.upgrade() {
            output.look();
        }
        self.count.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct State {
    /// Blocks that were read ahead.
    queue: VecDeque<Bytes>,
    ended: bool,
    /// What was read and is not yet a block: so many bytes of `buffer`, and the tag for them.
    filled: usize,
    tag: u64,
    screen: u64,
    buffer: Box<[u8]>,
}

impl Output {
    /// Of this end.
    pub(crate) fn new(end: Arc<End>, changes: Arc<AtomicU64>, inputs: Arc<[Arc<Input>]>, screen: Screen) -> Arc<Self> {
        let buffer = vec![0; BLOCK_MAX].into_boxed_slice();
        let state = Mutex::new(State { queue: VecDeque::new(), ended: false, filled: 0, tag: 0, screen: 0, buffer });
        Arc::new(Self { end, changes, count: Arc::default(), inputs, screen, state, queued: Notify::new() })
    }

    /// Sends it as blocks with an [`OutputHeader`] each, until its end, or until the client reads no more: then our end
    /// closes, and the writer gets SIGPIPE as it would here. When the link is over, what a command still says while it is
    /// hung up on is thrown away.
    pub(crate) async fn run(self: Arc<Self>, mut to: SendStream) {
        loop {
            let block = tokio::select! {
                biased;
                why = to.stopped() => return self.stop(why).await,
                () = self.end.is_gone() => return,
                block = self.next() => block,
            };
            let Some(block) = block else { break };
            for input in &*self.inputs {
                input.tell().await;
            }
            if let Err(why) = to.send(block).await {
                return self.stop(why).await;
            }
        }
        to.finish();
        if self.end.kind == Kind::Pty {
            self.end.gone.send_replace(true);
        }
    }

    /// Counts the bytes read so far.
    pub(crate) fn count(&self) -> Arc<AtomicU64> {
        self.count.clone()
    }

    /// Takes in, and counts, what the command had written when it ended. Does not wait: what is there is there.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        // What others go on writing is not waited for: only what is there now. A command may have enlarged its pipe.
        let there = match self.end.kind {
            Kind::Pty => PTY_DRAIN_MAX,
            Kind::Pipe | Kind::Socket => rustix::io::ioctl_fionread(self.end.fd.get_ref()).unwrap_or(PTY_DRAIN_MAX),
        };
        let from = self.count.load(Ordering::SeqCst);
        while self.read(&mut state) && self.count.load(Ordering::SeqCst) - from < there {}
        state.cut();
        drop(state);
        self.queued.notify_one();
    }

    /// Takes in what is there to be read, unless the client is behind with what it takes. Does not wait.
    fn look(&self) {
        let mut state = self.lock();
        if state.queue.is_empty() {
            while state.filled < BLOCK_MAX && self.read(&mut state) {}
            state.cut();
            self.queued.notify_one();
        }
    }

    async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut state = self.lock();
                if let Some(block) = state.queue.pop_front() {
                    return Some(block);
                }
                if state.ended {
                    return None;
                }
            }
            let mut ready = tokio::select! {
                () = self.queued.notified() => continue,
                ready = self.end.fd.readable() => ready.ok()?,
            };
            if !self.read(&mut self.lock()) {
                ready.clear_ready();
                continue;
            }
            // Who writes little at a time writes more by then: fewer blocks, and as many wake-ups less on the way.
            tokio::task::yield_now().await;
            let mut state = self.lock();
            while state.filled < BLOCK_MAX && self.read(&mut state) {}
            state.cut();
        }
    }

    /// Reads once behind what was read before. `false` if there is nothing for now, or no more.
    fn read(&self, state: &mut State) -> bool {
        if state.ended {
            return false;
        }
        // Into no room at all nothing is read, which is what an end looks like.
        if state.filled == BLOCK_MAX {
            state.cut();
        }
        let read = loop {
            match rustix::io::read(self.end.fd.get_ref(), &mut state.buffer[state.filled..]) {
                Ok(read) => break read,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                // EIO: the last one who had the terminal closed it. ECONNRESET and the like are ends as well.
                Err(_) => break 0,
            }
        };
        state.tag = self.changes.load(Ordering::SeqCst);
        state.screen = self.screen.seen();
        state.filled += read;
        state.ended = read == 0;
        self.count.fetch_add(read as u64, Ordering::SeqCst);
        !state.ended
    }

    async fn stop(&self, why: SendError) {
        if why == SendError::Ended {
            while self.next().await.is_some() {}
            return;
        }
        match self.end.kind {
            // The pipe closes with its last owner, which is this task.
            Kind::Pipe => {}
            Kind::Socket => drop(rustix::net::shutdown(self.end.fd.get_ref(), Shutdown::Read)),
            // The terminal is gone: once nobody holds our end, the session there is hung up on.
            Kind::Pty => drop(self.end.gone.send_replace(true)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes a block of what was read.
    fn cut(&mut self) {
        if self.filled > 0 {
            let mut block = BytesMut::with_capacity(OutputHeader::SIZE + self.filled);
            block.extend_from_slice(
                &OutputHeader { tag: self.tag, screen: self.screen, len: self.filled as u32 }.encode(),
            );
            block.extend_from_slice(&self.buffer[..self.filled]);
            self.queue.push_back(block.freeze());
            self.filled = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    use rustix::pipe::PipeFlags;

    use super::*;

    /// What `drain` counts of what was written to `theirs`, which stays open: as much as goes in.
    fn drained(ours: OwnedFd, theirs: &OwnedFd, kind: Kind) -> (u64, u64) {
        let end = End::new(ours, kind).unwrap();
        rustix::io::ioctl_fionbio(theirs, true).unwrap();
        let mut written = 0;
        while let Ok(more) = rustix::io::write(theirs, &[b'x'; 64 << 10]) {
            written += more as u64;
        }
        let output = Output::new(end, Arc::default(), Arc::new([]), Screen::default());
        output.drain();
        (written, output.count().load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn an_end_while_the_buffer_is_full_loses_nothing() {
        let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::pipe::fcntl_setpipe_size(&theirs, 2 * BLOCK_MAX).unwrap();
        assert_eq!(rustix::io::write(&theirs, &[b'x'; 2 * BLOCK_MAX]).unwrap(), 2 * BLOCK_MAX);
        let output = Output::new(End::new(ours, Kind::Pipe).unwrap(), Arc::default(), Arc::new([]), Screen::default());
        assert!(output.read(&mut output.lock()));
        // What a task that reads on has in its hands when the command ends.
        assert_eq!(output.lock().filled, BLOCK_MAX);
        output.drain();
        drop(theirs);
        let mut blocks = 0;
        while let Some(block) = output.next().await {
            blocks += block.len() - OutputHeader::SIZE;
        }
        assert_eq!((blocks, output.count().load(Ordering::SeqCst)), (2 * BLOCK_MAX, 2 * BLOCK_MAX as u64));
    }

    #[tokio::test]
    async fn all_that_a_pipe_holds_is_counted_however_large_it_was_made() {
        let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::pipe::fcntl_setpipe_size(&theirs, 1 << 20).unwrap();
        assert_eq!(drained(ours, &theirs, Kind::Pipe), (1 << 20, 1 << 20));
    }

    #[tokio::test]
    async fn all_that_a_socket_holds_is_counted() {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size_force(&theirs, 2 << 20).unwrap();
        let (written, counted) = drained(ours, &theirs, Kind::Socket);
        assert!(written > 1 << 20, "{written}");
        assert_eq!(counted, written);
    }
}
