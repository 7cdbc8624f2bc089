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
use crate::bootstrap::{self, ConnectError, Connected};
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
    /// When, and why.
    failed: Mutex<Option<(Instant, Error)>>,
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
            let gateways = || tree.gateways.iter().cycle().skip(self.first).take(tree.gateways.len());
            for gateway in gateways().filter(|gateway| gateway.failure().is_none()).take(TRIES) {
                let name = || gateway.tunnel.host().to_owned();
                match gateway.relay(keys, &order, &options.errors).await {
                    Ok(relayed) => return Ok(relayed),
                    Err(Failed::Gateway(error)) => why = Some(gateway.unreached(&error)),
                    Err(Failed::Host(text)) => {
                        tracing::info!(host = order.target, gateway = gateway.tunnel.host(), text, "not reached");
                        why = Some(ErrorKind::Gateway { gateway: name(), why: text });
                        break;
                    }
                    Err(Failed::Begun(why)) => {
                        return Err(Denied::Over(ErrorKind::Gateway { gateway: name(), why }));
                    }
                }
            }
            // None was tried: all have failed lately.
            why = why.or_else(|| gateways().find_map(|gateway| Some(gateway.unreached(&gateway.failure()?))));
        }
        if let Some(direct) = &tree.direct {
            return Err(Denied::Direct(direct.clone().acquire_owned().await.ok()));
        }
        Err(Denied::Over(why.unwrap_or_else(|| ErrorKind::Gateway {
            gateway: self.gateway().to_owned(),
            why: "there is no way from it that ssh's configuration allows".to_owned(),
        })))
    }
}

impl Gateway {
    /// Why it is not to be tried now.
    fn failure(&self) -> Option<Error> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.as_ref().filter(|(when, _)| when.elapsed() < PAUSE).map(|(_, error)| error.clone())
    }

    fn unreached(&self, error: &Error) -> ErrorKind {
        ErrorKind::NoGateway { gateway: self.tunnel.host().to_owned(), why: error.why() }
    }

    async fn relay(&self, keys: &Arc<Keys>, order: &Order, errors: &Errors) -> Result<Relayed, Failed> {
        let _room = self.room.acquire().await;
        let lent = self.lent(keys).await.map_err(Failed::Gateway)?;
        relay::reach(&self.tunnel, &lent, order.clone(), errors).await
    }

    /// What is lent, over the link that there is, or a new one. Who has waited for one that failed does not try once more, and hears
    /// why it did.
    async fn lent(&self, keys: &Arc<Keys>) -> Result<Arc<Lent>, Error> {
        let mut slot = self.lent.lock().await;
        if let Some(lent) = slot.as_ref().filter(|lent| lent.lasts()) {
            return Ok(lent.clone());
        }
        if let Some(error) = self.failure() {
            return Err(error);
        }
        let lent = self.lend(keys).await.inspect_err(|error| {
            tracing::info!(%error, "a gateway failed");
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), error.clone()));
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
                Err(_) => {
                    let silent = ConnectError::Silent { target: self.tunnel.target().to_string(), limit: PATIENCE };
                    return Err(Error::new(self.tunnel.host(), ErrorKind::Connect(Arc::new(silent))));
                }
            }
        }
        lend::to(&self.tunnel, keys.clone()).await
    }
}
