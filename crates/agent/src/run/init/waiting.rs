//! Whether somebody waits for keys: looks at the processes in the foreground of a command's terminal, and what they are
//! blocked in. Started by pid 1 ([`super::first`]) as a process of its own, which ends with what it found: memory of others can only be
//! read by waiting for their page faults, and pid 1 must wait for nobody.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, StatxFlags};
use rustix::process::Pid;

use super::blocked::{self, Device, OWN_TERMINAL, POLL_ENTRY, Stat, Wait};
use crate::sys::{self, Fork};

/// How often is looked.
const INTERVAL: Duration = Duration::from_millis(100);
/// With many processes less often: no more than one part in so many of the time is spent on it.
const SHARE: u32 = 50;

/// Most threads whose system call is looked at in one go.
const THREADS_MAX: u32 = 4096;
/// Most descriptors that are looked at of one that polls.
const POLLED_MAX: usize = 1024;
/// Longest text of /proc that is read: that of an epoll instance has a line for each descriptor.
const TEXT_MAX: usize = 64 << 10;

/// Exit codes of the process.
const FOUND_READ: i32 = 10;
const FOUND_POLL: i32 = 11;

/// Somebody waits for input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// In a read(2).
    Read,
    /// Until there is some.
    Poll,
}

impl Found {
    /// What the process that [`start`] made ended with.
    pub(super) fn of(status: i32) -> Option<Self> {
        match libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)) {
            Some(FOUND_READ) => Some(Self::Read),
            Some(FOUND_POLL) => Some(Self::Poll),
            _ => None,
        }
    }
}

/// The number of a terminal; none if that's no device.
pub(super) fn device(terminal: BorrowedFd<'_>) -> Option<Device> {
    let stat = rustix::fs::fstat(terminal).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    (major != 0).then_some(Device { major, minor })
}

/// Whether this process has a controlling terminal. `proc` as for [`start`].
pub(super) fn has_terminal(proc: BorrowedFd<'_>) -> bool {
    let none = Device { major: 0, minor: 0 };
    text(proc, "self/stat").and_then(|text| Stat::parse(&text)).is_some_and(|stat| stat.terminal != none)
}

/// Forks a process that looks until it has found somebody. `proc`: a proc file system that shows them. `polls`: not only a read counts.
pub(super) fn start(proc: BorrowedFd<'_>, terminal: Device, polls: bool) -> io::Result<Pid> {
    match sys::fork()? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => {
            let mut pause = INTERVAL;
            loop {
                std::thread::sleep(pause);
                let started = Instant::now();
                match look(proc, terminal, polls) {
                    Some(Found::Read) => sys::exit_now(FOUND_READ),
                    Some(Found::Poll) => sys::exit_now(FOUND_POLL),
                    None => pause = INTERVAL.max(started.elapsed() * SHARE),
                }
            }
        }
    }
}

/// Looks once. What can't be read, because it is gone or not allowed, doesn't wait.
fn look(proc: BorrowedFd<'_>, terminal: Device, polls: bool) -> Option<Found> {
    let mut left = THREADS_MAX;
    let mut found = None;
    for pid in numbers(proc, c".") {
        let Some(stat) = text(proc, &format!("{pid}/stat")).and_then(|text| Stat::parse(&text)) else { continue };
        if stat.terminal != terminal || stat.group != stat.foreground {
            continue;
        }
        let Ok(process) = rustix::fs::openat(proc, format!("{pid}/task"), DIRECTORY, Mode::empty()) else { continue };
        let threads = if stat.threads == 1 { vec![pid] } else { numbers(process.as_fd(), c".") };
        for thread in threads {
            let Some(fewer) = left.checked_sub(1) else { return found };
            left = fewer;
            let thread = Thread { tasks: process.as_fd(), number: thread, terminal };
            match thread.waits(polls) {
                Some(Found::Read) => return Some(Found::Read),
                Some(Found::Poll) => found = Some(Found::Poll),
                None => {}
            }
        }
    }
    found
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A thread of a process in the foreground.
struct Thread<'a> {
    /// Its process's directory `task`.
    tasks: BorrowedFd<'a>,
    number: u32,
    terminal: Device,
}

impl Thread<'_> {
    fn waits(&self, polls: bool) -> Option<Found> {
        // One that was stopped in a call still shows it.
        if !Stat::parse(&self.text("stat")?)?.sleeps {
            return None;
        }
        let wait = Wait::parse(&self.text("syscall")?)?;
        if let Wait::Read { fd } = wait {
            return self.is_terminal(fd).then_some(Found::Read);
        }
        (polls && self.polls(wait)?).then_some(Found::Poll)
    }

    fn polls(&self, wait: Wait) -> Option<bool> {
        Some(match wait {
            Wait::Read { .. } => false,
            Wait::Poll { entries, count } => {
                let count = usize::try_from(count).unwrap_or(POLLED_MAX).min(POLLED_MAX);
                self.any(blocked::polled(&self.memory(entries, count * POLL_ENTRY)?))
            }
            Wait::Select { set, count } => {
                let bytes = usize::try_from(count.div_ceil(8)).unwrap_or(TEXT_MAX).min(TEXT_MAX);
                self.any(blocked::selected(&self.memory(set, bytes)?, count))
            }
            Wait::Epoll { fd } => self.any(blocked::registered(&self.text(&format!("fdinfo/{fd}"))?)),
        })
    }

    fn any(&self, mut fds: impl Iterator<Item = u64>) -> bool {
        fds.by_ref().take(POLLED_MAX).any(|fd| self.is_terminal(fd))
    }

    fn is_terminal(&self, fd: u64) -> bool {
        // What is known already of a file of a mount is enough: nobody is asked for it.
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        let path = format!("{}/fd/{fd}", self.number);
        rustix::fs::statx(self.tasks, path, flags, StatxFlags::TYPE).is_ok_and(|file| {
            let device = Device { major: file.stx_rdev_major, minor: file.stx_rdev_minor };
            u32::from(file.stx_mode) & libc::S_IFMT == libc::S_IFCHR && [self.terminal, OWN_TERMINAL].contains(&device)
        })
    }

    fn text(&self, name: &str) -> Option<Vec<u8>> {
        text(self.tasks, &format!("{}/{name}", self.number))
    }

    /// What is there of it.
    fn memory(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let memory = open(self.tasks, &format!("{}/mem", self.number))?;
        let mut bytes = vec![0; length];
        let read = rustix::io::pread(&memory, &mut bytes[..], address).ok()?;
        bytes.truncate(read);
        Some(bytes)
    }
}

/// Names in a directory that are numbers.
fn numbers(parent: BorrowedFd<'_>, name: &CStr) -> Vec<u32> {
    let directory = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()).and_then(Dir::new);
    let entries = directory.into_iter().flat_map(|directory| directory.map_while(Result::ok));
    entries.filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok()).collect()
}

fn text(directory: BorrowedFd<'_>, path: &str) -> Option<Vec<u8>> {
    let file = open(directory, path)?;
    let (mut text, mut read) = (vec![0; 4096], 0);
    loop {
        match rustix::io::read(&file, &mut text[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(_) => return None,
        }
        if read == text.len() {
            if read >= TEXT_MAX {
                break;
            }
            text.resize(read * 2, 0);
        }
    }
    text.truncate(read);
    Some(text)
}

fn open(directory: BorrowedFd<'_>, path: &str) -> Option<OwnedFd> {
    rustix::fs::openat(directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}
