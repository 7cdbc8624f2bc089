//! Standard input for many hosts: read once, kept, and given to each as fast as it takes it. A host that takes nothing keeps
//! nobody; what is read stays in memory until the end.

use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::{Receiver, channel};

#[derive(Default)]
pub(super) struct Spool {
    pieces: Mutex<Vec<Bytes>>,
    /// How many pieces there are, and whether that is all.
    known: watch::Sender<(usize, bool)>,
}

impl Spool {
    /// Starts to read standard input.
    pub(super) fn of_stdin() -> Arc<Self> {
        let spool = Arc::new(Self::default());
        let filling = spool.clone();
        tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                match std::io::stdin().read(&mut buffer) {
                    Ok(n @ 1..) => filling.add(Bytes::copy_from_slice(&buffer[..n])),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => break,
                }
            }
            filling.known.send_modify(|(_, all)| *all = true);
        });
        spool
    }

    fn add(&self, piece: Bytes) {
        let mut pieces = self.lock();
        pieces.push(piece);
        let count = pieces.len();
        drop(pieces);
        self.known.send_modify(|(known, _)| *known = count);
    }

    /// All of it, from the beginning.
    pub(super) fn reader(self: &Arc<Self>) -> Receiver<Bytes> {
        let (sender, receiver) = channel();
        let (spool, mut known) = (self.clone(), self.known.subscribe());
        tokio::spawn(async move {
            let mut next = 0;
            loop {
                let (count, all) = *known.borrow_and_update();
                while next < count {
                    let piece = spool.lock()[next].clone();
                    if sender.send(piece).await.is_err() {
                        return;
                    }
                    next += 1;
                }
                if all || known.changed().await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Bytes>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
