//! Our standard error, for messages of ours and of the transport: also right while the terminal is in raw mode, and
//! never in the way (what cannot be written is lost). Used wherever the user is told something during a run.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::termios::OutputModes;

/// Writes all of it.
pub fn write(bytes: &[u8]) {
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
