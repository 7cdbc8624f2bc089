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

/// The way to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Way {
    /// Bytes on their way that filled it.
    #[n(0)]
    window: u64,
}

/// Where that to this target is kept.
pub(super) fn store(connect: &ConnectOptions, env: &[ByteVec]) -> Option<Store<Way>> {
    let (target, opts) = (connect.target.to_string(), connect.ssh_opts.join(OsStr::new("\0")));
    Store::of("way", &[target.as_bytes(), opts.as_bytes()], env)
}

impl Way {
    /// What a link over it turned out to carry. One link seldom shows all.
    pub(super) fn learn(before: Option<Self>, stats: &Stats) -> Self {
        let before = before.map_or(0, |way| way.window);
        let seen = stats.window.unwrap_or(before);
        Self { window: seen.max((before + seen) / 2).min(WINDOW_MAX) }
    }

    /// Bytes to begin with, if it is not long ago.
    pub(super) fn window(self, used: SystemTime) -> Option<u64> {
        // A clock that was put back tells nothing.
        used.elapsed().ok().filter(|age| *age < LIFETIME).map(|_| self.window)
    }
}
