//! The open descriptors of this process, classified: how each is made anew for the command there. Called by `run`
//! before it opens anything of its own. Never changes the status flags of a descriptor, which others share.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use remotely_proto::exec::{FdKind, FdSpec};
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::FdFlags;
use rustix::net::SocketType;

use super::inherited;
use crate::options::TtyMode;

/// Flags of open(2) that a file of the command gets again: access mode, status flags, and what names a kind of open.
const KEPT_FLAGS: i32 = libc::O_ACCMODE
    | libc::O_APPEND
    | libc::O_NONBLOCK
    | libc::O_SYNC
    | libc::O_DSYNC
    | libc::O_DIRECT
    | libc::O_NOATIME
    | libc::O_PATH
    | libc::O_DIRECTORY;

/// Which files the mount shows as they are here.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Paths that do not exist for the command.
    pub(super) hidden: Vec<PathBuf>,
    /// Paths that are the host's own.
    pub(super) host: Vec<PathBuf>,
    /// Nothing of here is in the place where it is here (`feign`).
    pub(super) nothing: bool,
}

impl Shown {
    fn shows(&self, path: &Path) -> bool {
        let beneath = |top: &PathBuf| path.starts_with(top);
        let own = [Path::new("/proc"), Path::new("/sys"), Path::new("/dev")].iter().any(|top| path.starts_with(top));
        !self.nothing && !own && !self.hidden.iter().any(beneath) && !self.host.iter().any(beneath)
    }
}

/// What the command's descriptors are.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// In ascending order.
    pub(super) specs: Vec<FdSpec>,
    /// Descriptors that cannot be carried, with what they are.
    pub(super) left_out: Vec<(u32, &'static str)>,
}

impl Survey {
    /// The lowest descriptor that is the terminal: its stream carries the terminal.
    pub(super) fn terminal(&self) -> Option<u32> {
        self.specs.iter().find(|spec| spec.kind == FdKind::Tty).map(|spec| spec.fd)
    }
}

/// Numbers of the descriptors that this process was started with: those without close-on-exec, because all that Rust
/// opens has it.
pub(super) fn inherited_fds() -> Vec<u32> {
    let kept = |fd: &u32| {
        // SAFETY: the descriptor is only asked for its flags; if it is not open the call fails.
        let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(*fd as RawFd) });
        flags.is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) && !inherited::was_closed(*fd)
    };
    let mut fds: Vec<u32> = match std::fs::read_dir("/proc/self/fd") {
        Ok(entries) => {
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(kept).collect()
        }
        // Without /proc: as far as anybody usually goes.
        Err(_) => (0..1024).filter(kept).collect(),
    };
    fds.sort_unstable();
    fds
}

/// Classifies `fds`, which are open and in ascending order.
pub(super) fn survey(fds: &[u32], shown: &Shown, tty: TtyMode) -> Survey {
    let opens: Vec<Open> = fds.iter().filter_map(|&fd| Open::look(fd)).collect();
    let terminal = match tty {
        TtyMode::Never => None,
        TtyMode::Auto | TtyMode::Always => opens.iter().find(|open| open.fd <= 2 && open.terminal.is_some()),
    }
    .and_then(|open| open.terminal);
    let mut survey = Survey::default();
    for open in &opens {
        let is_terminal =
            (open.terminal.is_some() && open.terminal == terminal) || (tty == TtyMode::Always && open.fd <= 2);
        let kind = if is_terminal { Ok(FdKind::Tty) } else { open.kind(shown) };
        match kind {
            Ok(kind) => {
                // A terminal that is open both ways may be read as 0 and written as 1: only what is carried the same way
                // can be the same there.
                let of = survey.specs.iter().find(|spec| {
                    std::mem::discriminant(&spec.kind) == std::mem::discriminant(&kind)
                        && opens.iter().any(|other| other.fd == spec.fd && open.same_description(other))
                });
                let kind = of.map_or(kind, |spec| FdKind::Same { of: spec.fd });
                survey.specs.push(FdSpec { fd: open.fd, kind });
            }
            Err(what) => survey.left_out.push((open.fd, what)),
        }
    }
    survey
}

/// What can be found out about an open descriptor.
struct Open {
    fd: u32,
    stat: Stat,
    flags: i32,
    /// Device of the terminal, if it is one: /dev/tty has the device of what it stands for.
    terminal: Option<u64>,
}

impl Open {
    fn look(fd: u32) -> Option<Self> {
        // SAFETY: the number comes from the table of this process and nobody closes descriptors meanwhile.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd as RawFd) };
        let stat = rustix::fs::fstat(borrowed).ok()?;
        let flags = rustix::fs::fcntl_getfl(borrowed).ok()?.bits() as i32;
        let terminal = rustix::termios::isatty(borrowed).then(|| terminal_device(borrowed).unwrap_or(stat.st_rdev));
        Some(Self { fd, stat, flags, terminal })
    }

