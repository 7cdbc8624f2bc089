//! A pipe of the user that the command reads: what is in it is copied to the command and stays in it, until the command has
//! read it there. So what it leaves is there for whoever reads next. Used by `intake` and `streams`.
//!
//! Nothing here reads ahead or blocks: what is in a pipe can be duplicated (tee(2)), and be thrown away without waiting
//! (splice(2)), whatever flags its description has.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use remotely_session::RecvStream;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};

/// Most bytes of one chunk.
const CHUNK: usize = 64 << 10;
/// What a pipe is enlarged to that is found half full: what is on its way to the command has to be in it.
const ENLARGED: usize = 1 << 20;
/// Who has read so much reads all. From then on the pipe is read ahead, which is faster where the way is long.
const BULK: u64 = 16 << 20;
/// Not every kernel tells of what is added to a pipe that was not empty (Linux 5.5 to 5.13).
const LOOK: Duration = Duration::from_millis(100);
/// How often is looked for what no kernel tells of.
const LOOK_OFTEN: Duration = Duration::from_millis(10);

/// The reading end of a pipe of here.
#[derive(Debug)]
pub(super) struct Tap {
    /// Device and inode.
    id: (u64, u64),
    state: Mutex<State>,
    /// The agent says no more about what the command has read.
    told: watch::Sender<bool>,
    /// What could not be seen may be seen now.
    uncovered: Notify,
}

/// What is found in the pipe.
#[derive(Debug)]
pub(super) enum Next {
    /// Bytes that follow those of before, at least one. They are still in the pipe.
    Chunk(Bytes),
    /// Nobody writes to it any more, and the command has been sent everything.
    End,
    /// The pipe is to be read from now on: what was sent is not in it any more.
    Ahead(Arc<OwnedFd>),
}

#[derive(Debug)]
struct State {
    /// `None` once it is closed, or read by others.
    pipe: Option<Arc<AsyncFd<Arc<OwnedFd>>>>,
    /// A pipe of our own, empty between two calls: (reading, writing).
    copy: (OwnedFd, OwnedFd),
    null: OwnedFd,
    /// Bytes that the user's pipe has room for.
    room: usize,
    /// The pipe of our own can't be enlarged.
    refused: bool,
    /// There is more than it can show.
    covered: bool,
    /// Bytes taken out of the pipe.
    taken: u64,
    /// Bytes sent to the command. What is between the two is at the front of the pipe.
    sent: u64,
    /// Bytes that the command has read there.
    consumed: u64,
}

impl Tap {
    /// On a pipe; on anything else, and where the kernel here does not do this, the descriptor is handed back. Must be
    /// called in a runtime.
    pub(super) fn new(fd: Arc<OwnedFd>) -> Result<Arc<Self>, Arc<OwnedFd>> {
        match State::new(&fd) {
            Ok(Some((id, state))) => {
                let (state, told) = (Mutex::new(state), watch::Sender::new(false));
                Ok(Arc::new(Self { id, state, told, uncovered: Notify::new() }))
            }
            Ok(None) => Err(fd),
            Err(error) => {
                tracing::info!(%error, "a pipe is read ahead");
                Err(fd)
            }
        }
    }

    /// Everything that is still in the pipe is sent again: nothing was read by the command.
    pub(super) fn rewind(&self) {
        let mut state = self.lock();
        state.sent = state.taken;
        self.told.send_replace(false);
    }

