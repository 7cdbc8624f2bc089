//! How many bytes may be on their way at once: as many as bandwidth x delay asks for, and a few milliseconds more. Told of
//! each frame sent and each ack by the mux; schedules nothing itself.
//!
//! The way of BBR: the rate at which acks say that bytes arrive, its maximum over the last round trips, and the least
//! round-trip time seen. A window of their product keeps the link busy and its queues empty; what it is larger by makes a
//! link that became faster show. Grows twofold each round trip until the rate does not follow.

use std::{collections::VecDeque, time::Duration};

/// Window before anything is known. As long as the first flight may be.
const INITIAL_WINDOW: u64 = 256 << 10;
/// Least window; at 1 Mbit/s this is 32 ms.
const MIN_WINDOW: u64 = 4 << 10;
/// Largest window: 10 Gbit/s at 50 ms.
const MAX_WINDOW: u64 = 64 << 20;
/// What a window holds beyond bandwidth x delay: covers the delay of acks, and lets a faster link show.
const SLACK: Duration = Duration::from_millis(4);
/// Frames before anything is known.
const INITIAL_FRAME: usize = 16 << 10;
/// No frame takes longer than this on the link, unless it is as short as [`MIN_FRAME`].
const FRAME_TIME: f64 = 0.001;
/// Shortest limit for the payload of a frame: 2 % are header.
const MIN_FRAME: usize = 1 << 10;
/// After so long without a new least round-trip time the queues are drained to look again.
const RTT_LIFETIME: Duration = Duration::from_secs(10);
/// The rate is the maximum over so many round trips...
const RATE_ROUNDS: u64 = 10;
/// ...and at least this time, since round trips over a local pipe are shorter than a pause of the scheduler.
const RATE_TIME: Duration = Duration::from_millis(100);
/// What the window grows by in a round trip while that brings more.
const GROW: f64 = 1.25;
/// What it grows by to find out, and after how many round trips.
const TRIAL: f64 = 1.1;
const TRIAL_ROUNDS: u32 = 8;
/// With a long queue, a round-trip time is not taken for the least one for longer than this.
const SWAMPED_TIME: Duration = Duration::from_secs(1);
/// Frames sent at one moment are one flight up to this size; bounds what is remembered of many small ones.
const FLIGHT_MERGE: u64 = 4 << 10;

/// What is known of bytes sent at one moment.
#[derive(Debug, Clone, Copy)]
struct Flight {
    /// Position after the last of them.
    end: u64,
    len: u64,
    sent_at: Duration,
    /// Position acknowledged when they were sent, and since when.
    acked: u64,
    acked_at: Duration,
    /// When the bytes were sent whose ack came last before these were sent.
    before_sent_at: Duration,
    /// Less was sent than could have been: the rate says only that the link is not slower.
    limited: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Doubles each round trip. The best rate so far, and for how many rounds it has been.
    Startup { rate: f64, rounds: u32 },
    /// Follows the estimate, times `gain`, and tries now and then whether there is more to be had: rounds since the last
    /// trial, and the rate before it.
    Steady { gain: f64, rounds: u32, rate: f64 },
    /// Three quarters, to see the round-trip time without a queue; over when `until` is acknowledged (once known).
    Drain { until: Option<u64>, least: Option<Duration> },
}

impl Phase {
    const STEADY: Phase = Phase::Steady { gain: 1.0, rounds: 0, rate: 0.0 };
}

