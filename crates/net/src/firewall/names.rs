//! Names of the host's network that the helper keeps in the hosts file: which of them may stand there, and when it is written. Called by
//! the elevated helper; the file itself is changed elsewhere.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::hosts::{self, Names};
use crate::subnet::Family;

/// Names in the hosts file, at most.
const MOST: usize = 20_000;

/// The hosts file is not written more often than that: others read it.
const PAUSE: Duration = Duration::from_secs(1);

/// What the client has named.
#[derive(Debug, Default)]
pub(crate) struct Named {
    names: Names,
    changed: bool,
    written: Option<Instant>,
}

impl Named {
    /// Takes a name, if it may stand in a hosts file of here.
    pub(crate) fn add(&mut self, name: String, address: IpAddr) {
        let key = (name, Family::of(address));
        let room = self.names.len() < MOST || self.names.contains_key(&key);
        if room && hosts::may_stand(&key.0) {
            self.changed |= self.names.insert(key, address) != Some(address);
        }
    }

    /// How long until they are to be written; `None` where there is nothing to be written.
    pub(crate) fn due(&self, now: Instant) -> Option<Duration> {
        let next = self.written.map_or(now, |written| written + PAUSE);
        self.changed.then(|| next.saturating_duration_since(now))
    }

    /// They are written now. What fails now is tried again with the next name.
    pub(crate) fn write(&mut self, now: Instant) -> &Names {
        self.changed = false;
        self.written = Some(now);
        &self.names
    }

    /// Whether some of them may be in the file.
    pub(crate) fn are_written(&self) -> bool {
        self.written.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_written_once_a_second_and_the_last_state_always() {
        let mut named = Named::default();
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        assert_eq!((named.due(start), named.are_written()), (None, false));
        for name in ["localhost", "127.0.0.1", "1"] {
            named.add(name.into(), ip(1));
        }
        assert_eq!(named.due(start), None, "none of these may stand");
        named.add("web".into(), ip(1));
        assert_eq!(named.due(after(5)), Some(Duration::ZERO), "the first at once");
        assert_eq!(named.write(start).len(), 1);
        assert!(named.are_written());
        named.add("web".into(), ip(1));
        assert_eq!(named.due(after(10)), None, "nothing new");
        named.add("web".into(), ip(2));
        assert_eq!(named.due(after(300)), Some(Duration::from_millis(700)));
        named.add("db".into(), ip(3));
        assert_eq!(named.due(after(1000)), Some(Duration::ZERO));
        assert_eq!(named.due(after(5000)), Some(Duration::ZERO));
        let written: Vec<IpAddr> = named.write(after(1000)).values().copied().collect();
        assert_eq!(written, [ip(3), ip(2)]);
        assert_eq!(named.due(after(1001)), None);
    }

    #[test]
    fn no_more_than_anybody_needs() {
        let mut named = Named::default();
        for number in 0..=MOST {
            named.add(format!("h{number}"), IpAddr::from([10, 0, 0, 1]));
        }
        assert_eq!(named.write(Instant::now()).len(), MOST);
    }
}
