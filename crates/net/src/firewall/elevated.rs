//! The elevated helper's process: says READY, waits for what the rules shall be, sets them, and undoes everything at the end of its
//! input. Reads nothing but its input language, its own journal and the hosts file.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};

use super::apply::{self, Applier, ApplyError};
use super::journal::{self, Journal, JournalError};
use super::line::{Go, LineError, Reader, Request};
use super::{conntrack, socket};
use crate::hosts::{self, Names};
use crate::rules::{self, Desired, METHODS, Method, Plan, PlanError, Protocol, Step};
use crate::subnet::Family;

/// Names in the hosts file, at most.
const MOST_NAMES: usize = 20_000;

/// What the helper needs to know besides what it is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A method by name, or `auto`.
    pub method: String,
    /// Where journals are kept: `/run/remotely`.
    pub place: PathBuf,
    /// The hosts file: `/etc/hosts`.
    pub hosts: PathBuf,
}

impl Settings {
    /// On a real machine.
    #[must_use]
    pub fn new(method: &str) -> Self {
        Self { method: method.into(), place: "/run/remotely".into(), hosts: "/etc/hosts".into() }
    }
}

/// Why the helper has ended. Everything is undone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElevatedError {
    /// No such method.
    #[error("there is no method {name}: it is auto, nft, nat or tproxy")]
    Method {
        /// What was asked for.
        name: String,
    },
    /// The method does not work here.
    #[error("method {name} does not work on this machine: it wants {programs}, the kernel's part of it, and root")]
    Unsupported {
        /// The method.
        name: String,
        /// Programs that it uses.
        programs: String,
    },
    /// The client cannot be heard, or told.
    #[error("the client can't be talked to")]
    Talk(#[source] io::Error),
    /// The client says something else.
    #[error("the client said what nobody says")]
    Line(#[source] LineError),
    /// The method cannot do that.
    #[error("these rules can't be")]
    Plan(#[source] PlanError),
    /// The rules are refused.
    #[error("the rules can't be set")]
    Apply(#[source] ApplyError),
    /// What is to be undone cannot be noted.
    #[error("how to undo the rules can't be noted")]
    Journal(#[source] JournalError),
    /// There is no listener.
    #[error("nobody listens: no port was given")]
    Nobody,
    /// The ports differ from those of before.
    #[error("the ports of the listeners can't change")]
    Ports,
    /// A transparent listener cannot be made.
    #[error("{address}: nobody can listen there")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Serves the client at standard input and output until that ends, then undoes everything.
///
/// # Errors
///
/// What has gone wrong; everything is undone.
pub fn serve(settings: &Settings) -> Result<(), ElevatedError> {
    own_signals();
    // Not of the client's terminal: what is typed there is not for us. Refused to who leads a group already.
    let _ = rustix::process::setsid();
    let method = choose(&settings.method)?;
    journal::mend(&settings.place, &settings.hosts);
    answer(&format!("READY {}\n", method.name()), &[])?;
    let mut elevated = Elevated { settings, method, applier: Applier::new(), standing: None, names: Names::new() };
    let ended = elevated.listen();
    let done = matches!(ended, Ok(true));
    elevated.undo(done);
    ended.map(drop)
}

fn choose(name: &str) -> Result<&'static dyn Method, ElevatedError> {
    let named = if name == "auto" {
        // Never tproxy by itself, and pf is for other systems.
        METHODS
            .into_iter()
            .filter(|method| matches!(method.name(), "nft" | "nat"))
            .find(|method| apply::supports(*method))
    } else {
        let method = rules::method(name).ok_or_else(|| ElevatedError::Method { name: name.into() })?;
        Some(method).filter(|method| apply::supports(*method))
    };
    named.ok_or_else(|| ElevatedError::Unsupported {
        name: name.into(),
        programs: rules::method(name).map_or("nft or iptables".into(), |method| method.abilities().programs.join(", ")),
    })
}

struct Elevated<'a> {
    settings: &'a Settings,
    method: &'static dyn Method,
    applier: Applier,
    standing: Option<Standing>,
    names: Names,
}

/// What is in force.
struct Standing {
    desired: Desired,
    plan: Plan,
    journal: Journal,
    /// A kill switch is in force that stays unless the user ends it.
    keeps: bool,
}

impl Elevated<'_> {
    /// Until the input ends; tells whether the user has ended it.
    fn listen(&mut self) -> Result<bool, ElevatedError> {
        let mut reader = Reader::new();
        let stdin = io::stdin();
        let mut buffer = [0; 4096];
        loop {
            let read = rustix::io::retry_on_intr(|| rustix::io::read(stdin.as_fd(), &mut buffer));
            match read {
                Ok(0) => return Ok(false),
                Ok(read) => reader.take(&buffer[..read]),
                // So ends a socket whose other end was closed with something unread.
                Err(rustix::io::Errno::CONNRESET) => return Ok(false),
                Err(error) => return Err(ElevatedError::Talk(error.into())),
            }
            let mut named = false;
            while let Some(request) = reader.next_request().map_err(ElevatedError::Line)? {
                match request {
                    Request::Go(go) => self.go(*go)?,
                    Request::Host { name, address } => named |= self.name(name, address),
                    Request::Source(source) => self.source(source)?,
                    Request::Done => return Ok(true),
                }
            }
            if named {
                self.write_names();
            }
        }
    }

    fn go(&mut self, go: Go) -> Result<(), ElevatedError> {
        let Go { mut desired, client } = go;
        if desired.instance == 0 {
            return Err(ElevatedError::Nobody);
        }
        relay_to(client);
        desired.owned = matches!(self.method.name(), "nft" | "tproxy");
        let plan = self.method.plan(&desired).map_err(ElevatedError::Plan)?;
        let before = self.standing.take();
        if let Some(before) = before {
            return self.change(before, desired, plan);
        }
        let listeners = self.listeners(&desired)?;
        let mut journal = Journal::open(&self.settings.place, desired.instance).map_err(ElevatedError::Journal)?;
        forget(&desired);
        let old = journal.releases();
        self.stand(Standing { desired, plan, journal, keeps: false }, None)?;
        // A kill switch of before that has the name of ours is replaced already.
        let plan = self.standing.as_ref().map(|standing| &standing.plan);
        let stale = old.iter().filter(|step| plan.is_none_or(|plan| !plan.release.contains(step)));
        stale.for_each(|step| drop(apply::run(step)));
        journal::take_over(&self.settings.place);
        forget_answers();
        answer("STARTED\n", &listeners)
    }

    /// Other rules for the same listeners.
    fn change(&mut self, before: Standing, desired: Desired, plan: Plan) -> Result<(), ElevatedError> {
        if (before.desired.tcp, before.desired.udp) != (desired.tcp, desired.udp) {
            self.standing = Some(before);
            return Err(ElevatedError::Ports);
        }
        let Standing { plan: old, journal, keeps, .. } = before;
        let stood = self.stand(Standing { desired, plan, journal, keeps }, Some(&old));
        // Only now: meanwhile nothing goes in clear.
        if let Some(Standing { desired, plan, journal, .. }) = &mut self.standing {
            // Where the new ones can't be, a kill switch of before stays.
            let lifted = if stood.is_ok() { &old.release[..] } else { &[] };
            for (before, now) in [(&old.undo[..], &plan.undo), (lifted, &plan.release)] {
                before.iter().filter(|step| !now.contains(step)).for_each(|step| drop(apply::run(step)));
            }
            if stood.is_ok() {
                let port = (!self.names.is_empty()).then_some(desired.instance);
                journal.note(plan, None, port).map_err(ElevatedError::Journal)?;
            }
        }
        stood?;
        forget_answers();
        answer("STARTED\n", &[])
    }

    /// Notes the rules, and sets them. What has failed is undone with all else.
    fn stand(&mut self, standing: Standing, before: Option<&Plan>) -> Result<(), ElevatedError> {
        let standing = self.standing.insert(standing);
        let port = (!self.names.is_empty()).then_some(standing.desired.instance);
        standing.journal.note(&standing.plan, before, port).map_err(ElevatedError::Journal)?;
        self.applier.apply(&standing.plan).map_err(ElevatedError::Apply)?;
        standing.keeps = standing.desired.kill_switch;
        Ok(())
    }

    /// Transparent ones, which only the privileged can make.
    fn listeners(&self, desired: &Desired) -> Result<Vec<OwnedFd>, ElevatedError> {
        let tcp = if self.method.abilities().transparent { desired.tcp } else { rules::Listeners::default() };
        let mut made = Vec::new();
        for (protocol, ports) in [(Protocol::Tcp, tcp), (Protocol::Udp, desired.udp)] {
            for family in Family::ALL {
                let Some(port) = ports.of(family) else { continue };
                let address = SocketAddr::new(near(family, desired.router), port);
                let listener = socket::listener(protocol, address);
                made.push(listener.map_err(|source| ElevatedError::Listen { address, source })?);
            }
        }
        Ok(made)
    }

    fn name(&mut self, name: String, address: IpAddr) -> bool {
        let key = (name, Family::of(address));
        let room = self.names.len() < MOST_NAMES || self.names.contains_key(&key);
        room && self.names.insert(key, address) != Some(address)
    }

    fn write_names(&mut self) {
        let Some(standing) = &mut self.standing else { return };
        let port = standing.desired.instance;
        let noted = standing.journal.note(&standing.plan, None, Some(port));
        if noted.is_ok()
            && let Err(error) = hosts::write(&self.settings.hosts, port, &self.names)
        {
            // Names are a convenience; the connections go on.
            tracing::warn!(error = %error, "names of the host's network are not written");
        }
    }

    /// A socket that answers in the name of a captured destination, and of no other.
    fn source(&self, source: SocketAddr) -> Result<(), ElevatedError> {
        let captured = |standing: &&Standing| {
            standing.desired.udp != rules::Listeners::default()
                && standing.desired.table.captures(source.ip(), source.port())
        };
        let made = self.standing.as_ref().filter(captured).and_then(|_| socket::source(source).ok());
        answer(&format!("SOURCE {},{}\n", source.ip(), source.port()), &made.into_iter().collect::<Vec<_>>())
    }

    fn undo(&mut self, done: bool) {
        let Some(standing) = self.standing.take() else { return };
        self.applier.undo(&standing.plan);
        let keep = standing.keeps && !done;
        if !keep {
            apply::release(&standing.plan);
        }
        if !self.names.is_empty()
            && let Err(error) = hosts::restore(&self.settings.hosts, standing.desired.instance)
        {
            tracing::warn!(error = %error, "names of the host's network are left in the hosts file");
        }
        forget(&standing.desired);
        forget_answers();
        let _ = standing.journal.end(keep);
    }
}

fn near(family: Family, any: bool) -> IpAddr {
    match (family, any) {
        (Family::V4, false) => Ipv4Addr::LOCALHOST.into(),
        (Family::V4, true) => Ipv4Addr::UNSPECIFIED.into(),
        (Family::V6, false) => Ipv6Addr::LOCALHOST.into(),
        (Family::V6, true) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn forget(desired: &Desired) {
    let mut ports = Vec::new();
    for (listeners, protocols) in [
        (desired.tcp, &[Protocol::Tcp][..]),
        (desired.udp, &[Protocol::Udp]),
        (desired.dns, &[Protocol::Tcp, Protocol::Udp]),
    ] {
        for port in [listeners.v4, listeners.v6].into_iter().flatten() {
            ports.extend(protocols.iter().map(|protocol| (*protocol, port)));
        }
    }
    if let Err(error) = conntrack::forget(&ports) {
        tracing::debug!(error = %error, "tracked connections are not forgotten");
    }
}

/// What systemd-resolved has kept was answered on another way.
fn forget_answers() {
    if super::spawn::find("resolvectl").is_some() && Path::new("/run/systemd/resolve").exists() {
        let _ = apply::run(&Step::run("resolvectl flush-caches"));
    }
}

fn answer(line: &str, descriptors: &[OwnedFd]) -> Result<(), ElevatedError> {
    socket::send(io::stdout().as_fd(), line.as_bytes(), descriptors).map_err(ElevatedError::Talk)
}

/// The client's process, once it is known.
static CLIENT: AtomicI32 = AtomicI32::new(0);

/// The process may only be one of who has started us.
fn relay_to(client: u32) {
    let owner = std::fs::metadata(format!("/proc/{client}")).map(|process| process.uid());
    let peer = rustix::net::sockopt::socket_peercred(io::stdin().as_fd());
    if let (Ok(owner), Ok(peer), Ok(client)) = (owner, peer, i32::try_from(client))
        && peer.uid.as_raw() == owner
    {
        CLIENT.store(client, Ordering::Relaxed);
    }
}

/// A signal that ends is for the client: its end is ours. Before there are rules, it ends us.
extern "C" fn relay(_signal: libc::c_int) {
    match CLIENT.load(Ordering::Relaxed) {
        // SAFETY: may be called in a signal handler.
        0 => unsafe { libc::_exit(1) },
        // SAFETY: may be called in a signal handler.
        client => drop(unsafe { libc::kill(client, libc::SIGINT) }),
    }
}

fn own_signals() {
    let ignore = libc::SIG_IGN;
    let relay = relay as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for (signal, handler) in
        [(libc::SIGHUP, ignore), (libc::SIGPIPE, ignore), (libc::SIGINT, relay), (libc::SIGTERM, relay)]
    {
        // SAFETY: all zero is a valid value of this plain structure.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the handler does only what may be done in one.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}
