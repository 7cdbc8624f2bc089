//! The descriptors of the command that this process reads and writes, each on a stream of its own. Used by `flow`. A
//! stalled stream stalls no other, and holds no more than its credit.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use remotely_proto::exec::{FdKind, Tty};
use remotely_session::{RecvStream, SendStream, Stream};
use rustix::io::Errno;
use tokio::sync::{Mutex as Baton, Notify, watch};
use tokio::task::JoinHandle;

use super::block::Blocks;
use super::descriptor::{self, Survey};
use super::reader::{Read, Reader, Valve, Way};
use super::terminal;
use super::writer::Writer;

/// How long a command that has closed a socket for writing may take to exit, before the socket is half closed here.
const HALF_CLOSE: Duration = Duration::from_millis(100);

/// Ctrl-D, for a pty that is fed from a pipe: a line that was begun is given to the command, then it reads an end.
const END_OF_INPUT: &[u8] = b"\x04\x04";

/// Tells when changes that the command made to files are applied here.
pub(super) trait Applied: Clone + Send + Sync + 'static {
    /// Waits until as many changes as `tag` says have been applied.
    fn applied(&self, tag: u64) -> impl Future<Output = ()> + Send;
}

/// The local ends of all streams. Outlives a link: what has been read before the command started is not lost if it has
/// to be started over another one.
#[derive(Debug)]
pub(super) struct Locals {
    ends: Vec<Local>,
    progress: Arc<Progress>,
    /// Reads the terminal, if there is one.
    keys: Option<Valve>,
}

#[derive(Debug)]
struct Local {
    fd: u32,
    intake: Option<Arc<Baton<Intake>>>,
    outlet: Option<Arc<Baton<Option<Writer>>>>,
    /// To half close it. It is closed when neither way is used any more.
    socket: Option<Weak<OwnedFd>>,
}

/// What all streams have in common.
#[derive(Debug, Default)]
struct Progress {
    /// The command runs: what was read is on its way to it for good.
    started: watch::Sender<bool>,
    /// Signal of the last key typed that sends one, 0 if none.
    typed: AtomicI32,
    /// The terminal was read from the background.
    background: Notify,
    /// When the first output came.
    first_output: OnceLock<std::time::Instant>,
    /// Descriptors that could not be written, and why.
    broken: Mutex<Vec<(u32, Errno)>>,
}

