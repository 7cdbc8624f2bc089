//! Groups: several tunnels addressed as one. What is asked of a group is asked of all its hosts at once, within windows, and the
//! answers come as they come.

mod results;
#[cfg(feature = "copy")]
mod transfer;
mod windows;

use std::collections::HashSet;
use std::fmt;
use std::ops::{Add, BitAnd, BitOr, BitXor, Sub};
use std::task::Poll;
use std::time::Duration;

use remotely_call::Remote;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

pub use self::results::{Failures, GroupResult, Results};
#[cfg(feature = "copy")]
pub use self::transfer::SamePlace;
#[cfg(feature = "copy")]
pub(crate) use self::transfer::{fetch_from, put_to};
use self::windows::Windows;
use crate::nodes::{NodeError, NodeSet, SourceError, Sources};
use crate::password::Passwords;
use crate::target::TargetError;
use crate::tunnel::{Line, OnLine};
use crate::{Error, Tunnel};

/// So many hosts need no tree.
#[cfg(feature = "tree")]
const FLAT: usize = 64;
/// So many of those that no gateway of a tree reaches are connected to at once.
#[cfg(feature = "tree")]
const DIRECT: usize = 16;

/// Several tunnels addressed as one, in order, each host once. Clones share links and windows.
///
/// Hosts are told apart by their names ([`Tunnel::host`]), also by the operators: `|` and `+` unite, `&` intersects, `-`
/// takes away, `^` leaves what is in one of both only. A tunnel stands for a group of one.
#[derive(Clone, Default)]
pub struct Group {
    tunnels: Vec<Tunnel>,
    windows: Windows,
    timeout: Option<Duration>,
}

impl Group {
    /// Of these tunnels. Of several with one name, the first counts.
    pub fn of(tunnels: impl IntoIterator<Item = Tunnel>) -> Self {
        let mut seen = HashSet::new();
        let tunnels = tunnels.into_iter().filter(|tunnel| seen.insert(tunnel.host().to_owned())).collect();
        Self { tunnels, ..Self::default() }
    }

    /// Of tunnels to these targets, each written as for [`Tunnel::to`]; a text that stands for several is for [`named`](Self::named).
    pub fn to<T: AsRef<str>>(targets: impl IntoIterator<Item = T>) -> Result<Self, TargetError> {
        let tunnels: Result<Vec<_>, _> = targets.into_iter().map(|target| Tunnel::to(target.as_ref())).collect();
        Ok(Self::of(tunnels?))
    }

    /// Of the hosts that an expression stands for: node sets (`web[1-200]`, `web{1..200}`), `@groups` of the user's inventories,
    /// `slurm:JOBID`, `kubectl:-l app=web`; see [`nodes`](crate::nodes).
    pub async fn named(expression: &str) -> Result<Self, GroupError> {
        let sources = Sources::of_user(&[]).map_err(GroupError::Sources)?;
        let nodes = NodeSet::resolve(expression, &sources).await;
        Ok(nodes.map_err(|source| GroupError::Nodes { text: expression.to_owned(), source })?.into())
    }

    /// With so many hosts being connected to at once: 64 if not set, and of those behind the same jump host 8 (an sshd
    /// drops more than ten that have not logged in yet, sshd_config(5), MaxStartups).
    #[must_use]
    pub fn connect_window(mut self, hosts: usize, behind_one_jump_host: usize) -> Self {
        self.windows = self.windows.with_connecting(hosts, behind_one_jump_host);
        self
    }

    /// With so many hosts working at once: 64 if not set.
    #[must_use]
    pub fn call_window(mut self, hosts: usize) -> Self {
        self.windows = self.windows.with_calling(hosts);
        self
    }

