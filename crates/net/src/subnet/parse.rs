//! What a user writes for a subnet, in sshuttle's syntax, and files of them. Called by the command line. Names are resolved
//! by the caller.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::{Family, Ports, Subnet};

/// How the caller resolves a host name: all addresses of it.
pub type Resolve<'a> = dyn FnMut(&str) -> io::Result<Vec<IpAddr>> + 'a;

/// What is wrong with a subnet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubnetError {
    /// It has another shape.
    #[error("{text:?} is not a subnet: write ADDRESS[/WIDTH][:PORT[-PORT]], IPv6 with ports as [1:2::3/64]:456")]
    Shape {
        /// What was written.
        text: String,
    },
    /// More leading bits than an address has.
    #[error("{text}: /{width} is not between /0 and /{most}")]
    Width {
        /// What was written.
        text: String,
        /// The width of it.
        width: String,
        /// The largest that its family has.
        most: u8,
    },
    /// No port has that number.
    #[error("{text}: there is no port {port} (1 to 65535)")]
    Port {
        /// What was written.
        text: String,
        /// The port of it.
        port: String,
    },
    /// A range whose end is before its beginning.
    #[error("{text}: the ports {first}-{last} are the wrong way round")]
    Reversed {
        /// What was written.
        text: String,
        /// Where it begins.
        first: u16,
        /// Where it ends.
        last: u16,
    },
    /// The name has no address.
    #[error("{name}: no address is known for this name")]
    Resolve {
        /// The name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A width cannot be meant for addresses of both families.
    #[error("{name} has IPv4 and IPv6 addresses, so the width /{width} can't be meant for both: write the addresses")]
    Families {
        /// The name.
        name: String,
        /// The width that was written.
        width: String,
    },
    /// A file of subnets cannot be read.
    #[error("{}: the subnets in it can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of a file of subnets is wrong.
    #[error("{}:{line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        source: Box<SubnetError>,
    },
}

/// What is valid, but probably not what was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Caution {
    /// `10/8` is `0.0.0.10/8`, as inet_aton(3) and sshuttle read it.
    Short {
        /// What was written.
        text: String,
        /// What that means.
        means: IpAddr,
    },
    /// The width goes for each of the addresses of a name.
    Several {
        /// The name.
        name: String,
        /// How many addresses it has.
        addresses: usize,
    },
}

impl fmt::Display for Caution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { text, means } => {
                write!(
                    f,
                    "{text} is read as {means}, as inet_aton(3) does; write all four numbers if that is not meant"
                )
            }
            Self::Several { name, addresses } => {
                write!(f, "{name} has {addresses} addresses; the width is meant for each of them")
            }
        }
    }
}

/// Reads `ADDRESS_OR_NAME[/WIDTH][:PORT[-PORT]]`; a name stands for all of its addresses. What deserves a word to the user is added
/// to `cautions`.
///
/// # Errors
///
/// Another shape, a width or port that does not exist, a name that `resolve` does not know.
pub fn parse(text: &str, resolve: &mut Resolve<'_>, cautions: &mut Vec<Caution>) -> Result<Vec<Subnet>, SubnetError> {
    let parts = split(text).ok_or_else(|| SubnetError::Shape { text: text.into() })?;
    let ports = ports(text, &parts)?;
    let literal = literal(parts.host);
    let addresses = match literal {
        Some(address) => vec![address],
        None => resolve(parts.host).map_err(|source| SubnetError::Resolve { name: parts.host.into(), source })?,
    };
    let Some(&first) = addresses.first() else {
        let source = io::Error::from(io::ErrorKind::NotFound);
        return Err(SubnetError::Resolve { name: parts.host.into(), source });
    };
    if let Some(width) = parts.width {
        if addresses.iter().any(|other| Family::of(*other) != Family::of(first)) {
            return Err(SubnetError::Families { name: parts.host.into(), width: width.into() });
        }
        if addresses.len() > 1 {
            cautions.push(Caution::Several { name: parts.host.into(), addresses: addresses.len() });
        }
    }
    if let Some(IpAddr::V4(means)) = literal
        && !means.is_unspecified()
        && parts.host.split('.').count() < 4
    {
        cautions.push(Caution::Short { text: text.into(), means: means.into() });
    }
    addresses.into_iter().map(|address| subnet(text, address, parts.width, ports)).collect()
}

