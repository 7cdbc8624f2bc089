//! What the client says to the elevated helper, line by line, and nothing else: `ROUTES`, `NSLIST`, `OWN`, `PORTS`, `GO`, then `HOST`,
//! `SOURCE`, `DONE` or all of it again. Bytes in, requests out; does nothing itself.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::hosts::is_name;
use crate::rules::{Desired, Listeners, Own, Protocol};
use crate::subnet::{Family, Ports, Rule, Subnet, Table};

/// The longest line, its end included: a `HOST` with the longest name that there can be, and an address.
pub const LONGEST: usize = 320;

/// What begins a line with a name.
const HOST: &str = "HOST ";

const MOST_ROUTES: usize = 100_000;
const MOST_OTHERS: usize = 256;

/// What the client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The rules shall be so (`GO`).
    Go(Box<Go>),
    /// A name of the host's network (`HOST`).
    Host {
        /// The name.
        name: String,
        /// Its address.
        address: IpAddr,
    },
    /// A socket that sends datagrams from this address, which is not of here (`SOURCE`).
    Source(SocketAddr),
    /// The user has ended it: nothing shall stay, not even the kill switch (`DONE`).
    Done,
}

/// The desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Go {
    /// What shall be captured. Its instance is the port of the listener.
    pub desired: Desired,
    /// The client, which is told of signals.
    pub client: u32,
}

/// A line that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// Longer than [`LONGEST`].
    #[error("a line has more than {LONGEST} bytes")]
    Long,
    /// Not what can come here.
    #[error("{line:?} where {expected} was expected")]
    Unexpected {
        /// The line.
        line: String,
        /// What could have come.
        expected: &'static str,
    },
    /// More lines of one kind than anybody needs.
    #[error("too many lines after {section}")]
    Many {
        /// Of which kind.
        section: &'static str,
    },
}

#[derive(Debug, Default)]
enum Section {
    #[default]
    None,
    Routes,
    Names,
    Own,
    Ports,
}

/// Reads requests out of bytes.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    section: Section,
    rules: Vec<Rule>,
    names: Vec<IpAddr>,
    own: Vec<Own>,
    tcp: Listeners,
    dns: Listeners,
    started: bool,
    /// The rest of this line is passed over.
    skipping: bool,
}

impl Reader {
    /// Nothing has been said yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what has been read, in pieces of any size.
    pub fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next request, if the bytes hold a whole one. Whoever has got an error must not go on. A `HOST` that is none is passed over:
    /// its words come from the host's network, and are no reason to end.
    ///
    /// # Errors
    ///
    /// Anything else that is not of the language.
    pub fn next_request(&mut self) -> Result<Option<Request>, LineError> {
        let mut from = 0;
        let request = loop {
            let rest = &self.bytes[from..];
            if self.skipping {
                let end = rest.iter().position(|byte| *byte == b'\n');
                self.skipping = end.is_none();
                from += end.map_or(rest.len(), |end| end + 1);
                if self.skipping {
                    break None;
                }
                continue;
            }
            let end = rest.iter().take(LONGEST).position(|byte| *byte == b'\n');
            let Some(end) = end else {
                if rest.len() < LONGEST {
                    break None;
                }
                if !(self.names_come() && rest.starts_with(HOST.as_bytes())) {
                    return Err(LineError::Long);
                }
                self.skipping = true;
                continue;
            };
            let line = String::from_utf8_lossy(&rest[..end]).into_owned();
            from += end + 1;
            if let Some(request) = self.line(&line)? {
                break Some(request);
            }
        };
        self.bytes.drain(..from);
        Ok(request)
    }

    fn names_come(&self) -> bool {
        self.started && matches!(self.section, Section::None)
    }

