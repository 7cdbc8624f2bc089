//! The mux: many streams on one link, without I/O and without a clock. The driver puts in what it read and the time, and
//! takes out what is to be written and what has happened; services reach it through the driver's handles.
//!
//! - `local`: what the application does with streams
//! - `input`: what comes from the peer
//! - `output`: what goes to the peer, and in which order
//! - `stream`, `credit`, `queue`: the state of one stream
//! - `pipes`, `order`, `kept`: several pipes, what came out of order, and what may have to be sent again
//! - `schedule`, `pace`: who sends next, and how much may be on its way
//! - `alive`: keepalive
//!
//! Memory that the peer can cause to be held is bounded by [`STREAMS_MAX`] times the credit granted, and credit beyond
//! what a stream has at first is granted to all streams together out of [`GROWTH_MAX`] only.

mod alive;
mod credit;
mod input;
mod kept;
mod local;
mod order;
mod output;
mod pace;
mod pipes;
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
    kept::Kept,
    order::Order,
    pace::Pace,
    pipes::{Pipe, Pipes},
    schedule::Schedule,
    stream::Stream,
};
pub use self::{
    input::ProtocolError,
    local::{OpenError, RecvError, SendError},
};
use crate::{
    frame::goodbye,
    handshake::{Hello, Negotiated, Role, Ticket, Versions, feature},
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
    /// More could be sent, in one direction or the other, if there were more pipes than so many. Told to the client only.
    Narrow(usize),
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
    /// Pipes that it runs over.
    pub pipes: usize,
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
    pipes: Pipes,
    /// Sent and not acknowledged, and what was acknowledged without a gap.
    kept: Kept,
    confirmed: u64,
    /// The peer is to be told that more pipes would help.
    widen: bool,
    /// Numbered bytes received without a gap, and of the payload that comes next what has been handed on.
    received: u64,
    delivered: usize,
    order: Order,
    /// Numbered bytes received in all, and what has been said of it.
    arrived: u64,
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
            pipes: Pipes::new(),
            kept: Kept::default(),
            confirmed: 0,
            widen: false,
            received: 0,
            delivered: 0,
            order: Order::default(),
            arrived: 0,
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

    /// What a further pipe of this client begins with, with a number of which none is given twice; `None` if the peer does not know of
    /// several pipes, or the link is over or has as many as it may. The first pipe has zero.
    pub fn ticket(&mut self) -> Option<Ticket> {
        let (_, negotiated) = self.peer.as_ref()?;
        if self.end.is_some() || negotiated.features & feature::PIPES == 0 || self.pipes.is_full() {
            return None;
        }
        let pipe = self.pipes.next;
        self.pipes.next = pipe.checked_add(1)?;
        Some(Ticket { link: self.hello.link, key: self.hello.key, pipe })
    }

    /// The link has a further pipe. The agent must read it before the client adds it; on the agent's side it is written to as soon as
    /// something has come on it. False if the link cannot have it, or has a pipe of that number.
    pub fn add_pipe(&mut self, now: Duration, pipe: u32) -> bool {
        let known = self.peer.as_ref().is_some_and(|(_, negotiated)| negotiated.features & feature::PIPES != 0);
        if !known || self.end.is_some() || self.pipes.is_full() || pipe == 0 || self.pipes.index(pipe).is_some() {
            return false;
        }
        if !self.pipes.striped {
            self.pipes.striped = true;
            self.kept.from = self.pace.position();
        }
        self.pipes.wait_anew(now);
        let client = self.hello.role == Role::Client;
        self.pipes.all.push(Pipe { open: client, greet: client, ..Pipe::new(pipe) });
        self.pipes.told = false;
        self.pace.widened(now, self.pipes.all.len());
        true
    }

    /// A pipe is gone. While there are others, what was on its way on it is sent again; with the last one the link is lost.
    pub fn lose_pipe(&mut self, now: Duration, pipe: u32) {
        let Some(index) = self.pipes.index(pipe) else { return };
        // What was sent while it was the only one was not kept.
        if self.pipes.all.len() == 1 || (pipe == 0 && self.confirmed < self.kept.from) {
            return self.over(End::Lost);
        }
        let one = self.pipes.all.remove(index);
        self.pipes.told = false;
        self.kept.lose(pipe, one.arrived);
        // The last ack may have been on it.
        self.ack_at = Some(now);
        self.pace.widened(now, self.pipes.all.len());
        self.keep_silence();
    }

    /// The driver has bytes for a pipe that it does not take, or no more. What waits then goes another way.
    pub fn block_pipe(&mut self, pipe: u32, blocked: bool) {
        if let Some(index) = self.pipes.index(pipe) {
            self.pipes.all[index].blocked = blocked;
        }
    }

    /// The pipe that is to be written to now: of those that are not blocked and for which there is output, the one with the least
    /// on its way.
    pub fn next_pipe(&self, now: Duration) -> Option<u32> {
        self.pipes.least(|index| self.has_output_on(index, now))
    }

    /// What has happened, oldest first. Asked for after each [`input`](Self::input), [`output`](Self::output) and
    /// [`tick`](Self::tick), the list stays short.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`tick`](Self::tick) and [`output`](Self::output) must be called at the latest. With the first pipe `blocked`, and all
    /// others as the driver has said, what is only to be written does not count.
    pub fn timeout(&self, blocked: bool) -> Option<Duration> {
        if self.end.is_some() {
            return None;
        }
        let free = |data: bool| {
            let mut pipes = self.pipes.all.iter().enumerate();
            pipes.any(|(index, one)| {
                let blocked = if one.number == 0 { blocked } else { one.blocked };
                !blocked && one.open && (!data || self.pipes.takes_data(index))
            })
        };
        let silent = self.silence == Silence::Kept;
        let ack_at = self.ack_at.filter(|_| !silent && free(false));
        let data = !silent && self.peer.is_some() && !self.schedule.is_empty() && self.may_number() && free(true);
        let data_at = self.pace.room_at().filter(|_| data);
        [Some(self.alive.deadline()), ack_at, data_at, self.close_by].into_iter().flatten().min()
    }

    /// Does what is due by now. Then there may be output.
    pub fn tick(&mut self, now: Duration) {
        if self.end.is_some() {
            return;
        }
        if self.alive.is_late(now) || self.alive.is_paused() {
            self.pipes.wait_anew(now);
        }
        // Whatever makes one slower than the others: what it carries are frames that a link carries in milliseconds.
        let limit = self.config.dead_after * 2;
        if self.pipes.is_stuck(now, limit) {
            return self.over(End::Silent(limit));
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
            pipes: self.pipes.all.len(),
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

    /// Whether numbered frames may be sent that were not sent before: the peer does not hold any number of them behind a gap.
    fn may_number(&self) -> bool {
        !self.pipes.striped || (self.pace.position() - self.confirmed < kept::KEPT_MAX && !self.kept.is_full())
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
