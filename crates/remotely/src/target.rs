//! Targets: what the user writes to name a host, as `[scheme:]rest` hops joined by `+`.
//!
//! Parsing and printing only; [`transport`](crate::transport) turns the hops into a command line. A target is text, and
//! every part of it is checked here, so that nothing in it can be taken for an option or a shell's syntax later.

use std::fmt;
use std::str::FromStr;

/// A way to a host: hops from here to there, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    hops: Vec<Hop>,
}

/// One step of the way: from the machine and user where it starts to those where the next one starts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Hop {
    /// `[ssh:][user@]host[:port]`, also `ssh://[user@]host[:port]`.
    Ssh(Ssh),
    /// `local:`, the same machine and user.
    Local,
    /// `sudo`, `sudo:user`: another user of the same machine, root by default.
    Sudo {
        /// The user.
        user: Option<String>,
    },
}

/// A host to be reached by ssh.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ssh {
    /// As whom, if not as ssh's configuration says.
    pub user: Option<String>,
    /// Name, address or alias of ssh's configuration; an IPv6 address is without brackets.
    pub host: String,
    /// Port, if not as ssh's configuration says.
    pub port: Option<u16>,
}

/// The transports there are, as the user writes them.
pub const SCHEMES: &[&str] = &["ssh:", "local:", "sudo:"];

impl Target {
    /// The hops, from here to there.
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// The same way with one more hop at its end.
    #[must_use]
    pub fn then(mut self, hop: Hop) -> Self {
        self.hops.push(hop);
        self
    }
}

impl From<Hop> for Target {
    fn from(hop: Hop) -> Self {
        Self { hops: vec![hop] }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() {
            return Err(TargetError::Empty);
        }
        let hops = text.split('+').map(|hop| parse_hop(hop, text)).collect::<Result<_, _>>()?;
        Ok(Self { hops })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, hop) in self.hops.iter().enumerate() {
            if n > 0 {
                out.write_str("+")?;
            }
            hop.fmt(out)?;
        }
        Ok(())
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hop::Ssh(ssh) => ssh.fmt(out),
            Hop::Local => out.write_str("local:"),
            Hop::Sudo { user: None } => out.write_str("sudo"),
            Hop::Sudo { user: Some(user) } => write!(out, "sudo:{user}"),
        }
    }
}

impl fmt::Display for Ssh {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A host that is named as a transport is must say that it is a host.
        if self.user.is_none() && (is_scheme(&self.host) || later_scheme(&self.host)) {
            out.write_str("ssh:")?;
        }
        if let Some(user) = &self.user {
            write!(out, "{user}@")?;
        }
        if self.host.contains(':') {
            write!(out, "[{}]", self.host)?;
        } else {
            out.write_str(&self.host)?;
        }
        if let Some(port) = self.port {
            write!(out, ":{port}")?;
        }
        Ok(())
    }
}

fn is_scheme(word: &str) -> bool {
    SCHEMES.iter().any(|scheme| scheme.strip_suffix(':') == Some(word))
}

fn parse_hop(hop: &str, target: &str) -> Result<Hop, TargetError> {
    if hop.is_empty() {
        return Err(TargetError::EmptyHop { target: target.into() });
    }
    if let Some(authority) = hop.strip_prefix("ssh://") {
        return parse_ssh(authority.strip_suffix('/').unwrap_or(authority), hop);
    }
    if hop == "sudo" {
        return Ok(Hop::Sudo { user: None });
    }
    // `user@[::1]:22` and `user@host:22` have their colon behind an `@` or a bracket; a scheme has neither before it.
    let Some((scheme, rest)) = hop.split_once(':').filter(|(before, _)| !before.contains(['@', '['])) else {
        return parse_ssh(hop, hop);
    };
    match scheme {
        "ssh" => parse_ssh(rest, hop),
        "local" if rest.is_empty() => Ok(Hop::Local),
        "local" => Err(TargetError::NoArgument { hop: hop.into(), scheme: "local" }),
        "sudo" if rest.is_empty() => Ok(Hop::Sudo { user: None }),
        "sudo" => Ok(Hop::Sudo { user: Some(checked(rest, Part::User, hop)?) }),
        _ if later_scheme(scheme) => Err(unknown(scheme)),
        // `::1`, `fe80::1`
        _ if rest.contains(':') => Err(TargetError::Brackets { hop: hop.into() }),
        _ if rest.is_empty() || rest.bytes().all(|byte| byte.is_ascii_digit()) => parse_ssh(hop, hop),
        _ => Err(unknown(scheme)),
    }
}

