//! Whom this machine asks about names: /etc/resolv.conf, read again when it has changed. Used by `names` and `lookup`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::one_port::OnePort;
use super::question::{Asker, Sockets};

const PATH: &str = "/etc/resolv.conf";
/// Whom systemd-resolved asks, where the other file names only itself.
const BEHIND: &str = "/run/systemd/resolve/resolv.conf";
/// It is looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Servers that are asked one after the other; what stands behind them is left out, as libc does.
const SERVERS_MAX: usize = 3;
/// Domains in which short names are looked for.
const SEARCH_MAX: usize = 6;

/// What a resolv.conf says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolv {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<String>,
    /// A name with so many dots is first taken as it is.
    pub(super) dots: usize,
    /// The next question goes to the next server first.
    pub(super) rotate: bool,
}

impl Resolv {
    /// That of this machine; without one, as libc does, whoever listens here.
    pub(super) fn read() -> Self {
        Self::parse(&String::from_utf8_lossy(&fs::read(PATH).unwrap_or_default()))
    }

    /// The same, but for a systemd-resolved on this machine those whom it asks: its own questions may be what we have captured.
    fn behind() -> Self {
        let mut found = Self::read();
        if found.servers.iter().all(|server| server.ip().is_loopback())
            && let Ok(text) = fs::read(BEHIND)
        {
            found.servers = Self::parse(&String::from_utf8_lossy(&text)).servers;
        }
        found
    }

    fn parse(text: &str) -> Self {
        let mut found = Self { servers: Vec::new(), search: Vec::new(), dots: 1, rotate: false };
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone (`fe80::1%eth0`) is left out: such an address is nobody's to ask from here.
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    found.servers.extend(address.map(|ip| SocketAddr::new(ip, 53)));
                }
                // The last of them counts.
                Some("search" | "domain") => found.search = words.take(SEARCH_MAX).map(str::to_owned).collect(),
                Some("options") => {
                    for option in words {
                        match option.split_once(':') {
                            Some(("ndots", count)) => found.dots = count.parse().unwrap_or(1).min(15),
                            None if option == "rotate" => found.rotate = true,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        found.servers.truncate(SERVERS_MAX);
        if found.servers.is_empty() {
            found.servers.push((Ipv4Addr::LOCALHOST, 53).into());
        }
        found
    }
}

/// What tells one version of the file from another.
type Version = Option<(u64, u64, i64, i64, u64)>;

#[derive(Debug)]
struct Known {
    resolv: Arc<Resolv>,
    version: Version,
    looked: Instant,
}

/// The servers of this machine, and how they are asked.
#[derive(Debug)]
pub(super) struct Resolvers {
    known: Mutex<Known>,
    read: fn() -> Resolv,
    turn: AtomicUsize,
    pub(super) asker: Asker,
}

impl Resolvers {
    pub(super) fn of_system() -> Self {
        Self::new(Resolv::read, Asker::AnyPort(Sockets::default()))
    }

    pub(super) fn by_one_port(port: OnePort) -> Self {
        Self::new(Resolv::behind, Asker::OnePort(port))
    }

    fn new(read: fn() -> Resolv, asker: Asker) -> Self {
        let known = Known { version: version(), resolv: Arc::new(read()), looked: Instant::now() };
        Self { known: Mutex::new(known), read, turn: AtomicUsize::new(0), asker }
    }

    /// What the file says now.
    pub(super) fn resolv(&self) -> Arc<Resolv> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.elapsed() >= LOOK_EVERY {
            known.looked = Instant::now();
            let version = version();
            if version != known.version {
                // Before it is read: what changes meanwhile is seen the next time.
                known.version = version;
                known.resolv = Arc::new((self.read)());
                tracing::debug!(servers = ?known.resolv.servers, "resolv.conf has changed");
            }
        }
        known.resolv.clone()
    }

    /// Whom to ask, in this order.
    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        let resolv = self.resolv();
        let mut servers = resolv.servers.clone();
        if resolv.rotate {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % servers.len();
            servers.rotate_left(turn);
        }
        servers
    }
}

fn version() -> Version {
    let meta = fs::metadata(PATH).ok()?;
    Some((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_is_read_as_libc_reads_it() {
        let text = "# a comment\nnameserver 10.0.0.1 # another\nnameserver fd00::1\n\nnameserver nonsense\nnameserver 10.0.0.2\n\
                    nameserver 10.0.0.3\ndomain old.example\nsearch corp.example example ; x\noptions ndots:2 rotate timeout:1\n";
        let found = Resolv::parse(text);
        let servers: Vec<String> = found.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[fd00::1]:53", "10.0.0.2:53"]);
        assert_eq!((found.search, found.dots, found.rotate), (vec!["corp.example".into(), "example".into()], 2, true));
        assert_eq!(Resolv::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }
}
