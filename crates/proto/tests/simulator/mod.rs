//! Two muxes and the wires between them in virtual time. Used by the tests of the mux; knows nothing of what they check.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use remotely_proto::{
    handshake::{Hello, Role, VERSIONS, feature},
    mux::{Config, Event, Mux, SendError},
    open::{Class, Service},
};

pub(crate) const SERVICE: Service = Service(900);

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Numbers that look random and are the same in each run (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Bytes {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// One direction of a pipe.
pub(crate) struct Wire {
    /// Bytes per second.
    pub(crate) rate: f64,
    pub(crate) delay: Duration,
    /// Bytes that a writer may be ahead of the link.
    pub(crate) capacity: usize,
    /// Longest piece that arrives at once.
    pub(crate) chop: usize,
    /// Chop at random places.
    pub(crate) random: Option<Random>,
    /// What is written is lost.
    pub(crate) cut: bool,
    pub(crate) busy_until: Duration,
    /// (arrival, bytes)
    pub(crate) segments: VecDeque<(Duration, Bytes)>,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            rate: 1e9,
            delay: Duration::from_micros(100),
            capacity: 4 << 20,
            chop: 64 << 10,
            random: None,
            cut: false,
            busy_until: Duration::ZERO,
            segments: VecDeque::new(),
        }
    }
}

impl Wire {
    pub(crate) fn new(mbit: f64, delay: Duration) -> Self {
        Self { rate: mbit * 125_000.0, delay, chop: if mbit > 50.0 { 4 << 10 } else { 1448 }, ..Self::default() }
    }

    fn backlog(&self, now: Duration) -> usize {
        (self.busy_until.saturating_sub(now).as_secs_f64() * self.rate) as usize
    }

    /// Takes pieces off the front as far as there is room.
    fn write(&mut self, now: Duration, pieces: &mut VecDeque<Bytes>) {
        let mut room = self.capacity.saturating_sub(self.backlog(now));
        while let Some(piece) = pieces.front_mut()
            && room > 0
        {
            let limit = self.random.as_mut().map_or(self.chop, |random| 1 + random.below(self.chop));
            let segment = piece.split_to(piece.len().min(limit).min(room));
            if piece.is_empty() {
                pieces.pop_front();
            }
            if self.cut {
                continue;
            }
            room -= segment.len();
            let took = Duration::from_secs_f64(segment.len() as f64 / self.rate);
            self.busy_until = self.busy_until.max(now) + took;
            self.segments.push_back((self.busy_until + self.delay, segment));
        }
    }

    fn next_arrival(&self) -> Option<Duration> {
        self.segments.front().map(|&(arrives, _)| arrives)
    }

    /// When a writer that is blocked can go on.
    fn next_departure(&self, now: Duration) -> Duration {
        now + Duration::from_secs_f64(self.chop as f64 / self.rate)
    }

    fn read(&mut self, now: Duration) -> Option<Bytes> {
        if self.next_arrival()? > now {
            return None;
        }
        self.segments.pop_front().map(|(_, bytes)| bytes)
    }
}

/// A further pipe, as one end sees it.
pub(crate) struct Lane {
    pub(crate) number: u32,
    pub(crate) pieces: VecDeque<Bytes>,
    pub(crate) wire: Wire,
}

/// One end: the mux, what it gave out, and the way there.
pub(crate) struct Side {
    pub(crate) mux: Mux,
    pub(crate) pieces: VecDeque<Bytes>,
    pub(crate) wire: Wire,
    /// The first pipe is gone.
    pub(crate) lost: bool,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) events: Vec<Event>,
    /// The process is stopped: it neither reads nor looks at its clock.
    pub(crate) asleep: bool,
}

impl Side {
    fn new(role: Role, wire: Wire, config: Config) -> Self {
        let (mux, pieces, lanes) = (Mux::new(hello(role), config), VecDeque::new(), Vec::new());
        Self { mux, pieces, wire, lost: false, lanes, events: Vec::new(), asleep: false }
    }

    fn pump(&mut self, now: Duration) {
        if self.asleep {
            return;
        }
        self.mux.tick(now);
        self.wire.write(now, &mut self.pieces);
        while !self.lost && self.pieces.is_empty() && self.mux.output(now, 256 << 10, &mut self.pieces) > 0 {
            self.wire.write(now, &mut self.pieces);
        }
        self.mux.block_pipe(0, !self.pieces.is_empty());
        for Lane { number, pieces, wire } in &mut self.lanes {
            wire.write(now, pieces);
            while pieces.is_empty() && self.mux.output_to(now, *number, 64 << 10, pieces) > 0 {
                wire.write(now, pieces);
            }
            self.mux.block_pipe(*number, !pieces.is_empty());
        }
        while let Some(event) = self.mux.event() {
            self.events.push(event);
        }
    }

    fn next(&self, now: Duration) -> Option<Duration> {
        if self.asleep {
            return None;
        }
        let blocked = !self.pieces.is_empty();
        let writable = blocked.then(|| self.wire.next_departure(now));
        let lanes = self.lanes.iter().filter(|lane| !lane.pieces.is_empty());
        let lanes = lanes.map(|lane| Some(lane.wire.next_departure(now)));
        [self.mux.timeout(blocked), writable].into_iter().chain(lanes).flatten().min()
    }

