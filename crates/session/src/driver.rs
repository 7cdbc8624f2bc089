//! The one task of a link: moves bytes between the pipe and the mux, and keeps its time. Started by
//! [`LinkBuilder::attach`](crate::LinkBuilder::attach); ends with the link and leaves its end behind. [`Course`] is what it has
//! in common with threads that do the same.

use std::{
    collections::VecDeque,
    error::Error,
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use remotely_proto::mux;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::{
    link::End,
    pipe::{Pipe, PipeReader, PipeWriter},
    shared::{Hand, Outlet, Shared, wait},
};

/// Bytes made ready for writing at once. What is urgent waits for these at most when the pipe is full.
const BATCH: usize = 256 << 10;
/// Rounds of reading and writing before other tasks have their turn.
const ROUNDS: usize = 16;
/// A link that is over waits so long for its last words to be written.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(10);
/// When the other side takes no more, so many chunks of what it has sent are still read.
const LAST_READS: usize = 16;

/// Drives a link to its end. `first` is written first.
pub(crate) async fn drive(shared: Arc<Shared>, pipe: Pipe, first: VecDeque<Bytes>, received: Bytes) {
    let guard = LoseOnDrop(&shared);
    let end = match pipe.split() {
        Ok((reader, writer)) => {
            let course = Course::begin(&shared, writer.descriptor(), first, received);
            let sleep = Box::pin(sleep_until(Instant::from_std(shared.start())));
            let mut driver = Driver { shared: &shared, reader, writer, course, sleep };
            driver.run().await
        }
        Err(error) => End::Lost { why: format!("cannot use the pipe: {error}") },
    };
    finish(&shared, end);
    drop(guard);
}

/// Ends a link whose driver will not run, or runs no more.
pub(crate) fn lose(shared: &Shared, why: &str) {
    finish(shared, End::Lost { why: why.to_owned() });
}

/// Leaves behind why a link is over.
pub(crate) fn finish(shared: &Shared, end: End) {
    shared.with(|state, _| {
        state.mux.lost();
        state.outlet = Outlet::default();
    });
    shared.progress.send_if_modified(|progress| {
        let first = progress.end.is_none();
        if first {
            tracing::debug!(%end, "link over");
            progress.end = Some(end);
        }
        first
    });
}

/// The runtime may be shut down at any await.
struct LoseOnDrop<'a>(&'a Shared);

impl Drop for LoseOnDrop<'_> {
    fn drop(&mut self) {
        lose(self.0, "this process is ending");
    }
}

/// How far a link has come for who drives it.
#[derive(Debug)]
pub(crate) struct Course {
    /// Handed out by the mux and not yet written.
    pub(crate) pieces: VecDeque<Bytes>,
    /// When the mux is to act at the latest.
    pub(crate) wake_at: Option<Duration>,
}

impl Course {
    /// A link on a pipe that is written to by `writer`; `first` goes before anything else.
    pub(crate) fn begin(shared: &Shared, writer: Arc<OwnedFd>, first: VecDeque<Bytes>, received: Bytes) -> Self {
        shared.with(|state, now| {
            state.outlet = Outlet { writer: Some(writer), hand: Hand::Driver, ..Outlet::default() };
            state.mux.start(now);
            state.mux.input(now, received);
        });
        Self { pieces: first, wake_at: None }
    }

