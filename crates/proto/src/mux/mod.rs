//! The mux: many streams on one link, without I/O and without a clock. The driver puts in what it read and the time, and
//! takes out what is to be written and what has happened; services reach it through the driver's handles.
//!
//! - `local`: what the application does with streams
//! - `input`: what comes from the peer
//! - `output`: what goes to the peer, and in which order
//! - `stream`, `credit`, `queue`: the state of one stream
//! - `schedule`, `pace`: who sends next, and how much may be on its way
//! - `alive`: keepalive
//!
//! Memory that the peer can cause to be held is bounded by [`STREAMS_MAX`] times the credit granted, and credit beyond
//! what a stream has at first is granted to all streams together out of [`GROWTH_MAX`] only.

mod alive;
mod credit;
mod input;
mod local;
mod output;
mod pace;
mod queue;
mod schedule;
mod stream;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use self::{
    alive::{Alive, Due},
    pace::Pace,
    schedule::Schedule,
    stream::Stream,
};
pub use self::{
    input::ProtocolError,
    local::{OpenError, RecvError, SendError},
};
use crate::{
    frame::{FrameDecoder, goodbye},
    handshake::{Hello, Negotiated, Role, Versions},
    open::{Class, Service},
};

/// Most streams that each side may have open: one for each connection of the net service, among others.
pub const STREAMS_MAX: usize = 16 << 10;
/// Bytes that may be sent on a stream before any credit has come.
pub const WINDOW_INITIAL: u64 = 256 << 10;
/// The same for a stream of [`Service::FS`] or [`Service::FILE`] that the client opens: as much as ssh lets through before it is answered, so that
/// a first flight can fill it. No stream that the agent opens is so wide: it is not for a host to claim.
pub const WINDOW_INITIAL_FS: u64 = 2 << 20;
/// Most bytes that a sender may be ahead of the application that takes them.
pub const WINDOW_MAX: u64 = 16 << 20;
/// Bytes by which all windows of a link together may have grown.
pub const GROWTH_MAX: u64 = 64 << 20;
/// Most bytes queued for sending on one stream, beyond what is being written.
pub const QUEUE_MAX: usize = 1 << 20;
/// Acks wait this long for company, unless [`ACK_BYTES`] have come.
const ACK_DELAY: Duration = Duration::from_millis(2);
/// So many received bytes are acknowledged at once.
const ACK_BYTES: u64 = 16 << 10;

/// How a mux behaves.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// A side that has sent or received nothing for so long sends a ping.
    pub keepalive: Duration,
    /// A peer that nothing has come from for so long is given up.
    pub dead_after: Duration,
    /// Bytes that may be on their way before anything is known of the link.
    pub initial_window: u64,
}

impl Default for Config {
    fn default() -> Self {
        let (keepalive, dead_after) = (Duration::from_secs(5), Duration::from_secs(15));
        Self { keepalive, dead_after, initial_window: pace::INITIAL_WINDOW }
    }
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer's hello is in.
    Linked,
    /// The peer opened a stream; it is there until both halves are dropped.
    Opened {
        /// Its number.
        id: u32,
        /// What is asked for.
        service: Service,
        /// Its class.
        class: Class,
        /// What the service wants to know first.
        body: Bytes,
    },
    /// There is something to take, or the receiving half is over.
    Readable(u32),
    /// There is room again for a sender that found none.
    Writable(u32),
    /// The sending half is over: the peer reads no more.
    Stopped(u32),
}

/// Why a link is over.
#[derive(Debug, Error)]
pub enum End {
    /// One side closed it in order.
    #[error("closed")]
    Closed,
    /// Nothing came for too long.
    #[error("the other side has been silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// The driver says that there is no pipe any more.
    #[error("the pipe is gone")]
    Lost,
    /// What came cannot be right.
    #[error("the other side broke the protocol")]
    Protocol(#[source] ProtocolError),
    /// No version of the protocol is spoken by both.
    #[error("the protocol here has version {ours}, there {theirs}")]
    Version {
        /// Of this build.
        ours: Versions,
        /// Of the peer.
        theirs: Versions,
    },
}

/// What has passed so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Bytes handed out for writing.
    pub bytes_sent: u64,
    /// Bytes put in.
    pub bytes_received: u64,
    /// Frames handed out.
    pub frames_sent: u64,
    /// Frames put in.
    pub frames_received: u64,
    /// Streams that are not over on both sides, or that the application still holds.
    pub streams: usize,
    /// Smoothed round-trip time, once something has been acknowledged.
    pub rtt: Option<Duration>,
    /// Bytes per second that have been seen to arrive, once something has been acknowledged.
    pub rate: Option<u64>,
    /// Bytes on their way that fill the link, once something has been acknowledged.
    pub window: Option<u64>,
    /// The link has been filled: it carries no more than `window` says. Until then it carries that at least.
    pub filled: bool,
}

/// Bytes that may be sent, in each direction, before any credit has come, on a stream that `opener` opens.
fn window_initial(service: Service, opener: Role) -> u64 {
    match (service, opener) {
        (Service::FS | Service::FILE, Role::Client) => WINDOW_INITIAL_FS,
        _ => WINDOW_INITIAL,
    }
}

/// Whether this side says nothing for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    No,
    /// It is to be announced.
    Wanted,
    /// It was announced: any byte would end it.
    Kept,
}