    fn next_arrival(&self) -> Option<Duration> {
        let lanes = self.lanes.iter().map(|lane| lane.wire.next_arrival());
        [self.wire.next_arrival()].into_iter().chain(lanes).flatten().min()
    }

    /// Streams that the peer opened since the last call.
    pub(crate) fn opened(&mut self) -> Vec<u32> {
        let opened = self.events.iter().filter_map(|event| match event {
            Event::Opened { id, .. } => Some(*id),
            _ => None,
        });
        let opened = opened.collect();
        self.events.retain(|event| !matches!(event, Event::Opened { .. }));
        opened
    }
}

pub(crate) fn hello(role: Role) -> Hello {
    let features = feature::PIPES;
    Hello { versions: VERSIONS, features, role, link: [1; 16], key: [2; 16], depth: 0, wall_ns: 3 }
}

pub(crate) struct Simulator {
    pub(crate) now: Duration,
    pub(crate) client: Side,
    pub(crate) agent: Side,
}

impl Simulator {
    pub(crate) fn new(there: Wire, back: Wire) -> Self {
        Self::with_config(there, back, Config::default())
    }

    pub(crate) fn with_config(there: Wire, back: Wire, config: Config) -> Self {
        let (mut client, mut agent) = (Side::new(Role::Client, there, config), Side::new(Role::Agent, back, config));
        let now = Duration::from_secs(1000);
        let flight = client.mux.first_flight(now);
        client.pieces.push_back(flight);
        client.mux.start(now);
        agent.mux.start(now);
        Self { now, client, agent }
    }

    /// Writes what there is to write, and goes to the next moment at which something happens, or by `limit`.
    pub(crate) fn step(&mut self, limit: Duration) {
        self.client.pump(self.now);
        self.agent.pump(self.now);
        let next = [
            self.client.next(self.now),
            self.agent.next(self.now),
            self.client.next_arrival().filter(|_| !self.agent.asleep),
            self.agent.next_arrival().filter(|_| !self.client.asleep),
            Some(limit),
        ];
        self.now = next.into_iter().flatten().min().unwrap_or(limit).max(self.now);
        deliver(self.now, &mut self.client, &mut self.agent);
        deliver(self.now, &mut self.agent, &mut self.client);
        self.client.pump(self.now);
        self.agent.pump(self.now);
    }

    /// Runs for some time, calling the application before and after each step.
    pub(crate) fn run(&mut self, time: Duration, mut application: impl FnMut(&mut Self)) {
        let end = self.now + time;
        application(self);
        while self.now < end {
            self.step(end);
            application(self);
        }
    }

    /// Runs until nothing moves, or for some time.
    pub(crate) fn settle(&mut self) {
        self.run(ms(1000), |_| {});
    }

    /// Another pipe. The agent reads it first, as where it was joined by a process of the host.
    pub(crate) fn widen(&mut self, there: Wire, back: Wire) -> u32 {
        let number = self.client.mux.ticket().expect("a number").pipe;
        assert!(self.agent.mux.add_pipe(self.now, number) && self.client.mux.add_pipe(self.now, number));
        let lane = |wire| Lane { number, pieces: VecDeque::new(), wire };
        self.client.lanes.push(lane(there));
        self.agent.lanes.push(lane(back));
        number
    }

    /// A pipe breaks: what is in it is lost, and either side is told.
    pub(crate) fn cut(&mut self, number: u32) {
        for side in [&mut self.client, &mut self.agent] {
            if number == 0 {
                side.lost = true;
                side.pieces.clear();
                side.wire.segments.clear();
            }
            side.lanes.retain(|lane| lane.number != number);
            side.mux.lose_pipe(self.now, number);
        }
    }

    /// A stream from client to agent.
    pub(crate) fn stream(&mut self, class: Class) -> u32 {
        let id = self.client.mux.open(self.now, SERVICE, class, Bytes::new()).unwrap();
        self.settle();
        assert_eq!(self.agent.opened(), [id]);
        id
    }
}

fn deliver(now: Duration, from: &mut Side, to: &mut Side) {
    while !to.asleep
        && let Some(chunk) = from.wire.read(now)
    {
        to.mux.input(now, chunk);
    }
    for lane in &mut from.lanes {
        while !to.asleep
            && let Some(chunk) = lane.wire.read(now)
        {
            to.mux.input_from(now, lane.number, chunk);
        }
    }
}

/// Sends what can be sent now of endless zeros.
pub(crate) fn fill(mux: &mut Mux, id: u32) -> Result<usize, SendError> {
    let mut data = Bytes::from_static(&[0; 256 << 10]);
    let mut sent = 0;
    loop {
        let before = data.len();
        mux.send(id, &mut data)?;
        sent += before - data.len();
        if !data.is_empty() {
            return Ok(sent);
        }
        data = Bytes::from_static(&[0; 256 << 10]);
    }
}

/// Takes all that is there. Panics at an end.
pub(crate) fn take(mux: &mut Mux, now: Duration, id: u32) -> Vec<u8> {
    let mut all = Vec::new();
    while let std::task::Poll::Ready(result) = mux.recv(now, id) {
        match result.unwrap() {
            Some(chunk) => all.extend_from_slice(&chunk),
            None => break,
        }
    }
    all
}
