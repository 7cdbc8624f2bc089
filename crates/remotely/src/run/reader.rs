//! Reads a descriptor of the user in a thread of its own: it may be of any kind, others may share it, and its flags
//! (O_NONBLOCK) are theirs. Used by `streams`. A blocked read is never waited for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::sync::mpsc;

use super::terminal::in_background;

/// Most bytes of one chunk.
const CHUNK: usize = 64 << 10;
/// Chunks up to this size are copied, so that a keystroke does not hold 64 KiB.
const SMALL: usize = 8 << 10;

/// How a descriptor is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// read(2), write(2).
    File,
    /// With MSG_DONTWAIT.
    Socket,
}

/// What came from the descriptor.
#[derive(Debug)]
pub(super) enum Read {
    /// Bytes, at least one.
    Chunk(Bytes),
    /// The terminal belongs to somebody else: the reader has paused itself.
    Background,
}

/// The reading end of a descriptor of here. Dropping it closes the descriptor, so that a writer gets SIGPIPE, if this
/// is the last copy.
#[derive(Debug)]
pub(super) struct Reader {
    chunks: mpsc::Receiver<Read>,
    bell: Arc<Bell>,
}

impl Reader {
    /// Starts to read `fd`; `paused` waits for [`resume`](Self::resume). At most two chunks are read ahead.
    pub(super) fn start(fd: Arc<OwnedFd>, way: Way, paused: bool) -> std::io::Result<Self> {
        let (sender, chunks) = mpsc::channel(1);
        let bell = Arc::new(Bell::new(if paused { PAUSED } else { 0 })?);
        let ring = Arc::clone(&bell);
        std::thread::Builder::new().name("reader".into()).stack_size(256 << 10).spawn(move || {
            // The rest is the end of the file: an error on reading is one, too, for somebody who reads a pipe.
            let _ = relay(&fd, way, &ring, &sender);
        })?;
        Ok(Self { chunks, bell })
    }

    /// The next chunk; `None` at the end. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Read> {
        self.chunks.recv().await
    }

    /// Closes the descriptor, as a drop does.
    pub(super) fn close(&mut self) {
        self.bell.set(STOPPED, true);
        self.chunks.close();
    }

    /// A handle that pauses and resumes it from elsewhere.
    pub(super) fn valve(&self) -> Valve {
        Valve(Arc::clone(&self.bell))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.bell.set(STOPPED, true);
    }
}

/// Pauses and resumes a [`Reader`].
#[derive(Debug, Clone)]
pub(super) struct Valve(Arc<Bell>);

impl Valve {
    /// Reads nothing more until told otherwise.
    pub(super) fn pause(&self) {
        self.0.set(PAUSED, true);
    }

    /// Reads on.
    pub(super) fn resume(&self) {
        self.0.set(PAUSED, false);
    }
}

const STOPPED: u8 = 1;
const PAUSED: u8 = 2;

/// Flags for a thread that may sit in poll(2).
#[derive(Debug)]
pub(super) struct Bell {
    flags: AtomicU8,
    event: OwnedFd,
}

impl Bell {
    pub(super) fn new(flags: u8) -> std::io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { flags: AtomicU8::new(flags), event })
    }

    pub(super) fn set(&self, flag: u8, on: bool) {
        if on {
            self.flags.fetch_or(flag, Ordering::SeqCst);
        } else {
            self.flags.fetch_and(!flag, Ordering::SeqCst);
        }
        self.ring();
    }

    /// Wakes the thread. A full counter is awake already.
    pub(super) fn ring(&self) {
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::SeqCst) & flag != 0
    }

    /// Waits until `fd` has one of `events`, which are returned, or the bell rings.
    pub(super) fn wait(&self, fd: Option<(BorrowedFd<'_>, PollFlags)>) -> rustix::io::Result<PollFlags> {
        let mut polled = vec![PollFd::new(&self.event, PollFlags::IN)];
        polled.extend(fd.map(|(fd, events)| PollFd::from_borrowed_fd(fd, events)));
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        if polled[0].revents().contains(PollFlags::IN) {
            let _ = rustix::io::read(&self.event, &mut [0; 8]);
        }
        Ok(polled.get(1).map_or(PollFlags::empty(), |fd| fd.revents()))
    }
}

