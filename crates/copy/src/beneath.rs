//! Opening files of a directory without ever leaving it. Used by both sides for everything below source and destination.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use crate::seat::check_name;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Opens an entry of a directory; no symbolic link is followed. Never waits for a fifo.
pub(crate) fn open_entry(dir: impl AsFd, name: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    check_name(name)?;
    // openat2(2) refuses flags that mean nothing beside O_PATH.
    let calm = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK | OFlags::NOCTTY };
    let flags = flags | calm | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    loop {
        match openat2(&dir, name, flags, mode, BENEATH) {
            // A rename elsewhere on the machine went between.
            Err(Errno::AGAIN) => {}
            // Linux before 5.6, or a container that does not know the call. One checked component leads nowhere else.
            Err(Errno::NOSYS | Errno::PERM) => return openat(&dir, name, flags, mode),
            result => return result,
        }
    }
}

/// Opens a directory to make things in it; if it may not be listed, so that it can at least be entered.
pub(crate) fn open_directory(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    match open_entry(&dir, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => open_entry(&dir, name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()),
        result => result,
    }
}

/// Opens what a chain of names leads to, from `dir` on, with `flags` for the last of them.
pub(crate) fn open_chain(dir: BorrowedFd<'_>, chain: &[&[u8]], flags: OFlags) -> Result<OwnedFd, Errno> {
    let Some((last, before)) = chain.split_last() else { return rustix::io::fcntl_dupfd_cloexec(dir, 3) };
    let mut at: Option<OwnedFd> = None;
    for name in before {
        let from = at.as_ref().map_or(dir, AsFd::as_fd);
        at = Some(open_entry(from, name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?);
    }
    open_entry(at.as_ref().map_or(dir, AsFd::as_fd), last, flags, Mode::empty())
}

/// A path beneath another one.
pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if name.is_empty() {
        return path.to_vec();
    }
    let slash: &[u8] = if path.is_empty() || path.ends_with(b"/") { b"" } else { b"/" };
    [path, slash, name].concat()
}

/// A path that the user wrote for the host: `~` and what is relative are beneath the home directory.
pub(crate) fn at_home(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let home = home.or_else(|| std::env::current_dir().ok()).unwrap_or_else(|| "/".into());
    let rest = match path {
        b"~" => return home,
        [b'~', b'/', rest @ ..] => {
            let start = rest.iter().position(|&byte| byte != b'/').unwrap_or(rest.len());
            &rest[start..]
        }
        path => path,
    };
    // A slash at the end, which means something, stays.
    home.join(std::ffi::OsStr::from_bytes(rest))
}
