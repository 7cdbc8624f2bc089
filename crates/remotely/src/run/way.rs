//! What is remembered of the way to a target: that its host has had an agent, and how much the way carries. Used by `run`,
//! so that a link begins as well as the one before it did.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use minicbor::{Decode, Encode};
use remotely_proto::ByteVec;
use remotely_session::Stats;

use super::store::Store;
use crate::options::ConnectOptions;

/// A laptop may be on another network by then.
const LIFETIME: Duration = Duration::from_secs(3600);
/// Most bytes sent without knowing that the way is still what it was.
const WINDOW_MAX: u64 = 8 << 20;

/// A link that carried so many windows has shown what it carries.
const FILLED: u64 = 16;
/// Most content in a first flight, in bytes: no more gets through ssh before it is answered.
const FLIGHT_MAX: u64 = 2 << 20;
/// A way that took longer than twice this was waiting for something else.
const HEAD_START_MAX: Duration = Duration::from_millis(500);

/// The way to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Way {
    /// Bytes on their way that filled it.
    #[n(0)]
    window: u64,
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
    /// What a link over it turned out to carry, and after how long its agent answered, if that tells anything. One link
    /// seldom shows all.
    pub(super) fn learn(before: Option<Self>, stats: &Stats, answered: Option<Duration>) -> Self {
        let Self { window, answer } = before.unwrap_or(Self { window: 0, answer: 0 });
        let seen = stats.window.unwrap_or(window);
        // Who has little to send does not fill it.
        let filled = stats.bytes_sent >= FILLED * window;
        Self {
            window: seen.max(if filled { (window + seen) / 2 } else { window }).min(WINDOW_MAX),
            answer: answered.map_or(answer, |time| time.as_micros() as u64),
        }
    }

    /// Bytes of content for a first flight, which nothing can overtake.
    pub(super) fn first_content(self) -> u64 {
        self.window.min(FLIGHT_MAX)
    }

    /// How long the first flight can wait for what is to be in it without being late: the way there takes as long again.
    pub(super) fn head_start(self) -> Duration {
        Duration::from_micros(self.answer / 2).min(HEAD_START_MAX)
    }

    /// Bytes to begin with, if it is not long ago.
    pub(super) fn window(self, used: SystemTime) -> Option<u64> {
        // A clock that was put back tells nothing.
        used.elapsed().ok().filter(|age| *age < LIFETIME).map(|_| self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_did_not_fill_it_does_not_make_it_smaller() {
        let stats = |sent, window| Stats { bytes_sent: sent, window: Some(window), ..Stats::default() };
        let way = Way::learn(None, &stats(1 << 20, 3 << 20), Some(Duration::from_millis(40)));
        assert_eq!((way.window, way.head_start()), (3 << 20, Duration::from_millis(20)));
        let little = Way::learn(Some(way), &stats(1 << 20, 1 << 20), None);
        assert_eq!(little, way);
        let much = Way::learn(Some(way), &stats(1 << 30, 1 << 20), None);
        assert_eq!(much.window, 2 << 20);
        let more = Way::learn(Some(way), &stats(0, 1 << 40), None);
        assert_eq!((more.window, more.first_content()), (WINDOW_MAX, FLIGHT_MAX));
        assert_eq!(Way { answer: u64::MAX / 2, ..way }.head_start(), HEAD_START_MAX);
    }
}
