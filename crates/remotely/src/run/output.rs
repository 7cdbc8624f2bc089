//! One way from the command to a descriptor here: writes what a stream brings, in order with the changes to files and what
//! the terminal showed that came before it. Started by `streams`.

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use remotely_session::RecvStream;
use rustix::io::Errno;
use tokio::sync::{Mutex as Baton, watch};

use super::block::{Blocks, Place};
use super::streams::Progress;
use super::tap::Tap;
use super::writer::Writer;
use crate::stderr;

/// How long a command that has closed a socket for writing may take to exit, before the socket is half closed here.
const HALF_CLOSE: Duration = Duration::from_millis(100);
/// How long other output waits for a terminal that shows nothing.
const HELD: Duration = Duration::from_millis(200);

/// Tells when changes that the command made to files are applied here.
pub(super) trait Applied: Clone + Send + Sync + 'static {
    /// Waits until as many changes as `tag` says have been applied.
    fn applied(&self, tag: u64) -> impl Future<Output = ()> + Send;
}

/// How many bytes each descriptor had yielded when the command ended: (fd, bytes). Others may go on writing.
pub(super) type Yields = Arc<[(u32, u64)]>;

/// What is written here.
pub(super) struct Output {
    /// Its number.
    pub(super) fd: u32,
    /// Where it goes; empty once it is closed.
    pub(super) outlet: Arc<Baton<Option<Writer>>>,
    /// What all streams have in common.
    pub(super) progress: Arc<Progress>,
    /// What the terminal has shown, if there is one.
    pub(super) screen: Option<Screen>,
    /// Tells the end of the command.
    pub(super) end: watch::Receiver<Option<Yields>>,
    /// The pipe that the command reads, if it is the same that this is written to.
    pub(super) source: Option<Arc<Tap>>,
    /// For a socket: it, and whether the command reads no more from it either.
    pub(super) half_close: Option<(Weak<OwnedFd>, watch::Receiver<bool>)>,
}

/// What the terminal has shown.
#[derive(Debug, Clone)]
pub(super) struct Screen {
    /// Bytes.
    shown: watch::Receiver<u64>,
    /// It took no more after so many.
    stuck: Option<u64>,
}

impl Screen {
    /// Of this terminal.
    pub(super) fn new(terminal: &Writer) -> Self {
        Self { shown: terminal.written(), stuck: None }
    }

    /// Waits until so many bytes are shown. Not for long, nor twice, if the terminal is held (Ctrl-S): only what goes there
    /// waits then.
    async fn shows(&mut self, bytes: u64) {
        let shown = *self.shown.borrow_and_update();
        if shown >= bytes || self.stuck == Some(shown) {
            return;
        }
        let wait = self.shown.wait_for(|shown| *shown >= bytes);
        // An error means that the terminal is gone.
        let late = tokio::time::timeout(HELD, wait).await.is_err();
        self.stuck = late.then(|| *self.shown.borrow());
    }
}

impl Output {
    /// Until the end of the stream, and of what it brought. Output waits until `applied` is there.
    pub(super) async fn pump<A: Applied>(mut self, mut recv: RecvStream, mut applied: watch::Receiver<Option<A>>) {
        let outlet = Arc::clone(&self.outlet);
        let mut outlet = outlet.lock().await;
        let Some(writer) = outlet.as_mut() else { return };
        let Ok(applied) = applied.wait_for(Option::is_some).await.map(|applied| applied.clone()) else { return };
        let Some(applied) = applied else { return };
        match self.relay(writer, &mut recv, &applied).await {
            Ok(true) => {}
            // Another attempt may have more luck, and writes here then.
            Ok(false) => return,
            Err(errno) => {
                // The command gets SIGPIPE, or EPIPE, at its next write.
                recv.stop();
                self.tell(errno);
                *outlet = None;
                return;
            }
        }
        // All that is queued is written, however slowly it is read: it was written before the command ended.
        let Some(writer) = outlet.take() else { return };
        if let Err(errno) = writer.finish().await {
            self.tell(errno);
        }
        self.half_close().await;
    }

    /// Until the end of the stream, or until all is here that the command had written when it ended. False if the stream
    /// was given up instead: there was no command, or the link is over, which is told elsewhere.
    async fn relay(
        &mut self,
        writer: &mut Writer,
        recv: &mut RecvStream,
        applied: &impl Applied,
    ) -> Result<bool, Errno> {
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
            let mut chunk = match chunk {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(_) => return Ok(false),
            };
            if self.progress.first_output.set(std::time::Instant::now()).is_ok() {
                // Nothing of ours stands where the output of the command begins.
                stderr::clear();
            }
            if self.source.is_some() {
                // What had been read before this was written came with it.
                tokio::task::yield_now().await;
            }
            while let Some((Place { tag, screen }, mut piece)) = blocks.next(&mut chunk) {
                if let Some(terminal) = &mut self.screen {
                    tokio::select! {
                        errno = writer.broken() => return Err(errno),
                        () = terminal.shows(screen) => {}
                    }
                }
                if tag > up_to {
                    tokio::select! {
                        errno = writer.broken() => return Err(errno),
                        () = applied.applied(tag) => up_to = tag,
                    }
                }
                yielded += piece.len() as u64;
                if let Some(source) = &self.source {
                    source.returned(&mut piece);
                }
                if !piece.is_empty() {
                    writer.write(piece).await?;
                }
            }
        }
        Ok(true)
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
