//! A pipe that the command reads: bytes go in, and the client is told how many of them the command has taken out, so that
//! it takes no more than those from the pipe of there. Called by [`crate::run::exec`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::{Buf, Bytes};
use remotely_session::{RecvError, RecvStream, SendError, SendStream};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::Mutex as Baton;
use tokio::time::Instant;

use crate::run::relay::End;

/// So many bytes taken out are told of at once. Less is told of when it is noticed.
const STEP: u64 = 64 << 10;
/// When is looked first, after something has changed, how much was taken out. Nobody tells.
const LOOK_FIRST: Duration = Duration::from_millis(1);
/// The interval doubles up to this.
const LOOK_LAST: Duration = Duration::from_millis(100);

/// What went into the pipe and what came out of it.
#[derive(Debug)]
pub(crate) struct Input {
    /// Our end, until the end of the input.
    end: Weak<End>,
    meter: Mutex<Meter>,
    teller: Baton<Teller>,
}

#[derive(Debug, Default)]
struct Meter {
    written: u64,
    /// As known last; for good, once nothing is open any more by which to find out.
    consumed: u64,
    /// The other end, opened when ours is closed: it only tells what is left.
    rest: Option<OwnedFd>,
}

/// The way back to the client.
#[derive(Debug)]
struct Teller {
    to: SendStream,
    told: u64,
}

/// How the flow into the pipe ended.
enum Over {
    /// There is no more input.
    Ended,
    /// Nobody reads the pipe any more.
    Unread,
}

impl Input {
    /// Of this end. What is read from the pipe is told on `to`: little endian totals of 8 bytes each.
    pub(crate) fn new(end: &Arc<End>, to: SendStream) -> Arc<Self> {
        let teller = Baton::new(Teller { to, told: 0 });
        Arc::new(Self { end: Arc::downgrade(end), meter: Mutex::default(), teller })
    }

    /// Bytes that were read from the pipe so far, by whomever.
    pub(crate) fn consumed(&self) -> u64 {
        let end = self.end.upgrade();
        let mut meter = self.lock();
        meter.update(end.as_ref().map(|end| end.fd()));
        meter.consumed
    }

    /// Tells the client what was read so far, unless it knows. Not cancel safe: the total may be sent in part.
    pub(crate) async fn tell(&self) {
        self.tell_from(1).await;
    }

    /// Writes what the stream brings, until all was read, or can't be any more.
    pub(crate) async fn feed(self: Arc<Self>, end: Arc<End>, mut from: RecvStream) {
        let mut clock = Clock { pause: LOOK_FIRST, due: None };
        let mut chunk = Bytes::new();
        let over = loop {
            self.look(&mut clock, STEP).await;
            tokio::select! {
                biased;
                () = end.reader_gone() => break Over::Unread,
                received = from.recv(), if chunk.is_empty() => match received {
                    Ok(Some(bytes)) => chunk = bytes,
                    Ok(None) => break Over::Ended,
                    // No end of input: the command must not take what it has for all there was. It is killed soon.
                    Err(RecvError::Reset(_) | RecvError::Ended) => {
                        end.reader_gone().await;
                        break Over::Unread;
                    }
                },
                written = self.write(&end, &chunk), if !chunk.is_empty() => match written {
                    Ok(written) => {
                        chunk.advance(written);
                        clock.hurry();
                    }
                    Err(_) => break Over::Unread,
                },
                () = clock.strikes() => self.look(&mut clock, 1).await,
            }
        };
        if let Over::Ended = over {
            self.close(end);
            self.follow(&mut clock).await;
        }
        // The client takes what it is told of before it hears that no more is wanted, and closes the pipe of there.
        self.tell().await;
        self.teller.lock().await.to.finish();
        from.stop();
    }

    /// Until the command has read all that is there, or the client does not want to know.
    async fn follow(&self, clock: &mut Clock) {
        loop {
            self.look(clock, 1).await;
            let teller = self.teller.lock().await;
            let unwanted = tokio::time::timeout(Duration::ZERO, teller.to.stopped()).await.is_ok();
            if unwanted || clock.due.is_none() {
                return;
            }
            drop(teller);
            clock.strikes().await;
        }
    }

    /// Tells the client, if at least `step` bytes were read since, and has it looked again while there is more to tell.
    async fn look(&self, clock: &mut Clock, step: u64) {
        if self.tell_from(step).await {
            clock.hurry();
        }
        let told = self.teller.lock().await.told;
        let more = self.lock().written > told;
        clock.set(more);
    }

    /// Whether there was so much to tell.
    async fn tell_from(&self, step: u64) -> bool {
        let mut teller = self.teller.lock().await;
        let consumed = self.consumed();
        let enough = consumed >= teller.told + step;
        if enough {
            teller.told = consumed;
            // A client that does not want to know, or is gone, is no reason to stop.
            let _: Result<(), SendError> = teller.to.send(Bytes::copy_from_slice(&consumed.to_le_bytes())).await;
        }
        enough
    }

    /// Writes once, and counts it. Cancel safe.
    async fn write(&self, end: &End, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = end.writable().await?;
            let mut meter = self.lock();
            match rustix::io::write(end.fd(), bytes) {
                Ok(written) => {
                    meter.written += written as u64;
                    return Ok(written);
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Closes our end, so that the command reads the end of its input once it has read the rest.
    fn close(&self, end: Arc<End>) {
        let mut meter = self.lock();
        meter.update(Some(end.fd()));
        if meter.consumed < meter.written {
            // A reader of its own keeps what is left where it can be counted. Without /proc all is taken for read.
            let path = format!("/proc/self/fd/{}", end.fd().as_raw_fd());
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            match rustix::fs::open(path, flags, Mode::empty()) {
                Ok(rest) => meter.rest = Some(rest),
                Err(error) => {
                    tracing::info!(%error, "cannot see how much of its input the command reads");
                    meter.consumed = meter.written;
                }
            }
        }
        drop(end);
    }

    fn lock(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter {
    /// Asks the pipe, through the one end or the other.
    fn update(&mut self, end: Option<BorrowedFd<'_>>) {
        let Some(pipe) = self.rest.as_ref().map(AsFd::as_fd).or(end) else { return };
        if let Ok(left) = rustix::io::ioctl_fionread(pipe) {
            // The command may write into its own pipe: what is left can be more than what came from here.
            self.consumed = self.consumed.max(self.written.saturating_sub(left));
        }
    }
}

/// When to look what was read.
struct Clock {
    pause: Duration,
    due: Option<Instant>,
}

impl Clock {
    /// There is something to look for, or not.
    fn set(&mut self, on: bool) {
        self.due = if on { self.due.or_else(|| Some(Instant::now() + self.pause)) } else { None };
    }

    /// Something has changed: more will soon.
    fn hurry(&mut self) {
        self.pause = LOOK_FIRST;
        let soon = Instant::now() + self.pause;
        self.due = self.due.map(|due| due.min(soon));
    }

    /// Waits until it is time to look; for ever if it is not set. Cancel safe.
    async fn strikes(&mut self) {
        let Some(due) = self.due else { return std::future::pending().await };
        tokio::time::sleep_until(due).await;
        self.pause = (self.pause * 2).min(LOOK_LAST);
        self.due = None;
    }
}