fn relay(fd: &OwnedFd, way: Way, bell: &Bell, sender: &mpsc::Sender<Read>) -> rustix::io::Result<()> {
    super::signal::block_all();
    let mut buffer = Vec::new();
    loop {
        if bell.has(STOPPED) {
            return Ok(());
        }
        // Asked again at each turn: somebody may have stopped or paused it while it waited.
        let paused = bell.has(PAUSED);
        let events = bell.wait((!paused).then_some((fd.as_fd(), PollFlags::IN)))?;
        if bell.has(STOPPED | PAUSED) || events.is_empty() {
            continue;
        }
        buffer.resize(CHUNK, 0);
        let read = match way {
            Way::File => rustix::io::read(fd, &mut buffer[..]),
            Way::Socket => rustix::net::recv(fd, &mut buffer[..], RecvFlags::DONTWAIT).map(|(len, _)| len),
        };
        let item = match read {
            Ok(0) => return Ok(()),
            Ok(len) if len <= SMALL => Read::Chunk(Bytes::copy_from_slice(&buffer[..len])),
            Ok(len) => {
                buffer.truncate(len);
                Read::Chunk(std::mem::take(&mut buffer).into())
            }
            // Somebody else has read it first, or the user's description does not block.
            Err(Errno::AGAIN | Errno::INTR) => continue,
            // SIGTTIN is blocked in this thread, which turns it into EIO.
            Err(Errno::IO) if in_background(fd) => {
                bell.set(PAUSED, true);
                Read::Background
            }
            Err(errno) => return Err(errno),
        };
        if sender.blocking_send(item).is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    async fn text(reader: &mut Reader) -> Option<Vec<u8>> {
        match tokio::time::timeout(Duration::from_secs(5), reader.next()).await.unwrap() {
            Some(Read::Chunk(bytes)) => Some(bytes.to_vec()),
            Some(Read::Background) => panic!("no terminal"),
            None => None,
        }
    }

    #[tokio::test]
    async fn reads_a_pipe_to_its_end() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut reader = Reader::start(Arc::new(read), Way::File, false).unwrap();
        rustix::io::write(&write, b"abc").unwrap();
        assert_eq!(text(&mut reader).await, Some(b"abc".to_vec()));
        drop(write);
        assert_eq!(text(&mut reader).await, None);
    }

    #[tokio::test]
    async fn stopping_closes_the_pipe_although_nothing_comes() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let reader = Reader::start(Arc::new(read), Way::File, false).unwrap();
        drop(reader);
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while rustix::io::write(&write, b"x") != Err(Errno::PIPE) {
            assert!(std::time::Instant::now() < deadline, "the reading end is still open");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn reads_nothing_while_paused() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut reader = Reader::start(Arc::new(read), Way::File, true).unwrap();
        rustix::io::write(&write, b"abc").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), reader.next()).await.is_err());
        reader.valve().resume();
        assert_eq!(text(&mut reader).await, Some(b"abc".to_vec()));
    }

    #[tokio::test]
    async fn a_socket_and_a_nonblocking_description_are_read_as_they_are() {
        let (one, two) = UnixStream::pair().unwrap();
        two.set_nonblocking(true).unwrap();
        let fd: Arc<OwnedFd> = Arc::new(two.into());
        let mut sockets = Reader::start(Arc::clone(&fd), Way::Socket, false).unwrap();
        rustix::io::write(&one, b"1").unwrap();
        assert_eq!(text(&mut sockets).await, Some(b"1".to_vec()));
        assert!(rustix::fs::fcntl_getfl(&fd).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
    }

    #[tokio::test]
    async fn reads_only_a_little_ahead() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        rustix::pipe::fcntl_setpipe_size(&write, 1 << 20).unwrap();
        let _reader = Reader::start(Arc::new(read), Way::File, false).unwrap();
        rustix::io::write(&write, &vec![0; 1 << 20]).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let left = rustix::io::ioctl_fionread(&write).unwrap();
        assert!(left >= (1 << 20) - 2 * CHUNK as u64, "{left} bytes are left");
    }
}
