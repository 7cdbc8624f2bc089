//! Threads for called functions that are not async, and not as quick as to be done by the threads of the link. As long as calls
//! end soon, one thread runs them one after the other; when one does not, others go on with the rest. Used by the runner.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use remotely_session::Job;
use tokio::runtime::Handle;

/// Calls that run at once.
const THREADS_MAX: usize = 512;
/// After so long without work a thread ends.
const IDLE: Duration = Duration::from_secs(10);
/// When the queue has not moved for so long, another thread is put to it.
const STUCK: Duration = Duration::from_millis(1);

/// See above.
pub struct Pool {
    runtime: Handle,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    /// Threads there are, and those of them that wait for work.
    threads: usize,
    idle: usize,
    /// Threads that have been woken for work and have not taken any yet.
    woken: usize,
    /// Jobs taken so far.
    taken: u64,
    watched: bool,
}

impl Pool {
    /// Without a thread yet.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { runtime: Handle::current(), state: Mutex::default(), work: Condvar::new() })
    }

    /// Runs `job` on a thread of the pool. Never waits.
    pub fn run(self: &Arc<Self>, job: Job) {
        let mut state = self.lock();
        state.queue.push_back(job);
        let busy = state.threads - state.idle;
        if busy + state.woken == 0 {
            return self.enlist(state);
        }
        if !state.watched {
            state.watched = true;
            drop(state);
            self.runtime.spawn(self.clone().watch());
        }
    }

    /// Puts one more thread to work.
    fn enlist(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.idle > state.woken {
            state.woken += 1;
            drop(state);
            return self.work.notify_one();
        }
        if state.threads >= THREADS_MAX {
            return;
        }
        state.threads += 1;
        drop(state);
        let pool = self.clone();
        if thread::Builder::new().name("call".into()).spawn(move || pool.work()).is_err() {
            let mut state = self.lock();
            state.threads -= 1;
            // Somebody else comes to it, if there is anybody; else it is not done. Not here: who calls has more to do.
            let stranded = if state.threads == 0 { std::mem::take(&mut state.queue) } else { VecDeque::new() };
            drop(state);
            tracing::error!(calls = stranded.len(), "no thread can be started");
            drop(stranded);
        }
    }

    fn work(self: Arc<Self>) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                state.taken += 1;
                drop(state);
                job();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (woken, timed_out) = self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            state.woken = state.woken.saturating_sub(1);
            if timed_out.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    /// Looks whether the queue moves, until it is empty: twice as many more threads each time when it does not.
    async fn watch(self: Arc<Self>) {
        let (mut taken, mut more) = (self.lock().taken, 1);
        loop {
            tokio::time::sleep(STUCK).await;
            let mut state = self.lock();
            if state.queue.is_empty() {
                state.watched = false;
                return;
            }
            let moved = state.taken - taken;
            taken = state.taken;
            let wanted = if moved == 0 { more.min(state.queue.len()) } else { 0 };
            drop(state);
            more = if moved == 0 { more * 2 } else { 1 };
            for _ in 0..wanted {
                self.enlist(self.lock());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        out.debug_struct("Pool").field("threads", &state.threads).field("queue", &state.queue.len()).finish()
    }
}
