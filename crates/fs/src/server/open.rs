//! From a node to a descriptor: beneath the root, never through a symbolic link, and only if it is still the inode that
//! was bound. Everything that touches the file system comes through here first.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Statx, fcntl_getfl, fcntl_setfl, openat, openat2},
    io::Errno,
};

use remotely_proto::fs::{Node, Time};

use super::{
    attr,
    name::{self, Name},
    node::{DEPTH_MAX, Key, Place},
    service::{Hold, Service},
};

/// Most directories opened for one request; ends what circular or many-named bindings would make endless.
const STEPS_MAX: usize = 4 * DEPTH_MAX;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// An inode, found.
#[derive(Debug, Clone)]
pub(super) struct Located {
    /// Opened with O_PATH, or pinned.
    pub(super) descriptor: Arc<OwnedFd>,
    /// Its state when it was found.
    pub(super) stat: Statx,
}

impl Located {
    pub(super) fn key(&self) -> Key {
        attr::key(&self.stat)
    }

    pub(super) fn kind(&self) -> FileType {
        attr::kind(&self.stat)
    }

    /// Birth time, zero if the file system does not know it.
    pub(super) fn born(&self) -> Time {
        attr::time(self.stat.stx_btime)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Service {
    /// Finds the inode that a node stands for. ESTALE if it is unknown, or neither open nor where it was.
    pub(super) fn locate(&self, node: Node) -> Result<Located, Errno> {
        let (descriptor, stat) = match self.locate_within(node, 0, &mut 0) {
            Err(Errno::STALE) => (self.files.open_on(node).ok_or(Errno::STALE)?, None),
            located => located?,
        };
        let stat = stat.map_or_else(|| attr::stat(&descriptor), Ok)?;
        Ok(Located { descriptor, stat })
    }

    /// The same, if it is a directory.
    pub(super) fn locate_dir(&self, node: Node) -> Result<Located, Errno> {
        let located = self.locate(node)?;
        if located.kind() == FileType::Directory { Ok(located) } else { Err(Errno::NOTDIR) }
    }

    fn locate_within(
        &self,
        node: Node,
        depth: usize,
        steps: &mut usize,
    ) -> Result<(Arc<OwnedFd>, Option<Statx>), Errno> {
        let (key, born, pin, places) = {
            let nodes = self.nodes.hold();
            let inode = nodes.get(node).ok_or(Errno::STALE)?;
            (inode.key, inode.born, inode.pin.clone(), inode.places.clone())
        };
        // It may have come to be hidden since it was bound.
        if node != Node::ROOT && self.hidden.inode(key) {
            return Err(Errno::STALE);
        }
        if let Some(pin) = pin {
            return Ok((pin, None));
        }
        if let Some(descriptor) = self.directories.find(key, born) {
            return Ok((descriptor, None));
        }
        if depth >= DEPTH_MAX {
            return Err(Errno::STALE);
        }
        let mut failure = Errno::STALE;
        for (index, place) in places.iter().enumerate() {
            *steps += 1;
            if *steps > STEPS_MAX {
                return Err(Errno::STALE);
            }
            match self.try_place((key, born), place, depth, steps) {
                Ok(found) => {
                    if index > 0 {
                        self.nodes.hold().confirm(node, place);
                    }
                    return Ok((found.descriptor, Some(found.stat)));
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::LOOP) => {}
                Err(errno) => failure = errno,
            }
        }
        Err(failure)
    }

    fn try_place(
        &self,
        (key, born): (Key, Time),
        place: &Place,
        depth: usize,
        steps: &mut usize,
    ) -> Result<Located, Errno> {
        let (parent, _) = self.locate_within(place.parent, depth + 1, steps)?;
        let parent_key = self.nodes.hold().get(place.parent).ok_or(Errno::STALE)?.key;
        let found = self.step((parent.as_fd(), parent_key), &place.name)?;
        if found.key() == key && found.born().same_birth(born) { Ok(found) } else { Err(Errno::STALE) }
    }

    /// One name down. ENOENT for what is hidden. Directories are remembered.
    pub(super) fn step(&self, dir: (BorrowedFd<'_>, Key), name: &[u8]) -> Result<Located, Errno> {
        name::check(name)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = self.with_descriptors(|| openat2(dir.0, name, flags, Mode::empty(), BENEATH))?;
        let found = Located { stat: attr::stat(&descriptor)?, descriptor: Arc::new(descriptor) };
        if self.hidden.found(dir.1, name, found.key(), || Some(Arc::clone(&found.descriptor))) {
            return Err(Errno::NOENT);
        }
        if found.kind() == FileType::Directory {
            self.directories.keep(found.key(), found.born(), Arc::clone(&found.descriptor));
        }
        Ok(found)
    }

    /// Finds what is at a path from the root now.
    pub(super) fn walk(&self, path: &[Name]) -> Result<Located, Errno> {
        let mut at = Located { stat: attr::stat(&self.root)?, descriptor: Arc::clone(&self.root) };
        for name in path {
            at = self.step((at.as_fd(), at.key()), name)?;
        }
        Ok(at)
    }

    /// Opens what was found for its data. Only regular files and directories: opening anything else can wait for ever,
    /// or do something. The files of proc(5) are refused, because they lead past all that is checked here.
    pub(super) fn reopen(&self, located: &Located, flags: OFlags) -> Result<OwnedFd, Errno> {
        match located.kind() {
            FileType::RegularFile => {}
            FileType::Directory if flags.intersection(OFlags::ACCMODE) == OFlags::RDONLY => {}
            FileType::Directory => return Err(Errno::ISDIR),
            FileType::Symlink => return Err(Errno::LOOP),
            FileType::Fifo | FileType::Socket => return Err(Errno::NXIO),
            _ => return Err(Errno::INVAL),
        }
        if self.mount_kinds.of(located.key().dev, located.as_fd()).processes && located.kind() == FileType::RegularFile
        {
            return Err(Errno::ACCESS);
        }
        self.reopen_checked(located.as_fd(), flags)
    }

    /// The same for a descriptor that is known to be a regular file or a directory.
    pub(super) fn reopen_checked(&self, descriptor: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        // Through /proc the very inode is opened that was checked, whatever its name means by now.
        let path = attr::proc_path(descriptor);
        let flags = flags.difference(OFlags::NONBLOCK) | OFlags::CLOEXEC | OFlags::NOCTTY;
        let open = |flags| self.with_descriptors(|| openat(CWD, &path, flags, Mode::empty()));
        match open(flags | OFlags::NONBLOCK) {
            // Somebody has a lease on it, and gives it up now; whoever opens it here waits for that, too.
            Err(Errno::AGAIN) => {
                let descriptor = open(flags)?;
                fcntl_setfl(&descriptor, fcntl_getfl(&descriptor)? | OFlags::NONBLOCK)?;
                Ok(descriptor)
            }
            opened => opened,
        }
    }

    /// Runs a call that makes a descriptor. If there are none left, those kept for speed are given up.
    pub(super) fn with_descriptors<T>(&self, mut open: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
        match rustix::io::retry_on_intr(&mut open) {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.directories.clear();
                self.readers.clear();
                open()
            }
            result => result,
        }
    }

    /// True if changes to this node by others are heard of: some directory that names it is watched, or nobody can
    /// name it any more.
    pub(super) fn is_watched(&self, node: Node) -> bool {
        let parents: Vec<Key> = {
            let nodes = self.nodes.hold();
            let Some(inode) = nodes.get(node) else { return false };
            let parents = inode.places.iter().filter_map(|place| nodes.get(place.parent));
            parents.map(|parent| parent.key).collect()
        };
        parents.is_empty() || parents.iter().any(|parent| self.watches.contains(*parent))
    }
}
