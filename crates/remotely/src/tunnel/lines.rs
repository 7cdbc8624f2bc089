//! What is printed on hosts, as it arrives here.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use remotely_call::Line as Printed;

use crate::stderr;

/// Takes lines. Called on one thread at a time for one tunnel, and not to be kept long: what is printed waits behind it.
pub type OnLine = Arc<dyn Fn(&Line) + Send + Sync>;

/// A line that was printed on a host, by a function or what it started, or by the way there (ssh's messages).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What the tunnel calls the host.
    pub host: String,
    /// On standard error rather than on standard output.
    pub is_error: bool,
    /// What was printed, without the newline; a line of more than 16 KiB comes in parts.
    pub bytes: Bytes,
}

/// Shows lines on standard error.
pub(super) fn shown() -> OnLine {
    Arc::new(|line| {
        let mut text = format!("[{}] ", line.host).into_bytes();
        text.extend_from_slice(&line.bytes);
        text.push(b'\n');
        stderr::write(&text);
    })
}

/// Bytes of the end of what is printed on standard error that are kept for errors.
const TAIL: usize = 4096;

/// Hands lines out, and keeps the last that were printed on standard error.
pub(super) struct Lines {
    host: String,
    on_line: OnLine,
    tail: Mutex<Vec<u8>>,
    /// The beginning of a line of the way there.
    begun: Mutex<Vec<u8>>,
}

impl Lines {
    pub(super) fn new(host: String, on_line: OnLine) -> Arc<Self> {
        Arc::new(Self { host, on_line, tail: Mutex::default(), begun: Mutex::default() })
    }

    pub(super) fn take(&self, Printed { is_error, bytes }: Printed) {
        if is_error {
            let mut tail = lock(&self.tail);
            tail.extend_from_slice(&bytes);
            tail.push(b'\n');
            let excess = tail.len().saturating_sub(TAIL);
            tail.drain(..excess);
        }
        (self.on_line)(&Line { host: self.host.clone(), is_error, bytes });
    }

    /// Takes a piece of the standard error of the way there, as it comes; the end of it is nothing.
    pub(super) fn take_raw(&self, piece: &[u8]) {
        let mut begun = lock(&self.begun);
        begun.extend_from_slice(piece);
        while let Some(end) = begun.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = begun.drain(..=end).collect();
            line.truncate(line.trim_ascii_end().len());
            self.take(Printed { is_error: true, bytes: line.into() });
        }
    }

    /// The last lines that were printed on standard error.
    pub(super) fn tail(&self) -> String {
        String::from_utf8_lossy(&lock(&self.tail)).trim_end().to_owned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
