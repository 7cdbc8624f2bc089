//! What is kept from the mount. A hidden path is known by inode as well as by name, so that neither a rename here, a
//! symbolic link, a hard link, nor a new file under the old name brings it back.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Mutex,
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};

use super::{node::Key, service::Hold};

/// Most hidden inodes.
const PINS_MAX: usize = 512;

/// The hidden inodes and names.
#[derive(Debug)]
pub(super) struct Hidden {
    /// (directory, name); fixed at start.
    names: HashMap<Key, HashSet<Vec<u8>>>,
    /// Held open, so that their numbers are not given to innocent files.
    inodes: Mutex<HashMap<Key, OwnedFd>>,
    /// Paths below the root whose directory does not exist yet.
    absent: Vec<Vec<Vec<u8>>>,
    none: bool,
}

impl Hidden {
    /// Resolves the paths as they are now.
    pub(super) fn new(root: &Path, paths: &[Vec<u8>]) -> Self {
        let mut hidden =
            Self { names: HashMap::new(), inodes: Mutex::default(), absent: Vec::new(), none: paths.is_empty() };
        for path in paths {
            hidden.add(root, &PathBuf::from(OsStr::from_bytes(path)));
        }
        hidden
    }

    fn add(&mut self, root: &Path, path: &Path) {
        // Both a symbolic link and what it leads to.
        for nofollow in [OFlags::NOFOLLOW, OFlags::empty()] {
            if let Some((key, descriptor)) = open(path, nofollow) {
                self.learn(key, descriptor);
            }
        }
        if let Ok(real) = std::fs::canonicalize(path) {
            self.add_name(root, &real);
        }
        self.add_name(root, path);
    }

    fn add_name(&mut self, root: &Path, path: &Path) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
        if let Some((dir, _)) = open(parent, OFlags::empty()) {
            self.names.entry(dir).or_default().insert(name.as_bytes().to_vec());
        } else if let Ok(below) = path.strip_prefix(root) {
            self.absent.push(below.iter().map(|name| name.as_bytes().to_vec()).collect());
        }
    }

    fn learn(&self, key: Key, descriptor: OwnedFd) {
        let mut inodes = self.inodes.hold();
        if inodes.len() < PINS_MAX || inodes.contains_key(&key) {
            inodes.insert(key, descriptor);
        }
    }

    /// True if this inode is hidden.
    pub(super) fn inode(&self, key: Key) -> bool {
        !self.none && self.inodes.hold().contains_key(&key)
    }

    /// True if this name is hidden, whatever it names. `dir_path` gives the path of the directory from the root; it is
    /// asked only if it matters.
    pub(super) fn name(
        &self,
        dir: Key,
        name: &[u8],
        dir_path: impl FnOnce() -> Option<Vec<super::name::Name>>,
    ) -> bool {
        if self.none {
            return false;
        }
        if self.names.get(&dir).is_some_and(|names| names.contains(name)) {
            return true;
        }
        let candidates = || self.absent.iter().filter_map(|path| path.split_last()).filter(|(last, _)| *last == name);
        if candidates().next().is_none() {
            return false;
        }
        let Some(dir_path) = dir_path() else { return false };
        candidates().any(|(_, parents)| {
            parents.len() == dir_path.len() && parents.iter().zip(&dir_path).all(|(a, b)| a.as_slice() == &**b)
        })
    }

    /// True if a name that was found, with the inode it names, is hidden. An inode found under a hidden name is
    /// remembered, so that it stays hidden wherever it is moved.
    pub(super) fn found(
        &self,
        (dir_descriptor, dir): (BorrowedFd<'_>, Key),
        name: &[u8],
        key: Key,
        dir_path: impl FnOnce() -> Option<Vec<super::name::Name>>,
    ) -> bool {
        if self.none {
            return false;
        }
        let by_name = self.name(dir, name, dir_path);
        let by_inode = self.inode(key);
        if by_name && !by_inode {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(descriptor) = openat(dir_descriptor, name, flags, Mode::empty()) {
                self.learn(key, descriptor);
            }
        }
        by_name || by_inode
    }
}

fn open(path: &Path, follow: OFlags) -> Option<(Key, OwnedFd)> {
    let descriptor = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC | follow, Mode::empty()).ok()?;
    let stat = statx(&descriptor, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok()?;
    Some((super::attr::key(&stat), descriptor))
}
