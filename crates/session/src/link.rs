//! A link as the application sees it: made, used to open streams and to hear of those opened by the other side, ended.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use remotely_proto::{
    handshake::{Hello, Role, VERSIONS, Versions, feature},
    mux::{Config, Mux, Stats},
    open::{Class, Service},
};
use rustix::rand::{GetRandomFlags, getrandom};
use thiserror::Error;

use crate::{
    driver,
    further::Pipes,
    pipe::Pipe,
    shared::{Handle, Opened, Shared, Waiting, wait},
    stream::Stream,
    turns::{Job, Turns},
};

/// How long a pipe may take to take an announcement that somebody waits for at the keyboard.
const HOLD_WITHIN: Duration = Duration::from_secs(1);

/// How a link behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which side this is.
    pub role: Role,
    /// After so long without a byte, the other side is asked whether it is there.
    pub keepalive: Duration,
    /// After so long without a byte, it is given up.
    pub dead_after: Duration,
    /// Bytes that may be on their way before anything is known of the link; [`Stats::window`] of an earlier link of the
    /// same way saves finding out.
    pub initial_window: u64,
    /// How many links deep this process runs; the other side is told.
    pub depth: u8,
}

impl Default for Settings {
    fn default() -> Self {
        let Config { keepalive, dead_after, initial_window } = Config::default();
        Self { role: Role::Client, keepalive, dead_after, initial_window, depth: 0 }
    }
}

/// Why a link is over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum End {
    /// One side closed it in order.
    #[error("the link was closed")]
    Closed,
    /// The pipe ended or failed.
    #[error("the link was lost: {why}")]
    Lost {
        /// What was seen.
        why: String,
    },
    /// Nothing came from the other side for too long.
    #[error("the link was lost: the other side fell silent")]
    Silent,
    /// What came cannot be right.
    #[error("the link was ended: {why}")]
    Protocol {
        /// What was wrong.
        why: String,
    },
    /// No version of the protocol is spoken by both.
    #[error("the protocol here has version {ours}, there {theirs}")]
    Version {
        /// Of this build.
        ours: Versions,
        /// Of the other side.
        theirs: Versions,
    },
}

/// The link is over, or is being closed; [`Link::ended`] says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the link is over")]
pub struct Ended;

/// A link that has no pipe yet. Streams opened on it travel with the first flight.
///
/// Dropped, its streams end.
#[derive(Debug)]
pub struct LinkBuilder {
    /// `None` once attached.
    handle: Option<Handle>,
    flown: bool,
    role: Role,
}

