//! Attributes as the mount gets them: statx(2), what the user of here may do, and whether to trust it for long.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use rustix::{
    fs::{
        Access, AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, accessat, listxattr, llistxattr, makedev, statx,
    },
    io::Errno,
};

use remotely_proto::fs::{Attr, Stamp, Time, access, flag};

use super::node::Key;

/// What is asked of statx(2).
pub(super) const MASK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Which inode it is.
pub(super) fn key(stat: &Statx) -> Key {
    Key { dev: makedev(stat.stx_dev_major, stat.stx_dev_minor), ino: stat.stx_ino }
}

/// Which state of it.
pub(super) fn stamp(stat: &Statx) -> Stamp {
    Stamp { size: stat.stx_size, mtime: time(stat.stx_mtime), ctime: time(stat.stx_ctime) }
}

/// Its type.
pub(super) fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(stat.stx_mode))
}

pub(super) fn time(time: StatxTimestamp) -> Time {
    Time { sec: time.tv_sec, nsec: time.tv_nsec }
}

/// State of what a descriptor is open on; O_PATH is enough.
pub(super) fn stat(descriptor: impl AsFd) -> Result<Statx, Errno> {
    statx(descriptor, "", AtFlags::EMPTY_PATH, MASK)
}

/// State of a name. Never follows it, never mounts it.
pub(super) fn stat_name(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Statx, Errno> {
    statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, MASK)
}

/// The path by which calls that take none of our descriptors reach what one is open on.
pub(super) fn proc_path(descriptor: impl AsFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd())
}

/// Where the inode is, for the calls that have to be made besides statx(2).
#[derive(Debug, Clone, Copy)]
pub(super) enum Seat<'a> {
    /// A descriptor of it.
    Open(BorrowedFd<'a>),
    /// A name in a directory.
    Name(BorrowedFd<'a>, &'a [u8]),
    /// The same, and the directory is this thread's working directory, which saves most of the path walk.
    Here(BorrowedFd<'a>, &'a CStr),
}

impl Seat<'_> {
    fn list_xattr(&self, list: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Seat::Open(descriptor) => listxattr(proc_path(descriptor), list),
            Seat::Name(dir, name) => {
                let mut path = proc_path(dir).into_bytes();
                path.push(b'/');
                path.extend_from_slice(name);
                llistxattr(path, list)
            }
            Seat::Here(_, name) => llistxattr(*name, list),
        }
    }

    fn may(&self, what: Access) -> bool {
        let allowed = match self {
            Seat::Open(descriptor) => accessat(rustix::fs::CWD, proc_path(descriptor), what, AtFlags::EACCESS),
            Seat::Name(dir, name) => accessat(dir, *name, what, AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW),
            Seat::Here(dir, name) => accessat(dir, *name, what, AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW),
        };
        // On a read-only file system the operation itself says so, and better.
        matches!(allowed, Ok(()) | Err(Errno::ROFS))
    }
}

/// Who this process is, as the kernel sees it when it opens files.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    groups: Vec<u32>,
    /// CAP_DAC_OVERRIDE: permission bits do not bind it.
    overrides: bool,
}

impl Identity {
    pub(super) fn of_this_process() -> Self {
        use rustix::{
            process::{getegid, geteuid, getgroups},
            thread::{CapabilitySet, capabilities},
        };
        let overrides = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::DAC_OVERRIDE));
        let groups = getgroups().unwrap_or_default().into_iter().map(|gid| gid.as_raw()).collect();
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw(), groups, overrides }
    }

    /// Capabilities decide for root, the owner's bits for the owner; without an ACL the bits decide for everybody.
    fn access(&self, stat: &Statx, acl: bool, seat: Seat<'_>) -> u8 {
        let mode = u32::from(stat.stx_mode);
        if kind(stat) == FileType::Symlink {
            return access::READ | access::WRITE | access::EXEC;
        }
        if self.overrides {
            let executable = kind(stat) == FileType::Directory || mode & 0o111 != 0;
            return access::READ | access::WRITE | if executable { access::EXEC } else { 0 };
        }
        // rwx are in the order of the bits of `access`.
        if stat.stx_uid == self.uid {
            return (mode >> 6 & 7) as u8;
        }
        if acl {
            let bits =
                [(Access::READ_OK, access::READ), (Access::WRITE_OK, access::WRITE), (Access::EXEC_OK, access::EXEC)];
            return bits.iter().filter(|(what, _)| seat.may(*what)).fold(0, |sum, (_, bit)| sum | bit);
        }
        let member = stat.stx_gid == self.gid || self.groups.contains(&stat.stx_gid);
        (if member { mode >> 3 & 7 } else { mode & 7 }) as u8
    }
}

/// What the attributes are for: what cannot be known from the inode alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlook {
    /// Changes to it by others are heard of.
    pub(super) watched: bool,
    /// Permission bits are what decides; not so on network file systems.
    pub(super) local: bool,
    /// Birth times stay.
    pub(super) births: bool,
}

/// Attributes for the mount.
pub(super) fn attr(identity: &Identity, stat: &Statx, seat: Seat<'_>, outlook: Outlook) -> Attr {
    let mut list = [0; 1024];
    let (bare, acl) = match seat.list_xattr(&mut list) {
        Ok(len) => (len == 0, list[..len].split(|&byte| byte == 0).any(|name| name == b"system.posix_acl_access")),
        Err(Errno::OPNOTSUPP) => (true, false),
        // Too long a list, or not for us to see: there may be an ACL.
        Err(_) => (false, true),
    };
    // Another name of the same inode may be in a directory that nobody watches.
    let linked = kind(stat) != FileType::Directory && stat.stx_nlink > 1;
    let flags = if bare { flag::NO_XATTR } else { 0 } | if !outlook.watched || linked { flag::UNWATCHED } else { 0 };
    Attr {
        dev: key(stat).dev,
        ino: stat.stx_ino,
        mode: stat.stx_mode.into(),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        blksize: stat.stx_blksize,
        atime: time(stat.stx_atime),
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
        btime: if outlook.births { time(stat.stx_btime) } else { Time::default() },
        access: identity.access(stat, acl || !outlook.local, seat),
        flags,
    }
}

/// All that a directory which may be read but not searched tells of an entry.
pub(super) fn unseen(kind: FileType, dev: u64, ino: u64) -> Attr {
    let zero = Time::default();
    Attr {
        dev,
        ino,
        mode: kind.as_raw_mode(),
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        blksize: 4096,
        atime: zero,
        mtime: zero,
        ctime: zero,
        btime: zero,
        access: 0,
        flags: flag::UNWATCHED,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn without_capabilities_the_first_class_that_fits_decides() {
        let path = std::env::temp_dir().join(format!("remotely-access-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o641)).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        let stat = stat(&file).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (owner, group) = (stat.stx_uid, stat.stx_gid);
        let access = |uid, gid, groups: &[u32]| {
            let identity = Identity { uid, gid, groups: groups.to_vec(), overrides: false };
            identity.access(&stat, false, Seat::Open(file.as_fd()))
        };
        assert_eq!(access(owner, group + 1, &[]), access::READ | access::WRITE);
        assert_eq!(access(owner + 1, group, &[]), access::READ);
        assert_eq!(access(owner + 1, group + 1, &[7, group]), access::READ);
        assert_eq!(access(owner + 1, group + 1, &[7]), access::EXEC);
    }
}
