//! Hosts that are reached from other hosts: gateways, which open the ways to them, so that this machine starts no process for
//! each and sends nothing to each by itself. Set up by [`Group`](crate::Group); a link through a gateway is one as any other, from
//! here to the host.

mod config;
mod keys;
mod known;
mod lend;
mod relay;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use remotely_session::{Incoming, Link, LinkBuilder};
use tokio::sync::{Mutex as Baton, OwnedSemaphorePermit, Semaphore};

use self::config::SshWay;
use self::keys::Keys;
use self::known::KnownHosts;
use self::lend::Lent;
use self::relay::{Failed, Order, Relayed};
use crate::bootstrap::{self, Connected};
use crate::options::{ConnectOptions, Errors};
use crate::target::Hop;
use crate::transport::spawn::Process;
use crate::tunnel::ErrorKind;
use crate::{Error, Tunnel};

/// How long a gateway may take to be connected to.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a host may take to answer its gateway. One that is given up then may have begun what it was to do, and is not tried again:
/// what is dead is for ssh to find, sooner.
const ANSWER: Duration = Duration::from_secs(30);
/// So long a gateway that failed is not tried again.
const PAUSE: Duration = Duration::from_secs(30);
/// How many gateways are tried for one host.
const TRIES: usize = 3;
/// Ways that one gateway opens at once.
const AT_ONCE: usize = 8;
/// Processes of ssh at once that say what its configuration makes of a host.
const ASKED_AT_ONCE: usize = 8;

/// Gateways, and what is lent to them.
pub(crate) struct Tree {
    gateways: Vec<Gateway>,
    keys: Arc<Keys>,
    known: Mutex<HashMap<PathBuf, Arc<KnownHosts>>>,
    asking: Semaphore,
    /// Hosts that no gateway reaches are connected to from here, so many at once. `None`: they are not.
    direct: Option<Arc<Semaphore>>,
}

/// The place of one host in the tree: the gateway that it falls to, and the others for when that one fails.
#[derive(Clone)]
pub(crate) struct Branch {
    tree: Arc<Tree>,
    first: usize,
}

/// No gateway has reached the host.
enum Denied {
    /// It is to be connected to from here, while this is held.
    Direct(Option<OwnedSemaphorePermit>),
    /// It is to be given up.
    Over(ErrorKind),
}

struct Gateway {
    tunnel: Tunnel,
    lent: Baton<Option<Arc<Lent>>>,
    failed: Mutex<Option<Instant>>,
    room: Semaphore,
}

impl Tree {
    /// Of these gateways. With `direct`, so many hosts at once that no gateway reaches are connected to from here.
    pub(crate) fn new(gateways: impl IntoIterator<Item = Tunnel>, direct: Option<usize>) -> Arc<Self> {
        let gateway = |tunnel| Gateway {
            tunnel,
            lent: Baton::default(),
            failed: Mutex::default(),
            room: Semaphore::new(AT_ONCE),
        };
        Arc::new(Self {
            gateways: gateways.into_iter().map(gateway).collect(),
            keys: Arc::default(),
            known: Mutex::default(),
            asking: Semaphore::new(ASKED_AT_ONCE),
            direct: direct.map(|hosts| Arc::new(Semaphore::new(hosts.max(1)))),
        })
    }

    /// The place of the host that is the `n`th: they are dealt out among the gateways. `None` without any.
    pub(crate) fn branch(self: &Arc<Self>, n: usize) -> Option<Branch> {
        let first = n.checked_rem(self.gateways.len())?;
        Some(Branch { tree: self.clone(), first })
    }

    async fn way(&self, options: &ConnectOptions) -> Option<SshWay> {
        let Some(Hop::Ssh(place)) = options.target.hops().first() else { return None };
        let _turn = self.asking.acquire().await.ok()?;
        SshWay::ask(place, &options.ssh_opts).await
    }

    /// The lines of the files that are about the host, and the keys that they tell.
    fn known(&self, way: &SshWay) -> known::About {
        let mut about = known::About::default();
        for path in &way.known_hosts {
            let mut files = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let file = files.entry(path.clone()).or_insert_with(|| Arc::new(KnownHosts::read(path))).clone();
            drop(files);
            file.about(&way.name, &mut about);
        }
        about
    }
}

impl Branch {
    /// The name of the gateway that the host falls to.
    pub(crate) fn gateway(&self) -> &str {
        self.tree.gateways[self.first].tunnel.host()
    }

