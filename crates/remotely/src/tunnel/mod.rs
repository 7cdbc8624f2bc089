//! Tunnels: a way to a host, over which functions of this program are called there.

mod error;
mod lines;
#[cfg(feature = "cli")]
mod reached;
mod session;
mod steps;
#[cfg(feature = "copy")]
mod transfer;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use remotely_call::{CallError, Remote, here};

pub use self::error::{Error, ErrorKind, chain};
pub use self::lines::{Line, OnLine};
#[cfg(feature = "cli")]
pub(crate) use self::reached::Reached;
use self::session::Session;
#[cfg(feature = "copy")]
pub use self::transfer::Transfer;
#[cfg(feature = "copy")]
pub(crate) use self::transfer::What;
use crate::options::{AgentKind, ConnectOptions, Width};
use crate::password::Passwords;
use crate::target::{Hop, Target, TargetError};
use crate::tree::Branch;

/// A way to a host, over which functions of this program are called there. Clones are the same tunnel.
///
/// Nothing happens until something is asked of it: the first call connects, and travels with the greeting. When the link is
/// lost, what waited for an answer fails; the next call connects again, to a new agent. Dropped, the last clone closes it.
///
/// Must be used inside a Tokio runtime; [`blocking::Tunnel`](crate::blocking::Tunnel) is for programs without one.
#[derive(Clone)]
pub struct Tunnel {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    session: Mutex<Option<Arc<Session>>>,
}

#[derive(Clone)]
struct Settings {
    host: String,
    connect: ConnectOptions,
    /// The host is reached from another one.
    through: Option<Branch>,
    depth_limit: Option<u8>,
    on_line: OnLine,
}

impl Tunnel {
    /// A tunnel to what `target` names, as on the command line: `user@web1`, `local:`, `gw+docker:web`.
    pub fn to(target: &str) -> Result<Self, TargetError> {
        Ok(Self::new(target.parse()?))
    }

    /// The same for a target that has been read before.
    pub fn new(target: Target) -> Self {
        let host = host_of(&target);
        let connect = ConnectOptions { agent: AgentKind::Tunnel, progress: false, ..ConnectOptions::new(target) };
        Self::with(Settings { host, connect, through: None, depth_limit: None, on_line: lines::shown() })
    }

    /// The same by what the command line says.
    #[cfg(feature = "cli")]
    pub(crate) fn of(connect: ConnectOptions) -> Self {
        let host = host_of(&connect.target);
        let connect = ConnectOptions { agent: AgentKind::Tunnel, ..connect };
        Self::with(Settings { host, connect, through: None, depth_limit: None, on_line: lines::shown() })
    }

    fn with(settings: Settings) -> Self {
        Self { inner: Arc::new(Inner { settings, session: Mutex::default() }) }
    }

    /// A tunnel to this machine: another process of this program, as the same user.
    pub fn local() -> Self {
        Self::new(Target::local())
    }

    fn changed(&self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.inner.settings.clone();
        change(&mut settings);
        Self::with(settings)
    }

    /// With another name: the key of results, the beginning of printed lines, the place in paths.
    #[must_use]
    pub fn named(&self, host: impl Into<String>) -> Self {
        self.changed(|settings| settings.host = host.into())
    }

    /// Giving up when the agent has not answered after `limit`; the time of sending it there, or of asking for a password, does
    /// not count. Without this, it is left to ssh (its `ConnectTimeout`).
    #[must_use]
    pub fn connect_timeout(&self, limit: Duration) -> Self {
        self.changed(|settings| settings.connect.timeout = Some(limit))
    }

    /// With these arguments for the first `ssh` of the way.
    #[must_use]
    pub fn ssh_opts<W: Into<std::ffi::OsString>>(&self, words: impl IntoIterator<Item = W>) -> Self {
        self.changed(|settings| settings.connect.ssh_opts = words.into_iter().map(Into::into).collect())
    }

    /// Running over another number of sessions of its ssh connection than [`Width::Auto`] comes to.
    #[must_use]
    pub fn width(&self, width: Width) -> Self {
        self.changed(|settings| settings.connect.width = width)
    }

