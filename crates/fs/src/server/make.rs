//! New inodes: files, directories, links and device nodes, made as the caller would have made them here.

use std::{os::fd::OwnedFd, sync::Arc};

use rustix::{
    fs::{FileType, Mode, OFlags, mkdirat, mknodat, openat, symlinkat},
    io::Errno,
};

use remotely_proto::fs::{Entry, File, Make};

use super::{
    attr::{self, Outlook, Seat},
    entry::Directory,
    name,
    node::Place,
    open::Located,
    service::{Hold, Service},
    thread,
};

/// Rounds of "it is there" and "it is gone" before a non-exclusive creation gives up.
const TRIES: usize = 16;

impl Service {
    /// open(2) with O_CREAT.
    pub(super) fn create(&self, make: &Make, flags: u32, file: File) -> Result<Entry, Errno> {
        let parent = self.locate_dir(make.parent)?;
        let dir = self.directory_for_change(&parent, make)?;
        let exclusive = flags & libc::O_EXCL as u32 != 0;
        let flags = data_flags(flags);
        for _ in 0..TRIES {
            match self.create_exclusive(&dir, make, flags) {
                Ok(descriptor) => {
                    let descriptor = Arc::new(descriptor);
                    self.files.add(file, make.node, Arc::clone(&descriptor));
                    return self.made(&parent, &dir, make);
                }
                Err(Errno::EXIST) if !exclusive => match self.create_existing(&dir, make, flags, file) {
                    Err(Errno::NOENT) => {}
                    result => return result,
                },
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EXIST)
    }

    fn create_exclusive(&self, dir: &Directory<'_>, make: &Make, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        self.as_caller(make, |mode| {
            self.with_descriptors(|| openat(dir.descriptor, &make.name[..], flags, Mode::from_raw_mode(mode)))
        })
    }

    fn create_existing(&self, dir: &Directory<'_>, make: &Make, flags: OFlags, file: File) -> Result<Entry, Errno> {
        let found = self.step((dir.descriptor, dir.key), &make.name)?;
        let descriptor = Arc::new(self.reopen(&found, flags)?);
        self.files.add(file, make.node, descriptor);
        self.register(make, &found);
        let stat = attr::stat(&found.descriptor)?;
        self.known.hold().changed(&found.stat, &stat);
        self.entry_of(dir, &make.name, Seat::Open(found.as_fd()), &stat)
    }

    /// mknod(2) and mkdir(2).
    pub(super) fn mknod(&self, make: &Make, rdev: u64) -> Result<Entry, Errno> {
        let kind = match FileType::from_raw_mode(make.mode) {
            FileType::Symlink => return Err(Errno::INVAL),
            FileType::Unknown if make.mode & libc::S_IFMT == 0 => FileType::RegularFile,
            FileType::Unknown => return Err(Errno::INVAL),
            kind => kind,
        };
        let parent = self.locate_dir(make.parent)?;
        let dir = self.directory_for_change(&parent, make)?;
        self.as_caller(make, |mode| {
            let mode = Mode::from_raw_mode(mode);
            match kind {
                FileType::Directory => mkdirat(dir.descriptor, &make.name[..], mode),
                kind => mknodat(dir.descriptor, &make.name[..], kind, mode, rdev),
            }
        })?;
        self.made(&parent, &dir, make)
    }

    /// symlink(2).
    pub(super) fn symlink(&self, make: &Make, target: &[u8]) -> Result<Entry, Errno> {
        let parent = self.locate_dir(make.parent)?;
        let dir = self.directory_for_change(&parent, make)?;
        // It could lead what will be hidden to where the mount has something open already.
        self.keep_missing_way(&dir, &make.name)?;
        self.as_caller(make, |_| symlinkat(target, dir.descriptor, &make.name[..]))?;
        self.made(&parent, &dir, make)
    }

    /// open(2) with O_TMPFILE.
    pub(super) fn tmpfile(&self, make: &Make, flags: u32, file: File) -> Result<Entry, Errno> {
        let parent = self.locate_dir(make.parent)?;
        let linkable = if flags & libc::O_EXCL as u32 == 0 { OFlags::empty() } else { OFlags::EXCL };
        let flags = data_flags(flags).difference(OFlags::TRUNC) | linkable | OFlags::TMPFILE | OFlags::CLOEXEC;
        let descriptor = Arc::new(self.as_caller(make, |mode| {
            self.with_descriptors(|| openat(parent.as_fd(), ".", flags, Mode::from_raw_mode(mode)))
        })?);
        let stat = attr::stat(&descriptor)?;
        {
            let mut nodes = self.nodes.hold();
            nodes.insert(make.node, (attr::key(&stat), attr::time(stat.stx_btime)), None);
            nodes.pin(make.node, Arc::clone(&descriptor));
        }
        self.files.add(file, make.node, Arc::clone(&descriptor));
        self.known.hold().settle(&stat);
        let outlook = Outlook { watched: true, local: true, births: true };
        let attr = attr::attr(&self.identity, &stat, Seat::Open(std::os::fd::AsFd::as_fd(&descriptor)), outlook);
        Ok(Entry { name: Vec::new().into(), attr, target: None })
    }

    fn directory_for_change<'a>(&self, found: &'a Located, make: &Make) -> Result<Directory<'a>, Errno> {
        name::check(&make.name)?;
        let dir = self.directory(found, !self.watches.contains(found.key()));
        // Someone has it already, though it does not show.
        if self.is_hidden_name(&dir, &make.name) { Err(Errno::ACCESS) } else { Ok(dir) }
    }

    /// What was just made, registered and described.
    fn made(&self, parent: &Located, dir: &Directory<'_>, make: &Make) -> Result<Entry, Errno> {
        let found = self.step((dir.descriptor, dir.key), &make.name)?;
        self.register(make, &found);
        if found.kind() == FileType::Directory {
            // The mount knows without asking that it is empty; from now on it would hear if that changes.
            self.directory(&found, true);
        }
        {
            let mut known = self.known.hold();
            known.settle(&found.stat);
            known.settle_name(dir.key, &make.name, Some(found.key()));
        }
        self.directory_changed(parent);
        self.entry_of(dir, &make.name, Seat::Open(found.as_fd()), &found.stat)
    }

    fn register(&self, make: &Make, found: &Located) {
        let place = Place { parent: make.parent, name: make.name.to_vec().into() };
        self.nodes.hold().insert(make.node, (found.key(), found.born()), Some(place));
    }

    /// A change of the mount's own has moved the times of a directory.
    pub(super) fn directory_changed(&self, before: &Located) {
        if let Ok(after) = attr::stat(&before.descriptor) {
            self.known.hold().changed(&before.stat, &after);
        }
    }

    /// Makes something with the umask of the caller, so that a default ACL takes its place as it does here; and, where we
    /// are root, with the user and group of the caller, so that the kernel allows and owns as it would for them.
    fn as_caller<T>(&self, make: &Make, act: impl FnOnce(u32) -> Result<T, Errno>) -> Result<T, Errno> {
        let mode = make.mode & 0o7777;
        let _caller = (self.identity.uid == 0 && make.caller != (self.identity.uid, self.identity.gid))
            .then(|| Caller::become_caller(make.caller, (self.identity.uid, self.identity.gid)))
            .transpose()?;
        if !thread::is_alone() {
            // The umask is the whole process's; better no default ACL than a wrong umask for everybody.
            return act(mode & !make.umask);
        }
        let old = rustix::process::umask(Mode::from_raw_mode(make.umask & 0o777));
        let result = act(mode);
        rustix::process::umask(old);
        result
    }
}