    fn kind(&self, shown: &Shown) -> Result<FdKind, &'static str> {
        let file_type = FileType::from_raw_mode(self.stat.st_mode);
        match file_type {
            FileType::CharacterDevice if self.stat.st_rdev == rustix::fs::makedev(1, 3) => {
                Ok(FdKind::Null { flags: (self.flags & KEPT_FLAGS) as u32 })
            }
            FileType::Directory => self.file(shown).ok_or("a directory that the command cannot see"),
            FileType::RegularFile if self.flags & libc::O_PATH != 0 => {
                self.file(shown).ok_or("a file that the command cannot see")
            }
            // A file that is only written to, with O_APPEND or without, is written by this process: others may hold the
            // same description and write by its offset (`(RUN a; b) >f`, `RUN a >f 2>&1 | b`), which a second
            // description over there would not move.
            FileType::RegularFile => match self.access() {
                libc::O_WRONLY => Ok(FdKind::PipeOut),
                // What has no name that leads to it here is read by this process, too.
                libc::O_RDONLY => Ok(self.file(shown).unwrap_or(FdKind::PipeIn)),
                _ => self.file(shown).ok_or("a file without a name, open for reading and writing"),
            },
            FileType::Socket => match rustix::net::sockopt::socket_type(self.borrow()) {
                Ok(SocketType::STREAM) if rustix::net::sockopt::socket_acceptconn(self.borrow()) != Ok(true) => {
                    Ok(FdKind::Socket)
                }
                Ok(SocketType::STREAM) => Err("a listening socket"),
                _ => Err("a socket that is not a stream"),
            },
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                // By convention where it is open both ways.
                match (self.access(), self.fd) {
                    (libc::O_RDONLY, _) | (libc::O_RDWR, 0) => Ok(FdKind::PipeIn),
                    (libc::O_WRONLY | libc::O_RDWR, _) => Ok(FdKind::PipeOut),
                    _ => Err("a descriptor that is open for nothing"),
                }
            }
            _ => Err("an object of the kernel here"),
        }
    }

    /// As a file opened by its path, if the path leads to it and is visible there.
    fn file(&self, shown: &Shown) -> Option<FdKind> {
        let path = std::fs::read_link(format!("/proc/self/fd/{}", self.fd)).ok()?;
        let found = rustix::fs::stat(&path).ok()?;
        if !path.is_absolute()
            || !shown.shows(&path)
            || (found.st_dev, found.st_ino) != (self.stat.st_dev, self.stat.st_ino)
        {
            return None;
        }
        // The position in a directory is a cookie of the file system here.
        let regular = FileType::from_raw_mode(self.stat.st_mode) == FileType::RegularFile;
        let offset = if regular && self.flags & libc::O_PATH == 0 { rustix::fs::tell(self.borrow()).ok()? } else { 0 };
        Some(FdKind::File {
            path: path.as_os_str().as_bytes().to_vec().into(),
            flags: (self.flags & KEPT_FLAGS) as u32,
            offset,
            dev: self.stat.st_dev,
            ino: self.stat.st_ino,
        })
    }

    fn access(&self) -> i32 {
        self.flags & libc::O_ACCMODE
    }

    fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: as in `look`.
        unsafe { BorrowedFd::borrow_raw(self.fd as RawFd) }
    }

    /// Whether both are one open file description, as after dup(2): then they share an offset and an order.
    fn same_description(&self, other: &Self) -> bool {
        let identity = |open: &Self| (open.stat.st_dev, open.stat.st_ino, open.flags & KEPT_FLAGS);
        if identity(self) != identity(other) {
            return false;
        }
        // Writers to one pipe, and appenders to one file, have an order even with descriptions of their own.
        let ordered = match FileType::from_raw_mode(self.stat.st_mode) {
            FileType::Fifo => true,
            FileType::RegularFile => self.flags & libc::O_APPEND != 0,
            _ => false,
        };
        if ordered {
            return true;
        }
        let pid = std::process::id();
        // SAFETY: kcmp(2) takes five integers and changes nothing; KCMP_FILE is 0.
        match unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, 0, self.fd, other.fd) } {
            0 => true,
            // Not in this kernel, or refused by a seccomp filter: what moves together is taken for one.
            -1 => rustix::fs::tell(self.borrow()).ok() == rustix::fs::tell(other.borrow()).ok(),
            _ => false,
        }
    }
}

fn terminal_device(fd: BorrowedFd<'_>) -> Option<u64> {
    let mut device: libc::c_uint = 0;
    // SAFETY: TIOCGDEV writes one unsigned int.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGDEV, &mut device) };
    (done == 0).then_some(u64::from(device))
}

/// Takes a descriptor over: an own one above 2 that is closed on exec, so that it can be closed without freeing a number
/// below 3, and so that no child of this process holds a pipe open. What stood at `fd` is gone; 0 and 1 become
/// /dev/null, and 2 stays, because this process has something to say, too.
pub(super) fn take(fd: u32) -> rustix::io::Result<OwnedFd> {
    // SAFETY: `fd` is open (it was surveyed), and is not used any more by its number where it is closed below.
    let old = unsafe { BorrowedFd::borrow_raw(fd as RawFd) };
    let own = rustix::io::fcntl_dupfd_cloexec(old, 3)?;
    if fd > 2 {
        // SAFETY: see above; nobody else owns this number.
        drop(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
    } else if fd < 2 {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
        if fd == 0 { rustix::stdio::dup2_stdin(&null)? } else { rustix::stdio::dup2_stdout(&null)? }
    }
    Ok(own)
}

/// A name for messages.
pub(super) fn name(fd: u32) -> String {
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let path: &OsStr = path.as_os_str();
    format!("descriptor {fd} ({})", path.as_bytes().escape_ascii())
}

#[cfg(test)]
#[path = "descriptor_tests.rs"]
mod tests;
