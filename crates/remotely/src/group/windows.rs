//! How many hosts of a group are connected to, and how many work, at once.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bootstrap::ConnectError;
use crate::target::Hop;
use crate::tunnel::ErrorKind;
use crate::{Error, Tunnel};

/// How often a host is tried whose sshd has dropped us before any login, which it does when too many come at once.
const TRIES: u32 = 4;
/// How long is waited before the first of them, in milliseconds; twice as long before each further one, and up to half as
/// long again by chance.
const PAUSE: u64 = 200;

#[derive(Clone)]
pub(crate) struct Windows {
    connecting: Arc<Semaphore>,
    calling: Arc<Semaphore>,
    behind: Arc<Shares>,
    from_gateways: Arc<Shares>,
    connect_timeout: Duration,
}

/// A window for each of several hosts in the middle, by name.
struct Shares {
    window: usize,
    windows: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Default for Windows {
    fn default() -> Self {
        raise_descriptors();
        Self {
            connecting: Arc::new(Semaphore::new(64)),
            calling: Arc::new(Semaphore::new(64)),
            behind: Shares::of(8),
            from_gateways: Shares::of(64),
            connect_timeout: Duration::from_secs(30),
        }
    }
}

impl Windows {
    pub(super) fn with_connecting(self, hosts: usize, behind_one: usize) -> Self {
        Self { connecting: Arc::new(Semaphore::new(hosts.max(1))), behind: Shares::of(behind_one), ..self }
    }

    pub(super) fn with_calling(self, hosts: usize) -> Self {
        Self { calling: Arc::new(Semaphore::new(hosts.max(1))), from_gateways: Shares::of(hosts), ..self }
    }

    pub(super) fn with_connect_timeout(self, limit: Duration) -> Self {
        Self { connect_timeout: limit, ..self }
    }

    /// Waits until there is room for this host to work. Each gateway has a window of its own.
    pub(super) async fn turn(&self, tunnel: &Tunnel) -> Option<OwnedSemaphorePermit> {
        let window = match tunnel.gateway() {
            Some(gateway) => self.from_gateways.window(gateway),
            None => self.calling.clone(),
        };
        window.acquire_owned().await.ok()
    }

    /// Does something with a host, which connects if there is no link: as the windows allow, within the time for it, and again
    /// where an sshd was overrun. `timeout` is for what is done once there is a link.
    pub(crate) async fn reach<T, F>(
        &self,
        tunnel: &Tunnel,
        timeout: Option<Duration>,
        mut work: impl FnMut() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut tried = 0;
        loop {
            let mut doing = pin!(work());
            let done = match tunnel.is_connected() {
                true => None,
                false => self.connect(tunnel, doing.as_mut()).await,
            };
            let result = match (done, timeout) {
                (Some(result), _) => result,
                (None, None) => doing.await,
                (None, Some(limit)) => {
                    let within = tokio::time::timeout(limit, doing).await;
                    within.unwrap_or_else(|_| Err(Error::new(tunnel.host(), ErrorKind::Timeout(limit))))
                }
            };
            tried += 1;
            match result {
                Err(error) if tried < TRIES && is_overrun(&error) => {
                    let pause = PAUSE << (tried - 1);
                    tokio::time::sleep(Duration::from_millis(pause + by_chance(pause / 2))).await;
                }
                result => return result,
            }
        }
    }

    /// Polls what connects until there is a link, or until it is done before that.
    async fn connect<T>(
        &self,
        tunnel: &Tunnel,
        mut doing: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Option<Result<T, Error>> {
        // Those behind a jump host wait for each other without keeping the rest. A gateway minds its own.
        let of_here = tunnel.gateway().is_none();
        let gate = jump_host(tunnel).filter(|_| of_here).map(|jump_host| self.behind.window(&jump_host));
        let _behind = match &gate {
            Some(gate) => gate.acquire().await.ok(),
            None => None,
        };
        let _turn = if of_here { self.connecting.acquire().await.ok() } else { None };
        let mut up = pin!(tunnel.connect());
        let connected = poll_fn(|cx| {
            // First, so that what it calls travels with the greeting.
            if let Poll::Ready(result) = doing.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            // It hears of a failure itself.
            up.as_mut().poll(cx).map(|_| None)
        });
        let mut connected = pin!(connected);
        loop {
            match tokio::time::timeout(self.connect_timeout, connected.as_mut()).await {
                Ok(result) => return result,
                // That takes as long as the way is slow and many share it, or as somebody types, for one host after the other.
                Err(_) if tunnel.was_untimed() => {}
                Err(_) => {
                    tunnel.close().await;
                    let (target, limit) = (tunnel.target().to_string(), self.connect_timeout);
                    let silent = ErrorKind::Connect(Arc::new(ConnectError::Silent { target, limit }));
                    return Some(Err(Error::new(tunnel.host(), silent)));
                }
            }
        }
    }
}

impl Shares {
    fn of(window: usize) -> Arc<Self> {
        Arc::new(Self { window: window.max(1), windows: Mutex::default() })
    }

    fn window(&self, name: &str) -> Arc<Semaphore> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.window))).clone()
    }
}

fn jump_host(tunnel: &Tunnel) -> Option<String> {
    match tunnel.target().hops() {
        [jump_host @ Hop::Ssh(_), _, ..] => Some(jump_host.to_string()),
        _ => None,
    }
}

/// Whether an sshd has closed the connection before it said who it is.
fn is_overrun(error: &Error) -> bool {
    let ErrorKind::Connect(error) = error.kind() else { return false };
    match &**error {
        ConnectError::Ended { stderr, .. } => {
            stderr.contains("kex_exchange_identification") || stderr.contains("Connection reset by peer")
        }
        _ => false,
    }
}

fn by_chance(below: u64) -> u64 {
    let mut bytes = [0; 8];
    // Without chance, all come at the same time again: slower, not wrong.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes) % below.max(1)
}

/// A host takes four descriptors, and many systems start programs with 1,024 of them where more are allowed.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
    }
}
