//! Keepalive: when to ask whether the peer is there, and when to give it up. Told of everything sent and received by the
//! mux; any byte counts, so a busy link is never taken for dead. A peer that has announced its silence is not given up.

use std::time::Duration;

/// The clock may be this late before it is taken for our own sleep (a stopped process, a suspended machine): what the peer
/// sent meanwhile has not been read yet.
const LATE: Duration = Duration::from_secs(1);
/// While the peer is paused, so many times as long passes between pings. None would do for the peer; what is sent makes the
/// transport notice that the way there is gone.
const RARELY: u32 = 12;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    Dead,
}

#[derive(Debug)]
pub(super) struct Alive {
    keepalive: Duration,
    dead_after: Duration,
    sent_at: Duration,
    received_at: Duration,
    pinged_at: Duration,
    /// When the clock was last seen.
    seen_at: Duration,
    /// The peer said that it will be silent, and has been since.
    paused: bool,
}

impl Alive {
    pub(super) fn new(keepalive: Duration, dead_after: Duration) -> Self {
        let never = Duration::ZERO;
        Self {
            keepalive,
            dead_after,
            sent_at: never,
            received_at: never,
            pinged_at: never,
            seen_at: never,
            paused: false,
        }
    }

    /// The pipe is there: silence counts from now.
    pub(super) fn start(&mut self, now: Duration) {
        (self.sent_at, self.received_at, self.pinged_at, self.seen_at) = (now, now, now, now);
    }

    pub(super) fn on_sent(&mut self, now: Duration) {
        self.sent_at = now;
    }

    pub(super) fn on_received(&mut self, now: Duration) {
        self.received_at = now;
        self.paused = false;
    }

    /// The last thing that came says that nothing will come for a while.
    pub(super) fn on_pause(&mut self) {
        self.paused = true;
    }

    /// When [`check`](Self::check) must be called next.
    pub(super) fn deadline(&self) -> Duration {
        if self.paused { self.ping_at() } else { self.ping_at().min(self.received_at + self.dead_after) }
    }

    /// A ping is due when nothing was sent for a while, for the sake of the peer, and when nothing came.
    fn ping_at(&self) -> Duration {
        let interval = if self.paused { self.keepalive * RARELY } else { self.keepalive };
        self.pinged_at.max(self.sent_at.min(self.received_at)) + interval
    }

    /// Whether nothing has been looked at for so long that this side was not running. To be asked before [`check`](Self::check).
    pub(super) fn is_late(&self, now: Duration) -> bool {
        now.saturating_sub(self.seen_at.max(self.deadline())) > LATE
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn check(&mut self, now: Duration) -> Due {
        let late = self.is_late(now);
        self.seen_at = now;
        if !self.paused && now >= self.received_at + self.dead_after {
            if !late {
                return Due::Dead;
            }
            self.received_at = now.saturating_sub(self.dead_after) + self.keepalive;
        }
        if now < self.ping_at() {
            return Due::Nothing;
        }
        self.pinged_at = now;
        Due::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn alive() -> Alive {
        let mut alive = Alive::new(S(5), S(15));
        alive.start(S(100));
        alive
    }

    #[test]
    fn silence_is_asked_about_and_then_death() {
        let mut alive = alive();
        let mut seen = Vec::new();
        loop {
            let now = alive.deadline();
            let due = alive.check(now);
            seen.push((now.as_secs(), due));
            match due {
                Due::Ping => alive.on_sent(now),
                Due::Dead => break,
                Due::Nothing => {}
            }
        }
        assert_eq!(seen, [(105, Due::Ping), (110, Due::Ping), (115, Due::Dead)]);
    }

    #[test]
    fn a_sender_that_hears_nothing_asks_and_dies() {
        let mut alive = alive();
        let mut pings = 0;
        for ms in (100_000..115_000).step_by(100) {
            let now = Duration::from_millis(ms);
            alive.on_sent(now);
            match alive.check(now) {
                Due::Ping => pings += 1,
                Due::Dead => panic!("too early"),
                Due::Nothing => {}
            }
        }
        assert_eq!(pings, 2);
        assert_eq!(alive.check(S(115)), Due::Dead);
    }

    #[test]
    fn an_announced_silence_is_no_death_until_the_next_byte() {
        let mut alive = alive();
        alive.on_pause();
        let mut pings = 0;
        while alive.deadline() < S(100 + 3600) {
            let now = alive.deadline();
            assert_eq!(alive.check(now), Due::Ping);
            alive.on_sent(now);
            pings += 1;
        }
        assert_eq!(pings, 59);
        alive.on_received(S(3700));
        assert_eq!(alive.check(S(3714)), Due::Ping);
        assert_eq!(alive.check(S(3715)), Due::Dead);
    }

    #[test]
    fn own_sleep_is_not_the_peers_death() {
        let mut alive = alive();
        assert_eq!(alive.check(S(700)), Due::Ping);
        assert_eq!(alive.check(S(704)), Due::Nothing);
        assert_eq!(alive.check(S(705)), Due::Dead);
    }
}
