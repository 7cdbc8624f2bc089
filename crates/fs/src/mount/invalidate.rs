//! Tells the kernel what it must forget. The kernel waits in these calls for operations that are under way, so they have a
//! thread of their own; what waits to be told is a set, bounded by what the kernel knows, and nobody ever waits for it.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use remotely_proto::ByteVec;
use remotely_proto::fs::Node;

use super::fuse::Device;

/// One thing to forget.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Invalid {
    /// A name in a directory.
    Entry(Node, ByteVec),
    /// Attributes and content.
    Inode(Node),
    /// Attributes alone.
    Attr(Node),
}

/// The queue to the thread.
#[derive(Default)]
pub(super) struct Invalidator {
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Default)]
struct Queue {
    order: VecDeque<Invalid>,
    waiting: HashSet<Invalid>,
    closed: bool,
}

impl Invalidator {
    /// Takes what is to be told. Never blocks.
    pub(super) fn tell(&self, invalid: impl IntoIterator<Item = Invalid>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for item in invalid {
            if queue.waiting.insert(item.clone()) {
                queue.order.push_back(item);
            }
        }
        self.filled.notify_one();
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.filled.notify_one();
    }

    /// The thread: tells the kernel until closed.
    pub(super) fn run(self: Arc<Self>, device: Arc<Device>) {
        loop {
            let item = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    if queue.closed {
                        return;
                    }
                    if let Some(item) = queue.order.pop_front() {
                        queue.waiting.remove(&item);
                        break item;
                    }
                    queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
            };
            tracing::trace!(?item, "invalidate");
            match item {
                Invalid::Entry(parent, name) => device.invalidate_entry(parent.0, &name),
                Invalid::Inode(node) => device.invalidate_inode(node.0),
                Invalid::Attr(node) => device.invalidate_attr(node.0),
            }
        }
    }
}
