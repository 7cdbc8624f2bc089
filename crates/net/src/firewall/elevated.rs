//! The elevated helper's process: says READY, waits for what the rules shall be, sets them, and undoes everything at the end of its
//! input. Reads nothing but its input language, its own journal and the hosts file.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::apply::{self, Applier, ApplyError};
use super::guardian::Guardian;
use super::journal::{self, Journal, JournalError};
use super::line::{Go, LineError, Reader, Request};
use super::names::Named;
use super::signals::Signals;
use super::{conntrack, socket};
use crate::hosts;
use crate::rules::{self, Desired, METHODS, Method, Plan, PlanError, Protocol, Step};
use crate::subnet::Family;

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
    /// Signals cannot be caught.
    #[error("signals can't be caught")]
    Signals(#[source] io::Error),
    /// A signal that the client cannot be told of.
    #[error("ended by a signal")]
    Signal,
    /// Nobody would undo the rules after a kill.
    #[error("the process can't be started that undoes the rules if this one is killed")]
    Guardian(#[source] io::Error),
    /// What holds the table of rules has ended, and with it the table has gone.
    #[error("nft has ended, which held the rules: they are gone (it was killed, or ran out of memory)")]
    Holder,
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
    let signals = Signals::catch().map_err(ElevatedError::Signals)?;
    // Not of the client's terminal: what is typed there is not for us. Refused to who leads a group already.
    let _ = rustix::process::setsid();
    let method = choose(&settings.method)?;
    journal::mend(&settings.place, &settings.hosts);
    answer(&format!("READY {}\n", method.name()), &[])?;
    let mut elevated = Elevated {
        settings,
        signals,
        method,
        applier: Applier::new(),
        guardian: None,
        standing: None,
        named: Named::default(),
    };
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
    signals: Signals,
    method: &'static dyn Method,
    applier: Applier,
    guardian: Option<Guardian>,
    standing: Option<Standing>,
    named: Named,
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
            if self.named.due(Instant::now()) == Some(Duration::ZERO) {
                self.write_names();
            }
            if !self.wait()? {
                continue;
            }
            let read = rustix::io::retry_on_intr(|| rustix::io::read(stdin.as_fd(), &mut buffer));
            match read {
                Ok(0) => return Ok(false),
                Ok(read) => reader.take(&buffer[..read]),
                // So ends a socket whose other end was closed with something unread.
                Err(rustix::io::Errno::CONNRESET) => return Ok(false),
                Err(error) => return Err(ElevatedError::Talk(error.into())),
            }
            while let Some(request) = reader.next_request().map_err(ElevatedError::Line)? {
                match request {
                    Request::Go(go) => self.go(*go)?,
                    Request::Host { name, address } => self.named.add(name, address),
                    Request::Source(source) => self.source(source)?,
                    Request::Done => return Ok(true),
                }
            }
        }
    }

    /// For input, or until names are to be written; tells whether there is input.
    fn wait(&self) -> Result<bool, ElevatedError> {
        let stdin = io::stdin();
        let due = self.named.due(Instant::now()).and_then(|due| Timespec::try_from(due).ok());
        let watch = |descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN);
        let mut watched = vec![watch(stdin.as_fd()), watch(self.signals.as_fd())];
        watched.extend(self.applier.holder().map(watch));
        match rustix::event::poll(&mut watched, due.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(ElevatedError::Talk(error.into())),
        }
        let ready = |index: usize| watched.get(index).is_some_and(|watched| !watched.revents().is_empty());
        match (ready(0), ready(1), ready(2)) {
            // What the client has to say goes first: it may be its end.
            (true, ..) => Ok(true),
            (_, true, _) => Err(ElevatedError::Signal),
            (.., true) => Err(ElevatedError::Holder),
            _ => Ok(false),
        }
    }

    fn go(&mut self, go: Go) -> Result<(), ElevatedError> {
        let Go { mut desired, client } = go;
        if desired.instance == 0 {
            return Err(ElevatedError::Nobody);
        }
        self.signals.relay_to(client, io::stdin().as_fd());
        desired.owned = matches!(self.method.name(), "nft" | "tproxy");
        let plan = self.method.plan(&desired).map_err(ElevatedError::Plan)?;
        let before = self.standing.take();
        if let Some(before) = before {
            return self.change(before, desired, plan);
        }
        // Before there is anything that would outlive us in it: listeners, the journal's lock.
        self.guardian = Some(self.guard(&desired).map_err(ElevatedError::Guardian)?);
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
                let port = self.named.are_written().then_some(desired.instance);
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
        let port = self.named.are_written().then_some(standing.desired.instance);
        standing.journal.note(&standing.plan, before, port).map_err(ElevatedError::Journal)?;
        self.applier.apply(&standing.plan).map_err(ElevatedError::Apply)?;
        standing.keeps = standing.desired.kill_switch;
        Ok(())
    }

    /// Has somebody undo the rules if this process is killed.
    fn guard(&self, desired: &Desired) -> io::Result<Guardian> {
        Guardian::start(|| {
            if journal::mend_after(&self.settings.place, &self.settings.hosts, desired.instance) {
                forget(desired);
                forget_answers();
            }
        })
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

    fn write_names(&mut self) {
        let Some(standing) = &mut self.standing else { return };
        let port = standing.desired.instance;
        let names = self.named.write(Instant::now());
        let noted = standing.journal.note(&standing.plan, None, Some(port));
        if noted.is_ok()
            && let Err(error) = hosts::write(&self.settings.hosts, port, names)
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
        if let Some(standing) = self.standing.take() {
            self.undo_rules(standing, done);
        }
        if let Some(guardian) = self.guardian.take() {
            guardian.dismiss();
        }
    }

    fn undo_rules(&mut self, standing: Standing, done: bool) {
        self.applier.undo(&standing.plan);
        let keep = standing.keeps && !done;
        if !keep {
            apply::release(&standing.plan);
        }
        if self.named.are_written()
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
