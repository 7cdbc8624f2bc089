//! What is remembered of the way to a target: that its host has had an agent, and how much the way carries. Used by `run`,
//! so that a link begins as well as the one before it did.

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use minicbor::{Decode, Encode};
use remotely_proto::ByteVec;
use remotely_session::Stats;

use super::store::Store;
use crate::options::ConnectOptions;

/// A laptop may be on another network by then.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Least and most bytes sent without knowing that the way is still what it was.
const WINDOW: RangeInclusive<u64> = (64 << 10)..=(8 << 20);
/// So many windows must have been sent for a window to be believed that is smaller than others.
const ENOUGH: u64 = 16;
/// Most content in a first flight, in bytes: no more gets through ssh before it is answered.
pub(super) const FLIGHT_MAX: u64 = 2 << 20;
/// A way that took longer than twice this was waiting for something else.
const HEAD_START_MAX: Duration = Duration::from_millis(500);

/// The way to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Way {
    /// Bytes on their way that filled it.
    #[n(0)]
    window: u64,
    /// They did: it carries no more.
    #[n(2)]
    filled: bool,
    /// Microseconds until its agent answered.
    #[n(1)]
    answer: u64,
}

/// Where that to this target is kept.
pub(super) fn store(connect: &ConnectOptions, env: &[ByteVec]) -> Option<Store<Way>> {
    let (target, opts) = (connect.target.to_string(), connect.ssh_opts.join(OsStr::new("\0")));
    Store::of("way", &[target.as_bytes(), opts.as_bytes()], env)
}

impl Way {
    /// What a link over it turned out to carry, and after how long its agent answered, if that tells anything.
    pub(super) fn learn(before: Option<Self>, stats: &Stats, answered: Option<Duration>) -> Self {
        let Self { window, filled, answer } = before.unwrap_or(Self { window: 0, filled: false, answer: 0 });
        let seen = stats.window.unwrap_or(window);
        // A few round trips tell more of who else was busy than of the way.
        let full = stats.filled && stats.bytes_sent >= ENOUGH * seen;
        Self {
            window: match full {
                // One link seldom shows all.
                true if filled => seen.max((window + seen) / 2),
                true => seen,
                false => seen.max(window),
            }
            .min(*WINDOW.end()),
            filled: full || filled,
            answer: answered.map_or(answer, |time| time.as_micros() as u64),
        }
    }

    /// Bytes that may be on their way before anything is known of a new link; `usual` where this says too little. `used` is
    /// when there was a link last.
    pub(super) fn window(self, used: SystemTime, usual: u64) -> u64 {
        // A clock that was put back tells nothing.
        let recent = used.elapsed().is_ok_and(|age| age < LIFETIME);
        match (recent, self.filled) {
            (true, true) => self.window.max(*WINDOW.start()),
            (true, false) => self.window.max(usual),
            (false, _) => usual,
        }
    }

    /// How long the first flight can wait for what is to be in it without being late: the way there takes as long again.
    pub(super) fn head_start(self) -> Duration {
        Duration::from_micros(self.answer / 2).min(HEAD_START_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Way = Way { window: 0, filled: false, answer: 0 };

    fn stats(filled: bool, window: u64) -> Stats {
        Stats { filled, window: Some(window), bytes_sent: ENOUGH * window, ..Stats::default() }
    }

    #[test]
    fn only_a_link_that_filled_it_makes_it_smaller() {
        let little = Way::learn(None, &stats(false, 1000), None);
        let more = Way::learn(Some(little), &stats(false, 3 << 20), None);
        assert_eq!((little.window, more.window), (1000, 3 << 20));
        assert_eq!(Way::learn(Some(more), &stats(false, 1 << 20), None), more);
        assert_eq!(Way::learn(Some(more), &Stats { bytes_sent: 1 << 20, ..stats(true, 1 << 20) }, None), more);
        let filled = Way::learn(Some(more), &stats(true, 1 << 20), None);
        assert_eq!(filled, Way { window: 1 << 20, filled: true, answer: 0 });
        assert_eq!(Way::learn(Some(filled), &stats(true, 1 << 19), None).window, 3 << 18);
        assert_eq!(Way::learn(Some(filled), &stats(false, 1 << 19), None), filled);
        assert_eq!(Way::learn(Some(filled), &stats(true, 1 << 40), None).window, *WINDOW.end());
    }

    #[test]
    fn a_way_that_is_known_to_carry_little_is_given_little() {
        let (now, usual) = (SystemTime::now(), 1 << 20);
        let way = |window, filled| Way { window, filled, ..NEW };
        assert_eq!(way(1 << 18, true).window(now, usual), 1 << 18);
        assert_eq!(way(1000, true).window(now, usual), *WINDOW.start());
        assert_eq!(way(1 << 18, false).window(now, usual), usual);
        assert_eq!(way(1 << 22, false).window(now, usual), 1 << 22);
        assert_eq!(way(1 << 22, true).window(now - LIFETIME, usual), usual);
        assert_eq!(way(1 << 22, true).window(now + LIFETIME, usual), usual);
    }

    #[test]
    fn the_first_flight_is_waited_for_half_as_long_as_the_answer() {
        let answered = |answer| Way::learn(None, &stats(false, 0), Some(Duration::from_millis(answer))).head_start();
        assert_eq!((answered(40), answered(4000)), (Duration::from_millis(20), HEAD_START_MAX));
    }
}
