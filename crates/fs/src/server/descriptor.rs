//! Bounded sets of descriptors that were used lately. An inode that is open here cannot lose its number to another, but the
//! number may have been another's before: whoever remembers it from then knows the birth time of that one.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use remotely_proto::fs::Time;

use super::{node::Key, service::Hold};

/// Descriptors that nobody used for this long are closed, so that file systems can be unmounted here and space freed.
const IDLE: Duration = Duration::from_secs(10);
/// After this long the way to it is gone again: it may lead through what is hidden by now.
const TRUSTED: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Slot {
    descriptor: Arc<OwnedFd>,
    born: Time,
    found: Instant,
    used: Instant,
}

impl Slot {
    fn is_trusted(&self, now: Instant) -> bool {
        now.duration_since(self.found) < TRUSTED
    }
}

/// Descriptors by inode; when full, the one unused for longest goes.
#[derive(Debug)]
pub(super) struct DescriptorCache {
    capacity: usize,
    slots: Mutex<HashMap<Key, Slot>>,
}

impl DescriptorCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), slots: Mutex::default() }
    }

    pub(super) fn find(&self, key: Key, born: Time) -> Option<Arc<OwnedFd>> {
        self.find_at(key, born, Instant::now())
    }

    fn find_at(&self, key: Key, born: Time, now: Instant) -> Option<Arc<OwnedFd>> {
        let mut slots = self.slots.hold();
        let slot = slots.get_mut(&key).filter(|slot| slot.is_trusted(now) && slot.born.same_birth(born))?;
        slot.used = now;
        Some(Arc::clone(&slot.descriptor))
    }

    pub(super) fn keep(&self, key: Key, born: Time, descriptor: Arc<OwnedFd>) {
        let mut slots = self.slots.hold();
        if slots.len() >= self.capacity
            && !slots.contains_key(&key)
            && let Some(oldest) = slots.iter().min_by_key(|(_, slot)| slot.used).map(|(key, _)| *key)
        {
            slots.remove(&oldest);
        }
        let now = Instant::now();
        slots.insert(key, Slot { descriptor, born, found: now, used: now });
    }

    pub(super) fn drop_one(&self, key: Key) {
        self.slots.hold().remove(&key);
    }

    /// Closes all that nobody uses at this moment; for when there are no descriptors left.
    pub(super) fn clear(&self) {
        self.slots.hold().clear();
    }

    /// Closes what is idle.
    pub(super) fn sweep(&self, now: Instant) {
        self.slots.hold().retain(|_, slot| slot.is_trusted(now) && now.duration_since(slot.used) < IDLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_unused_for_longest_goes() {
        let cache = DescriptorCache::new(2);
        let descriptor = Arc::new(OwnedFd::from(std::fs::File::open("/").unwrap()));
        let (key, born) = (|ino| Key { dev: 1, ino }, Time { sec: 5, nsec: 6 });
        cache.keep(key(1), born, Arc::clone(&descriptor));
        cache.keep(key(2), born, Arc::clone(&descriptor));
        assert!(cache.find(key(1), born).is_some());
        cache.keep(key(3), born, Arc::clone(&descriptor));
        assert!(
            cache.find(key(2), born).is_none()
                && cache.find(key(1), born).is_some()
                && cache.find(key(3), born).is_some()
        );
        let later = Instant::now() + TRUSTED;
        assert!(cache.find_at(key(3), born, later - Duration::from_secs(1)).is_some());
        assert!(cache.find_at(key(3), born, later).is_none(), "however often it is used");
        assert!(cache.find(key(3), Time { sec: 5, nsec: 5 }).is_none(), "that was another");
        assert!(cache.find(key(3), Time::default()).is_some());
        cache.sweep(Instant::now() + IDLE);
        assert!(cache.find(key(1), born).is_none());
    }
}