impl LinkBuilder {
    /// Draws the name and the key of the link.
    ///
    /// # Panics
    /// If the kernel has no getrandom(2), which came with Linux 3.17.
    pub fn new(settings: Settings) -> Self {
        let key = if settings.role == Role::Client { random() } else { [0; 16] };
        let hello = Hello {
            versions: VERSIONS,
            features: feature::PIPES,
            role: settings.role,
            link: random(),
            key,
            depth: settings.depth,
            wall_ns: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64),
        };
        let Settings { keepalive, dead_after, initial_window, .. } = settings;
        let config = Config { keepalive, dead_after, initial_window };
        let shared = Arc::new(Shared::new(Mux::new(hello, config)));
        Self { handle: Some(Handle::new(shared)), flown: false, role: settings.role }
    }

    /// Opens a stream. What its credit allows (256 KiB, or 2 MiB with [`Service::FS`] and [`Service::FILE`]) can be sent on it at
    /// once, and up to [`Settings::initial_window`] on all streams together travel in the first flight; more waits until the
    /// other side has answered. See [`Link::open`].
    pub fn open(&mut self, service: Service, class: Class, body: Bytes) -> Stream {
        let Some(handle) = &self.handle else { unreachable!("only attach takes the handle, and the builder with it") };
        // Without a number, which a new link does not run out of, it is a stream on which everything fails.
        open(handle, service, class, body).unwrap_or_else(|Ended| Stream::new(handle.clone(), 0))
    }

    /// The link that this becomes. Streams opened on it before there is a pipe travel with the first flight as well.
    pub fn link(&self) -> Link {
        let Some(handle) = &self.handle else { unreachable!("only attach takes the handle, and the builder with it") };
        Link { handle: handle.clone() }
    }

    /// What the client sends first: its hello and everything queued so far. The caller sends it; [`attach`](Self::attach)
    /// does if this was never called. When asked for again, because what was sent before was thrown away there, it holds
    /// all that it held before, and what was queued since.
    pub fn first_flight(&mut self) -> Bytes {
        let Some(handle) = &self.handle else { unreachable!("only attach takes the handle, and the builder with it") };
        self.flown = true;
        handle.shared().with(|state, now| state.mux.first_flight(now))
    }

    /// Puts the link on a pipe. `received` is what has already been read from it, beginning with the other side's hello.
    /// A pipe that cannot be used shows as [`End::Lost`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub fn attach(self, pipe: Pipe, received: Bytes) -> (Link, Incoming) {
        self.attach_behind(Bytes::new(), pipe, received)
    }

    /// The same, where the pipe has not taken all of the first flight yet: `unsent` is written before anything else.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub fn attach_behind(mut self, unsent: Bytes, pipe: Pipe, received: Bytes) -> (Link, Incoming) {
        let Some(handle) = self.handle.take() else {
            unreachable!("only attach takes the handle, and the builder with it")
        };
        let flight = (self.role == Role::Client && !self.flown)
            .then(|| handle.shared().with(|state, now| state.mux.first_flight(now)));
        let first = flight.into_iter().chain((!unsent.is_empty()).then_some(unsent)).collect();
        tokio::spawn(driver::drive(handle.shared().clone(), pipe, first, received));
        (Link { handle: handle.clone() }, Incoming { handle })
    }

    /// The same, where threads of its own drive the link and do what has come of it on the spot, see [`Turns`]. Jobs that are
    /// not done there are handed to `elsewhere`, which must not wait. Fails if the pipe cannot be used, or there are no threads.
    pub fn attach_in_turns(
        mut self,
        pipe: Pipe,
        received: Bytes,
        elsewhere: impl Fn(Job) + Send + Sync + 'static,
    ) -> io::Result<(Link, Incoming, Turns)> {
        let Some(handle) = self.handle.take() else {
            unreachable!("only attach takes the handle, and the builder with it")
        };
        let flight = (self.role == Role::Client && !self.flown)
            .then(|| handle.shared().with(|state, now| state.mux.first_flight(now)));
        let first = flight.into_iter().collect();
        let turns = Turns::start(handle.shared().clone(), pipe, first, received, Box::new(elsewhere))?;
        Ok((Link { handle: handle.clone() }, Incoming { handle }, turns))
    }
}

impl Drop for LinkBuilder {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            driver::lose(handle.shared(), "there never was a pipe");
        }
    }
}

/// A link. Clones are the same link; when all of them, its [`Incoming`] and its streams are gone, it is closed.
#[derive(Debug, Clone)]
pub struct Link {
    handle: Handle,
}

impl Link {
    /// Opens a stream; data may be sent on it at once. Never waits: if the other side refuses, both halves show a reset
    /// with a code of [`reset`](remotely_proto::open::reset). So they do if the body has more than 4096 bytes or there are 4096 streams already.
    pub fn open(&self, service: Service, class: Class, body: Bytes) -> Result<Stream, Ended> {
        open(&self.handle, service, class, body)
    }

    /// Waits for the other side's hello, or for the end. Cancel safe.
    pub async fn linked(&self) -> Result<Hello, End> {
        self.handle.shared().linked().await
    }

    /// Whether the link is over.
    pub fn is_over(&self) -> bool {
        self.handle.shared().with(|state, _| state.mux.end().is_some())
    }

    /// Waits for the end of the link, and says why. Cancel safe.
    pub async fn ended(&self) -> End {
        self.handle.shared().ended().await
    }

    /// Closes the link in order: what has been sent goes out, then a goodbye. Streams fail from now on; what the other
    /// side sent can still be taken. Returns at once, [`ended`](Self::ended) when it is done.
    pub fn close(&self) {
        self.handle.shared().with(|state, now| state.mux.close(now));
    }

