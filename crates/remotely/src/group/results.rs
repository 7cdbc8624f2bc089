//! What came of asking many hosts: as it comes, and collected.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::task::JoinSet;

use crate::Error;
use crate::tunnel::{ErrorKind, chain};

/// What hosts answer, as it comes: a stream of (host, result), one for each host. Awaited, it becomes a [`GroupResult`].
///
/// Dropped, it cancels what is not done yet.
#[must_use = "dropped, what is not done yet is cancelled"]
pub struct Results<T> {
    hosts: Vec<String>,
    tasks: JoinSet<(usize, Result<T, Error>)>,
    /// Those who have not answered yet.
    open: Vec<bool>,
}

impl<T: Send + 'static> Results<T> {
    pub(super) fn new(hosts: Vec<String>, tasks: JoinSet<(usize, Result<T, Error>)>) -> Self {
        let open = vec![true; hosts.len()];
        Self { hosts, tasks, open }
    }

    /// The next answer; `None` when all hosts have answered. Cancel safe.
    pub async fn next(&mut self) -> Option<(String, Result<T, Error>)> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<(String, Result<T, Error>)>> {
        match ready!(self.tasks.poll_join_next(cx)) {
            Some(Ok((n, result))) => {
                self.open[n] = false;
                Poll::Ready(Some((self.hosts[n].clone(), result)))
            }
            // A task that was ended with its runtime, or has panicked: whose it was shows when all others are done.
            Some(Err(_)) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => match self.open.iter().position(|open| *open) {
                None => Poll::Ready(None),
                Some(n) => {
                    self.open[n] = false;
                    let host = self.hosts[n].clone();
                    let error = Error::new(&host, ErrorKind::Cancelled);
                    Poll::Ready(Some((host, Err(error))))
                }
            },
        }
    }

    /// All answers, in the order of the group.
    pub async fn collect(mut self) -> GroupResult<T> {
        let mut of_host = BTreeMap::new();
        while let Some((host, result)) = self.next().await {
            of_host.insert(host, result);
        }
        let hosts = std::mem::take(&mut self.hosts);
        let results = hosts.into_iter().filter_map(|host| of_host.remove_entry(&host));
        GroupResult { results: results.collect() }
    }
}

impl<T: Send + 'static> Stream for Results<T> {
    type Item = (String, Result<T, Error>);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let open = self.open.iter().filter(|open| **open).count();
        (open, Some(open))
    }
}

impl<T: Send + 'static> IntoFuture for Results<T> {
    type Output = GroupResult<T>;
    type IntoFuture = Pin<Box<dyn Future<Output = GroupResult<T>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.collect())
    }
}

impl<T> fmt::Debug for Results<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.open.iter().filter(|open| **open).count();
        out.debug_struct("Results").field("hosts", &self.hosts.len()).field("open", &open).finish()
    }
}

/// What all hosts of a group answered, in the order of the group.
#[derive(Debug, Clone)]
pub struct GroupResult<T> {
    results: Vec<(String, Result<T, Error>)>,
}

impl<T> GroupResult<T> {
    pub(crate) fn of(results: Vec<(String, Result<T, Error>)>) -> Self {
        Self { results }
    }

    /// The answer of one host.
    pub fn get(&self, host: &str) -> Option<&Result<T, Error>> {
        self.results.iter().find(|(name, _)| name == host).map(|(_, result)| result)
    }

    /// How many hosts.
    pub fn len(&self) -> usize {
        self.results.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// All answers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Result<T, Error>)> {
        self.results.iter().map(|(host, result)| (host.as_str(), result))
    }

    /// Those who succeeded, with what they answered.
    pub fn successful(&self) -> impl Iterator<Item = (&str, &T)> {
        self.iter().filter_map(|(host, result)| Some((host, result.as_ref().ok()?)))
    }

    /// Those who failed, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &Error)> {
        self.iter().filter_map(|(host, result)| Some((host, result.as_ref().err()?)))
    }

    /// The values by host, if no host failed; else one error that tells of all that did.
    pub fn raise_failures(self) -> Result<BTreeMap<String, T>, Failures> {
        let of = self.results.len();
        let (mut values, mut failures) = (BTreeMap::new(), Vec::new());
        for (host, result) in self.results {
            match result {
                Ok(value) => drop(values.insert(host, value)),
                Err(error) => failures.push(error),
            }
        }
        if failures.is_empty() { Ok(values) } else { Err(Failures { failures, of }) }
    }

    /// Equal answers folded: each different one once, with the hosts that gave it, the most frequent first.
    pub fn folded(&self) -> Vec<(Vec<&str>, &T)>
    where
        T: PartialEq,
    {
        let mut folded: Vec<(Vec<&str>, &T)> = Vec::new();
        for (host, value) in self.successful() {
            match folded.iter_mut().find(|(_, other)| *other == value) {
                Some((hosts, _)) => hosts.push(host),
                None => folded.push((vec![host], value)),
            }
        }
        folded.sort_by_key(|(hosts, _)| std::cmp::Reverse(hosts.len()));
        folded
    }
}

impl<T> IntoIterator for GroupResult<T> {
    type Item = (String, Result<T, Error>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.results.into_iter()
    }
}

/// Some hosts of a group failed.
#[derive(Debug, Clone)]
pub struct Failures {
    failures: Vec<Error>,
    of: usize,
}

impl Failures {
    /// Why, for each host that did.
    pub fn errors(&self) -> &[Error] {
        &self.failures
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} of {} hosts failed", self.failures.len(), self.of)?;
        for error in &self.failures {
            write!(out, "\n  {}", chain(error))?;
        }
        Ok(())
    }
}

impl StdError for Failures {}
