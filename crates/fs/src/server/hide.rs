//! What is kept from the mount. A hidden path is looked at anew whenever its name is met, so that it does not matter who has
//! moved, made or linked what on the way to it; and what was found there once is known by its inode, wherever it goes.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ffi::OsStr,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::{Arc, Mutex},
};

use rustix::{
    fs::{CWD, readlinkat},
    io::Errno,
};

use super::{
    attr,
    node::Key,
    service::Hold,
    way::{self, Way},
};

/// Most inodes remembered, if there are not more hidden paths than that: the user's own saving of hidden files, by renaming
/// new ones onto them, makes new ones. Those remembered for longest go first.
const PINS_MAX: usize = 1024;

/// The hidden paths, and what was found at them.
#[derive(Debug)]
pub(super) struct Hidden {
    paths: Vec<Vec<u8>>,
    pins_max: usize,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    pins: HashMap<Key, Pin>,
    order: VecDeque<Key>,
    /// The last names of hidden paths, and which paths those are.
    ends: HashMap<Vec<u8>, HashSet<usize>>,
    /// The names before.
    passes: HashSet<Vec<u8>>,
}

/// An inode, held open so that its number is not given to an innocent one.
#[derive(Debug)]
struct Pin {
    descriptor: Arc<OwnedFd>,
    hidden: bool,
    /// Names in it that are hidden.
    names: HashSet<Vec<u8>>,
}

impl Hidden {
    /// Looks where the paths lead now.
    pub(super) fn new(paths: &[Vec<u8>]) -> Self {
        let hidden = Self { paths: paths.to_vec(), pins_max: PINS_MAX.max(4 * paths.len()), found: Mutex::default() };
        {
            let mut found = hidden.found.hold();
            for (index, path) in paths.iter().enumerate() {
                let mut names = Path::new(OsStr::from_bytes(path)).iter().map(|name| name.as_bytes().to_vec());
                if let Some(end) = names.next_back() {
                    found.ends.entry(end).or_default().insert(index);
                }
                found.passes.extend(names);
            }
        }
        hidden.look_again();
        hidden
    }

    /// Notes what has come to be at the hidden paths, so that it stays hidden when it is moved; lets go of what is deleted.
    pub(super) fn look_again(&self) {
        for index in 0..self.paths.len() {
            // What cannot be followed now is hidden by its name, see `name`.
            let _ = self.trace(index);
        }
        let mut found = self.found.hold();
        let Found { pins, order, .. } = &mut *found;
        pins.retain(|_, pin| attr::stat(&pin.descriptor).is_ok_and(|stat| stat.stx_nlink > 0));
        order.retain(|key| pins.contains_key(key));
    }

    /// True if this inode is hidden.
    pub(super) fn inode(&self, key: Key) -> bool {
        !self.paths.is_empty() && self.found.hold().pins.get(&key).is_some_and(|pin| pin.hidden)
    }

    /// True if this name is hidden, whatever it names; or may be, because it could not be found out.
    pub(super) fn name(&self, dir: Key, name: &[u8]) -> bool {
        if self.paths.is_empty() {
            return false;
        }
        let candidates: Vec<usize> = {
            let found = self.found.hold();
            if found.pins.get(&dir).is_some_and(|pin| pin.names.contains(name)) {
                return true;
            }
            found.ends.get(name).into_iter().flatten().copied().collect()
        };
        candidates.into_iter().any(|index| match self.trace(index) {
            Ok(way) => way.ends.iter().any(|end| end.dir == dir && end.name == name),
            Err(_) => true,
        })
    }

    /// True if a name that was found, with the inode it names, is hidden. `open` gives a descriptor of it: an inode found
    /// under a hidden name is remembered, so that it stays hidden wherever it is moved.
    pub(super) fn found(&self, dir: Key, name: &[u8], key: Key, open: impl FnOnce() -> Option<Arc<OwnedFd>>) -> bool {
        let by_inode = self.inode(key);
        let by_name = self.name(dir, name);
        if by_name
            && !by_inode
            && let Some(descriptor) = open()
            && attr::stat(&descriptor).is_ok_and(|stat| attr::key(&stat) == key)
        {
            self.found.hold().pin(key, &descriptor, self.pins_max).hidden = true;
        }
        by_name || by_inode
    }

    /// True if a hidden path leads through this name, or through the inode that has it: who moves it would have what is
    /// hidden beneath under a name that is not. The same if it could not be found out.
    pub(super) fn passes(&self, dir: Key, name: &[u8], key: Option<Key>) -> bool {
        // A directory of many users has many hidden paths; hardly any name is on the way to one.
        self.found.hold().passes.contains(name)
            && (0..self.paths.len()).any(|index| match self.trace(index) {
                Ok(way) => way.passes.iter().any(|step| {
                    let found = step.found.as_ref().map(|(key, _)| *key);
                    (step.dir == dir && step.name == name) || (found.is_some() && found == key)
                }),
                Err(_) => true,
            })
    }

    /// True if what is open here was moved to a hidden place since: it is hidden, or beneath a hidden directory.
    pub(super) fn holds(&self, descriptor: BorrowedFd<'_>) -> bool {
        if self.paths.is_empty() {
            return false;
        }
        let hidden = |stat: Result<Key, Errno>| stat.map_or(true, |key| self.inode(key));
        let Ok(path) = readlinkat(CWD, attr::proc_path(descriptor), Vec::new()) else { return true };
        hidden(attr::stat(descriptor).map(|stat| attr::key(&stat)))
            || Path::new(OsStr::from_bytes(path.as_bytes()))
                .ancestors()
                .skip(1)
                .any(|above| hidden(attr::stat_name(CWD, above.as_os_str().as_bytes()).map(|stat| attr::key(&stat))))
    }

    /// Follows a hidden path, and remembers what it leads to.
    fn trace(&self, index: usize) -> Result<Way, Errno> {
        let way = way::trace(&self.paths[index])?;
        let mut found = self.found.hold();
        for pass in &way.passes {
            if !found.passes.contains(&pass.name) {
                found.passes.insert(pass.name.clone());
            }
        }
        for end in &way.ends {
            if let Some((key, descriptor)) = &end.found {
                found.pin(*key, descriptor, self.pins_max).hidden = true;
            }
            let pin = found.pin(end.dir, &end.descriptor, self.pins_max);
            if !pin.names.contains(&end.name) {
                pin.names.insert(end.name.clone());
                found.ends.entry(end.name.clone()).or_default().insert(index);
            }
        }
        Ok(way)
    }
}

impl Found {
    fn pin(&mut self, key: Key, descriptor: &Arc<OwnedFd>, most: usize) -> &mut Pin {
        if !self.pins.contains_key(&key) {
            if self.pins.len() >= most
                && let Some(oldest) = self.order.pop_front()
            {
                self.pins.remove(&oldest);
            }
            self.order.push_back(key);
        }
        self.pins.entry(key).or_insert_with(|| Pin {
            descriptor: Arc::clone(descriptor),
            hidden: false,
            names: HashSet::new(),
        })
    }
}
