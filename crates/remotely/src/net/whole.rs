//! The whole machine: what it sends to some subnets goes through the link, by rules that an elevated helper sets and that go with it.
//! Follows helper, link and signals until one of them ends it.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use remotely_net::capture::{self, Capture, Domain, Exits, Naming, Original, Sockets};
use remotely_net::dial::{Dialer, OnePort};
use remotely_net::firewall::{ClientError, Firewall};
use remotely_net::rules::{Desired, Listeners, Own, Protocol};
use remotely_net::subnet::{Family, Rule, Table};
use remotely_proto::net::Surroundings;
use remotely_session::Link;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::interrupted::interrupted;
use super::line::Line;
use super::table::Wishes;
use super::{NetError, left_alone, preparing};
use crate::options::ConnectOptions;
use crate::report;
use crate::transport::is_of_here;

/// The ports that are tried for the listener, as sshuttle does.
const PORTS: std::ops::RangeInclusive<u16> = 9000..=12_300;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// What the command line says.
#[derive(Debug)]
pub(crate) struct WholeOptions {
    /// The way to the host.
    pub(crate) connect: ConnectOptions,
    /// What is captured.
    pub(crate) wishes: Wishes,
    /// Also what the host has routes to.
    pub(crate) auto_nets: bool,
    /// Keep names of the host's network in the hosts file.
    pub(crate) auto_hosts: bool,
    /// These first of all.
    pub(crate) seed_hosts: Vec<String>,
    /// A method by name, or `auto`.
    pub(crate) method: String,
    /// Where to listen; `None` where a port is to be found.
    pub(crate) v4: Option<SocketAddr>,
    /// The same for IPv6.
    pub(crate) v6: Option<SocketAddr>,
    /// IPv4 only.
    pub(crate) no_v6: bool,
    /// Have questions about names answered there.
    pub(crate) dns: bool,
    /// The nameservers whose questions are captured; those of this machine, if there are none.
    pub(crate) nameservers: Vec<IpAddr>,
    /// Which names are asked for there; all, if there are none.
    pub(crate) domains: Vec<Domain>,
    /// Whom the host asks.
    pub(crate) asked: Option<SocketAddr>,
    /// Only what this user sends.
    pub(crate) user: Option<u32>,
    /// Only what this group sends.
    pub(crate) group: Option<u32>,
    /// Of method tproxy.
    pub(crate) mark: Option<u32>,
    /// Drop what was captured when this is gone.
    pub(crate) kill_switch: bool,
}

impl WholeOptions {
    /// Whether questions about names are captured.
    fn asks(&self) -> bool {
        self.dns || !self.nameservers.is_empty() || !self.domains.is_empty()
    }
}

/// The helper, once there are rules.
pub(super) type Standing = Arc<Mutex<Option<Firewall>>>;