    /// With somebody who is asked where sudo or su wants a password on the way. Without this nobody is, and such a hop fails.
    ///
    /// ```no_run
    /// # use remotely::{Tunnel, password::Passwords, remote};
    /// # #[remote] fn restart() {}
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let web = Tunnel::to("ops@web1")?.sudo("root")?.passwords(Passwords::from_terminal());
    /// web.call(restart, ()).await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn passwords(&self, passwords: Passwords) -> Self {
        self.changed(|settings| settings.connect.passwords = passwords)
    }

    /// With another limit for tunnels within tunnels: so many links from the program that the user started. The default is
    /// 2, or what `REMOTELY_DEPTH_LIMIT` says. A function on a host is bound by the limit of who called it.
    #[must_use]
    pub fn depth_limit(&self, links: u8) -> Self {
        self.changed(|settings| settings.depth_limit = Some(links))
    }

    /// With another place for what is printed on the host, and for what the way there says: `take` gets each line. By default
    /// it appears on standard error, behind the host's name.
    ///
    /// What a function printed before it returned is handed over before its call returns.
    #[must_use]
    pub fn on_line(&self, take: impl Fn(&Line) + Send + Sync + 'static) -> Self {
        self.with_on_line(Arc::new(take))
    }

    pub(crate) fn with_on_line(&self, take: OnLine) -> Self {
        self.changed(|settings| settings.on_line = take)
    }

    #[cfg(feature = "tree")]
    pub(crate) fn through(&self, branch: Branch) -> Self {
        self.changed(|settings| settings.through = Some(branch))
    }

    /// The name of the gateway that the host falls to, if it is not reached from here.
    pub(crate) fn gateway(&self) -> Option<&str> {
        self.inner.settings.through.as_ref().map(Branch::gateway)
    }

    /// What this host is called, see [`named`](Self::named): `localhost` for `local:`, else the target as it is written.
    pub fn host(&self) -> &str {
        &self.inner.settings.host
    }

    /// The way there.
    pub fn target(&self) -> &Target {
        &self.inner.settings.connect.target
    }

    /// Whether there is a link at the moment.
    pub fn is_connected(&self) -> bool {
        self.inner.lock().as_ref().is_some_and(|session| session.is_up())
    }

    /// Whether, since this was last asked, the agent has been sent there, or somebody asked for a password.
    pub(crate) fn was_untimed(&self) -> bool {
        self.inner.lock().as_ref().is_some_and(|session| session.was_untimed())
    }

    /// Connects, if there is no link yet. Calls do that by themselves.
    ///
    /// Cancel safe: the link goes on being made.
    pub async fn connect(&self) -> Result<(), Error> {
        let session = self.inner.session()?;
        session.launch();
        session.up().await.map_err(|why| self.inner.error(why))
    }

    /// Calls a function there: `tunnel.call(function, (argument, another))`. The function is one of this program above which
    /// stands `#[remotely::remote]`; what is returned is its value, the `Ok` value if that is a `Result`.
    ///
    /// Nothing is sent before the future is polled. Calls that are polled together travel together, and come back in any
    /// order. Dropping the future cancels the call: an async function is dropped at its next await, any other may look at
    /// [`here::is_cancelled`].
    pub fn call<F: Remote>(&self, function: F, arguments: F::Args) -> Call<F> {
        let _ = function;
        Call { start: Some(Start { tunnel: self.clone(), arguments }), timeout: None, running: None }
    }

    /// Closes the link in order, if there is one. Calls that run fail; what they started there is ended. The tunnel can be
    /// used again, to a new agent.
    ///
    /// Cancel safe: the link is closed all the same.
    pub async fn close(&self) {
        let session = self.inner.lock().take();
        if let Some(session) = session {
            session.close().await;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session there is, or a new one, which does nothing yet.
    fn session(&self) -> Result<Arc<Session>, Error> {
        let mut slot = self.lock();
        if let Some(session) = slot.as_ref().filter(|session| !session.is_over()) {
            return Ok(session.clone());
        }
        let Settings { host, connect, through, depth_limit, on_line } = &self.settings;
        let mut path = here::path();
        path.push(host.clone());
        let limit = limit(*depth_limit);
        if path.len() > usize::from(limit) + 1 {
            return Err(Error::new(host, ErrorKind::Depth { limit, path }));
        }
        let session = Session::new(host.clone(), connect.clone(), through.clone(), path, limit, on_line.clone());
        *slot = Some(session.clone());
        Ok(session)
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(&self.settings.host, kind)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(session) = self.lock().take() {
            session.hang_up();
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Tunnel").field(&self.target().to_string()).finish()
    }
}

/// What is in force: that of who called the function that this is, else that of the program, else that of the environment.
fn limit(of_program: Option<u8>) -> u8 {
    let of_environment = || std::env::var("REMOTELY_DEPTH_LIMIT").ok()?.parse().ok();
    here::depth_limit().or(of_program).or_else(of_environment).unwrap_or(here::DEPTH_LIMIT)
}

fn host_of(target: &Target) -> String {
    match target.hops() {
        [Hop::Local] => here::ORIGIN.into(),
        _ => target.to_string(),
    }
}

/// A call that is under way, or not begun yet. A future.
#[must_use = "a call does nothing unless it is awaited"]
pub struct Call<F: Remote> {
    start: Option<Start<F>>,
    timeout: Option<Duration>,
    running: Option<Running<F::Output>>,
}

type Running<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

struct Start<F: Remote> {
    tunnel: Tunnel,
    arguments: F::Args,
}

impl<F: Remote> Call<F> {
    /// Gives up, and cancels the call, when it has not been answered after `limit`, connecting included.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }
}

// What it holds is moved out before it is polled, or boxed.
impl<F: Remote> Unpin for Call<F> {}

impl<F: Remote> Future for Call<F> {
    type Output = Result<F::Output, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(start) = self.start.take() {
            let timeout = self.timeout;
            self.running = Some(match timeout {
                None => Box::pin(start.run()),
                Some(limit) => Box::pin(async move {
                    let tunnel = start.tunnel.clone();
                    let ran = tokio::time::timeout(limit, start.run()).await;
                    ran.unwrap_or_else(|_| Err(tunnel.inner.error(ErrorKind::Timeout(limit))))
                }),
            });
        }
        match &mut self.running {
            Some(running) => running.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<F: Remote> Start<F> {
    async fn run(self) -> Result<F::Output, Error> {
        let Self { tunnel, arguments } = self;
        let session = tunnel.inner.session()?;
        let failure = match session.call::<F>(arguments).await {
            Ok(value) => return Ok(value),
            Err(CallError::Over) => session.end().await,
            Err(CallError::Encode(why)) => ErrorKind::Encode(why),
            Err(CallError::Decode(why)) => ErrorKind::Decode(why),
            Err(CallError::Failed(failure)) => ErrorKind::failed(*failure, session.stderr()),
        };
        Err(tunnel.inner.error(failure))
    }
}

impl<F: Remote> fmt::Debug for Call<F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Call").field(&F::entry().name).finish()
    }
}