    /// Giving up on a host that has not been connected to within `limit`: 30 s if not set. While the agent is sent there, or somebody
    /// asked for a password, it is given that time again and again.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.windows = self.windows.with_connect_timeout(limit);
        // A gateway has its own clock, and is told.
        self.each_changed(|tunnel| match tunnel.gateway() {
            Some(_) => tunnel.connect_timeout(limit),
            None => tunnel.clone(),
        })
    }

    /// Giving up on a call that a host has not answered within `limit`, from when it is the host's turn and has been connected to.
    #[must_use]
    pub fn call_timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// With another place for what is printed on the hosts, see [`Tunnel::on_line`].
    #[must_use]
    pub fn on_line(self, take: impl Fn(&Line) + Send + Sync + 'static) -> Self {
        let take: OnLine = std::sync::Arc::new(take);
        self.each_changed(|tunnel| tunnel.with_on_line(take.clone()))
    }

    /// With these passwords where sudo or su wants one, see [`Tunnel::passwords`]: for what is alike, [`Passwords`] that are
    /// [`shared`](Passwords::shared) ask once.
    #[must_use]
    pub fn passwords(&self, passwords: Passwords) -> Self {
        self.each_changed(|tunnel| tunnel.passwords(passwords.clone()))
    }

    pub(crate) fn each_changed(&self, change: impl Fn(&Tunnel) -> Tunnel) -> Self {
        Self { tunnels: self.tunnels.iter().map(change).collect(), ..self.clone() }
    }

    /// With its hosts reached from `gateways`, among which they are dealt out: each gateway opens the ways to its share by an ssh
    /// of its own, and this machine starts none for them. Hosts that are gateways themselves, or whose way does not begin with ssh, are
    /// reached as before.
    ///
    /// A link goes from here to the host all the same: gateways pass on what it says, and all that can be done with a host can be done
    /// so. Where they log in, and which keys hosts have, is what ssh's configuration and known hosts of *this* machine say. Logins are
    /// signed here, by the agent or by keys that need no passphrase, for the hosts of the group only (which takes sshd 8.9 or later
    /// there); no key leaves. When a gateway cannot be connected to within 10 s or is lost, its hosts fall to others; calls
    /// that it carried fail.
    #[cfg(feature = "tree")]
    #[must_use]
    pub fn through(&self, gateways: impl Into<Self>) -> Self {
        self.led(&gateways.into(), None)
    }

    /// The same, with as many of its own hosts for gateways as make both levels equally wide: 32 for 1,000. A host that no
    /// gateway reaches is connected to from here. Up to 64 hosts are left as they are.
    #[cfg(feature = "tree")]
    #[must_use]
    pub fn tree(&self) -> Self {
        let by_ssh = || self.tunnels.iter().filter(|tunnel| is_by_ssh(tunnel));
        let hosts = by_ssh().count();
        if hosts <= FLAT {
            return self.clone();
        }
        let gateways = by_ssh().take((hosts as f64).sqrt().ceil() as usize).cloned().collect();
        self.led(&gateways, Some(DIRECT))
    }

    #[cfg(feature = "tree")]
    fn led(&self, gateways: &Self, direct: Option<usize>) -> Self {
        let tree = crate::tree::Tree::new(gateways.tunnels.iter().cloned(), direct);
        let mut n = 0;
        let mut lead = |tunnel: &Tunnel| {
            if gateways.get(tunnel.host()).is_some() || !is_by_ssh(tunnel) {
                return tunnel.clone();
            }
            n += 1;
            tree.branch(n - 1).map_or_else(|| tunnel.clone(), |branch| tunnel.through(branch))
        };
        Self { tunnels: self.tunnels.iter().map(&mut lead).collect(), ..self.clone() }
    }

    /// How long a call may take, if that is limited.
    #[cfg(feature = "cli")]
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Its tunnels, in order.
    pub fn tunnels(&self) -> &[Tunnel] {
        &self.tunnels
    }

    /// The names of its hosts, in order.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.tunnels.iter().map(Tunnel::host)
    }

    /// How many hosts.
    pub fn len(&self) -> usize {
        self.tunnels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tunnels.is_empty()
    }

    /// The tunnel to the host of this name.
    pub fn get(&self, host: &str) -> Option<&Tunnel> {
        self.tunnels.iter().find(|tunnel| tunnel.host() == host)
    }

    /// Connects to all hosts that there is no link to. Calls do that by themselves.
    pub fn connect(&self) -> Results<()> {
        self.on_each(|tunnel, windows| async move { windows.reach(&tunnel, None, || tunnel.connect()).await })
    }

    /// Calls a function on every host. Results come as they are there; awaited, they are collected:
    ///
    /// ```no_run
    /// # use remotely::{Group, remote};
    /// # #[remote] fn measure_load() -> f64 { 0.0 }
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let web = Group::to(["web1", "web2"])?;
    /// let mut loads = web.call(measure_load, ());
    /// while let Some((host, load)) = loads.next().await {
    ///     println!("{host}: {:.2}", load?);
    /// }
    /// let loads = web.call(measure_load, ()).await.raise_failures()?;
    /// # Ok(()) }
    /// ```
    ///
    /// A host that cannot be reached keeps nobody waiting but itself. Dropping the results cancels what is not done yet.
    pub fn call<F: Remote>(&self, function: F, arguments: F::Args) -> Results<F::Output>
    where
        F::Args: Clone,
    {
        let timeout = self.timeout;
        self.on_each(move |tunnel, windows| {
            let arguments = arguments.clone();
            async move {
                let calling = tunnel.clone();
                windows.reach(&tunnel, timeout, move || calling.call(function, arguments.clone())).await
            }
        })
    }

    /// The hosts where a function says `true`; with `exclude`, those where it says `false`. An error if it fails anywhere.
    pub async fn filter<F>(&self, function: F, arguments: F::Args, exclude: bool) -> Result<Self, Failures>
    where
        F: Remote<Output = bool>,
        F::Args: Clone,
    {
        let said = self.call(function, arguments).await.raise_failures()?;
        let chosen = self.tunnels.iter().filter(|tunnel| said.get(tunnel.host()).is_some_and(|said| *said != exclude));
        Ok(Self { tunnels: chosen.cloned().collect(), ..self.clone() })
    }

    /// Closes all links, in order.
    pub async fn close(&self) {
        let mut closing = JoinSet::new();
        for tunnel in &self.tunnels {
            let tunnel = tunnel.clone();
            closing.spawn(async move { tunnel.close().await });
        }
        closing.join_all().await;
    }

    /// Does something with each host, as far as the window for calls allows at once. They begin in the order of the group.
    pub(crate) fn on_each<T, W, F>(&self, mut work: W) -> Results<T>
    where
        T: Send + 'static,
        W: FnMut(Tunnel, Windows) -> F,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        let mut before = None;
        for (n, tunnel) in self.tunnels.iter().cloned().enumerate() {
            let (windows, doing) = (self.windows.clone(), work(tunnel.clone(), self.windows.clone()));
            let whole = async move {
                let _turn = windows.turn(&tunnel).await;
                (n, doing.await)
            };
            let (queued, next) = oneshot::channel();
            tasks.spawn(behind(before.replace(next), queued, whole));
        }
        Results::new(self.hosts().map(str::to_owned).collect(), tasks)
    }

    /// All hosts of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let all = Self::of(self.tunnels.iter().chain(&other.tunnels).cloned());
        Self { tunnels: all.tunnels, ..self.clone() }
    }

    /// The hosts that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.only(|host| other.get(host).is_some())
    }

    /// The hosts that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let there: HashSet<&str> = other.hosts().collect();
        self.only(|host| !there.contains(host))
    }

    /// The hosts that are in one of both only.
    #[must_use]
    pub fn symmetric_difference(&self, other: &Self) -> Self {
        self.difference(other).union(&other.difference(self))
    }

    fn only(&self, wanted: impl Fn(&str) -> bool) -> Self {
        let tunnels = self.tunnels.iter().filter(|tunnel| wanted(tunnel.host())).cloned().collect();
        Self { tunnels, ..self.clone() }
    }
}