/// Names that are sure to be meant as a transport, even where what follows could be a port.
fn later_scheme(scheme: &str) -> bool {
    matches!(scheme, "docker" | "podman" | "nsenter" | "su" | "srun" | "kubectl" | "command")
}

fn unknown(scheme: &str) -> TargetError {
    TargetError::UnknownTransport { scheme: scheme.into() }
}

/// `[user@]host[:port]`, where the last `@` counts, as it does for ssh.
fn parse_ssh(text: &str, hop: &str) -> Result<Hop, TargetError> {
    let (user, place) = match text.rsplit_once('@') {
        Some((user, place)) => (Some(checked(user, Part::User, hop)?), place),
        None => (None, text),
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, after)) => match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return Err(TargetError::Brackets { hop: hop.into() }),
            },
            None => return Err(TargetError::Brackets { hop: hop.into() }),
        },
        None => match place.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(TargetError::Brackets { hop: hop.into() }),
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = match port {
        None => None,
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port > 0 && !text.starts_with('+') => Some(port),
            _ => return Err(TargetError::Port { hop: hop.into(), port: text.into() }),
        },
    };
    Ok(Hop::Ssh(Ssh { user, host: checked(host, Part::Host, hop)?, port }))
}

/// Which part of a hop an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The name of a user.
    User,
    /// The name or address of a host.
    Host,
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Part::User => "user name",
            Part::Host => "host name",
        })
    }
}

/// Refuses what ssh itself refuses in names (options and the syntax of shells), and says so better.
fn checked(name: &str, part: Part, hop: &str) -> Result<String, TargetError> {
    if name.is_empty() {
        return Err(TargetError::Missing { hop: hop.into(), part });
    }
    let strange = |c: char| c.is_whitespace() || c.is_control() || "'`\"$\\;&<>|(){}[]/!+".contains(c);
    let bad = if name.starts_with('-') { Some('-') } else { name.chars().find(|c| strange(*c)) };
    // A user may hold an `@` (ssh takes the last one) and no colon, a host the one in brackets and not the other.
    let misplaced = if part == Part::Host { '@' } else { ':' };
    match bad.or_else(|| name.contains(misplaced).then_some(misplaced)) {
        Some(bad) => Err(TargetError::Character { hop: hop.into(), part, bad }),
        None => Ok(name.into()),
    }
}

/// Why a word is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing there.
    #[error("the target is empty: name a host, for instance user@host")]
    Empty,
    /// `a++b`, `+a`, `a+`.
    #[error("the target {target:?} has an empty hop: hops are joined by one '+', for instance user@host+sudo")]
    EmptyHop {
        /// The whole target.
        target: String,
    },
    /// No transport of that name.
    #[error("unknown transport {scheme:?}: known are {} (a bare host is ssh)", SCHEMES.join(" "))]
    UnknownTransport {
        /// What stood before the colon.
        scheme: String,
    },
    /// Something after the colon of a transport that takes nothing.
    #[error("in {hop:?}, {scheme}: takes nothing after the colon (a host of that name is ssh:{hop})")]
    NoArgument {
        /// The hop.
        hop: String,
        /// The transport.
        scheme: &'static str,
    },
    /// An IPv6 address without brackets, or brackets that do not close.
    #[error("in {hop:?}, an IPv6 address stands in brackets: [address] or [address]:port")]
    Brackets {
        /// The hop.
        hop: String,
    },
    /// Not a port.
    #[error("in {hop:?}, the port {port:?} is not a number from 1 to 65535")]
    Port {
        /// The hop.
        hop: String,
        /// What stands for the port.
        port: String,
    },
    /// No user before `@`, no host.
    #[error("in {hop:?}, the {part} is missing")]
    Missing {
        /// The hop.
        hop: String,
        /// What is missing.
        part: Part,
    },
    /// A character that cannot be in a name.
    #[error("in {hop:?}, the {part} cannot have {bad:?} in it{}", if *.bad == '-' { " as its first character" } else { "" })]
    Character {
        /// The hop.
        hop: String,
        /// Where.
        part: Part,
        /// The character.
        bad: char,
    },
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