/// Captures until interrupted: gives the signal. `ready` is called once, when everything is in force.
pub(super) async fn live(options: WholeOptions, ready: impl FnOnce() -> io::Result<()>) -> Result<i32, NetError> {
    let interrupted = interrupted()?;
    let standing = Standing::default();
    let ended = tokio::select! {
        signal = interrupted => Ok(signal),
        ended = capture(options, standing.clone(), ready) => ended,
    };
    // Waits until the rules are gone; a kill switch stays, unless the user has ended this. That a terminal is gone is not the user's word.
    let undone = tokio::task::spawn_blocking(move || {
        let firewall = standing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(firewall), Ok(libc::SIGINT | libc::SIGTERM)) = (firewall, &ended) {
            firewall.end();
        }
        ended
    });
    match undone.await {
        Ok(ended) => ended,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

async fn capture(
    options: WholeOptions,
    standing: Standing,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<i32, NetError> {
    let WholeOptions { connect, wishes, method, auto_nets, .. } = &options;
    let own_questions = OnePort::take().map_err(preparing("take a port for questions about names"))?;
    let port = own_questions.port();
    let dialer = Dialer::new().asking_from(own_questions);
    let mut table = wishes.table(&dialer).await.map_err(NetError::Subnet)?;
    // A password is asked for before anything else takes its time.
    let firewall = blocking(helper(method)?, |argv| Firewall::start(&argv)).await?;
    let transparent = firewall.method() == "tproxy";
    let listening = Listening::begin(&options, transparent)?;
    let line = Line::new(connect.clone());
    let (reached, there) = line.connect().await.map_err(NetError::Link)?;
    if *auto_nets {
        table = with_routes(&table, &there);
    }
    if table.rules().iter().all(|rule| rule.exclude) {
        return Err(NetError::Nothing);
    }
    let (links, link) = watch::channel(Some(reached.link().clone()));
    let (here, incoming) = remotely_net::link_to_self().map_err(preparing("make a link to myself"))?;
    tokio::spawn(dialer.serve_all(incoming));
    let naming = Naming { nameserver: options.asked, domains: options.domains.clone(), here_without_link: true };
    let mut desired = listening.desired(&options, table);
    desired.own = left_alone::connections(connect).await;
    if desired.own.is_empty() && !is_of_here(&connect.target) {
        report::note("no connection of ssh was found; if its host is among the subnets, leave it out by -x");
    }
    let places = desired.own.iter().filter_map(|own| own.remote).collect();
    desired.own.extend(asks_from(port));
    let (told, left_alone) = watch::channel(places);
    let exits = Exits { there: link, here, wanted: Arc::new(|_, _| true), naming, left_alone: Some(left_alone) };

    let method = firewall.method().to_owned();
    let socket = firewall.watch().map_err(preparing("watch the firewall helper"))?;
    *standing.lock().unwrap_or_else(PoisonError::into_inner) = Some(firewall);
    let made = set(&standing, desired.clone()).await?;
    let _capture = Capture::start(listening.sockets(made), &exits).map_err(preparing("use the listeners"))?;
    // It goes on blocking, as what it shares with those who write to the helper.
    // SAFETY: a UnixStream is open, and the same one, until it is dropped.
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    let watched = watched.map_err(|error| preparing("watch the firewall helper")(error.into()))?;
    report::note(&format!("connected; method {method}"));
    let left_alone = left_alone::keep(connect.clone(), standing.clone(), desired, told, exits.there.clone());
    let naming = name(standing, exits.there.clone(), options.auto_hosts, options.seed_hosts.clone());
    ready().map_err(preparing("go to the background"))?;
    tokio::select! {
        _ = watched.readable() => Err(NetError::Helper),
        () = line.keep(reached, links) => Ok(libc::SIGTERM),
        () = naming => Ok(libc::SIGTERM),
        () = left_alone => Ok(libc::SIGTERM),
    }
}

/// Has the rules be so.
pub(super) async fn set(standing: &Standing, desired: Desired) -> Result<Vec<OwnedFd>, NetError> {
    blocking(standing.clone(), move |standing| {
        match standing.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(firewall) => firewall.set(&desired),
            // It is being ended.
            None => Err(ClientError::Ended { doing: "set the rules" }),
        }
    })
    .await
}

/// Has names of the host's network written into the hosts file, for as long as there are links.
async fn name(standing: Standing, mut links: watch::Receiver<Option<Link>>, auto: bool, seeds: Vec<String>) {
    if !auto && seeds.is_empty() {
        return std::future::pending().await;
    }
    loop {
        let link =
            links.wait_for(|link| link.as_ref().is_some_and(|link| !link.is_over())).await.ok().and_then(|l| l.clone());
        let Some(link) = link else { return std::future::pending().await };
        capture::hosts(&link, auto, seeds.clone(), |found| {
            let mut standing = standing.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = standing.as_mut().map(|firewall| firewall.name(&found.name, found.address));
            if let Some(Err(error)) = kept {
                tracing::debug!(%error, name = found.name, "the name is not kept");
            }
        })
        .await;
        link.ended().await;
    }
}

/// Does what blocks on a thread that may wait.
async fn blocking<A: Send + 'static, T: Send + 'static>(
    with: A,
    act: impl FnOnce(A) -> Result<T, ClientError> + Send + 'static,
) -> Result<T, NetError> {
    match tokio::task::spawn_blocking(move || act(with)).await {
        Ok(done) => done.map_err(NetError::Firewall),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// The command line of the elevated helper.
fn helper(method: &str) -> Result<Vec<OsString>, NetError> {
    let executable = std::env::current_exe().map_err(preparing("find this executable"))?;
    Ok(vec![executable.into(), "firewall".into(), method.into()])
}

fn with_routes(table: &Table, there: &Surroundings) -> Table {
    let is_own = |ip: &IpAddr, width: u8| ip.is_loopback() || width == 0;
    let routes = there.routes.iter().filter(|(ip, width)| !is_own(ip, *width));
    let found = routes.filter_map(|&(ip, width)| remotely_net::subnet::Subnet::new(ip, width, None)).map(Rule::include);
    Table::new(table.rules().iter().copied().chain(found))
}

/// What this machine listens at.
struct Listening {
    tcp: Vec<TcpListener>,
    names: (Vec<UdpSocket>, Vec<TcpListener>),
    ports: Listeners,
    dns: Listeners,
    transparent: bool,
}

impl Listening {
    fn begin(options: &WholeOptions, transparent: bool) -> Result<Self, NetError> {
        let mut listening = Self {
            tcp: Vec::new(),
            names: Default::default(),
            ports: Listeners::default(),
            dns: Listeners::default(),
            transparent,
        };
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        // One family alone, if only that was named.
        let named = options.v4.is_some() || options.v6.is_some();
        for (family, ip) in Family::ALL.into_iter().zip(loopback) {
            let wanted = if family == Family::V4 { options.v4 } else { options.v6 };
            if (family == Family::V6 && options.no_v6) || (named && wanted.is_none()) {
                continue;
            }
            let listener = match wanted {
                Some(at) if at.port() != 0 => {
                    TcpListener::bind(at).map_err(|source| NetError::Listen { at: at.to_string(), source })
                }
                wanted => free_port(wanted.map_or(ip, |at| at.ip())),
            };
            let listener = match listener {
                Ok(listener) => listener,
                // This machine has no IPv6.
                Err(_) if family == Family::V6 && wanted.is_none() => continue,
                Err(error) => return Err(error),
            };
            // More than the library asks for: bursts of connections come at once.
            rustix::net::listen(&listener, BACKLOG).map_err(|error| preparing("listen")(error.into()))?;
            let port = listener.local_addr().map_err(preparing("listen"))?.port();
            note(&mut listening.ports, family, port);
            listening.tcp.push(listener);
            if options.asks() {
                let (datagrams, connections) = for_names(wanted.map_or(ip, |at| at.ip()))?;
                note(&mut listening.dns, family, datagrams.local_addr().map_err(preparing("listen"))?.port());
                listening.names.0.push(datagrams);
                listening.names.1.push(connections);
            }
        }
        if transparent {
            // The helper makes them, at the same ports.
            listening.tcp.clear();
        }
        Ok(listening)
    }

    fn desired(&self, options: &WholeOptions, table: Table) -> Desired {
        let mut desired = Desired::new(self.ports.v4.or(self.ports.v6).unwrap_or_default(), table);
        (desired.tcp, desired.dns) = (self.ports, self.dns);
        desired.nameservers = match &options.nameservers[..] {
            [] if options.asks() => nameservers(),
            named => named.to_vec(),
        };
        (desired.user, desired.group, desired.mark) = (options.user, options.group, options.mark);
        desired.router = [options.v4, options.v6].into_iter().flatten().any(|at| !at.ip().is_loopback());
        desired.kill_switch = options.kill_switch;
        desired
    }

    fn sockets(self, made: Vec<OwnedFd>) -> Sockets {
        let original = if self.transparent { Original::Own } else { Original::Redirected };
        let connections = self.tcp.into_iter().map(OwnedFd::from).chain(made).map(|listener| (listener, original));
        let (datagrams, streams) = self.names;
        let names = (datagrams.into_iter().map(Into::into).collect(), streams.into_iter().map(Into::into).collect());
        Sockets { connections: connections.collect(), names, ..Sockets::default() }
    }
}

/// Our own questions about names.
fn asks_from(port: u16) -> impl Iterator<Item = Own> {
    let ends = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let local = ends.map(|ip| Some(SocketAddr::new(ip, port)));
    let both = local.into_iter().flat_map(|local| [Protocol::Udp, Protocol::Tcp].map(|protocol| (protocol, local)));
    both.map(|(protocol, local)| Own { protocol, local, remote: None })
}

fn note(listeners: &mut Listeners, family: Family, port: u16) {
    match family {
        Family::V4 => listeners.v4 = Some(port),
        Family::V6 => listeners.v6 = Some(port),
    }
}

fn free_port(ip: IpAddr) -> Result<TcpListener, NetError> {
    let mut last = io::Error::from_raw_os_error(libc::EADDRINUSE);
    for port in PORTS.rev() {
        match TcpListener::bind((ip, port)) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            Err(source) => return Err(NetError::Listen { at: ip.to_string(), source }),
        }
    }
    Err(NetError::Listen { at: format!("{ip}, ports {} to {}", PORTS.start(), PORTS.end()), source: last })
}

/// The same port for both.
fn for_names(ip: IpAddr) -> Result<(UdpSocket, TcpListener), NetError> {
    let mut last = io::Error::from_raw_os_error(libc::EADDRINUSE);
    for _ in 0..64 {
        let bound = UdpSocket::bind((ip, 0)).and_then(|datagrams| {
            let connections = TcpListener::bind(datagrams.local_addr()?)?;
            Ok((datagrams, connections))
        });
        match bound {
            Ok(both) => return Ok(both),
            Err(error) => last = error,
        }
    }
    Err(NetError::Listen { at: ip.to_string(), source: last })
}

/// Whom this machine asks about names, and whom systemd-resolved asks for it.
fn nameservers() -> Vec<IpAddr> {
    let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
    let texts = files.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    let mut found: Vec<IpAddr> = texts.flat_map(|text| in_resolv(&text)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn in_resolv(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    let words = servers.filter_map(|rest| rest.split_ascii_whitespace().next());
    words.filter_map(|word| word.split('%').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_of_a_file() {
        let text = "# nameserver 9.9.9.9\nnameserver 10.0.0.1\n nameserver fe80::1%eth0 \nsearch a\nnameserver\n";
        assert_eq!(in_resolv(text), ["10.0.0.1".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    }

    #[test]
    fn routes_of_the_host_but_its_own_and_the_default_one() {
        let routes = [("10.1.0.0", 16), ("127.0.0.0", 8), ("0.0.0.0", 0), ("fd00::", 8)];
        let routes = routes.map(|(ip, width)| (ip.parse().unwrap(), width)).to_vec();
        let there = Surroundings { routes, hosts: Vec::new().into(), search: vec![], default: (true, true) };
        let table = with_routes(&Table::default(), &there);
        assert!(table.captures("10.1.2.3".parse().unwrap(), 80) && table.captures("fd00::1".parse().unwrap(), 80));
        assert!(!table.captures("8.8.8.8".parse().unwrap(), 80) && !table.captures("127.0.0.1".parse().unwrap(), 80));
    }
}