    /// What is to be sent next. Pending for ever once it is closed. Cancel safe.
    pub(super) async fn next(&self) -> Next {
        let mut hung_up = false;
        loop {
            let (pipe, pause) = {
                let mut state = self.lock();
                state.settle();
                match state.next() {
                    Ok(Some(next)) => return next,
                    Ok(None) => {}
                    // As if it could not be done at all.
                    Err(_) => {
                        if let Some(next) = state.ahead() {
                            return next;
                        }
                    }
                }
                let Some(pipe) = state.pipe.clone() else { break };
                // The runtime remembers for good that it was hung up on, and has nothing new to say then.
                let pause = if hung_up { LOOK_OFTEN } else { LOOK };
                (pipe, (hung_up || state.sent > state.taken).then_some(pause))
            };
            tokio::select! {
                ready = pipe.readable(), if !hung_up => match ready {
                    // What came before the next look needs no other one.
                    Ok(mut ready) => {
                        hung_up = ready.ready().is_read_closed();
                        ready.clear_ready();
                    }
                    Err(_) => break,
                },
                () = self.uncovered.notified() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
        std::future::pending().await
    }

    /// Takes what the agent says about what the command has read: little endian totals of 8 bytes each.
    pub(super) async fn follow(&self, mut recv: RecvStream) {
        let mut buffer = BytesMut::new();
        while let Ok(Some(bytes)) = recv.recv().await {
            buffer.extend_from_slice(&bytes);
            let whole = buffer.len() / 8;
            if whole > 0 {
                buffer.advance((whole - 1) * 8);
                self.consumed(buffer.get_u64_le());
            }
        }
        self.told.send_replace(true);
    }

    /// The command has read so many bytes in all. They are taken out of the pipe, if nobody else was faster.
    pub(super) fn consumed(&self, total: u64) {
        let mut state = self.lock();
        state.consumed = state.consumed.max(total);
        state.settle();
        if std::mem::take(&mut state.covered) {
            self.uncovered.notify_one();
        }
    }

    /// The command has written this into the same pipe: it gives back, first of all, what others were faster to take
    /// (a token of make, which was used twice meanwhile). Only the rest is to be written.
    pub(super) fn returned(&self, bytes: &mut Bytes) {
        let mut state = self.lock();
        if state.settle() {
            return;
        }
        let given = bytes.len().min(usize::try_from(state.owed()).unwrap_or(usize::MAX));
        bytes.advance(given);
        state.taken += given as u64;
    }

    /// Whether this is the same pipe.
    pub(super) fn is(&self, other: &OwnedFd) -> bool {
        rustix::fs::fstat(other).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.id)
    }

    /// Waits until the agent has said the last about what the command has read. Cancel safe.
    pub(super) async fn told(&self) {
        // The sender lives as long as `self`.
        let _ = self.told.subscribe().wait_for(|told| *told).await;
    }

    /// Waits until what the command has read is out of the pipe: another one may have taken it first, and put it back
    /// later (a token of make). Cancel safe.
    pub(super) async fn settled(&self) {
        while !self.lock().settle() {
            tokio::time::sleep(LOOK_OFTEN).await;
        }
    }

    /// Closes the pipe, so that its writer gets SIGPIPE if this is the last copy.
    pub(super) fn close(&self) {
        self.lock().pipe = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(fd: &Arc<OwnedFd>) -> io::Result<Option<((u64, u64), Self)>> {
        let stat = rustix::fs::fstat(fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
            return Ok(None);
        }
        let null = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        let copy = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let pipe = Some(Arc::new(register(Arc::clone(fd))?));
        let room = rustix::pipe::fcntl_getpipe_size(fd)?;
        let state = Self { pipe, copy, null, room, refused: false, covered: false, taken: 0, sent: 0, consumed: 0 };
        Ok(Some(((stat.st_dev, stat.st_ino), state)))
    }

    /// What can be said without waiting.
    fn next(&mut self) -> rustix::io::Result<Option<Next>> {
        if self.taken >= BULK {
            return Ok(self.ahead());
        }
        let Some(pipe) = self.pipe.as_deref().map(|pipe| Arc::clone(pipe.get_ref())) else { return Ok(None) };
        // Before its content, to which nothing is added then.
        let hung_up = hung_up(&pipe)?;
        let content = rustix::io::ioctl_fionread(&pipe)?;
        if content <= self.outstanding() {
            return Ok(hung_up.then_some(Next::End));
        }
        if self.room < ENLARGED && content >= self.room as u64 / 2 {
            // Not more often than once: the user may have no right to more.
            self.room = ENLARGED;
            let _ = rustix::pipe::fcntl_setpipe_size(&pipe, ENLARGED);
        }
        let mut bytes = self.peek(&pipe)?;
        if bytes.is_empty() && self.widen(&pipe)? {
            bytes = self.peek(&pipe)?;
        }
        self.covered = bytes.is_empty();
        self.sent += bytes.len() as u64;
        Ok((!bytes.is_empty()).then(|| Next::Chunk(bytes.freeze())))
    }

    /// A copy of what follows the outstanding bytes. None, if it is too far behind for the pipe of our own, or if
    /// somebody else was faster.
    fn peek(&mut self, pipe: &OwnedFd) -> rustix::io::Result<BytesMut> {
        let outstanding = usize::try_from(self.outstanding()).unwrap_or(usize::MAX);
        let most = outstanding.saturating_add(CHUNK);
        let tee = || rustix::pipe::tee(pipe, &self.copy.1, most, SpliceFlags::NONBLOCK);
        let seen = match rustix::io::retry_on_intr(tee) {
            Ok(seen) => seen,
            Err(Errno::AGAIN) => 0,
            Err(errno) => return Err(errno),
        };
        discard(&self.copy.0, &self.null, seen.min(outstanding))?;
        let mut bytes = BytesMut::zeroed(seen.saturating_sub(outstanding));
        let mut filled = 0;
        while filled < bytes.len() {
            filled += rustix::io::read(&self.copy.0, &mut bytes[filled..])?;
        }
        Ok(bytes)
    }

    /// Makes the pipe of our own as large as the user's; whether it was smaller, and is not any more.
    fn widen(&mut self, pipe: &OwnedFd) -> rustix::io::Result<bool> {
        let size = rustix::pipe::fcntl_getpipe_size(pipe)?;
        if self.refused || size <= rustix::pipe::fcntl_getpipe_size(&self.copy.1)? {
            return Ok(false);
        }
        self.refused = rustix::pipe::fcntl_setpipe_size(&self.copy.1, size).is_err();
        Ok(!self.refused)
    }

    /// Takes out what the command has read; whether that is all of it, or all that can ever be.
    fn settle(&mut self) -> bool {
        let (owed, Some(pipe)) = (self.owed(), self.pipe.as_deref()) else { return true };
        if owed == 0 {
            return true;
        }
        let pipe = pipe.get_ref();
        self.taken += discard(pipe, &self.null, usize::try_from(owed).unwrap_or(usize::MAX)).unwrap_or(0) as u64;
        self.owed() == 0 || (hung_up(pipe) == Ok(true) && rustix::io::ioctl_fionread(pipe) == Ok(0))
    }

    /// What the command has read and is still in the pipe. Never more than was sent, whatever is said there.
    fn owed(&self) -> u64 {
        self.consumed.min(self.sent).saturating_sub(self.taken)
    }

    /// Takes out what was sent, and gives the pipe away.
    fn ahead(&mut self) -> Option<Next> {
        let pipe = self.pipe.take()?;
        let pipe = Arc::clone(pipe.get_ref());
        let outstanding = usize::try_from(self.outstanding()).unwrap_or(usize::MAX);
        self.taken += discard(&pipe, &self.null, outstanding).unwrap_or(0) as u64;
        Some(Next::Ahead(pipe))
    }

    fn outstanding(&self) -> u64 {
        self.sent - self.taken
    }
}

/// Takes so many bytes out of a pipe, or what is there.
fn discard(pipe: &OwnedFd, null: &OwnedFd, len: usize) -> rustix::io::Result<usize> {
    let mut done = 0;
    while done < len {
        match rustix::pipe::splice(pipe, None, null, None, len - done, SpliceFlags::NONBLOCK) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(more) => done += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Whether nobody can write to it.
fn hung_up(pipe: &OwnedFd) -> rustix::io::Result<bool> {
    let mut polled = [PollFd::new(pipe, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&Timespec::default())))?;
    Ok(polled[0].revents().contains(PollFlags::HUP))
}

fn register(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an OwnedFd is open, and stays the same descriptor until its last owner is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;