impl Locals {
    /// Takes over the descriptors that are carried and starts to read them, except the terminal, which waits for
    /// [`keys`](Self::keys). `keyboard` reads what is typed, `screen` takes the terminal's output.
    pub(super) fn take(
        survey: &Survey,
        terminal: Option<(Arc<OwnedFd>, Arc<OwnedFd>, Option<&Tty>)>,
    ) -> io::Result<Self> {
        let mut locals = Self { ends: Vec::new(), progress: Arc::default(), keys: None };
        for spec in &survey.specs {
            let fd = spec.fd;
            let mut local = Local { fd, intake: None, outlet: None, socket: None };
            match spec.kind {
                FdKind::PipeIn => {
                    let end = Arc::new(descriptor::take(fd)?);
                    local.intake = Some(Intake::new(Reader::start(end, Way::File, false)?).shared());
                }
                FdKind::PipeOut => {
                    let end = Arc::new(descriptor::take(fd)?);
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
                    local.intake = Some(Intake { keys, end, ..Intake::new(reader) }.shared());
                    local.outlet = Some(outlet(Writer::start(Arc::clone(screen), Way::File)?));
                }
                FdKind::Tty | FdKind::File { .. } | FdKind::Null { .. } | FdKind::Same { .. } => continue,
            }
            locals.ends.push(local);
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
        let mut relays = Relays { inputs: Vec::new(), outputs: Vec::new(), exited };
        for (local, stream) in self.ends.iter().zip(streams) {
            let Stream { send, recv, .. } = stream;
            let (closing, closed) = watch::channel(false);
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
            match &local.outlet {
                Some(outlet) => {
                    let output = Output {
                        fd: local.fd,
                        outlet: Arc::clone(outlet),
                        progress: Arc::clone(&self.progress),
                        end: end.clone(),
                        half_close: local.socket.clone().map(|socket| (socket, closed)),
                    };
                    relays.outputs.push(tokio::spawn(output.pump(recv, applied.clone())));
                }
                // Nothing comes on it, but giving it up is no way to say so.
                None => relays.inputs.push(tokio::spawn(async move { discard(recv).await })),
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

/// What is read here.
#[derive(Debug)]
struct Intake {
    reader: Reader,
    /// What was read before the command ran.
    kept: Vec<Bytes>,
    /// Characters that send a signal.
    keys: Vec<(u8, i32)>,
    /// What is typed at the end of what stands for a keyboard.
    end: Option<&'static [u8]>,
}

/// How a way from here to there ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pumped {
    /// There is no more here.
    Finished,
    /// The command reads no more, or the link is over.
    Stopped,
}

impl Intake {
    fn new(reader: Reader) -> Self {
        Self { reader, kept: Vec::new(), keys: Vec::new(), end: None }
    }

    fn shared(self) -> Arc<Baton<Self>> {
        Arc::new(Baton::new(self))
    }

    /// Sends until the end of one side. When the command reads no more, the descriptor is closed here, so that whoever
    /// writes to it learns of it.
    async fn pump(&mut self, mut send: SendStream, progress: &Progress) -> Pumped {
        for chunk in self.kept.clone() {
            if send.send(chunk).await.is_err() {
                return self.stopped(progress).await;
            }
        }
        loop {
            let chunk = tokio::select! {
                read = self.reader.next() => match read {
                    Some(Read::Chunk(chunk)) => chunk,
                    // Whoever looks after the terminal resumes it.
                    Some(Read::Background) => {
                        progress.background.notify_one();
                        continue;
                    }
                    None => match self.end.take() {
                        Some(end) => Bytes::from_static(end),
                        None => {
                            send.finish();
                            return Pumped::Finished;
                        }
                    },
                },
                _ = send.stopped() => return self.stopped(progress).await,
            };
            self.note_keys(&chunk, progress);
            if *progress.started.borrow() {
                self.kept = Vec::new();
            } else {
                self.kept.push(chunk.clone());
            }
            if send.send(chunk).await.is_err() {
                return self.stopped(progress).await;
            }
        }
    }

    async fn stopped(&mut self, progress: &Progress) -> Pumped {
        // Before the command runs it may be the link that has failed; then another one follows, and this is dropped.
        let _ = progress.started.subscribe().wait_for(|started| *started).await;
        self.reader.close();
        Pumped::Stopped
    }

    fn note_keys(&self, chunk: &[u8], progress: &Progress) {
        for (key, signal) in &self.keys {
            if chunk.contains(key) {
                progress.typed.store(*signal, Ordering::Relaxed);
            }
        }
    }
}

/// How many bytes each descriptor had yielded when the command ended: (fd, bytes). Others may go on writing.
type Yields = Arc<[(u32, u64)]>;

/// What is written here.
struct Output {
    fd: u32,
    outlet: Arc<Baton<Option<Writer>>>,
    progress: Arc<Progress>,
    end: watch::Receiver<Option<Yields>>,
    half_close: Option<(Weak<OwnedFd>, watch::Receiver<bool>)>,
}

impl Output {
    async fn pump<A: Applied>(mut self, mut recv: RecvStream, mut applied: watch::Receiver<Option<A>>) {
        let outlet = Arc::clone(&self.outlet);
        let mut outlet = outlet.lock().await;
        let Some(writer) = outlet.as_mut() else { return };
        let Ok(applied) = applied.wait_for(Option::is_some).await.map(|applied| applied.clone()) else { return };
        let Some(applied) = applied else { return };
        if let Err(errno) = self.relay(writer, &mut recv, &applied).await {
            // The command gets SIGPIPE, or EPIPE, at its next write.
            recv.stop();
            self.tell(errno);
            *outlet = None;
            return;
        }
        // All that is queued is written, however slowly it is read: it was written before the command ended.
        let Some(writer) = outlet.take() else { return };
        if let Err(errno) = writer.finish().await {
            self.tell(errno);
        }
        self.half_close().await;
    }

    /// Until the end of the stream, or until all is here that the command had written when it ended.
    async fn relay(&mut self, writer: &mut Writer, recv: &mut RecvStream, applied: &impl Applied) -> Result<(), Errno> {
        let mut blocks = Blocks::default();
        let (mut yielded, mut limit, mut up_to) = (0, None, 0);
        while limit.is_none_or(|limit| yielded < limit) {
            let chunk = tokio::select! {
                biased;
                errno = writer.broken() => return Err(errno),
                chunk = recv.recv() => chunk,
                found = exited(&mut self.end), if limit.is_none() => {
                    // A descriptor that is not listed had ended before, and so does its stream.
                    limit = found.iter().find(|(fd, _)| *fd == self.fd).map(|(_, bytes)| *bytes).or(Some(u64::MAX));
                    continue;
                }
            };
            // A reset is an end as good as any: the command or the link is over, which is told elsewhere.
            let Ok(Some(mut chunk)) = chunk else { break };
            self.progress.first_output.get_or_init(std::time::Instant::now);
            while let Some((tag, piece)) = blocks.next(&mut chunk) {
                if tag > up_to {
                    tokio::select! {
                        errno = writer.broken() => return Err(errno),
                        () = applied.applied(tag) => up_to = tag,
                    }
                }
                yielded += piece.len() as u64;
                writer.write(piece).await?;
            }
        }
        Ok(())
    }

    fn tell(&self, errno: Errno) {
        if errno != Errno::PIPE {
            let mut broken = self.progress.broken.lock().unwrap_or_else(PoisonError::into_inner);
            broken.push((self.fd, errno));
        }
    }

    /// A command that only writes no more (shutdown(2)) half closes the socket here. One that has exited has merely
    /// closed its copy: others here may still use theirs.
    async fn half_close(&mut self) {
        if let Some((socket, closed)) = &mut self.half_close {
            tokio::select! {
                _ = closed.wait_for(|closed| *closed) => {}
                _ = exited(&mut self.end) => {}
                () = tokio::time::sleep(HALF_CLOSE) => {
                    if let Some(socket) = socket.upgrade() {
                        let _ = rustix::net::shutdown(&*socket, rustix::net::Shutdown::Write);
                    }
                }
            }
        }
    }
}

/// Waits until the command has ended.
async fn exited(end: &mut watch::Receiver<Option<Yields>>) -> Yields {
    let yields = end.wait_for(Option::is_some).await.map(|yields| yields.clone().unwrap_or_default());
    match yields {
        Ok(yields) => yields,
        // The relays are being dropped, and this with them.
        Err(_) => std::future::pending().await,
    }
}

/// The relays of one link. Dropping it stops them; what they have not written is lost.
#[derive(Debug)]
pub(super) struct Relays {
    inputs: Vec<JoinHandle<()>>,
    outputs: Vec<JoinHandle<()>>,
    exited: watch::Sender<Option<Yields>>,
}

impl Relays {
    /// The command has ended, after each descriptor had yielded so many bytes: (fd, bytes). Waits until all of them have
    /// been written here, however slowly they are read. What processes in the background write later is left out. Cancel
    /// safe.
    pub(super) async fn drain(&mut self, yields: &[(u32, u64)]) {
        self.exited.send_replace(Some(yields.into()));
        while let Some(output) = self.outputs.last_mut() {
            let _ = output.await;
            self.outputs.pop();
        }
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