/// Reads a file with one subnet on each line (`-s`, `-X`). Empty lines and comments behind `#` are passed over.
///
/// # Errors
///
/// The file cannot be read, or one of its lines is wrong.
pub fn read(path: &Path, resolve: &mut Resolve<'_>, cautions: &mut Vec<Caution>) -> Result<Vec<Subnet>, SubnetError> {
    let text = std::fs::read_to_string(path).map_err(|source| SubnetError::Read { path: path.into(), source })?;
    let mut subnets = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            let found = parse(line, resolve, cautions).map_err(|source| SubnetError::Line {
                path: path.into(),
                line: index + 1,
                source: Box::new(source),
            })?;
            subnets.extend(found);
        }
    }
    Ok(subnets)
}

struct Parts<'a> {
    host: &'a str,
    width: Option<&'a str>,
    first: Option<&'a str>,
    last: Option<&'a str>,
}

/// More than one colon means IPv6, as sshuttle decides it.
fn split(text: &str) -> Option<Parts<'_>> {
    let six = text.matches(':').count() > 1;
    let (subnet, ports) = match text.strip_prefix('[') {
        Some(inside) if six => {
            let (subnet, behind) = inside.split_once(']')?;
            match behind {
                "" => (subnet, None),
                behind => (subnet, Some(behind.strip_prefix(':')?)),
            }
        }
        // `1:2::3/64:456`: behind the width a colon can only begin ports.
        _ if six => match text.split_once('/') {
            Some((_, width)) if width.contains(':') => text.rsplit_once(':').map(|(a, b)| (a, Some(b)))?,
            _ => (text, None),
        },
        _ => text.split_once(':').map_or((text, None), |(a, b)| (a, Some(b))),
    };
    let (host, width) = subnet.split_once('/').map_or((subnet, None), |(a, b)| (a, Some(b)));
    let (first, last) = match ports {
        None => (None, None),
        Some(ports) => ports.split_once('-').map_or((Some(ports), None), |(a, b)| (Some(a), Some(b))),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.strip_prefix("*.").unwrap_or(host);
    let named =
        !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || (if six { "_:." } else { "_.-" }).contains(c));
    (named && [width, first, last].into_iter().flatten().all(digits)).then_some(Parts { host, width, first, last })
}

/// Port 0 alone stands for all ports, as in sshuttle.
fn ports(text: &str, parts: &Parts<'_>) -> Result<Option<Ports>, SubnetError> {
    let read = |port: &str| port.parse::<u16>().map_err(|_| SubnetError::Port { text: text.into(), port: port.into() });
    let Some(first) = parts.first.map(read).transpose()? else { return Ok(None) };
    let last = parts.last.map(read).transpose()?;
    match (first, last) {
        (0, None | Some(0)) => Ok(None),
        (0, Some(_)) => Err(SubnetError::Port { text: text.into(), port: "0".into() }),
        (first, last) => {
            let last = last.unwrap_or(first);
            let ports = Ports::new(first, last);
            ports.map(Some).ok_or_else(|| SubnetError::Reversed { text: text.into(), first, last })
        }
    }
}

fn subnet(text: &str, address: IpAddr, width: Option<&str>, ports: Option<Ports>) -> Result<Subnet, SubnetError> {
    let most = Family::of(address).bits();
    let Some(written) = width else { return Ok(Subnet { ports, ..Subnet::host(address) }) };
    let subnet = written.parse().ok().and_then(|width| Subnet::new(address, width, ports));
    subnet.ok_or_else(|| SubnetError::Width { text: text.into(), width: written.into(), most })
}

/// An address that needs no resolver. IPv4 as inet_aton(3) reads it, since sshuttle hands it to getaddrinfo(3).
fn literal(host: &str) -> Option<IpAddr> {
    host.parse::<Ipv6Addr>().map(IpAddr::from).ok().or_else(|| aton(host).map(IpAddr::from))
}

/// One to four numbers, decimal, octal (`0`) or hexadecimal (`0x`); the last one fills what is left.
fn aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').map(read_number).collect::<Option<_>>()?;
    let (last, before) = parts.split_last()?;
    let mut address = 0;
    for (place, part) in before.iter().enumerate() {
        if place > 2 || *part > 255 {
            return None;
        }
        address |= part << (24 - 8 * place);
    }
    (u64::from(*last) < 1u64 << (32 - 8 * before.len())).then(|| Ipv4Addr::from_bits(address | last))
}

fn read_number(text: &str) -> Option<u32> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return if digits.starts_with('+') { None } else { u32::from_str_radix(digits, 16).ok() };
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let octal = text.len() > 1 && text.starts_with('0');
    u32::from_str_radix(text, if octal { 8 } else { 10 }).ok()
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
