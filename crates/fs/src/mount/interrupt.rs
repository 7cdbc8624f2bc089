//! Requests of the kernel that wait for a lock and may be interrupted. The kernel says once that a signal came, perhaps
//! before another thread has begun with the request that it is about: nothing of that may be lost.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::fs::lock;

/// Interrupts that are kept for requests that have not begun; those of requests that cannot be interrupted are among them.
const EARLY_MAX: usize = 64;

/// All of them.
#[derive(Default)]
pub(super) struct Interrupts {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    waiting: HashMap<u64, Arc<Notify>>,
    early: VecDeque<u64>,
}

impl Interrupts {
    /// A request begins that may be interrupted: the event tells when it is.
    pub(super) fn begin(&self, unique: u64) -> Arc<Notify> {
        let event = Arc::new(Notify::new());
        let mut inner = lock(&self.inner);
        if let Some(index) = inner.early.iter().position(|early| *early == unique) {
            inner.early.remove(index);
            event.notify_one();
        }
        inner.waiting.insert(unique, event.clone());
        event
    }

    /// It is over.
    pub(super) fn end(&self, unique: u64) {
        lock(&self.inner).waiting.remove(&unique);
    }

    /// A signal came to who waits for this request. Returns a request for which there is no room any more: the kernel is to
    /// say it again, if that still matters.
    pub(super) fn interrupt(&self, unique: u64) -> Option<u64> {
        let mut inner = lock(&self.inner);
        if let Some(event) = inner.waiting.get(&unique) {
            event.notify_one();
            return None;
        }
        inner.early.push_back(unique);
        if inner.early.len() > EARLY_MAX { inner.early.pop_front() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_told(event: &Notify) -> bool {
        tokio::time::timeout(std::time::Duration::from_millis(1), event.notified()).await.is_ok()
    }

    #[tokio::test]
    async fn an_interrupt_is_not_lost_whenever_it_comes() {
        let interrupts = Interrupts::default();
        let begun = interrupts.begin(2);
        assert!(!is_told(&begun).await);
        assert_eq!(interrupts.interrupt(2), None);
        assert!(is_told(&begun).await, "after the beginning");
        assert_eq!(interrupts.interrupt(4), None);
        assert!(is_told(&interrupts.begin(4)).await, "before it");
        interrupts.end(4);
        assert!(!is_told(&interrupts.begin(4)).await, "once");
        for unique in 0..EARLY_MAX as u64 {
            assert_eq!(interrupts.interrupt(100 + unique), None);
        }
        assert_eq!(interrupts.interrupt(99), Some(100), "what does not fit is asked for again");
        assert!(is_told(&interrupts.begin(99)).await);
    }
}
