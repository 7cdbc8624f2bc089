//! Lines that are printed on the host, on their way to the client. Filled by the agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use remotely_proto::call::{Line, Open};
use remotely_session::{Class, Ended};

use crate::doors::Doors;
use crate::outbox::Outbox;

/// Sends lines.
#[derive(Debug)]
pub struct Printer {
    outbox: Arc<Outbox>,
    bytes: AtomicU64,
}

impl Printer {
    /// Over the link of `doors`.
    pub fn new(doors: &Arc<Doors>) -> Result<Arc<Self>, Ended> {
        let stream = doors.open(Class::Normal, &Open::Output)?;
        Ok(Arc::new(Self { outbox: Outbox::new(stream.send, doors.runtime()), bytes: AtomicU64::new(0) }))
    }

    /// Waits while the client does not take what has been printed. Cancel safe.
    pub async fn room(&self) {
        self.outbox.room().await;
    }

    /// Adds a line to what [`send`](Self::send) sends. Never waits.
    ///
    /// # Panics
    /// If the line is longer than [`LINE_MAX`](remotely_proto::call::LINE_MAX).
    pub fn print(&self, line: &Line) {
        self.outbox.add(|out| {
            let before = out.len();
            line.encode(out);
            self.bytes.fetch_add((out.len() - before) as u64, Ordering::Relaxed);
        });
    }

    /// Sends the lines that have been printed. Never waits.
    pub fn send(&self) {
        self.outbox.send();
    }

    /// How many bytes the lines are that have been printed so far, as they are sent.
    pub fn printed(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
