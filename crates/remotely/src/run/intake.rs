//! One way from a descriptor here to the command: sends what is read, and keeps it for another attempt until the command
//! runs. Started by `streams`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use remotely_session::SendStream;
use tokio::sync::Mutex as Baton;

use super::reader::{Read, Reader};
use super::streams::Progress;

/// What is read here.
#[derive(Debug)]
pub(super) struct Intake {
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
pub(super) enum Pumped {
    /// There is no more here.
    Finished,
    /// The command reads no more, or the link is over.
    Stopped,
}

impl Intake {
    /// Of a pipe or a socket.
    pub(super) fn new(reader: Reader) -> Self {
        Self::keyboard(reader, Vec::new(), None)
    }

    /// Of a terminal, or of what stands for one: `keys` send a signal, `end` is typed at the end.
    pub(super) fn keyboard(reader: Reader, keys: Vec<(u8, i32)>, end: Option<&'static [u8]>) -> Self {
        Self { reader, kept: Vec::new(), keys, end }
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
