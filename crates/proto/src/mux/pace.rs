//! How many bytes may be on their way at once: as many as bandwidth x delay asks for, and a few milliseconds more. Told of
//! each frame sent and each ack by the mux; schedules nothing itself.
//!
//! The way of BBR: the rate at which bytes arrive, its maximum over the last round trips, times the round-trip time without
//! the queue. A window of their product keeps the link busy and its queues empty; what it is larger by makes a link that
//! became faster show. The window doubles each round trip until the rate does not follow. Unlike BBR we have the receiver's
//! clock in each ack, so the queue that we make is told from one that only acks wait in, when both sides send much. And
//! what the window lets through goes out at little more than the rate, since a burst would keep the other side's acks waiting.

use std::{collections::VecDeque, time::Duration};

use super::pipes::PIPE_WINDOW;

/// Window before anything is known: what a link of 100 Mbit/s carries in 80 ms, and half of what ssh lets through.
pub(super) const INITIAL_WINDOW: u64 = 1 << 20;
/// Least window; at 1 Mbit/s this is 32 ms.
const MIN_WINDOW: u64 = 4 << 10;
/// Largest window: 10 Gbit/s at 50 ms.
const MAX_WINDOW: u64 = 64 << 20;
/// What a window holds beyond bandwidth x delay, at least: covers the delay of acks, and lets a faster link show.
const SLACK: Duration = Duration::from_millis(4);
/// Payload of frames before anything is known.
const INITIAL_FRAME: usize = 16 << 10;
/// No frame takes longer than this on the link, in seconds, unless it is as short as [`MIN_FRAME`].
const FRAME_TIME: f64 = 0.001;
/// Least limit for the payload of a frame: 2 % are header then.
const MIN_FRAME: usize = 1 << 10;
/// After so long without a new least delay the queue is drained to look again.
const DELAY_LIFETIME: Duration = Duration::from_secs(10);
/// The rate is the maximum over so many round trips...
const RATE_ROUNDS: u64 = 10;
/// ...and at least this time, since round trips over a local pipe are shorter than a pause of the scheduler.
const RATE_TIME: Duration = Duration::from_millis(100);
/// What the window grows by in a round trip while that brings more.
const GROW: f64 = 1.25;
/// What it grows by to find out, and after how many round trips.
const TRIAL: f64 = 1.1;
const TRIAL_ROUNDS: u32 = 8;
/// With a long queue that does not go away in so many round trips, a delay older than this is not trusted to be the least.
const SWAMPED_ROUNDS: u32 = 4;
const SWAMPED_TIME: Duration = Duration::from_secs(1);
/// Data goes out at so many times the rate, in bursts of no more than this time's worth: timers have 1 ms, and are late.
const PACE: f64 = 1.03;
const BURST: Duration = SLACK;
/// A round trip that carries so much of what the pipes let through is held up by them, not by the link...
const NARROW: f64 = 0.75;
/// ...if it is so with so many in succession.
const NARROW_ROUNDS: u32 = 2;
/// With less than this in a round trip, a delay says nothing of the link.
const LOAD: u64 = 64 << 10;
/// Frames sent at one moment are one flight up to this size; bounds what is remembered of many small ones.
const FLIGHT_MERGE: u64 = 4 << 10;

/// What is known of bytes sent at one moment.
#[derive(Debug, Clone, Copy)]
struct Flight {
    /// Position after the last of them.
    end: u64,
    len: u64,
    sent_at: Duration,
    /// The last ack when they were sent.
    before: Acked,
    /// Less was sent than could have been: the rate says only that the link is not slower.
    limited: bool,
}

/// The state of things at an ack.
#[derive(Debug, Clone, Copy)]
struct Acked {
    position: u64,
    /// When it came.
    at: Duration,
    /// When what it acknowledges had arrived, by the receiver's clock; unknown while nothing is on its way.
    arrived: Option<Duration>,
    /// When that had been sent.
    sent_at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Doubles each round trip. The best rate so far, and for how many round trips it has been.
    Startup { rate: f64, rounds: u32 },
    /// Follows the estimate, times `gain`, and tries now and then whether there is more to be had: round trips since the
    /// last trial, and the rate before it.
    Steady { gain: f64, rounds: u32, rate: f64 },
    /// Three quarters, to see the delay without a queue; over when `until` is acknowledged (once known).
    Drain { until: Option<u64>, least: Option<f64> },
}

