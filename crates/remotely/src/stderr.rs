//! Our standard error, for messages of ours and of the transport: also right while the terminal is in raw mode, and
//! never in the way (what cannot be written is lost). Used wherever the user is told something during a run.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::termios::OutputModes;

use crate::run::terminal;

/// The terminal on which a line stands that is no message, and goes before the next one.
static LINE: Mutex<Option<Arc<OwnedFd>>> = Mutex::new(None);

/// How long a terminal that takes nothing at the moment may keep us from removing the line.
const REMOVE_WITHIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Shows a line without control characters on `screen`, the controlling terminal, opened without blocking: from the cursor
/// on, and the cursor stays where it is. It takes the place of the one before, and goes with the next [`write`] or
/// [`clear`]. Never waits; a terminal that takes nothing shows nothing.
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

fn remove(line: &mut Option<Arc<OwnedFd>>) {
    let Some(screen) = line.take() else { return };
    // Somebody else who has the terminal now has the cursor, too.
    if terminal::in_foreground(&screen) != Some(true) {
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

/// Writes all of it.
pub fn write(bytes: &[u8]) {
    let mut line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
    remove(&mut line);
    let stderr = rustix::stdio::stderr();
    // A terminal in raw mode does not return the carriage by itself.
    let raw = rustix::termios::tcgetattr(stderr).is_ok_and(|modes| !modes.output_modes.contains(OutputModes::OPOST));
    if !raw {
        return write_all(stderr, bytes);
    }
    let mut text = Vec::with_capacity(bytes.len() + 16);
    for &byte in bytes {
        if byte == b'\n' {
            text.push(b'\r');
        }
        text.push(byte);
    }
    write_all(stderr, &text);
}

/// As a writer, for the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR) => {}
            // Another program may have made the shared description non-blocking.
            Err(rustix::io::Errno::AGAIN) => {
                let _ = rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None);
            }
            Err(_) => return,
        }
    }
}
