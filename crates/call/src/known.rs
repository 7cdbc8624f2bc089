//! What is known of a function that has been called: whether it is so quick that who has read the call may run it on the spot.
//! Used by the runner.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::remote::{Entry, Run};

/// A function that takes no longer keeps nobody waiting.
const QUICK: Duration = Duration::from_micros(500);
/// So often one that was slow has to be quick elsewhere before it is trusted again.
const TRIALS: u8 = 4;

/// A function and how it has been.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) entry: &'static Entry,
    /// How often it has to be quick yet.
    trials: AtomicU8,
    /// Calls that run, or the beginnings of those that are async.
    inside: AtomicUsize,
}

impl Known {
    pub(crate) fn new(entry: &'static Entry) -> Self {
        // What is not async may wait for something, and then it mostly does so always.
        let trials = if matches!(entry.run, Run::Blocking(_)) { 1 } else { 0 };
        Self { entry, trials: AtomicU8::new(trials), inside: AtomicUsize::new(0) }
    }

    /// Whether it is likely to return at once. One that is being run and has not come back may be waiting.
    pub(crate) fn is_quick(&self) -> bool {
        self.trials.load(Ordering::Relaxed) == 0 && self.inside.load(Ordering::Relaxed) == 0
    }

    /// Notes how long it takes until what this returns is dropped.
    pub(crate) fn enter(&self) -> Inside<'_> {
        self.inside.fetch_add(1, Ordering::Relaxed);
        Inside { known: self, since: Instant::now() }
    }
}

/// A call that runs.
pub(crate) struct Inside<'a> {
    known: &'a Known,
    since: Instant,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let Known { trials, inside, .. } = self.known;
        let left = if self.since.elapsed() > QUICK { TRIALS } else { trials.load(Ordering::Relaxed).saturating_sub(1) };
        trials.store(left, Ordering::Relaxed);
        inside.fetch_sub(1, Ordering::Relaxed);
    }
}
