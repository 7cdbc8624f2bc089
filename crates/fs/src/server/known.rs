//! What the mount is known to know, so that it is not told of its own changes. Bounded: what falls out is told once too
//! often, which costs a message and breaks nothing.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use rustix::fs::Statx;

use remotely_proto::fs::Stamp;

use super::{attr, name::Name, node::Key};

/// Inodes in one generation.
const STAMPS: usize = 256 << 10;
/// Names in one generation.
const NAMES: usize = 64 << 10;

/// The last state of an inode that went to the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// Of the stamp; the whole one would be five times as long.
    digest: u64,
    /// Told by a notice, or left by a change of the mount's own: what follows it is ordered after it. A state told in
    /// the answer to a question can cross an older answer, so it does not silence the watcher.
    settled: bool,
    /// When it was noted.
    tick: u64,
}

/// States and names as the mount knows them.
#[derive(Debug)]
pub(super) struct Known {
    marks: Generations<Key, Mark>,
    names: Generations<(Key, Name), Option<Key>>,
    tick: u64,
}

impl Default for Known {
    fn default() -> Self {
        Self { marks: Generations::new(STAMPS), names: Generations::new(NAMES), tick: 0 }
    }
}

impl Known {
    /// A point in the order of what is noted here.
    pub(super) fn tick(&self) -> u64 {
        self.tick
    }

    /// An answer tells this state, seen after `tick`. If something newer was noted since, the mount will not keep it.
    pub(super) fn told(&mut self, key: Key, stamp: &Stamp, tick: u64) {
        let digest = digest(stamp);
        match self.marks.find(&key) {
            Some(mark) if mark.digest == digest || mark.tick > tick => {}
            // Two answers that differ are on their way, and either may come last.
            Some(mark) if !mark.settled => self.marks.remove(&key),
            _ => self.marks.put(key, Mark { digest, settled: false, tick }),
        }
    }

    /// A change of the mount's own led from one state to another. If the first is not what the mount knew, someone else
    /// has been there, and the watcher will tell.
    pub(super) fn changed(&mut self, before: &Statx, after: &Statx) {
        let key = attr::key(before);
        match self.marks.find(&key) {
            Some(mark) if mark.digest == digest(&attr::stamp(before)) => self.settle(after),
            Some(_) => self.marks.remove(&key),
            None => {}
        }
    }

    /// The mount knows this state for certain: it made the inode, or a notice tells it.
    pub(super) fn settle(&mut self, stat: &Statx) {
        self.tick += 1;
        self.marks.put(attr::key(stat), Mark { digest: digest(&attr::stamp(stat)), settled: true, tick: self.tick });
    }

    /// The mount knows for certain what this name names.
    pub(super) fn settle_name(&mut self, dir: Key, name: &[u8], key: Option<Key>) {
        self.names.put((dir, name.into()), key);
    }

    /// True if the mount need not be told that a name is in this state. Without `appeared` only the inode can have
    /// changed, not what the name names.
    pub(super) fn is_news(&mut self, dir: Key, name: &[u8], appeared: bool, state: Option<&Statx>) -> bool {
        if (appeared || state.is_none()) && self.names.find(&(dir, name.into())) != Some(state.map(attr::key)) {
            return true;
        }
        state.is_some_and(|stat| !self.is_settled(stat))
    }

    /// True if the mount knows this state for certain.
    pub(super) fn is_settled(&mut self, stat: &Statx) -> bool {
        let mark = self.marks.find(&attr::key(stat));
        mark.is_some_and(|mark| mark.settled && mark.digest == digest(&attr::stamp(stat)))
    }
}

fn digest(stamp: &Stamp) -> u64 {
    let mut hasher = DefaultHasher::new();
    (stamp.size, stamp.mtime.sec, stamp.mtime.nsec, stamp.ctime.sec, stamp.ctime.nsec).hash(&mut hasher);
    hasher.finish()
}

/// A map that forgets: when the young half is full, the old half goes.
#[derive(Debug)]
struct Generations<K, V> {
    size: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq + Clone, V: Copy> Generations<K, V> {
    fn new(size: usize) -> Self {
        Self { size, young: HashMap::new(), old: HashMap::new() }
    }

    fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.size && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    fn find(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(*value);
        }
        let value = self.old.remove(key)?;
        self.put(key.clone(), value);
        Some(value)
    }

    fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_half_goes() {
        let mut map = Generations::new(2);
        for n in 0..4 {
            map.put(n, n);
        }
        assert_eq!(map.find(&0), Some(0), "still in the old half, and young again");
        map.put(9, 9);
        map.put(10, 10);
        assert_eq!((map.find(&2), map.find(&3)), (None, None));
        assert!(map.young.len() + map.old.len() <= 4);
    }
}
