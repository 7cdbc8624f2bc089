//! The threads that do what may wait for a disk. Bounded in number; what is queued is bounded by whoever queues it.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use super::{
    StartError,
    service::{Hold, Service},
    thread,
};

/// Something to do on a thread of the pool.
pub(super) type Task = Box<dyn FnOnce(&Arc<Service>) + Send>;

/// What the threads take from.
#[derive(Default)]
pub(super) struct Pool {
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    ended: bool,
}

impl Pool {
    /// Starts the threads; they run until [`Pool::end`].
    pub(super) fn start(service: &Arc<Service>, threads: usize) -> Result<(), StartError> {
        for _ in 0..threads.max(1) {
            let service = Arc::clone(service);
            thread::start("fs-pool", move || {
                while let Some(task) = service.pool.take() {
                    task(&service);
                }
            })?;
        }
        Ok(())
    }

    /// Queues tasks. Never waits.
    pub(super) fn push(&self, tasks: impl IntoIterator<Item = Task>) {
        let mut queue = self.queue.hold();
        for task in tasks {
            queue.tasks.push_back(task);
            self.ready.notify_one();
        }
    }

    fn take(&self) -> Option<Task> {
        let mut queue = self.queue.hold();
        loop {
            if queue.ended {
                return None;
            }
            if let Some(task) = queue.tasks.pop_front() {
                return Some(task);
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The threads leave after what they are doing.
    pub(super) fn end(&self) {
        let mut queue = self.queue.hold();
        queue.ended = true;
        queue.tasks.clear();
        self.ready.notify_all();
    }
}
