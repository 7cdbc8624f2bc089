//! What is sent of a file besides its content.

use std::os::fd::AsFd;

use remotely_proto::{
    file::{Meta, XATTRS_MAX, Xattr},
    fs::Time,
};
use rustix::{
    fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, fgetxattr, flistxattr, makedev, statx},
    io::Errno,
};

/// Longest list of names, longest value (listxattr(2), xattr(7)).
const LIST_MAX: usize = 64 << 10;

/// State of what a descriptor is open on.
pub(super) fn stat(descriptor: impl AsFd) -> Result<Statx, Errno> {
    statx(descriptor, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

/// State of a name; never followed.
pub(super) fn stat_entry(dir: impl AsFd, name: &[u8]) -> Result<Statx, Errno> {
    statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS)
}

pub(super) fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(stat.stx_mode))
}

/// Which inode it is.
pub(super) fn identity(stat: &Statx) -> (u64, u64) {
    (makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino)
}

/// Whether the content is the same as far as the inode tells.
pub(super) fn same_state(a: &Statx, b: &Statx) -> bool {
    let state = |stat: &Statx| (identity(stat), stat.stx_size, time(stat.stx_mtime), time(stat.stx_ctime));
    state(a) == state(b)
}

pub(super) fn time(time: StatxTimestamp) -> Time {
    Time { sec: time.tv_sec, nsec: time.tv_nsec }
}

pub(super) fn meta(stat: &Statx) -> Meta {
    Meta {
        mode: stat.stx_mode.into(),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        atime: time(stat.stx_atime),
        mtime: time(stat.stx_mtime),
        xattrs: Vec::new(),
    }
}

/// All extended attributes that this process may see. A file system without any has none.
pub(super) fn xattrs(descriptor: impl AsFd) -> Result<Vec<Xattr>, Errno> {
    let mut names = vec![0; LIST_MAX];
    let len = match flistxattr(&descriptor, names.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        result => result?,
    };
    let (mut found, mut bytes) = (Vec::new(), 0);
    let mut value = Vec::new();
    for name in names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        value.resize(LIST_MAX, 0);
        let len = match fgetxattr(&descriptor, name, value.as_mut_slice()) {
            // Removed just now.
            Err(Errno::NODATA) => continue,
            result => result?,
        };
        bytes += name.len() + len;
        if bytes > XATTRS_MAX {
            return Err(Errno::TOOBIG);
        }
        found.push(Xattr { name: name.to_vec().into(), value: value[..len].to_vec().into() });
    }
    Ok(found)
}
