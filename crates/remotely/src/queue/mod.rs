//! Queues: work for many hosts, of which each does its own in order while all are busy.

#[cfg(feature = "copy")]
mod transfer;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use remotely_call::Remote;
use tokio::sync::{oneshot, watch};

use crate::group::{Group, GroupResult};
use crate::tunnel::ErrorKind;
use crate::{Error, Tunnel};

/// Work for many hosts: what is put in for one host is done in that order, one after the other; hosts go on beside each other.
///
/// Work begins as soon as it is put in, also from within other work. What it came to is a future, which may be dropped.
///
/// ```no_run
/// # use remotely::{Queue, Tunnel, remote};
/// # #[remote] fn stop() {} #[remote] fn start() -> u32 { 0 }
/// # async fn example(hosts: Vec<Tunnel>) -> Result<(), remotely::Error> {
/// let queue = Queue::new();
/// let started: Vec<_> = hosts.iter().map(|host| {
///     queue.call(host, stop, ());
///     queue.call(host, start, ())
/// }).collect();
/// for pid in started {
///     println!("{}", pid.await?);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct Queue {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The end of the last work of each host.
    last: Mutex<HashMap<String, oneshot::Receiver<()>>>,
    /// Pieces of work that are not done.
    open: watch::Sender<usize>,
}

impl Queue {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts in a connection. Calls make it by themselves; this is for those who want it made, and to know of it.
    pub fn connect(&self, tunnel: &Tunnel) -> Queued<Result<(), Error>> {
        let tunnel = tunnel.clone();
        self.put(&tunnel.clone(), async move { tunnel.connect().await })
    }

    /// Puts in a call.
    pub fn call<F: Remote>(
        &self,
        tunnel: &Tunnel,
        function: F,
        arguments: F::Args,
    ) -> Queued<Result<F::Output, Error>> {
        self.put(tunnel, tunnel.call(function, arguments))
    }

    /// Puts in a call for each host of a group, each in its host's own order.
    pub fn call_each<F: Remote>(&self, group: &Group, function: F, arguments: F::Args) -> Queued<GroupResult<F::Output>>
    where
        F::Args: Clone,
    {
        self.each(group, |tunnel| tunnel.call(function, arguments.clone()))
    }

    /// Puts in work for each host of a group.
    fn each<T: Send + 'static, W>(&self, group: &Group, mut work: impl FnMut(&Tunnel) -> W) -> Queued<GroupResult<T>>
    where
        W: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let put_in = |tunnel: &Tunnel| (tunnel.host().to_owned(), self.put(tunnel, work(tunnel)));
        let queued: Vec<_> = group.tunnels().iter().map(put_in).collect();
        let (sender, done) = oneshot::channel();
        tokio::spawn(async move {
            let mut results = Vec::with_capacity(queued.len());
            for (host, queued) in queued {
                results.push((host, queued.await));
            }
            let _ = sender.send(GroupResult::of(results));
        });
        Queued { done, missing: None }
    }

    /// Puts in whatever else is to be done with a host.
    pub fn put<T: Send + 'static>(
        &self,
        tunnel: &Tunnel,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Queued<Result<T, Error>> {
        let (sender, done) = oneshot::channel();
        let (mine, next) = oneshot::channel::<()>();
        let before = self.inner.last().insert(tunnel.host().to_owned(), next);
        self.inner.open.send_modify(|open| *open += 1);
        let open = Open(self.inner.clone());
        tokio::spawn(async move {
            let _open = open;
            if let Some(before) = before {
                // Its end is what counts, however it ended.
                let _ = before.await;
            }
            let result = work.await;
            drop(mine);
            let _ = sender.send(result);
        });
        let error = Error::new(tunnel.host(), ErrorKind::Cancelled);
        Queued { done, missing: Some(Err(error)) }
    }

    /// Waits until everything is done that has been put in, also what is put in meanwhile. Cancel safe.
    pub async fn finished(&self) {
        // The sender is in what this borrows.
        let _ = self.inner.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// How many pieces of work are not done.
    pub fn len(&self) -> usize {
        *self.inner.open.borrow()
    }

    /// Whether everything is done.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A piece of work that is not done, until it is dropped, whatever becomes of it.
struct Open(Arc<Inner>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

impl Inner {
    fn last(&self) -> MutexGuard<'_, HashMap<String, oneshot::Receiver<()>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Queue").field("open", &self.len()).finish()
    }
}

/// What work came to that was put into a queue: a future. The work goes on when it is dropped.
pub struct Queued<T> {
    done: oneshot::Receiver<T>,
    /// What it came to if it was ended with its runtime.
    missing: Option<T>,
}

// Nothing in it is pinned.
impl<T> Unpin for Queued<T> {}

impl<T> Future for Queued<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.done).poll(cx) {
            Poll::Ready(Ok(done)) => Poll::Ready(done),
            Poll::Ready(Err(_)) => match self.missing.take() {
                Some(missing) => Poll::Ready(missing),
                None => Poll::Pending,
            },
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T> fmt::Debug for Queued<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Queued").finish_non_exhaustive()
    }
}