/// The same, begun when the one before has been: windows are queues, but the threads of a runtime take new tasks in any order.
async fn behind<T>(
    before: Option<oneshot::Receiver<()>>,
    queued: oneshot::Sender<()>,
    work: impl Future<Output = T>,
) -> T {
    if let Some(before) = before {
        // That it is gone counts as well: it has panicked.
        let _ = before.await;
    }
    let mut work = std::pin::pin!(work);
    let first = std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
    let _ = queued.send(());
    match first {
        Poll::Ready(done) => done,
        Poll::Pending => work.await,
    }
}

#[cfg(feature = "tree")]
fn is_by_ssh(tunnel: &Tunnel) -> bool {
    matches!(tunnel.target().hops().first(), Some(crate::target::Hop::Ssh(_)))
}

impl fmt::Debug for Group {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Group").field(&self.hosts().collect::<Vec<_>>()).finish()
    }
}

impl PartialEq for Group {
    /// The same hosts, in whatever order.
    fn eq(&self, other: &Self) -> bool {
        self.hosts().collect::<HashSet<_>>() == other.hosts().collect()
    }
}

impl From<Tunnel> for Group {
    fn from(tunnel: Tunnel) -> Self {
        Self::of([tunnel])
    }
}

impl From<NodeSet> for Group {
    /// A tunnel to each node, under its name.
    fn from(nodes: NodeSet) -> Self {
        Self::of(nodes.iter().map(|node| Tunnel::new(node.target()).named(node.name())))
    }
}