    /// Announces to the other side that nothing will come from here for a while, so that it does not take this for the end:
    /// to be called, one call at a time, before this process stops itself. Resolves when the announcement is in the pipe,
    /// or after a second if the pipe does not take it, or the link is over. Until what it resolves to is dropped, nothing is
    /// sent; then the other side hears at once that this one is back.
    ///
    /// Cancel safe: dropping the future goes on as before.
    pub async fn hold(&self) -> Held {
        let held = Held { handle: self.handle.clone() };
        let shared = self.handle.shared();
        shared.with(|state, _| state.mux.hold());
        let written = poll_fn(|cx| {
            shared.with(|state, _| {
                if state.silent || state.mux.end().is_some() {
                    return Poll::Ready(());
                }
                wait(&mut state.holder, cx);
                Poll::Pending
            })
        });
        if tokio::time::timeout(HOLD_WITHIN, written).await.is_err() {
            tracing::debug!("the pipe does not take it that this side will be silent");
        }
        held
    }

    /// How far what was sent on a stream has come: (bytes put into the pipe, bytes that wait for their turn). `None` if there
    /// is no such stream any more, or it was given up.
    pub fn sent(&self, stream: u32) -> Option<(u64, usize)> {
        self.handle.shared().with(|state, _| state.mux.sent(stream))
    }

    /// The pipes that it runs over.
    pub fn pipes(&self) -> Pipes {
        Pipes::new(self.handle.shared().clone())
    }

    /// What has passed so far.
    pub fn stats(&self) -> Stats {
        self.handle.shared().with(|state, _| state.mux.stats())
    }
}

/// Keeps a link silent, see [`Link::hold`].
#[derive(Debug)]
#[must_use = "the link speaks again when this is dropped"]
pub struct Held {
    handle: Handle,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.handle.shared().with(|state, now| {
            state.silent = false;
            state.mux.resume(now);
        });
    }
}

/// The streams that the other side opens. When dropped, they are refused.
#[derive(Debug)]
pub struct Incoming {
    handle: Handle,
}

impl Incoming {
    /// The next one; `None` when the link is over. Cancel safe.
    pub async fn next(&mut self) -> Option<Offer> {
        poll_fn(|cx| {
            let opened = self.handle.shared().with(|state, _| {
                if let Some(opened) = state.offers.queue.pop_front() {
                    return Poll::Ready(Some(opened));
                }
                if state.mux.end().is_some() {
                    return Poll::Ready(None);
                }
                wait(&mut state.offers.waiting, cx);
                Poll::Pending
            });
            opened.map(|opened| opened.map(|opened| self.offer(opened)))
        })
        .await
    }

    fn offer(&self, Opened { id, service, class, body }: Opened) -> Offer {
        Offer { service, class, body, stream: Stream::new(self.handle.clone(), id) }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let left = self.handle.shared().with(|state, _| {
            state.offers.closed = true;
            std::mem::take(&mut state.offers.queue)
        });
        // Making an offer of each and dropping it refuses it.
        left.into_iter().for_each(|opened| drop(self.offer(opened)));
    }
}

/// A stream that the other side has opened. Dropped without use, it is refused.
#[derive(Debug)]
pub struct Offer {
    /// What is asked for.
    pub service: Service,
    /// How the other side schedules its data, and how this side does.
    pub class: Class,
    /// What the service wants to know first.
    pub body: Bytes,
    /// The stream.
    pub stream: Stream,
}

impl Offer {
    /// Refuses it with a code of the service's own, or one of [`reset`](remotely_proto::open::reset).
    pub fn refuse(mut self, code: u32) {
        self.stream.send.reset(code);
        self.stream.recv.refuse(code);
    }
}

fn open(handle: &Handle, service: Service, class: Class, body: Bytes) -> Result<Stream, Ended> {
    let id = handle.shared().with(|state, now| {
        let id = state.mux.open(now, service, class, body).map_err(|_| Ended)?;
        state.streams.insert(id, Waiting::new(true));
        Ok(id)
    })?;
    Ok(Stream::new(handle.clone(), id))
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    // So few bytes come whole, and the only error that can pass is an interruption while the pool is not yet filled.
    while let Err(error) = getrandom(&mut bytes, GetRandomFlags::empty()) {
        assert_eq!(error, rustix::io::Errno::INTR, "getrandom(2) failed");
    }
    bytes
}