    fn line(&mut self, line: &str) -> Result<Option<Request>, LineError> {
        let wrong = |expected| LineError::Unexpected { line: line.to_owned(), expected };
        let expected;
        match (&self.section, line) {
            (Section::None, "ROUTES") => {
                self.rules.clear();
                self.names.clear();
                self.own.clear();
                self.section = Section::Routes;
                return Ok(None);
            }
            (Section::None, line) if self.started && line.starts_with(HOST) => return Ok(host(line)),
            (Section::None, line) => {
                let request = if self.started { request(line) } else { None };
                return request.map(Some).ok_or_else(|| wrong("ROUTES, HOST, SOURCE or DONE"));
            }
            (Section::Routes, "NSLIST") => {
                self.section = Section::Names;
                return Ok(None);
            }
            (Section::Routes, line) => {
                add(&mut self.rules, route(line).ok_or_else(|| wrong("a route or NSLIST"))?, MOST_ROUTES, "ROUTES")?;
                return Ok(None);
            }
            (Section::Names, "OWN") => {
                self.section = Section::Own;
                return Ok(None);
            }
            (Section::Names, line) if !line.starts_with("PORTS ") => {
                add(
                    &mut self.names,
                    server(line).ok_or_else(|| wrong("a nameserver, OWN or PORTS"))?,
                    MOST_OTHERS,
                    "NSLIST",
                )?;
                return Ok(None);
            }
            (Section::Own, line) if !line.starts_with("PORTS ") => {
                add(&mut self.own, own(line).ok_or_else(|| wrong("a connection or PORTS"))?, MOST_OTHERS, "OWN")?;
                return Ok(None);
            }
            (Section::Names | Section::Own, line) => {
                expected = "PORTS";
                if let Some([tcp, dns]) = ports(line) {
                    (self.tcp, self.dns) = (tcp, dns);
                    self.section = Section::Ports;
                    return Ok(None);
                }
            }
            (Section::Ports, line) => {
                expected = "GO";
                if let Some(go) = self.go(line) {
                    self.section = Section::None;
                    self.started = true;
                    return Ok(Some(Request::Go(Box::new(go))));
                }
            }
        }
        Err(wrong(expected))
    }

    fn go(&mut self, line: &str) -> Option<Go> {
        let mut words = line.strip_prefix("GO ")?.split(' ');
        let udp = flag(words.next()?)?;
        let user = optional(words.next()?, |id| id.parse().ok())?;
        let group = optional(words.next()?, |id| id.parse().ok())?;
        let mark = optional(words.next()?, number)?;
        let client = words.next()?.parse().ok()?;
        let table = Table::new(std::mem::take(&mut self.rules));
        let instance = self.tcp.v4.or(self.tcp.v6).unwrap_or(0);
        let mut desired = Desired {
            tcp: self.tcp,
            dns: self.dns,
            udp: if udp { self.tcp } else { Listeners::default() },
            nameservers: std::mem::take(&mut self.names),
            own: std::mem::take(&mut self.own),
            user,
            group,
            mark,
            ..Desired::new(instance, table)
        };
        for word in words {
            match word {
                "router" if !desired.router => desired.router = true,
                "kill-switch" if !desired.kill_switch => desired.kill_switch = true,
                _ => return None,
            }
        }
        Some(Go { desired, client })
    }
}

fn add<T>(list: &mut Vec<T>, one: T, most: usize, section: &'static str) -> Result<(), LineError> {
    if list.len() >= most {
        return Err(LineError::Many { section });
    }
    list.push(one);
    Ok(())
}

/// What can come once the rules are in, but for names.
fn request(line: &str) -> Option<Request> {
    if line == "DONE" {
        return Some(Request::Done);
    }
    let (address, port) = line.strip_prefix("SOURCE ")?.split_once(',')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    Some(Request::Source(SocketAddr::new(address.parse().ok()?, port)))
}

/// `HOST name,ip`
fn host(line: &str) -> Option<Request> {
    let (name, address) = line.strip_prefix(HOST)?.split_once(',')?;
    Some(Request::Host { name: is_name(name).then(|| name.to_owned())?, address: address.parse().ok()? })
}

/// `family,width,exclude,ip,fport,lport`
fn route(line: &str) -> Option<Rule> {
    let [family, width, exclude, address, first, last] = parts(line)?;
    let address = of_family(family, address)?;
    let ports = match (first.parse().ok()?, last.parse().ok()?) {
        (0, 0) => None,
        (first, last) => Some(Ports::new(first, last)?),
    };
    let subnet = Subnet::new(address, width.parse().ok()?, ports)?;
    Some(Rule { subnet, exclude: flag(exclude)? })
}

/// `family,ip`
fn server(line: &str) -> Option<IpAddr> {
    let [family, address] = parts(line)?;
    of_family(family, address)
}