impl From<&Self> for Group {
    fn from(group: &Self) -> Self {
        group.clone()
    }
}

impl From<&Tunnel> for Group {
    fn from(tunnel: &Tunnel) -> Self {
        tunnel.clone().into()
    }
}

impl FromIterator<Tunnel> for Group {
    fn from_iter<I: IntoIterator<Item = Tunnel>>(tunnels: I) -> Self {
        Self::of(tunnels)
    }
}

/// Which hosts an expression stands for could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// An inventory of the user cannot be read.
    #[error("could not read the inventories")]
    Sources(#[source] SourceError),
    /// The expression is wrong, or stands for nothing that there is.
    #[error("{text:?}")]
    Nodes {
        /// The expression.
        text: String,
        /// What is wrong with it.
        source: NodeError,
    },
}

macro_rules! operators {
    ($($operator:ident::$method:ident is $meaning:ident for $($left:ty),*;)*) => {$($(
        impl<G: Into<Group>> $operator<G> for $left {
            type Output = Group;

            fn $method(self, other: G) -> Group {
                Group::from(self).$meaning(&other.into())
            }
        }
    )*)*};
}

operators! {
    BitOr::bitor is union for Group, &Group, Tunnel, &Tunnel;
    Add::add is union for Group, &Group, Tunnel, &Tunnel;
    BitAnd::bitand is intersection for Group, &Group, Tunnel, &Tunnel;
    Sub::sub is difference for Group, &Group, Tunnel, &Tunnel;
    BitXor::bitxor is symmetric_difference for Group, &Group, Tunnel, &Tunnel;
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn hosts_begin_in_the_order_of_the_group_whatever_the_window() {
        let names: Vec<String> = (0..200).map(|n| format!("n{n}")).collect();
        for window in [1, 3, 300] {
            let begun = Arc::new(Mutex::new(Vec::new()));
            let group = Group::to(&names).unwrap().call_window(window);
            let results = group.on_each(|tunnel, _| {
                let begun = begun.clone();
                async move {
                    begun.lock().unwrap().push(tunnel.host().to_owned());
                    tokio::task::yield_now().await;
                    Ok(())
                }
            });
            assert_eq!(results.await.len(), 200);
            let begun = begun.lock().unwrap();
            let expected: Vec<String> = match window {
                1 | 300 => names.clone(),
                // Those who leave let the next in, each to a thread of its own.
                _ => names[..3].to_vec(),
            };
            assert_eq!(begun[..expected.len()], expected, "{window}");
        }
    }
}
