//! Our standard error, for messages of ours and of the transport: also right while the terminal is in raw mode. Used wherever
//! the user is told something.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::termios::OutputModes;

/// The terminal on which a line stands that is no message, and goes before the next one.
static LINE: Mutex<Option<Arc<OwnedFd>>> = Mutex::new(None);

/// Whether the line with the cursor is a bar of progress.
static BAR: AtomicBool = AtomicBool::new(false);

/// How long somebody who reads no more may keep [`write_now`].
const WRITE_WITHIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// How long a terminal that takes nothing at the moment may keep us from removing the line.
const REMOVE_WITHIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Shows a line without control characters on `screen`, the controlling terminal, opened without blocking: from the cursor
/// on, and the cursor stays where it is. It takes the place of the one before, and goes with the next [`write`] or
/// [`clear`]. Never waits; a terminal that takes nothing shows nothing.
#[cfg(feature = "run")]
pub(crate) fn show(screen: &Arc<OwnedFd>, text: &str) {
    // Whoever holds it is writing a message.
    let Ok(mut line) = LINE.try_lock() else { return };
    // Without wrapping (DECAWM): where the cursor is nobody knows, and a line that wraps is not removed as one.
    if put(screen, &format!("\x1b7\x1b[K\x1b[?7l{text}\x1b[?7h\x1b8")).is_ok() {
        *line = Some(Arc::clone(screen));
    }
}

/// Removes what [`show`] has shown. To be called before anything else happens to the terminal.
pub(crate) fn clear() {
    match LINE.try_lock() {
        Ok(mut line) => remove(&mut line),
        Err(TryLockError::Poisoned(line)) => remove(&mut line.into_inner()),
        // Whoever holds it is writing a message, and has removed the line first.
        Err(TryLockError::WouldBlock) => {}
    }
}

/// Says whether a bar of progress stands where the cursor is: who asks for something there takes its place.
#[cfg(feature = "cli")]
pub(crate) fn set_bar(there: bool) {
    BAR.store(there, Ordering::Relaxed);
}

/// Whether a bar of progress stands where the cursor is.
pub(crate) fn has_bar() -> bool {
    BAR.load(Ordering::Relaxed)
}

fn remove(line: &mut Option<Arc<OwnedFd>>) {
    let Some(screen) = line.take() else { return };
    // Somebody else who has the terminal now has the cursor, too.
    if in_foreground(&screen) != Some(true) {
        return;
    }
    if put(&screen, "\x1b[K") == Err(Errno::AGAIN) {
        let _ = rustix::event::poll(&mut [PollFd::new(&*screen, PollFlags::OUT)], Some(&REMOVE_WITHIN));
        let _ = put(&screen, "\x1b[K");
    }
}

fn put(screen: &OwnedFd, text: &str) -> rustix::io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::io::write(screen, text.as_bytes())).map(drop)
}

/// Writes all of it, however slowly it is read.
pub fn write(bytes: &[u8]) {
    remove(&mut LINE.lock().unwrap_or_else(PoisonError::into_inner));
    write_all(rustix::stdio::stderr(), &cooked(bytes), None);
}

/// Writes it for a thread that must not be kept: what is not taken soon is lost.
pub fn write_now(bytes: &[u8]) {
    clear();
    write_all(rustix::stdio::stderr(), &cooked(bytes), Some(&WRITE_WITHIN));
}

/// Whether this process group is in the foreground of `fd`; `None` if that isn't the controlling terminal.
pub(crate) fn in_foreground(fd: impl AsFd) -> Option<bool> {
    let foreground = rustix::termios::tcgetpgrp(fd).ok()?;
    // Not rustix's: a group whose leader is in another pid namespace has the number 0 here, which its `Pid` can't hold.
    // SAFETY: it takes nothing and can't fail.
    Some(foreground.as_raw_pid() == unsafe { libc::getpgrp() })
}

/// As the terminal wants it: in raw mode it does not return the carriage by itself.
fn cooked(bytes: &[u8]) -> Cow<'_, [u8]> {
    let modes = rustix::termios::tcgetattr(rustix::stdio::stderr());
    let raw = modes.is_ok_and(|modes| !modes.output_modes.contains(OutputModes::OPOST));
    if !raw {
        return bytes.into();
    }
    let mut text = Vec::with_capacity(bytes.len() + 16);
    for &byte in bytes {
        if byte == b'\n' {
            text.push(b'\r');
        }
        text.push(byte);
    }
    text.into()
}

/// As a writer, for the log, which keeps nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_now(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `within` is how long it may take nothing at all; without it, for ever.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8], within: Option<&Timespec>) {
    while !bytes.is_empty() {
        // Also a description that somebody else has made non-blocking is waited for.
        match rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::OUT)], within) {
            Ok(0) => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        // A pipe that has room takes so much without blocking.
        let piece = &bytes[..bytes.len().min(if within.is_some() { libc::PIPE_BUF } else { bytes.len() })];
        match rustix::io::write(fd, piece) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pipe_keeps_nobody_who_must_go_on() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let size = rustix::pipe::fcntl_getpipe_size(&write).unwrap();
        write_all(write.as_fd(), &vec![b'x'; size + 10_000], Some(&WRITE_WITHIN));
        drop(write);
        let mut taken = Vec::new();
        io::Read::read_to_end(&mut std::fs::File::from(read), &mut taken).unwrap();
        assert_eq!(taken.len(), size);
    }
}
