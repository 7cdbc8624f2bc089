//! The descriptors of the command that this process reads and writes, each on a stream of its own. Used by `flow`. A
//! stalled stream stalls no other, and holds no more than its credit.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use remotely_proto::exec::{FdKind, Tty};
use remotely_session::{RecvStream, Stream};
use rustix::io::Errno;
use tokio::sync::{Mutex as Baton, Notify, watch};
use tokio::task::JoinHandle;

use super::descriptor::{self, Survey};
use super::intake::{Intake, Pumped, SETTLE};
use super::output::{Applied, Output, Screen, Yields};
use super::reader::{Reader, Valve, Way};
use super::tap::Tap;
use super::terminal;
use super::writer::Writer;

/// Ctrl-D, for a pty that is fed from a pipe: a line that was begun is given to the command, then it reads an end.
const END_OF_INPUT: &[u8] = b"\x04\x04";

/// The local ends of all streams. Outlives a link: what has been read before the command started is not lost if it has
/// to be started over another one.
#[derive(Debug)]
pub(super) struct Locals {
    ends: Vec<Local>,
    progress: Arc<Progress>,
    /// Reads the terminal, if there is one.
    keys: Option<Valve>,
    /// What it has shown.
    screen: Option<Screen>,
}

#[derive(Debug)]
struct Local {
    fd: u32,
    intake: Option<Arc<Baton<Intake>>>,
    /// What `intake` reads, if it is a pipe.
    tap: Option<Arc<Tap>>,
    /// Reads the pipe that `outlet` writes.
    source: Option<Arc<Tap>>,
    outlet: Option<Arc<Baton<Option<Writer>>>>,
    /// To half close it. It is closed when neither way is used any more.
    socket: Option<Weak<OwnedFd>>,
}

/// What all streams have in common.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The command runs: what was read is on its way to it for good.
    pub(super) started: watch::Sender<bool>,
    /// Signal of the last key typed that sends one, 0 if none.
    pub(super) typed: AtomicI32,
    /// The terminal was read from the background.
    pub(super) background: Notify,
    /// When the first output came.
    pub(super) first_output: OnceLock<std::time::Instant>,
    /// Descriptors that could not be written, and why.
    pub(super) broken: Mutex<Vec<(u32, Errno)>>,
}

impl Locals {
    /// Takes over the descriptors that are carried and starts to read them, except the terminal, which waits for
    /// [`keys`](Self::keys). `keyboard` reads what is typed, `screen` takes the terminal's output.
    pub(super) fn take(
        survey: &Survey,
        terminal: Option<(Arc<OwnedFd>, Arc<OwnedFd>, Option<&Tty>)>,
    ) -> io::Result<Self> {
        let mut locals = Self { ends: Vec::new(), progress: Arc::default(), keys: None, screen: None };
        let mut written = Vec::new();
        for spec in &survey.specs {
            let fd = spec.fd;
            let mut local = Local { fd, intake: None, tap: None, source: None, outlet: None, socket: None };
            match spec.kind {
                FdKind::PipeIn => {
                    let intake = match Tap::new(Arc::new(descriptor::take(fd)?)) {
                        Ok(tap) => Intake::tap(Arc::clone(local.tap.insert(tap))),
                        Err(end) => Intake::new(Reader::start(end, Way::File, false)?),
                    };
                    local.intake = Some(intake.shared());
                }
                FdKind::PipeOut => {
                    let end = Arc::new(descriptor::take(fd)?);
                    written.push((locals.ends.len(), Arc::clone(&end)));
                    local.outlet = Some(outlet(Writer::start(end, Way::File)?));
                }
                FdKind::Socket => {
                    let end = Arc::new(descriptor::take(fd)?);
                    local.intake = Some(Intake::new(Reader::start(Arc::clone(&end), Way::Socket, false)?).shared());
                    local.outlet = Some(outlet(Writer::start(Arc::clone(&end), Way::Socket)?));
                    local.socket = Some(Arc::downgrade(&end));
                }
                FdKind::Tty if survey.terminal() == Some(fd) => {
                    let Some((keyboard, screen, tty)) = &terminal else { continue };
                    let keys = terminal::signal_keys(tty.and_then(|tty| tty.modes.as_ref()));
                    let reader = Reader::start(Arc::clone(keyboard), Way::File, true)?;
                    locals.keys = Some(reader.valve());
                    let end = (!rustix::termios::isatty(&**keyboard)).then_some(END_OF_INPUT);
                    local.intake = Some(Intake::keyboard(reader, keys, end).shared());
                    let writer = Writer::start(Arc::clone(screen), Way::File)?;
                    locals.screen = Some(Screen::new(&writer));
                    local.outlet = Some(outlet(writer));
                }
                // A copy would keep open here what the command closes there; messages still go to standard error.
                FdKind::Same { .. } if fd != 2 => {
                    drop(descriptor::take(fd)?);
                    continue;
                }
                FdKind::Tty | FdKind::File { .. } | FdKind::Null { .. } | FdKind::Same { .. } => continue,
            }
            locals.ends.push(local);
        }
        for (index, end) in written {
            let source = locals.ends.iter().find_map(|local| local.tap.clone().filter(|tap| tap.is(&end)));
            locals.ends[index].source = source;
        }
        Ok(locals)
    }

