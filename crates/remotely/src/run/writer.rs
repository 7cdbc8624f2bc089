//! Writes to a descriptor of the user in a thread of its own, so that a slow reader stalls its own stream and nothing
//! else. Used by `streams`. Notices that the reader of a pipe has gone even while there is nothing to write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::reader::{Bell, Way};

/// Bytes held at most, or one chunk: a thread that is woken for each small chunk costs more than writing it.
const ROOM: usize = 256 << 10;
/// Chunks written at once.
const BATCH: usize = 16;

/// The writing end of a descriptor of here. Dropping it closes the descriptor after what is queued has been written.
#[derive(Debug)]
pub(super) struct Writer {
    // Dropped before the bell rings a last time, so that the thread sees the end.
    chunks: Option<mpsc::UnboundedSender<Chunk>>,
    room: Arc<Semaphore>,
    bell: Arc<Bell>,
    ended: oneshot::Receiver<rustix::io::Result<()>>,
    written: watch::Receiver<u64>,
}

/// Bytes, and the room that they take until they are written.
type Chunk = (Bytes, OwnedSemaphorePermit);

impl Writer {
    /// Starts the thread.
    pub(super) fn start(fd: Arc<OwnedFd>, way: Way) -> io::Result<Self> {
        // Bounded by the room.
        let (sender, mut chunks) = mpsc::unbounded_channel();
        let (tell, ended) = oneshot::channel();
        let (count, written) = watch::channel(0);
        let bell = Arc::new(Bell::new(0)?);
        let ring = Arc::clone(&bell);
        std::thread::Builder::new().name("writer".into()).stack_size(256 << 10).spawn(move || {
            let result = relay(&fd, way, &ring, &mut chunks, &count);
            drop(fd);
            let _ = tell.send(result);
        })?;
        Ok(Self { chunks: Some(sender), room: Arc::new(Semaphore::new(ROOM)), bell, ended, written })
    }

    /// How many bytes were written; has no sender any more once no more will be.
    pub(super) fn written(&self) -> watch::Receiver<u64> {
        self.written.clone()
    }

    /// Hands a chunk over, waiting until there is room for it. EPIPE if nobody reads any more. Cancel
    /// safe: the chunk is queued or it is not.
    pub(super) async fn write(&mut self, chunk: Bytes) -> Result<(), Errno> {
        let Some(chunks) = &self.chunks else { return Err(Errno::PIPE) };
        let ended = tokio::select! {
            biased;
            result = &mut self.ended => reason(result),
            // The semaphore is never closed.
            Ok(permit) = Arc::clone(&self.room).acquire_many_owned(chunk.len().min(ROOM) as u32) => {
                if chunks.send((chunk, permit)).is_ok() {
                    self.bell.ring();
                    return Ok(());
                }
                // The thread is about to say why.
                reason((&mut self.ended).await)
            }
        };
        self.chunks = None;
        Err(ended)
    }

    /// Waits until the descriptor takes no more. Cancel safe. To be called before [`finish`](Self::finish) only.
    pub(super) async fn broken(&mut self) -> Errno {
        if self.chunks.is_none() {
            return Errno::PIPE;
        }
        let ended = reason((&mut self.ended).await);
        self.chunks = None;
        ended
    }

    /// Waits until all has been written and the descriptor is closed.
    pub(super) async fn finish(mut self) -> Result<(), Errno> {
        if self.chunks.take().is_none() {
            return Err(Errno::PIPE);
        }
        self.bell.ring();
        (&mut self.ended).await.unwrap_or(Err(Errno::PIPE))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.chunks = None;
        self.bell.ring();
    }
}

/// Why the thread takes no more although it was not told to finish.
fn reason(ended: Result<rustix::io::Result<()>, oneshot::error::RecvError>) -> Errno {
    ended.ok().and_then(Result::err).unwrap_or(Errno::PIPE)
}

fn relay(
    fd: &OwnedFd,
    way: Way,
    bell: &Bell,
    chunks: &mut mpsc::UnboundedReceiver<Chunk>,
    count: &watch::Sender<u64>,
) -> rustix::io::Result<()> {
    super::signal::block_all();
    let mut batch = VecDeque::with_capacity(BATCH);
    loop {
        while batch.len() < BATCH
            && let Ok(chunk) = chunks.try_recv()
        {
            batch.push_back(chunk);
        }
        if !batch.is_empty() {
            write_all(fd, way, &mut batch, count)?;
            continue;
        }
        if chunks.is_closed() && chunks.is_empty() {
            return Ok(());
        }
        // poll(2) tells POLLERR unasked, on a pipe as soon as its last reader is gone: as here, where the kernel
        // would tell the writer at its next write, not at the one after it.
        let events = bell.wait(Some((fd.as_fd(), PollFlags::empty())))?;
        let hung_up = way == Way::Socket && events.contains(PollFlags::HUP);
        if events.contains(PollFlags::ERR) || hung_up {
            return Err(Errno::PIPE);
        }
        // Anything else that poll(2) tells unasked does not go away.
        if !events.is_empty() {
            match chunks.blocking_recv() {
                Some(chunk) => batch.push_back(chunk),
                None => return Ok(()),
            }
        }
    }
}