/// One end of a link.
#[derive(Debug)]
pub struct Mux {
    hello: Hello,
    hello_sent: bool,
    peer: Option<(Hello, Negotiated)>,
    end: Option<End>,
    /// A goodbye with this code is the last frame.
    goodbye: Option<u32>,
    /// Set when closing: by then at the latest.
    close_by: Option<Duration>,
    config: Config,

    streams: HashMap<u32, Stream>,
    next_id: u32,
    /// The last stream that the peer opened.
    peer_id: u32,
    own_streams: usize,
    peer_streams: usize,
    /// What windows may still grow by.
    growth: u64,

    schedule: Schedule,
    /// Streams with control frames to send.
    due: VecDeque<u32>,
    /// Streams that were never taken up, and the code to say so with.
    refused: VecDeque<(u32, u32)>,
    pong: Option<u64>,
    ping: bool,
    silence: Silence,
    pace: Pace,
    alive: Alive,
    decoder: FrameDecoder,
    /// Numbered bytes received, and what has been said of it.
    received: u64,
    acked: u64,
    /// When the last of them came.
    received_at: Duration,
    ack_at: Option<Duration>,
    scratch: BytesMut,
    flight: Bytes,
    events: VecDeque<Event>,
    stats: Stats,
}

impl Mux {
    /// A link of which nothing has been sent or received. All times are since one moment of the caller's choice.
    pub fn new(hello: Hello, config: Config) -> Self {
        Self {
            hello,
            hello_sent: false,
            peer: None,
            end: None,
            goodbye: None,
            close_by: None,
            config,
            streams: HashMap::new(),
            next_id: if hello.role == Role::Client { 1 } else { 2 },
            peer_id: 0,
            own_streams: 0,
            peer_streams: 0,
            growth: GROWTH_MAX,
            schedule: Schedule::default(),
            due: VecDeque::new(),
            refused: VecDeque::new(),
            pong: None,
            ping: false,
            silence: Silence::No,
            pace: Pace::new(config.initial_window),
            alive: Alive::new(config.keepalive, config.dead_after),
            decoder: FrameDecoder::default(),
            received: 0,
            acked: 0,
            received_at: Duration::ZERO,
            ack_at: None,
            scratch: BytesMut::new(),
            flight: Bytes::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// The pipe is there: keepalive begins.
    pub fn start(&mut self, now: Duration) {
        self.alive.start(now);
    }

    /// What has happened, oldest first. Asked for after each [`input`](Self::input), [`output`](Self::output) and
    /// [`tick`](Self::tick), the list stays short.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`tick`](Self::tick) and [`output`](Self::output) must be called at the latest. With the pipe `blocked`, what
    /// is only to be written does not count.
    pub fn timeout(&self, blocked: bool) -> Option<Duration> {
        if self.end.is_some() {
            return None;
        }
        let blocked = blocked || self.silence == Silence::Kept;
        let ack_at = self.ack_at.filter(|_| !blocked);
        let data = !blocked && self.peer.is_some() && !self.schedule.is_empty();
        let data_at = self.pace.room_at().filter(|_| data);
        [Some(self.alive.deadline()), ack_at, data_at, self.close_by].into_iter().flatten().min()
    }

    /// Does what is due by now. Then there may be output.
    pub fn tick(&mut self, now: Duration) {
        if self.end.is_some() {
            return;
        }
        match self.alive.check(now) {
            Due::Nothing => {}
            Due::Ping => self.ping = true,
            Due::Dead => return self.over(End::Silent(self.config.dead_after)),
        }
        if self.close_by.is_some_and(|by| now >= by) {
            self.goodbye = Some(goodbye::CLOSED);
            self.over(End::Closed);
        }
    }

    /// The pipe is gone: nothing can be sent or received any more.
    pub fn lost(&mut self) {
        self.over(End::Lost);
    }

    /// Why it is over, if it is. Output may be left: a goodbye.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The peer's hello, and what the two come to, once it is in.
    pub fn peer(&self) -> Option<&(Hello, Negotiated)> {
        self.peer.as_ref()
    }

    /// What has passed so far.
    pub fn stats(&self) -> Stats {
        let (rtt, rate) = (self.pace.rtt(), self.pace.rate().map(|rate| rate as u64));
        Stats {
            streams: self.streams.len(),
            rtt,
            rate,
            window: self.pace.full_window(),
            filled: self.pace.is_settled(),
            ..self.stats
        }
    }

    /// Ends the link; the first reason stays. What has been received can still be taken.
    fn over(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        if let End::Protocol(_) = end {
            self.goodbye = Some(goodbye::PROTOCOL);
        }
        self.end = Some(end);
        for (&id, stream) in &mut self.streams {
            stream.send.queue.clear();
            self.events.extend([Event::Readable(id), Event::Stopped(id)]);
        }
    }

    /// Puts a stream in the schedule if it has something to send.
    fn schedule(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.scheduled && stream.send.ready() {
            stream.scheduled = true;
            self.schedule.push(stream.class, id);
        }
    }

    /// Control frames of this stream are to be sent.
    fn due(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.due {
            stream.due = true;
            self.due.push_back(id);
        }
    }

    /// Forgets a stream that is over for both sides and for the application.
    fn settle(&mut self, id: u32) {
        let Some(stream) = self.streams.get(&id).filter(|stream| stream.over()) else { return };
        self.growth += stream.recv.credit.grown();
        let count = if stream.ours { &mut self.own_streams } else { &mut self.peer_streams };
        *count -= 1;
        self.streams.remove(&id);
    }
}
