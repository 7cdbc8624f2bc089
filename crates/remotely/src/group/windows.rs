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
    behind: Arc<Behind>,
    connect_timeout: Duration,
}

/// What is under way behind each jump host.
struct Behind {
    window: usize,
    jump_hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Default for Windows {
    fn default() -> Self {
        raise_descriptors();
        Self {
            connecting: Arc::new(Semaphore::new(64)),
            calling: Arc::new(Semaphore::new(64)),
            behind: Arc::new(Behind { window: 8, jump_hosts: Mutex::default() }),
            connect_timeout: Duration::from_secs(30),
        }
    }
}

impl Windows {
    pub(super) fn with_connecting(self, hosts: usize, behind_one: usize) -> Self {
        let behind = Behind { window: behind_one.max(1), jump_hosts: Mutex::default() };
        Self { connecting: Arc::new(Semaphore::new(hosts.max(1))), behind: Arc::new(behind), ..self }
    }

    pub(super) fn with_calling(self, hosts: usize) -> Self {
        Self { calling: Arc::new(Semaphore::new(hosts.max(1))), ..self }
    }

    pub(super) fn with_connect_timeout(self, limit: Duration) -> Self {
        Self { connect_timeout: limit, ..self }
    }

    /// Waits until there is room for one more host that works.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.calling.clone().acquire_owned().await.ok()
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
        // Those behind a jump host wait for each other without keeping the rest.
        let gate = self.behind.gate(tunnel);
        let _behind = match &gate {
            Some(gate) => gate.acquire().await.ok(),
            None => None,
        };
        let _turn = self.connecting.acquire().await.ok();
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
                // That takes as long as the way is slow, and many share it.
                Err(_) if tunnel.is_sending() => {}
                Err(_) => {
                    tunnel.close().await;
                    return Some(Err(Error::new(tunnel.host(), ErrorKind::Timeout(self.connect_timeout))));
                }
            }
        }
    }
}

impl Behind {
    fn gate(&self, tunnel: &Tunnel) -> Option<Arc<Semaphore>> {
        let [jump_host @ Hop::Ssh(_), _, ..] = tunnel.target().hops() else { return None };
        let mut jump_hosts = self.jump_hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = jump_hosts.entry(jump_host.to_string()).or_insert_with(|| Arc::new(Semaphore::new(self.window)));
        Some(gate.clone())
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