/// open(2) flags that are let through: what matters to the file here. What the mount's kernel does itself (O_DIRECT),
/// or could wait or lead elsewhere, is not; whether it appends each write says.
pub(super) fn data_flags(flags: u32) -> OFlags {
    let kept = libc::O_ACCMODE | libc::O_TRUNC | libc::O_SYNC | libc::O_DSYNC;
    OFlags::from_bits_retain(flags & kept as u32) | OFlags::NONBLOCK
}

/// This thread's file system user and group, while it acts for somebody else.
struct Caller {
    own: (u32, u32),
}

impl Caller {
    fn become_caller((uid, gid): (u32, u32), own: (u32, u32)) -> Result<Self, Errno> {
        // -1 only asks.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::INVAL);
        }
        let caller = Self { own };
        // The group first: changing it needs the capability that goes with the user.
        set_fs_ids(Some(gid), None);
        set_fs_ids(None, Some(uid));
        // These calls tell of no error but by not having had an effect.
        if fs_ids() == (uid, gid) { Ok(caller) } else { Err(Errno::PERM) }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        set_fs_ids(None, Some(self.own.0));
        set_fs_ids(Some(self.own.1), None);
    }
}

fn set_fs_ids(gid: Option<u32>, uid: Option<u32>) {
    // SAFETY: these raw calls concern the calling thread only and touch no memory.
    unsafe {
        if let Some(gid) = gid {
            libc::syscall(libc::SYS_setfsgid, gid);
        }
        if let Some(uid) = uid {
            libc::syscall(libc::SYS_setfsuid, uid);
        }
    }
}

fn fs_ids() -> (u32, u32) {
    // SAFETY: with -1 they change nothing and return what is set.
    unsafe { (libc::syscall(libc::SYS_setfsuid, u32::MAX) as u32, libc::syscall(libc::SYS_setfsgid, u32::MAX) as u32) }
}