/// Writes from the front until nothing is left.
fn write_all(
    fd: &OwnedFd,
    way: Way,
    batch: &mut VecDeque<Chunk>,
    count: &watch::Sender<u64>,
) -> rustix::io::Result<()> {
    while let Some((front, _)) = batch.front() {
        let written = match way {
            Way::File => {
                let slices: Vec<IoSlice<'_>> = batch.iter().map(|(chunk, _)| IoSlice::new(chunk)).collect();
                rustix::io::writev(fd, &slices)
            }
            Way::Socket => rustix::net::send(fd, front, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
        };
        match written {
            Ok(len) => {
                advance(batch, len);
                count.send_modify(|count| *count += len as u64);
            }
            Err(Errno::INTR) => {}
            // The user's description does not block, or it is a socket that is full.
            Err(Errno::AGAIN) => {
                let mut polled = [rustix::event::PollFd::new(fd, PollFlags::OUT)];
                match rustix::event::poll(&mut polled, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Drops what was written, and makes room for more.
fn advance(batch: &mut VecDeque<Chunk>, mut written: usize) {
    while let Some((chunk, _)) = batch.front_mut() {
        if chunk.len() > written {
            return chunk.advance(written);
        }
        written -= chunk.len();
        batch.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Duration;

    use super::*;

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(5), future).await.unwrap()
    }

    #[tokio::test]
    async fn writes_all_and_closes() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut writer = Writer::start(Arc::new(write), Way::File).unwrap();
        let collected = std::thread::spawn(move || {
            let mut all = Vec::new();
            std::fs::File::from(read).read_to_end(&mut all).unwrap();
            all
        });
        for chunk in 0..100u8 {
            within(writer.write(Bytes::from(vec![chunk; 10_000]))).await.unwrap();
        }
        within(writer.finish()).await.unwrap();
        let all = collected.join().unwrap();
        assert_eq!(all.len(), 1_000_000);
        assert!(all.chunks(10_000).zip(0u8..).all(|(chunk, value)| chunk.iter().all(|&byte| byte == value)));
    }

    #[tokio::test]
    async fn notices_that_the_reader_has_gone_without_writing() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut writer = Writer::start(Arc::new(write), Way::File).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), writer.broken()).await.is_err());
        drop(read);
        assert_eq!(within(writer.broken()).await, Errno::PIPE);
        assert_eq!(within(writer.write(Bytes::from_static(b"x"))).await, Err(Errno::PIPE));
    }

    #[tokio::test]
    async fn a_stalled_reader_makes_the_caller_wait() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut writer = Writer::start(Arc::new(write), Way::File).unwrap();
        let chunk = Bytes::from(vec![0; 1 << 20]);
        within(writer.write(chunk.clone())).await.unwrap();
        let mut taken = 1;
        while tokio::time::timeout(Duration::from_millis(50), writer.write(chunk.clone())).await.is_ok() {
            taken += 1;
        }
        assert!(taken <= 2, "{taken} chunks were taken");
        drop(read);
        assert_eq!(within(writer.broken()).await, Errno::PIPE);
    }

    #[tokio::test]
    async fn a_full_device_is_an_error() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut writer = Writer::start(Arc::new(full.into()), Way::File).unwrap();
        within(writer.write(Bytes::from_static(b"x"))).await.unwrap();
        assert_eq!(within(writer.finish()).await, Err(Errno::NOSPC));
    }

    #[tokio::test]
    async fn a_full_nonblocking_pipe_is_waited_for() {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let mut writer = Writer::start(Arc::new(write), Way::File).unwrap();
        within(writer.write(Bytes::from(vec![7; 200_000]))).await.unwrap();
        let mut got = 0;
        let mut buffer = [0; 4096];
        while got < 200_000 {
            match rustix::io::read(&read, &mut buffer) {
                Ok(len) => got += len,
                Err(Errno::AGAIN) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(errno) => panic!("{errno}"),
            }
        }
        within(writer.finish()).await.unwrap();
    }
}