impl Phase {
    const STEADY: Phase = Phase::Steady { gain: 1.0, rounds: 0, rate: 0.0 };
}

/// A round trip: over when a flight arrives that was sent after `end` had been acknowledged.
#[derive(Debug, Default)]
struct Round {
    number: u64,
    end: u64,
    /// Least queue seen in it.
    queue: Option<Duration>,
    /// Bytes that were on their way at once.
    load: u64,
    /// The sender had not always enough to send.
    limited: bool,
}

/// Estimates of one direction of a link.
#[derive(Debug)]
pub(super) struct Pace {
    /// Window until something is known.
    initial: u64,
    sent: u64,
    /// When more may be sent.
    sent_until: Duration,
    acked: Acked,
    flights: VecDeque<Flight>,
    /// There was nothing to send when this position was reached: until more than that has arrived, the rate of arrival
    /// is that of the sender, not of the link.
    limited_until: Option<u64>,
    round: Round,
    /// Falling maxima: (round, time, bytes per second).
    rates: VecDeque<(u64, Duration, f64)>,
    /// Least time from sending to arrival and when it was seen: in seconds, between clocks that begin anywhere.
    least_delay: Option<(f64, Duration)>,
    /// Smoothed round-trip time, as it is and without the queue that we make.
    rtt: Option<Duration>,
    bare_rtt: Duration,
    /// Round trips in succession with a long queue.
    swamped: u32,
    phase: Phase,
    /// Pipes, and round trips in succession that were held up by them.
    pipes: usize,
    narrow: u32,
}

impl Pace {
    pub(super) fn new(initial: u64) -> Self {
        let never = Duration::ZERO;
        Self {
            initial: initial.clamp(MIN_WINDOW, MAX_WINDOW),
            sent: 0,
            sent_until: never,
            acked: Acked { position: 0, at: never, arrived: None, sent_at: never },
            flights: VecDeque::new(),
            limited_until: Some(0),
            round: Round::default(),
            rates: VecDeque::new(),
            least_delay: None,
            rtt: None,
            bare_rtt: never,
            swamped: 0,
            phase: Phase::Startup { rate: 0.0, rounds: 0 },
            pipes: 1,
            narrow: 0,
        }
    }

    /// The link has so many pipes from now on: what it carries is to be found out again.
    pub(super) fn widened(&mut self, now: Duration, pipes: usize) {
        (self.pipes, self.narrow) = (pipes, 0);
        self.sent_until = self.sent_until.min(now);
        if let Some(rate) = self.rate() {
            self.phase = Phase::Startup { rate, rounds: 0 };
        }
    }

    /// More would be carried over more pipes: each lets through a window of its own in a round trip, and all of them are full.
    pub(super) fn is_narrow(&self) -> bool {
        self.narrow >= NARROW_ROUNDS
    }

    /// Position of the next byte, that is, the `seq` of the next numbered frame.
    pub(super) fn position(&self) -> u64 {
        self.sent
    }

