//! A further pipe of a link: a task that moves bytes between it and the mux. Started by [`Pipes::add`]; ends with its pipe or with
//! the link. It keeps no time: the driver of the first pipe does.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use remotely_proto::handshake::{Hello, Ticket};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    driver::{BATCH, LAST_WORDS, ROUNDS},
    link::{End, Ended},
    pipe::{Pipe, PipeReader, PipeWriter},
    shared::{Further, Shared, wait},
};

/// A pipe that was added to a link.
#[derive(Debug)]
pub struct Added(oneshot::Receiver<()>);

impl Added {
    /// Waits until the pipe is gone, or the link is over, and its descriptors are closed. Cancel safe.
    pub async fn ended(&mut self) {
        // Its sender is dropped, never used.
        let _ = (&mut self.0).await;
    }
}

/// The pipes of a link. Does not keep the link from being closed, as a [`Link`](crate::Link) does. Clones are the same.
#[derive(Debug, Clone)]
pub struct Pipes(Arc<Shared>);

impl Pipes {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// The other side's hello, or the end. Cancel safe.
    pub async fn linked(&self) -> Result<Hello, End> {
        self.0.linked().await
    }

    /// Waits for the end of the link, and says why. Cancel safe.
    pub async fn ended(&self) -> End {
        self.0.ended().await
    }

    /// What proves that a pipe belongs to this link, with a number that was not given before. For the client. `None` if the other
    /// side does not know of several pipes, or is not linked yet; if there are eight; and if the link is over.
    pub fn ticket(&self) -> Option<Ticket> {
        self.0.with(|state, _| state.mux.ticket())
    }

    /// Has the link run over a further pipe, from whose other end the other side does the same under the same number. The agent
    /// must have done so before the client does. `received` is what has already been read from the pipe. `None` if the link cannot
    /// have it.
    ///
    /// While the link has several pipes, the loss of one is not its end: what was on its way there goes over the others. Fails if the
    /// pipe cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub fn add(&self, number: u32, pipe: Pipe, received: Bytes) -> io::Result<Option<Added>> {
        start(&self.0, number, pipe, received)
    }

    /// Waits until more could be sent, in one direction or the other, if there were more pipes than there are, and says how many
    /// that are. For the client; each time it is told once. Cancel safe.
    pub async fn narrow(&self) -> Result<usize, Ended> {
        poll_fn(|cx| {
            self.0.with(|state, _| {
                if let Some(pipes) = state.narrow.take() {
                    return Poll::Ready(Ok(pipes));
                }
                if state.mux.end().is_some() {
                    return Poll::Ready(Err(Ended));
                }
                wait(&mut state.widener, cx);
                Poll::Pending
            })
        })
        .await
    }
}

/// Adds a pipe and starts its task. `None` if the link cannot have it.
fn start(shared: &Arc<Shared>, number: u32, pipe: Pipe, received: Bytes) -> io::Result<Option<Added>> {
    let (reader, writer) = pipe.split()?;
    let added = shared.with(|state, now| {
        let added = state.mux.add_pipe(now, number);
        if added {
            state.further.push(Further { number, waiting: None });
            state.mux.input_from(now, number, received);
            // From now on somebody has to keep the time for others.
            state.driver.take().into_iter().for_each(std::task::Waker::wake);
        }
        added
    });
    if !added {
        return Ok(None);
    }
    let (ended, added) = oneshot::channel();
    let leaving = Leaving { shared: shared.clone(), number };
    tokio::spawn(async move {
        let mut one = Driver { shared: &leaving.shared, number, reader, writer, pieces: VecDeque::new() };
        if poll_fn(|cx| one.poll(cx)).await {
            // Whether they arrive or not, the link is over.
            let _ = timeout(LAST_WORDS, poll_fn(|cx| one.poll_flush(cx))).await;
        }
        drop(one);
        drop(leaving);
        drop(ended);
    });
    Ok(Some(Added(added)))
}

/// However the task ends, the link does not count on it any more.
struct Leaving {
    shared: Arc<Shared>,
    number: u32,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let alone = self.shared.with(|state, now| {
            state.further.retain(|one| one.number != self.number);
            state.mux.lose_pipe(now, self.number);
            // Who keeps the time may have waited for a pipe.
            state.driver.take().into_iter().for_each(std::task::Waker::wake);
            state.alone.take()
        });
        alone.into_iter().for_each(std::task::Waker::wake);
    }
}

struct Driver<'a> {
    shared: &'a Shared,
    number: u32,
    reader: PipeReader,
    writer: PipeWriter,
    pieces: VecDeque<Bytes>,
}

impl Driver<'_> {
    /// Ready when the pipe is gone, or the link is over: whether there are last words to be written.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        for _ in 0..ROUNDS {
            let mut moved = match self.poll_input(cx) {
                Ok(moved) => moved,
                Err(why) => {
                    tracing::debug!(pipe = self.number, why, "pipe lost");
                    return Poll::Ready(false);
                }
            };
            if let Some(flush) = self.turn(cx) {
                return Poll::Ready(flush);
            }
            if !self.pieces.is_empty() {
                match self.writer.poll_write(cx, &mut self.pieces) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(())) => moved = true,
                    Poll::Ready(Err(error)) => {
                        tracing::debug!(pipe = self.number, %error, "pipe lost");
                        return Poll::Ready(false);
                    }
                }
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes the mux's output. If the link is over: whether what is left is to be written.
    fn turn(&mut self, cx: &Context<'_>) -> Option<bool> {
        let Self { number, pieces, .. } = self;
        let (over, due) = self.shared.drive(|state, now| {
            if pieces.is_empty() {
                state.mux.output_to(now, *number, BATCH, pieces);
            }
            let blocked = !pieces.is_empty();
            state.mux.block_pipe(*number, blocked);
            if let Some(one) = state.further.iter_mut().find(|one| one.number == *number) {
                one.waiting = None;
            }
            let due = state.due(now);
            if let Some(one) = state.further.iter_mut().find(|one| one.number == *number) {
                one.waiting = (!blocked).then(|| cx.waker().clone());
            }
            state.note_silence();
            (state.mux.end().is_some().then_some(blocked), due)
        });
        due.wake();
        over
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Result<bool, String> {
        match self.reader.poll_read(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(chunk)) if chunk.is_empty() => Err("the pipe ended".to_owned()),
            Poll::Ready(Ok(chunk)) => {
                let number = self.number;
                self.shared.drive(|state, now| state.mux.input_from(now, number, chunk));
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(format!("cannot read from the pipe: {error}")),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pieces.is_empty() {
            ready!(self.writer.poll_write(cx, &mut self.pieces))?;
        }
        Poll::Ready(Ok(()))
    }
}
