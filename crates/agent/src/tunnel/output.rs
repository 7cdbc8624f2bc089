//! What called functions print, and what they start prints: read from the pipes behind standard output and standard error, and
//! sent to the client line by line. What a call has printed goes out before what it returns.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use remotely_call::{Doors, Line, Printer};
use remotely_proto::call::LINE_MAX;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::keeper::Printed;
use crate::sys;

/// Bytes that are taken at once: more than the pipe holds, so that all that has been printed is among them.
const TAKE_MAX: usize = 1 << 20;

static OUTPUT: OnceLock<Output> = OnceLock::new();

struct Output {
    printer: Arc<Printer>,
    sources: [Mutex<Source>; 2],
}

struct Source {
    reader: OwnedFd,
    is_error: bool,
    /// The beginning of a line.
    begun: BytesMut,
    ended: bool,
}

/// Starts to send what is printed. Once in a process.
pub(super) fn start(printed: Printed, doors: &Arc<Doors>) -> io::Result<()> {
    let Printed { output, errors } = printed;
    let watched = [output.try_clone()?, errors.try_clone()?];
    let source = |reader, is_error| Mutex::new(Source { reader, is_error, begun: BytesMut::new(), ended: false });
    let sources = [source(output, false), source(errors, true)];
    let printer = Printer::new(doors).map_err(io::Error::other)?;
    if OUTPUT.set(Output { printer, sources }).is_err() {
        return Err(io::Error::other("there is one output of a process"));
    }
    for (n, reader) in watched.into_iter().enumerate() {
        tokio::spawn(watch(n, sys::register(reader, Interest::READABLE)?));
    }
    Ok(())
}

async fn watch(n: usize, reader: AsyncFd<OwnedFd>) {
    let Some(output) = OUTPUT.get() else { return };
    while let Ok(mut guard) = reader.readable().await {
        // Who prints waits while the client does not take it.
        output.printer.room().await;
        let mut source = output.sources[n].lock().unwrap_or_else(PoisonError::into_inner);
        if source.take(&output.printer) {
            guard.clear_ready();
        }
        output.printer.send();
        if source.ended {
            return;
        }
    }
}

/// Sends what has been printed so far; with `last`, also a line that has no end yet. How many bytes have been sent.
pub(super) fn flush(last: bool) -> u64 {
    let Some(output) = OUTPUT.get() else { return 0 };
    let [first, second] = &output.sources;
    let mut sources = [first, second].map(|source| source.lock().unwrap_or_else(PoisonError::into_inner));
    let mut fds =
        [&sources[0], &sources[1]].map(|source| PollFd::from_borrowed_fd(source.reader.as_fd(), PollFlags::IN));
    let there = poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
    for source in &mut sources {
        if there {
            source.take(&output.printer);
        }
        if last && !source.begun.is_empty() {
            let rest = source.begun.split().freeze();
            source.print(&output.printer, rest);
        }
    }
    output.printer.send();
    output.printer.printed()
}

impl Source {
    /// Whether nothing is left for now. Who prints faster than this reads does not keep it for ever.
    fn take(&mut self, printer: &Printer) -> bool {
        let mut taken = 0;
        while taken < TAKE_MAX {
            let mut buffer = [0; LINE_MAX];
            let read = match read(&self.reader, &mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    return true;
                }
                Ok(n) => &buffer[..n],
                Err(Errno::AGAIN) => return true,
                Err(error) => {
                    self.ended = error != Errno::INTR;
                    return false;
                }
            };
            taken += read.len();
            // What was there before has no newline.
            let mut known = self.begun.len();
            self.begun.extend_from_slice(read);
            while let Some(end) = self.begun[known..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.begun.split_to(known + end + 1);
                line.truncate(known + end);
                self.print(printer, line.freeze());
                known = 0;
            }
            // A line need not have an end.
            while self.begun.len() > LINE_MAX {
                let part = self.begun.split_to(LINE_MAX).freeze();
                self.print(printer, part);
            }
        }
        false
    }

    fn print(&self, printer: &Printer, mut line: Bytes) {
        while line.len() > LINE_MAX {
            let part = line.split_to(LINE_MAX);
            printer.print(&Line { is_error: self.is_error, bytes: part });
        }
        printer.print(&Line { is_error: self.is_error, bytes: line });
    }
}