    /// Smoothed round-trip time, once there is one.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Bytes per second, once known.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rates.front().map(|&(_, _, rate)| rate)
    }

    /// Bytes that fill the link, once known: its rate times its round-trip time.
    pub(super) fn full_window(&self) -> Option<u64> {
        let full = self.bare_rtt + self.slack();
        self.rate().map(|rate| (rate * full.as_secs_f64()) as u64)
    }

    /// What the link carries has been found out.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(self.phase, Phase::Startup { .. })
    }

    /// From when on a frame may be sent; `None` if an ack must come first.
    pub(super) fn room_at(&self) -> Option<Duration> {
        (self.in_flight() < self.window()).then_some(self.sent_until)
    }

    /// Most bytes of payload in one frame, so that nothing urgent waits long for its end.
    pub(super) fn frame_max(&self) -> usize {
        match self.rate() {
            Some(rate) => {
                // Early on the rate is that of the sender.
                let least = if matches!(self.phase, Phase::Startup { .. }) { INITIAL_FRAME } else { MIN_FRAME };
                ((rate * FRAME_TIME) as usize).clamp(least, crate::frame::PAYLOAD_MAX)
            }
            None => INITIAL_FRAME,
        }
    }

    fn in_flight(&self) -> u64 {
        self.sent - self.acked.position
    }

    fn window(&self) -> u64 {
        let Some(rate) = self.rate() else { return self.initial };
        let bytes = |time: Duration, gain: f64| (rate * time.as_secs_f64() * gain) as u64;
        let full = self.bare_rtt + self.slack();
        let window = match self.phase {
            Phase::Startup { .. } => bytes(full, 2.0).max(self.initial),
            Phase::Steady { gain, .. } => bytes(full, gain),
            Phase::Drain { .. } => bytes(self.bare_rtt, 0.75),
        };
        window.clamp(MIN_WINDOW, MAX_WINDOW)
    }

    fn slack(&self) -> Duration {
        (self.bare_rtt / 16).clamp(SLACK, 2 * SLACK)
    }

    /// Bytes of a numbered frame were put on the link. `measure` is false for the first flight, which may have been on
    /// its way for as long as an upload takes.
    pub(super) fn on_sent(&mut self, now: Duration, len: u64, measure: bool) {
        if self.in_flight() == 0 {
            self.acked = Acked { position: self.sent, at: now, arrived: None, sent_at: now };
        }
        self.sent += len;
        if let (Phase::Steady { gain, .. }, Some(rate)) = (self.phase, self.rate()) {
            let time = Duration::from_secs_f64(len as f64 / (rate * gain * PACE));
            self.sent_until = self.sent_until.max(now.saturating_sub(BURST)) + time;
        }
        if !measure {
            self.limited_until = Some(self.sent);
            return;
        }
        let limited = self.limited_until.is_some() || matches!(self.phase, Phase::Drain { .. });
        if let Some(last) = self.flights.back_mut()
            && last.sent_at == now
            && last.len + len <= FLIGHT_MERGE
        {
            (last.end, last.len, last.limited) = (self.sent, last.len + len, limited);
            return;
        }
        self.flights.push_back(Flight { end: self.sent, len, sent_at: now, before: self.acked, limited });
    }

    /// There was room, and nothing to fill it with.
    pub(super) fn on_idle(&mut self) {
        self.limited_until = Some(self.sent);
    }

    /// Everything below `position` has arrived, the last of it at `arrived` by the receiver's clock. False if that has
    /// never been sent.
    #[must_use]
    pub(super) fn on_ack(&mut self, now: Duration, position: u64, arrived: Duration) -> bool {
        if position > self.sent {
            return false;
        }
        if position <= self.acked.position {
            return true;
        }
        self.limited_until = self.limited_until.filter(|&until| position <= until);
        let mut newest = None;
        while let Some(flight) = self.flights.front()
            && flight.end <= position
        {
            newest = self.flights.pop_front();
        }
        let sent_at = newest.map_or(self.acked.sent_at, |flight| flight.sent_at);
        self.acked = Acked { position, at: now, arrived: Some(arrived), sent_at };
        if let Some(flight) = newest {
            self.round.load = self.round.load.max(position - flight.before.position);
            self.on_delay(now, arrived, &flight);
            self.on_rate(now, arrived, &flight);
            if flight.before.position >= self.round.end {
                self.next_round(now);
            }
        }
        true
    }

    /// Learns from how long it took.
    fn on_delay(&mut self, now: Duration, arrived: Duration, flight: &Flight) {
        let delay = arrived.as_secs_f64() - flight.sent_at.as_secs_f64();
        let (least, seen_at) = *self.least_delay.get_or_insert((delay, now));
        let stale = now.saturating_sub(seen_at) > DELAY_LIFETIME;
        if delay <= least || (stale && flight.limited) {
            self.least_delay = Some((delay, now));
        } else if stale && matches!(self.phase, Phase::Steady { .. }) {
            self.phase = Phase::Drain { until: None, least: None };
        }
        self.drain(now, delay);

        let rtt = now.saturating_sub(flight.sent_at);
        let least = self.least_delay.map_or(delay, |(least, _)| least);
        // A clock that jumps must not make a queue that is longer than the round trip.
        let queue = Duration::try_from_secs_f64(delay - least).unwrap_or_default().min(rtt);
        let smooth = |old: Option<Duration>, new| old.map_or(new, |old| (old * 7 + new) / 8);
        self.bare_rtt = smooth(self.rtt.map(|_| self.bare_rtt), rtt - queue);
        self.rtt = Some(smooth(self.rtt, rtt));
        self.round.queue = Some(self.round.queue.map_or(queue, |least| least.min(queue)));
        self.round.limited |= flight.limited;
    }

    /// Learns from how much came in what time.
    fn on_rate(&mut self, now: Duration, arrived: Duration, flight: &Flight) {
        let Flight { before, sent_at, limited, .. } = *flight;
        // What was sent in a burst must not look like a fast link because it arrived in one: the longer interval counts.
        let received_in = match before.arrived {
            Some(before) => arrived.saturating_sub(before),
            None => now.saturating_sub(before.at),
        };
        let interval = received_in.max(sent_at.saturating_sub(before.sent_at));
        if interval.is_zero() || interval < self.bare_rtt / 2 {
            return;
        }
        let rate = (self.acked.position - before.position) as f64 / interval.as_secs_f64();
        if limited && self.rate().is_some_and(|best| rate <= best) {
            return;
        }
        while self.rates.back().is_some_and(|&(_, _, last)| last <= rate) {
            self.rates.pop_back();
        }
        // Within one round only the maximum counts; this keeps the list short.
        if self.rates.back().is_none_or(|&(round, _, _)| round != self.round.number) {
            self.rates.push_back((self.round.number, now, rate));
        }
        while self.rates.len() > 1
            && let Some(&(round, at, _)) = self.rates.front()
            && round + RATE_ROUNDS < self.round.number
            && at + RATE_TIME < now
        {
            self.rates.pop_front();
        }
    }

    fn drain(&mut self, now: Duration, delay: f64) {
        let drained = self.in_flight() <= self.window();
        let Phase::Drain { until, least } = &mut self.phase else { return };
        let Some(end) = *until else {
            *until = drained.then_some(self.sent + 1);
            return;
        };
        let seen = least.map_or(delay, |least| least.min(delay));
        *least = Some(seen);
        if self.acked.position >= end {
            self.least_delay = Some((seen, now));
            self.phase = Phase::STEADY;
        }
    }

    /// A round trip has passed.
    fn next_round(&mut self, now: Duration) {
        let slack = self.slack();
        let Round { limited, queue, load, .. } = self.round;
        self.round = Round { number: self.round.number + 1, end: self.acked.position, ..Round::default() };
        let (Some(best), Some(queue), Some((_, least_at))) = (self.rate(), queue, self.least_delay) else { return };
        let full = PIPE_WINDOW as f64 * self.pipes as f64 * NARROW;
        let narrow = !limited && best * self.bare_rtt.as_secs_f64() >= full;
        self.narrow = if narrow { self.narrow + 1 } else { 0 };
        let queued = queue > slack / 2;
        let swamped = queue > self.bare_rtt / 4 + 2 * slack;
        if !swamped {
            self.swamped = 0;
        }
        match &mut self.phase {
            Phase::Startup { rate, rounds } if best >= *rate * GROW => (*rate, *rounds) = (best, 0),
            Phase::Startup { rounds, .. } => {
                // A queue shows that the link is full, even if the sender had no more than it gave.
                *rounds += u32::from(!limited);
                if *rounds >= 3 || (queued && load >= LOAD) {
                    self.phase = Phase::STEADY;
                }
            }
            Phase::Steady { gain, .. } if limited => *gain = 1.0,
            Phase::Steady { gain, .. } if swamped => {
                // Such a queue is not of our slack: the link is slower than it was, or the way longer.
                *gain = 1.0;
                self.rates.drain(..self.rates.len() - 1);
                self.swamped += 1;
                if self.swamped >= SWAMPED_ROUNDS && now.saturating_sub(least_at) > SWAMPED_TIME {
                    self.phase = Phase::Drain { until: None, least: None };
                }
            }
            Phase::Steady { gain, rounds, rate } => {
                *rounds += 1;
                *gain = match () {
                    () if !queued || (*gain > 1.0 && best > *rate * 1.04) => GROW,
                    () if *rounds >= TRIAL_ROUNDS => TRIAL,
                    () => 1.0,
                };
                if *gain > 1.0 {
                    (*rounds, *rate) = (0, best);
                }
            }
            Phase::Drain { .. } => {}
        }
    }
}