    /// A link to an agent at `options.target`, otherwise as [`bootstrap::connect`]; with the process that is the way there, if one
    /// of here is.
    pub(crate) async fn connect<F: Future<Output = ()>>(
        &self,
        options: &ConnectOptions,
        mut builder: LinkBuilder,
        queued: F,
    ) -> Result<(Link, Incoming, Option<Process>), ErrorKind> {
        queued.await;
        let flight = builder.first_flight();
        // The gateway looks after the time, and it may have to wait for others, or to send the agent.
        let untimed = options.untimed.begin();
        let led = self.lead(options, flight).await;
        drop(untimed);
        match led {
            Ok(Relayed { pipe, received }) => {
                let (link, incoming) = builder.attach(pipe, received);
                Ok((link, incoming, None))
            }
            Err(Denied::Direct(_room)) => {
                let connected = bootstrap::connect(options, builder, std::future::ready(())).await;
                let Connected { link, incoming, process, .. } =
                    connected.map_err(|error| ErrorKind::Connect(Arc::new(error)))?;
                Ok((link, incoming, Some(process)))
            }
            Err(Denied::Over(why)) => Err(why),
        }
    }

    /// A pipe to an agent at `options.target`, for a link whose first flight is `flight`. Cancel safe: what was begun is ended.
    async fn lead(&self, options: &ConnectOptions, flight: Bytes) -> Result<Relayed, Denied> {
        let tree = &*self.tree;
        let mut why = None;
        if let Some(way) = tree.way(options).await {
            let keys = &tree.keys;
            keys.add(&way).await;
            let about = tree.known(&way);
            keys.allow(&way.user, about.keys);
            let order = Order {
                target: options.target.to_string(),
                ssh_opts: way.opts,
                known_hosts: about.lines,
                limit: options.timeout.unwrap_or(ANSWER),
                flight,
            };
            let gateways = tree.gateways.iter().cycle().skip(self.first).take(tree.gateways.len());
            for gateway in gateways.filter(|gateway| !gateway.is_paused()).take(TRIES) {
                match gateway.relay(keys, &order, &options.errors).await {
                    Ok(relayed) => return Ok(relayed),
                    Err(Failed::Gateway(error)) => why = Some((gateway, error.to_string())),
                    Err(Failed::Host(text)) => {
                        tracing::info!(host = order.target, gateway = gateway.tunnel.host(), text, "not reached");
                        why = Some((gateway, text));
                        break;
                    }
                    Err(Failed::Begun(why)) => {
                        let gateway = gateway.tunnel.host().to_owned();
                        return Err(Denied::Over(ErrorKind::Gateway { gateway, why }));
                    }
                }
            }
        }
        if let Some(direct) = &tree.direct {
            return Err(Denied::Direct(direct.clone().acquire_owned().await.ok()));
        }
        let (gateway, why) = match why {
            Some((gateway, why)) => (gateway, why),
            None => (&tree.gateways[self.first], "there is no way from it that ssh's configuration allows".to_owned()),
        };
        Err(Denied::Over(ErrorKind::Gateway { gateway: gateway.tunnel.host().to_owned(), why }))
    }
}

impl Gateway {
    fn is_paused(&self) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|when| when.elapsed() < PAUSE)
    }

    async fn relay(&self, keys: &Arc<Keys>, order: &Order, errors: &Errors) -> Result<Relayed, Failed> {
        let _room = self.room.acquire().await;
        let lent = self.lent(keys).await.map_err(Failed::Gateway)?;
        relay::reach(&self.tunnel, &lent, order.clone(), errors).await
    }

    /// What is lent, over the link that there is, or a new one. Who has waited for one that failed does not try once more.
    async fn lent(&self, keys: &Arc<Keys>) -> Result<Arc<Lent>, Error> {
        let mut slot = self.lent.lock().await;
        if let Some(lent) = slot.as_ref().filter(|lent| lent.lasts()) {
            return Ok(lent.clone());
        }
        if self.is_paused() {
            return Err(Error::new(self.tunnel.host(), ErrorKind::Timeout(PATIENCE)));
        }
        let lent = self.lend(keys).await.inspect_err(|error| {
            tracing::info!(%error, "a gateway failed");
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        })?;
        Ok(slot.insert(Arc::new(lent)).clone())
    }

    async fn lend(&self, keys: &Arc<Keys>) -> Result<Lent, Error> {
        let mut connecting = std::pin::pin!(self.tunnel.connect());
        loop {
            match tokio::time::timeout(PATIENCE, connecting.as_mut()).await {
                Ok(connected) => break connected?,
                // That takes as long as the way is slow, or as somebody types.
                Err(_) if self.tunnel.was_untimed() => {}
                Err(_) => return Err(Error::new(self.tunnel.host(), ErrorKind::Timeout(PATIENCE))),
            }
        }
        lend::to(&self.tunnel, keys.clone()).await
    }
}