    /// Descriptors that need a stream.
    pub(super) fn fds(&self) -> impl Iterator<Item = u32> {
        self.ends.iter().map(|local| local.fd)
    }

    /// Reads the keys of the terminal, or leaves them to others.
    pub(super) fn keys(&self, read: bool) {
        match &self.keys {
            Some(valve) if read => valve.resume(),
            Some(valve) => valve.pause(),
            None => {}
        }
    }

    /// Waits until the terminal turns out to belong to somebody else. Cancel safe.
    pub(super) async fn background(&self) {
        self.progress.background.notified().await;
    }

    /// When the first output came.
    pub(super) fn first_output(&self) -> Option<std::time::Instant> {
        self.progress.first_output.get().copied()
    }

    /// The command runs: what was read before need not be kept any more.
    pub(super) fn started(&self) {
        self.progress.started.send_replace(true);
    }

    /// The signal of the last key typed at the raw terminal that sends one.
    pub(super) fn typed(&self) -> Option<i32> {
        Some(self.progress.typed.load(Ordering::Relaxed)).filter(|&signal| signal != 0)
    }

    /// Descriptors that could not be written, and why; EPIPE is not told of.
    pub(super) fn broken(&self) -> Vec<(u32, Errno)> {
        std::mem::take(&mut *self.progress.broken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Relays between the local ends and `streams`, one for each of [`fds`](Self::fds) in that order. Input flows at
    /// once (it is queued on a link that is not attached yet); output needs `applied`, which comes later.
    pub(super) fn relay<A: Applied>(&self, streams: Vec<Stream>, applied: watch::Receiver<Option<A>>) -> Relays {
        let (exited, end) = watch::channel(None);
        let mut relays = Relays { inputs: Vec::new(), outputs: Vec::new(), taps: Vec::new(), exited };
        for (local, stream) in self.ends.iter().zip(streams) {
            let Stream { send, recv, .. } = stream;
            let (closing, closed) = watch::channel(false);
            if let Some(tap) = &local.tap {
                tap.rewind();
                relays.taps.push((local.fd, Arc::clone(tap)));
            }
            match &local.intake {
                Some(intake) => {
                    let (intake, progress) = (Arc::clone(intake), Arc::clone(&self.progress));
                    relays.inputs.push(tokio::spawn(async move {
                        if intake.lock().await.pump(send, &progress).await == Pumped::Stopped {
                            closing.send_replace(true);
                        }
                    }));
                }
                None => drop(send),
            }
            match (&local.outlet, &local.tap) {
                (Some(outlet), _) => {
                    let output = Output {
                        fd: local.fd,
                        outlet: Arc::clone(outlet),
                        progress: Arc::clone(&self.progress),
                        screen: self.screen.clone(),
                        end: end.clone(),
                        source: local.source.clone(),
                        half_close: local.socket.clone().map(|socket| (socket, closed)),
                    };
                    relays.outputs.push(tokio::spawn(output.pump(recv, applied.clone())));
                }
                (None, Some(tap)) => {
                    let tap = Arc::clone(tap);
                    relays.inputs.push(tokio::spawn(async move { tap.follow(recv).await }));
                }
                // What comes on it is of no use here, but giving it up is no way to say so.
                (None, None) => relays.inputs.push(tokio::spawn(async move { discard(recv).await })),
            }
        }
        relays
    }
}

fn outlet(writer: Writer) -> Arc<Baton<Option<Writer>>> {
    Arc::new(Baton::new(Some(writer)))
}

async fn discard(mut recv: RecvStream) {
    while let Ok(Some(_)) = recv.recv().await {}
}

/// The relays of one link. Dropping it stops them; what they have not written is lost.
#[derive(Debug)]
pub(super) struct Relays {
    inputs: Vec<JoinHandle<()>>,
    outputs: Vec<JoinHandle<()>>,
    taps: Vec<(u32, Arc<Tap>)>,
    exited: watch::Sender<Option<Yields>>,
}

impl Relays {
    /// The command has ended, after each descriptor had yielded so many bytes, or so many had been read from it: (fd,
    /// bytes). Waits until all that it wrote has been written here, however slowly it is read, and what it read has been
    /// taken out of the pipes here. What processes in the background write later is left out. Cancel safe.
    pub(super) async fn drain(&mut self, offsets: &[(u32, u64)]) {
        self.exited.send_replace(Some(offsets.into()));
        for (fd, tap) in &self.taps {
            if let Some((_, bytes)) = offsets.iter().find(|(number, _)| number == fd) {
                tap.consumed(*bytes);
            }
        }
        while let Some(output) = self.outputs.last_mut() {
            let _ = output.await;
            self.outputs.pop();
        }
        // After the output, which may bring back what is missing (the tokens of make).
        let settled = async {
            for (_, tap) in &self.taps {
                tap.settled().await;
            }
        };
        let _ = tokio::time::timeout(SETTLE, settled).await;
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        for relay in self.inputs.drain(..).chain(self.outputs.drain(..)) {
            relay.abort();
        }
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