    /// Lets the mux act on the time, and takes its output. If the link is over: why, and whether there are last words.
    pub(crate) fn turn(&mut self, shared: &Shared, cx: &Context<'_>) -> Option<(End, bool)> {
        let pieces = &mut self.pieces;
        let (over, peer, wake_at) = shared.drive(|state, now| {
            state.mux.tick(now);
            if state.outlet.hand == Hand::Other {
                state.outlet.missed = true;
                wait(&mut state.driver, cx);
                state.wakes_at = state.mux.timeout(true);
                return (None, None, state.wakes_at);
            }
            if pieces.is_empty() {
                std::mem::swap(pieces, &mut state.outlet.left);
            }
            if pieces.is_empty() {
                state.mux.output(now, BATCH, pieces);
            }
            let over = state.mux.end().map(describe);
            if over.is_some() {
                state.mux.output(now, BATCH, pieces);
            }
            // While the pipe is full, new output is no reason to wake: it has to wait for the pipe anyway.
            let blocked = !pieces.is_empty();
            state.outlet.hand = if blocked { Hand::Driver } else { Hand::Free };
            state.silent = state.mux.held() && !blocked;
            if state.silent {
                state.holder.take().into_iter().for_each(Waker::wake);
            }
            if blocked {
                state.driver = None
            } else {
                wait(&mut state.driver, cx)
            }
            state.wakes_at = state.mux.timeout(blocked);
            (over, state.mux.peer().map(|&(hello, _)| hello), state.wakes_at)
        });
        self.wake_at = wake_at;
        if peer.is_some() && shared.progress.borrow().peer.is_none() {
            shared.progress.send_modify(|progress| progress.peer = peer);
        }
        over
    }
}

struct Driver<'a> {
    shared: &'a Shared,
    reader: PipeReader,
    writer: PipeWriter,
    course: Course,
    sleep: Pin<Box<Sleep>>,
}

impl Driver<'_> {
    async fn run(&mut self) -> End {
        let (end, flush) = poll_fn(|cx| self.poll(cx)).await;
        if flush {
            // Whether they arrive or not, the link is over.
            let _ = timeout(LAST_WORDS, poll_fn(|cx| self.poll_flush(cx))).await;
        }
        end
    }

    /// Ready when the link is over: why, and whether there are last words to be written.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(End, bool)> {
        for _ in 0..ROUNDS {
            // Reading comes before looking at the clock: what lies in the pipe proves that the other side is there.
            let mut moved = match self.poll_input(cx) {
                Ok(moved) => moved,
                Err(why) => return Poll::Ready((End::Lost { why }, false)),
            };
            if let Some(over) = self.course.turn(self.shared, cx) {
                return Poll::Ready(over);
            }
            if !self.course.pieces.is_empty() {
                match self.writer.poll_write(cx, &mut self.course.pieces) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => moved = true,
                    Poll::Ready(Err(error)) => {
                        return Poll::Ready((after_write_error(self.shared, &error, || self.reader.read_now()), false));
                    }
                }
            }
            if !moved && !self.poll_sleep(cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Result<bool, String> {
        match self.reader.poll_read(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(chunk)) if chunk.is_empty() => Err("the pipe ended".to_owned()),
            Poll::Ready(Ok(chunk)) => {
                self.shared.drive(|state, now| state.mux.input(now, chunk));
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(format!("cannot read from the pipe: {error}")),
        }
    }

    /// Whether the time has come for the mux to act.
    fn poll_sleep(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.course.wake_at else { return false };
        let at = Instant::from_std(self.shared.start()) + at;
        if self.sleep.deadline() != at {
            self.sleep.as_mut().reset(at);
        }
        self.sleep.as_mut().poll(cx).is_ready()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.course.pieces.is_empty() {
            ready!(self.writer.poll_write(cx, &mut self.course.pieces))?;
        }
        Poll::Ready(Ok(()))
    }
}

/// The other side may have said why before it went.
pub(crate) fn after_write_error(
    shared: &Shared,
    error: &io::Error,
    mut read: impl FnMut() -> io::Result<Bytes>,
) -> End {
    for _ in 0..LAST_READS {
        let Ok(chunk) = read() else { break };
        if chunk.is_empty() {
            break;
        }
        shared.drive(|state, now| state.mux.input(now, chunk));
    }
    let said = shared.drive(|state, _| state.mux.end().map(describe));
    said.map_or_else(|| End::Lost { why: format!("cannot write to the pipe: {error}") }, |(end, _)| end)
}

/// The end as the application learns it, and whether what is left is to be written.
fn describe(end: &mux::End) -> (End, bool) {
    match end {
        mux::End::Closed => (End::Closed, true),
        mux::End::Silent(_) => (End::Silent, false),
        mux::End::Lost => (End::Lost { why: end.to_string() }, false),
        mux::End::Protocol(error) => (End::Protocol { why: chain(error) }, true),
        &mux::End::Version { ours, theirs } => (End::Version { ours, theirs }, true),
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