/// Estimates of one direction of a link.
#[derive(Debug)]
pub(super) struct Pace {
    sent: u64,
    acked: u64,
    acked_at: Duration,
    acked_sent_at: Duration,
    flights: VecDeque<Flight>,
    /// There was nothing to send when this position was reached: until more than that has arrived, the rate of arrival
    /// is that of the sender, not of the link.
    limited_until: Option<u64>,
    round: u64,
    /// The round is over when a flight arrives that was sent after this position had been acknowledged.
    round_end: u64,
    round_least: Option<Duration>,
    round_limited: bool,
    /// Falling maxima: (round, time, bytes per second).
    rates: VecDeque<(u64, Duration, f64)>,
    least_rtt: Option<Duration>,
    least_rtt_at: Duration,
    smoothed_rtt: Option<Duration>,
    phase: Phase,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            sent: 0,
            acked: 0,
            acked_at: Duration::ZERO,
            acked_sent_at: Duration::ZERO,
            flights: VecDeque::new(),
            limited_until: Some(0),
            round: 0,
            round_end: 0,
            round_least: None,
            round_limited: false,
            rates: VecDeque::new(),
            least_rtt: None,
            least_rtt_at: Duration::ZERO,
            smoothed_rtt: None,
            phase: Phase::Startup { rate: 0.0, rounds: 0 },
        }
    }

    /// Position of the next byte, that is, the `seq` of the next numbered frame.
    pub(super) fn position(&self) -> u64 {
        self.sent
    }

    /// Smoothed round-trip time, once there is one.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.smoothed_rtt
    }

    /// Bytes per second, once known.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rates.front().map(|&(_, _, rate)| rate)
    }

    pub(super) fn debug(&self) -> String { format!("{:?} least {:?} inflight {} window {} limited {:?}", self.phase, self.least_rtt, self.sent-self.acked, self.window(), self.limited_until) }
    /// Bytes that may still be sent now.
    pub(super) fn room(&self) -> u64 {
        self.window().saturating_sub(self.sent - self.acked)
    }

    /// Most bytes of payload in one frame, so that nothing urgent waits long for its end.
    pub(super) fn frame_max(&self) -> usize {
        match self.rate() {
            Some(rate) => ((rate * FRAME_TIME) as usize).clamp(MIN_FRAME, crate::frame::PAYLOAD_MAX),
            None => INITIAL_FRAME,
        }
    }

    fn window(&self) -> u64 {
        let (Some(rate), Some(rtt)) = (self.rate(), self.least_rtt) else { return INITIAL_WINDOW };
        let bytes = |time: Duration, gain: f64| (rate * time.as_secs_f64() * gain) as u64;
        let full = rtt + slack(rtt);
        let window = match self.phase {
            Phase::Startup { .. } => bytes(full, 2.0).max(INITIAL_WINDOW),
            Phase::Steady { gain, .. } => bytes(full, gain),
            Phase::Drain { .. } => bytes(rtt, 0.75),
        };
        window.clamp(MIN_WINDOW, MAX_WINDOW)
    }

    /// Bytes of a numbered frame were put on the link. `measure` is false for the first flight, which may have been on
    /// its way for as long as an upload takes.
    pub(super) fn on_sent(&mut self, now: Duration, len: u64, measure: bool) {
        if self.sent == self.acked {
            self.acked_at = now;
            self.acked_sent_at = now;
        }
        self.sent += len;
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
        self.flights.push_back(Flight {
            end: self.sent,
            len,
            sent_at: now,
            acked: self.acked,
            acked_at: self.acked_at,
            before_sent_at: self.acked_sent_at,
            limited,
        });
    }

    /// There was room, and nothing to fill it with.
    pub(super) fn on_idle(&mut self) {
        self.limited_until = Some(self.sent);
    }

    /// Everything below `position` has arrived. False if that has never been sent.
    #[must_use]
    pub(super) fn on_ack(&mut self, now: Duration, position: u64) -> bool {
        if position > self.sent {
            return false;
        }
        if position <= self.acked {
            return true;
        }
        self.acked = position;
        self.acked_at = now;
        self.limited_until = self.limited_until.filter(|&until| position <= until);
        let mut newest = None;
        while let Some(flight) = self.flights.front()
            && flight.end <= position
        {
            newest = self.flights.pop_front();
        }
        if let Some(flight) = newest {
            self.acked_sent_at = flight.sent_at;
            self.sample(now, &flight);
        }
        true
    }

    fn sample(&mut self, now: Duration, flight: &Flight) {
        let rtt = now.saturating_sub(flight.sent_at);
        self.smoothed_rtt = Some(self.smoothed_rtt.map_or(rtt, |smoothed| (smoothed * 7 + rtt) / 8));
        self.round_least = Some(self.round_least.map_or(rtt, |least| least.min(rtt)));
        self.round_limited |= flight.limited;
        let stale = now.saturating_sub(self.least_rtt_at) > RTT_LIFETIME;
        if self.least_rtt.is_none_or(|least| rtt <= least) || (stale && flight.limited) {
            self.least_rtt = Some(rtt);
            self.least_rtt_at = now;
        } else if stale && matches!(self.phase, Phase::Steady { .. }) {
            self.phase = Phase::Drain { until: None, least: None };
        }

        // Acks that come in a burst must not look like a fast link, so the longer of the two intervals counts.
        let interval = (now.saturating_sub(flight.acked_at)).max(flight.sent_at.saturating_sub(flight.before_sent_at));
        if !interval.is_zero() && self.least_rtt.is_some_and(|least| interval >= least) {
            let rate = (self.acked - flight.acked) as f64 / interval.as_secs_f64();
            if !flight.limited || self.rate().is_none_or(|best| rate > best) {
                self.add_rate(now, rate);
            }
        }
        self.drain(now, rtt);
        if flight.acked >= self.round_end {
            self.next_round(now);
        }
    }

    fn add_rate(&mut self, now: Duration, rate: f64) {
        while self.rates.back().is_some_and(|&(_, _, last)| last <= rate) {
            self.rates.pop_back();
        }
        // Within one round only the maximum counts; this keeps the list short.
        if self.rates.back().is_none_or(|&(round, _, _)| round != self.round) {
            self.rates.push_back((self.round, now, rate));
        }
        while self.rates.len() > 1
            && let Some(&(round, at, _)) = self.rates.front()
            && round + RATE_ROUNDS < self.round
            && at + RATE_TIME < now
        {
            self.rates.pop_front();
        }
    }

    fn drain(&mut self, now: Duration, rtt: Duration) {
        let in_flight = self.sent - self.acked;
        let target = self.window();
        let Phase::Drain { until, least } = &mut self.phase else { return };
        let Some(end) = *until else {
            if in_flight <= target {
                *until = Some(self.sent + 1);
            }
            return;
        };
        *least = Some(least.map_or(rtt, |least| least.min(rtt)));
        if self.acked >= end {
            self.least_rtt = *least;
            self.least_rtt_at = now;
            self.phase = Phase::STEADY;
        }
    }

    /// A round trip has passed: what was sent after the last round's end has arrived.
    fn next_round(&mut self, now: Duration) {
        let limited = std::mem::take(&mut self.round_limited);
        let least = self.round_least.take();
        self.round += 1;
        self.round_end = self.acked;
        let (Some(best), Some(rtt), Some(round_rtt)) = (self.rate(), self.least_rtt, least) else { return };
        let queued = round_rtt > rtt + slack(rtt) / 2;
        let swamped = round_rtt > (rtt + slack(rtt)).mul_f64(GROW) + slack(rtt);
        match &mut self.phase {
            Phase::Startup { rate, rounds } if best >= *rate * GROW => (*rate, *rounds) = (best, 0),
            Phase::Startup { rounds, .. } => {
                // A queue shows that the link is full, even if the sender had no more than it gave.
                *rounds += u32::from(!limited);
                if *rounds >= 3 || queued {
                    self.phase = Phase::STEADY;
                }
            }
            Phase::Steady { gain, .. } if limited => *gain = 1.0,
            Phase::Steady { .. } if swamped => {
                // Such a queue is not of our slack: the link is slower than it was, or the way longer.
                self.rates.drain(..self.rates.len().saturating_sub(1));
                if now.saturating_sub(self.least_rtt_at) > SWAMPED_TIME {
                    self.phase = Phase::Drain { until: None, least: None };
                }
            }
            Phase::Steady { gain, rounds, rate } => {
                // Without a queue there is room. A queue may be one of acks on the way back, so that says little; but
                // if the last trial brought something, the next one may too.
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

fn slack(rtt: Duration) -> Duration {
    (rtt / 16).clamp(SLACK, 2 * SLACK)
}