/// `protocol,ip,port,ip,port`, the near end first; `-` and 0 where an end is any.
fn own(line: &str) -> Option<Own> {
    let [protocol, near, near_port, far, far_port] = parts(line)?;
    let protocol = match protocol {
        "6" => Protocol::Tcp,
        "17" => Protocol::Udp,
        _ => return None,
    };
    let end = |address: &str, port: &str| match (address, port.parse::<u16>().ok()?) {
        ("-", 0) => Some(None),
        (address, port) if port > 0 => Some(Some(SocketAddr::new(address.parse().ok()?, port))),
        _ => None,
    };
    let own = Own { protocol, local: end(near, near_port)?, remote: end(far, far_port)? };
    let families = [own.local, own.remote].into_iter().flatten().map(|end| end.is_ipv4());
    let families: Vec<bool> = families.collect();
    (!families.is_empty() && families.iter().all(|family| *family == families[0])).then_some(own)
}

/// `PORTS p6,p4,dns6,dns4`; 0 where there is none.
fn ports(line: &str) -> Option<[Listeners; 2]> {
    let [tcp6, tcp4, dns6, dns4] = parts(line.strip_prefix("PORTS ")?)?;
    let port = |text: &str| Some(Some(text.parse().ok()?).filter(|port| *port != 0));
    Some([Listeners { v4: port(tcp4)?, v6: port(tcp6)? }, Listeners { v4: port(dns4)?, v6: port(dns6)? }])
}

fn parts<const N: usize>(line: &str) -> Option<[&str; N]> {
    line.split(',').collect::<Vec<_>>().try_into().ok()
}

fn of_family(family: &str, address: &str) -> Option<IpAddr> {
    let address: IpAddr = address.parse().ok()?;
    (family == spoken(Family::of(address))).then_some(address)
}

fn spoken(family: Family) -> &'static str {
    match family {
        Family::V4 => "2",
        Family::V6 => "10",
    }
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// `-` for none.
#[expect(clippy::option_option, reason = "wrong, absent, or there")]
fn optional<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text == "-" { Some(None) } else { read(text).map(Some) }
}

fn number(text: &str) -> Option<u32> {
    let read = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    // Every packet that nobody has marked has the mark 0.
    read.ok().filter(|mark| *mark > 0)
}

/// The lines that say this.
#[must_use]
pub fn say(request: &Request) -> String {
    match request {
        Request::Go(go) => say_go(go),
        Request::Host { name, address } => format!("HOST {name},{address}\n"),
        Request::Source(source) => format!("SOURCE {},{}\n", source.ip(), source.port()),
        Request::Done => "DONE\n".into(),
    }
}

fn say_go(go: &Go) -> String {
    let desired = &go.desired;
    let mut text = "ROUTES\n".to_owned();
    for rule in desired.table.rules() {
        let subnet = rule.subnet;
        let (first, last) = subnet.ports().map_or((0, 0), |ports| (ports.first(), ports.last()));
        let (family, exclude) = (spoken(subnet.family()), u8::from(rule.exclude));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{family},{},{exclude},{},{first},{last}", subnet.width(), subnet.network());
    }
    text.push_str("NSLIST\n");
    for server in &desired.nameservers {
        let _ = writeln!(text, "{},{server}", spoken(Family::of(*server)));
    }
    if !desired.own.is_empty() {
        text.push_str("OWN\n");
    }
    for own in &desired.own {
        let protocol = if own.protocol == Protocol::Tcp { 6 } else { 17 };
        let end = |end: Option<SocketAddr>| end.map_or("-,0".into(), |end| format!("{},{}", end.ip(), end.port()));
        let _ = writeln!(text, "{protocol},{},{}", end(own.local), end(own.remote));
    }
    let port = |port: Option<u16>| port.unwrap_or(0);
    let (tcp, dns) = (desired.tcp, desired.dns);
    let _ = writeln!(text, "PORTS {},{},{},{}", port(tcp.v6), port(tcp.v4), port(dns.v6), port(dns.v4));
    let id = |id: Option<u32>| id.map_or("-".into(), |id| id.to_string());
    let mark = desired.mark.map_or("-".into(), |mark| format!("{mark:#x}"));
    let udp = u8::from(desired.udp != Listeners::default());
    let _ = write!(text, "GO {udp} {} {} {mark} {}", id(desired.user), id(desired.group), go.client);
    text.push_str(if desired.router { " router" } else { "" });
    text.push_str(if desired.kill_switch { " kill-switch" } else { "" });
    text.push('\n');
    text
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
