//! Tells the kernel what it must forget. The kernel waits in these calls for operations that are under way, so they have
//! threads of their own, one for names and one for inodes: a name waits for everything in its directory. What waits to be told
//! is a set, bounded by what the kernel knows, and nobody ever waits for it.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use remotely_proto::ByteVec;
use remotely_proto::fs::Node;

use super::fuse::Device;

/// One thing to forget.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Invalid {
    /// A name in a directory, which names something else or nothing.
    Entry(Node, ByteVec),
    /// A name in a directory, which may well name the same.
    Doubt(Node, ByteVec),
    /// Attributes and content.
    Inode(Node),
    /// Attributes alone.
    Attr(Node),
}

impl Invalid {
    /// Tells the kernel. May wait for operations of the kernel; not for use where those are answered.
    pub(super) fn tell(&self, device: &Device) {
        tracing::trace!(item = ?self, "invalidate");
        match self {
            Self::Entry(parent, name) => device.invalidate_entry(parent.0, name),
            Self::Doubt(parent, name) => device.expire_entry(parent.0, name),
            Self::Inode(node) => device.invalidate_inode(node.0),
            Self::Attr(node) => device.invalidate_attr(node.0),
        }
    }
}

/// The queues to the threads.
#[derive(Default)]
pub(super) struct Invalidator {
    pub(super) names: Queue,
    pub(super) inodes: Queue,
}

impl Invalidator {
    /// Takes what is to be told. Never blocks.
    pub(super) fn tell(&self, invalid: impl IntoIterator<Item = Invalid>) {
        let (names, inodes) =
            invalid.into_iter().partition(|item| matches!(item, Invalid::Entry(..) | Invalid::Doubt(..)));
        self.names.add(names);
        self.inodes.add(inodes);
    }

    /// The kernel has content of this inode that it has not been told to forget yet, or not to the end.
    pub(super) fn is_pending(&self, node: Node) -> bool {
        let item = Invalid::Inode(node);
        let state = self.inodes.state();
        state.waiting.contains(&item) || state.telling.as_ref() == Some(&item)
    }

    /// Ends the threads.
    pub(super) fn close(&self) {
        self.names.close();
        self.inodes.close();
    }
}

/// What one thread tells.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    order: VecDeque<Invalid>,
    waiting: HashSet<Invalid>,
    telling: Option<Invalid>,
    closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, items: Vec<Invalid>) {
        if items.is_empty() {
            return;
        }
        let mut state = self.state();
        for item in items {
            if state.waiting.insert(item.clone()) {
                state.order.push_back(item);
            }
        }
        self.filled.notify_one();
    }

    fn close(&self) {
        self.state().closed = true;
        self.filled.notify_one();
    }

    /// The thread: tells until closed.
    pub(super) fn run(&self, tell: impl Fn(&Invalid)) {
        while let Some(item) = self.next() {
            tell(&item);
            self.state().telling = None;
        }
    }

    fn next(&self) -> Option<Invalid> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(item) = state.order.pop_front() {
                // From now on it may be added again: what changes while the kernel is told may come too late for that.
                state.waiting.remove(&item);
                state.telling = Some(item.clone());
                return Some(item);
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_name_that_the_kernel_waits_with_holds_up_no_inode() {
        let invalidator = Arc::new(Invalidator::default());
        let (told, telling) = mpsc::channel();
        let (go_on, stuck) = mpsc::channel::<()>();
        let (names, inodes) = (invalidator.clone(), invalidator.clone());
        let inode_told = told.clone();
        let names = std::thread::spawn(move || {
            names.names.run(|item| {
                stuck.recv().unwrap();
                told.send(item.clone()).unwrap();
            });
        });
        let inodes = std::thread::spawn(move || inodes.inodes.run(|item| inode_told.send(item.clone()).unwrap()));
        let name = Invalid::Entry(Node(1), b"name".to_vec().into());
        invalidator.tell([name.clone(), Invalid::Inode(Node(2)), Invalid::Attr(Node(3))]);
        assert_eq!(telling.recv().unwrap(), Invalid::Inode(Node(2)));
        assert_eq!(telling.recv().unwrap(), Invalid::Attr(Node(3)));
        go_on.send(()).unwrap();
        assert_eq!(telling.recv().unwrap(), name);
        invalidator.close();
        names.join().unwrap();
        inodes.join().unwrap();
    }

    #[test]
    fn an_inode_is_pending_until_the_kernel_has_been_told() {
        let invalidator = Invalidator::default();
        invalidator.tell([Invalid::Inode(Node(2)), Invalid::Attr(Node(3))]);
        assert!(invalidator.is_pending(Node(2)) && !invalidator.is_pending(Node(3)));
        invalidator.inodes.run(|item| {
            assert_eq!(invalidator.is_pending(Node(2)), *item == Invalid::Inode(Node(2)));
            if *item == Invalid::Attr(Node(3)) {
                invalidator.close();
            }
        });
        assert!(!invalidator.is_pending(Node(2)));
    }
}
