//! The receiver's side of a stream's credit: what was granted, and when to grant more. Used by the receiving half of a
//! stream; grows to twice bandwidth x delay, as far as the link's budget for it goes.

use std::time::Duration;

use super::WINDOW_MAX;

/// So much is granted at once at most: a window as wide as the link is spent while a larger grant is waited for.
const GRANT: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Credit {
    /// What `window` was at first.
    initial: u64,
    /// How far the sender may be ahead of the application.
    window: u64,
    /// Bytes granted since the start of the stream.
    granted: u64,
    received: u64,
    taken: u64,
    /// What had been taken, and when, at the start of the measurement.
    mark: (u64, Duration),
}

impl Credit {
    pub(super) fn new(now: Duration, window: u64) -> Self {
        Self { initial: window, window, granted: window, received: 0, taken: 0, mark: (0, now) }
    }

    /// Bytes have come. False if they were more than was granted.
    #[must_use]
    pub(super) fn receive(&mut self, len: usize) -> bool {
        self.received += len as u64;
        self.received <= self.granted
    }

    /// The application has taken bytes. True if a grant is due.
    ///
    /// The window doubles, at the cost of `budget`, if half of it was taken within one round trip: then it is less than
    /// two round trips' worth, and the sender may have had to wait.
    pub(super) fn take(&mut self, now: Duration, len: usize, rtt: Option<Duration>, budget: &mut u64) -> bool {
        self.taken += len as u64;
        let (mark, since) = self.mark;
        if self.taken - mark >= self.window / 2 {
            self.mark = (self.taken, now);
            let fast = rtt.is_some_and(|rtt| now.saturating_sub(since) <= rtt);
            if fast && self.window * 2 <= WINDOW_MAX && self.window <= *budget {
                *budget -= self.window;
                self.window *= 2;
            }
        }
        self.taken + self.window - self.granted >= (self.window / 4).min(GRANT)
    }

    /// Grows the window at the cost of `budget`. True if a grant is due.
    pub(super) fn widen(&mut self, window: u64, budget: &mut u64) -> bool {
        let more = window.min(WINDOW_MAX).saturating_sub(self.window).min(*budget);
        *budget -= more;
        self.window += more;
        more > 0
    }

    /// What to grant now: bytes since the start of the stream.
    pub(super) fn grant(&mut self) -> u64 {
        self.granted = self.taken + self.window;
        self.granted
    }

    /// What it took from the budget.
    pub(super) fn grown(&self) -> u64 {
        self.window - self.initial
    }
}
