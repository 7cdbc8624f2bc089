//! One way from a descriptor here to the command: sends what is read, and keeps it for another attempt until the command
//! runs. What a pipe holds stays in it meanwhile (`tap`). Started by `streams`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use remotely_session::SendStream;
use tokio::sync::Mutex as Baton;

use super::reader::{Read, Reader, Way};
use super::streams::Progress;
use super::tap::{Next, Tap};

/// How long what the command has read may be missing from a pipe here, before nobody waits for it any more.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// So many bytes are kept for another attempt; there is no reading on before the command runs.
const KEPT_MAX: usize = 1 << 20;

/// What is read here.
#[derive(Debug)]
pub(super) struct Intake {
    source: Source,
    /// What was read before the command ran.
    kept: Vec<Bytes>,
    /// Characters that send a signal.
    keys: Vec<(u8, i32)>,
    /// What is typed at the end of what stands for a keyboard.
    end: Option<&'static [u8]>,
}

#[derive(Debug)]
enum Source {
    /// Reads ahead.
    Reader(Reader),
    /// Takes only what the command has read.
    Tap(Arc<Tap>),
}

/// How a way from here to there ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pumped {
    /// There is no more here.
    Finished,
    /// The command reads no more, or the link is over.
    Stopped,
}

impl Intake {
    /// Of what is read ahead: a socket, a device.
    pub(super) fn new(reader: Reader) -> Self {
        Self::keyboard(reader, Vec::new(), None)
    }

    /// Of a pipe.
    pub(super) fn tap(tap: Arc<Tap>) -> Self {
        Self { source: Source::Tap(tap), kept: Vec::new(), keys: Vec::new(), end: None }
    }

    /// Of a terminal, or of what stands for one: `keys` send a signal, `end` is typed at the end.
    pub(super) fn keyboard(reader: Reader, keys: Vec<(u8, i32)>, end: Option<&'static [u8]>) -> Self {
        Self { source: Source::Reader(reader), kept: Vec::new(), keys, end }
    }

    /// For a task after the other.
    pub(super) fn shared(self) -> Arc<Baton<Self>> {
        Arc::new(Baton::new(self))
    }

    /// Sends until the end of one side. When the command reads no more, the descriptor is closed here, so that whoever
    /// writes to it learns of it.
    pub(super) async fn pump(&mut self, mut send: SendStream, progress: &Progress) -> Pumped {
        for chunk in self.kept.clone() {
            if send.send(chunk).await.is_err() {
                return self.stopped(progress).await;
            }
        }
        loop {
            let (chunk, ahead) = tokio::select! {
                read = self.source.next() => match read {
                    Input::Ahead(chunk) => (chunk, true),
                    Input::Held(chunk) => (chunk, false),
                    // Whoever looks after the terminal resumes it.
                    Input::Background => {
                        progress.background.notify_one();
                        continue;
                    }
                    Input::End => match self.end.take() {
                        Some(end) => (Bytes::from_static(end), true),
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
            } else if ahead {
                self.kept.push(chunk.clone());
            }
            let kept: usize = self.kept.iter().map(Bytes::len).sum();
            if kept >= KEPT_MAX {
                let mut started = progress.started.subscribe();
                let stopped = tokio::select! {
                    started = started.wait_for(|started| *started) => started.is_err(),
                    _ = send.stopped() => true,
                };
                if stopped {
                    return self.stopped(progress).await;
                }
            }
            if send.send(chunk).await.is_err() {
                return self.stopped(progress).await;
            }
        }
    }

    async fn stopped(&mut self, progress: &Progress) -> Pumped {
        // Before the command runs it may be the link that has failed; then another one follows, and this is dropped.
        let _ = progress.started.subscribe().wait_for(|started| *started).await;
        match &mut self.source {
            Source::Reader(reader) => reader.close(),
            Source::Tap(tap) => {
                // This may come before the last that is said about what was read.
                tap.told().await;
                let _ = tokio::time::timeout(SETTLE, tap.settled()).await;
                tap.close();
            }
        }
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

/// What comes from a source.
enum Input {
    /// Bytes that were read.
    Ahead(Bytes),
    /// Bytes that are still there.
    Held(Bytes),
    /// The terminal belongs to somebody else.
    Background,
    End,
}

impl Source {
    /// Cancel safe.
    async fn next(&mut self) -> Input {
        if let Self::Tap(tap) = self {
            match tap.next().await {
                Next::Chunk(chunk) => return Input::Held(chunk),
                Next::End => return Input::End,
                Next::Ahead(pipe) => match Reader::start(pipe, Way::File, false) {
                    Ok(reader) => *self = Self::Reader(reader),
                    Err(error) => {
                        tracing::warn!(%error, "cannot read a pipe any more");
                        return Input::End;
                    }
                },
            }
        }
        match self {
            Self::Tap(_) => Input::End,
            Self::Reader(reader) => match reader.next().await {
                Some(Read::Chunk(chunk)) => Input::Ahead(chunk),
                Some(Read::Background) => Input::Background,
                None => Input::End,
            },
        }
    }
}
