//! From text to hops. Pure: every part is checked here, so that no name can be an option of a program, or syntax of a
//! shell, wherever a transport puts it. Used by `FromStr` and by [`super::build`].

use std::str::FromStr;

use super::{Hop, Part, Ssh, Target, TargetError};
use crate::transport::shell;

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() {
            return Err(TargetError::Empty);
        }
        let hops = pieces(text).into_iter().map(|hop| parse_hop(hop, text)).collect::<Result<_, _>>()?;
        Ok(Self { hops })
    }
}

/// The text between the `+` that join hops: those inside the quotes of a `command:` join nothing.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let end = if rest.starts_with("command:") { shell::find_unquoted(rest, b'+') } else { rest.find('+') };
        match end {
            Some(end) => {
                pieces.push(&rest[..end]);
                rest = &rest[end + 1..];
            }
            None => {
                pieces.push(rest);
                return pieces;
            }
        }
    }
}

/// One hop by itself. A `+` in it joins nothing, and is refused in a name.
pub(super) fn hop(text: &str) -> Result<Hop, TargetError> {
    parse_hop(text, text)
}

fn parse_hop(hop: &str, target: &str) -> Result<Hop, TargetError> {
    if hop.is_empty() {
        return Err(TargetError::EmptyHop { target: target.into() });
    }
    if let Some(authority) = hop.strip_prefix("ssh://") {
        return parse_ssh(authority.strip_suffix('/').unwrap_or(authority), hop);
    }
    match hop {
        "sudo" => return Ok(Hop::Sudo { user: None }),
        "su" => return Ok(Hop::Su { user: None }),
        _ => {}
    }
    // `user@[::1]:22` and `user@host:22` have their colon behind an `@` or a bracket; a scheme has neither before it.
    let Some((scheme, rest)) = hop.split_once(':').filter(|(before, _)| !before.contains(['@', '['])) else {
        return parse_ssh(hop, hop);
    };
    let name = |part| checked(rest, part, hop);
    match scheme {
        "ssh" => parse_ssh(rest, hop),
        "local" if rest.is_empty() => Ok(Hop::Local),
        "local" => Err(TargetError::NoArgument { hop: hop.into(), scheme: "local" }),
        "sudo" => Ok(Hop::Sudo { user: optional(rest, Part::User, hop)? }),
        "su" => Ok(Hop::Su { user: optional(rest, Part::User, hop)? }),
        "docker" => Ok(Hop::Docker { container: name(Part::Container)? }),
        "podman" => Ok(Hop::Podman { container: name(Part::Container)? }),
        "docker-run" => Ok(Hop::DockerRun { image: name(Part::Image)? }),
        "podman-run" => Ok(Hop::PodmanRun { image: name(Part::Image)? }),
        "nsenter" => Ok(Hop::Nsenter { pid: pid(rest, hop)? }),
        "netns" => Ok(Hop::Netns { name: name(Part::Netns)? }),
        "srun" => parse_srun(rest, hop),
        "kubectl" => parse_kubectl(rest, hop),
        "machine" => Ok(Hop::Machine { name: name(Part::Machine)? }),
        "systemd" => match rest {
            "" | "user" => Ok(Hop::Systemd { user: !rest.is_empty() }),
            _ => Err(TargetError::Argument { hop: hop.into(), wanted: "user, or nothing," }),
        },
        "command" => parse_command(rest, hop),
        // Of a host of that name this would be a port.
        "slurm" => Err(TargetError::Slurm { hop: hop.into() }),
        // `::1`, `fe80::1`
        _ if rest.contains(':') => Err(TargetError::Brackets { hop: hop.into() }),
        _ if rest.is_empty() || rest.bytes().all(|byte| byte.is_ascii_digit()) => parse_ssh(hop, hop),
        _ => Err(TargetError::UnknownTransport { scheme: scheme.into() }),
    }
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

fn optional(name: &str, part: Part, hop: &str) -> Result<Option<String>, TargetError> {
    if name.is_empty() { Ok(None) } else { checked(name, part, hop).map(Some) }
}

/// A process id is below the kernel's limit (proc(5), pid_max).
fn pid(text: &str, hop: &str) -> Result<u32, TargetError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let pid = text.parse::<u32>().ok().filter(|&pid| digits && pid > 0 && pid <= 1 << 22);
    pid.ok_or(TargetError::Argument { hop: hop.into(), wanted: "the number of a process" })
}

/// `[job/]node`
fn parse_srun(text: &str, hop: &str) -> Result<Hop, TargetError> {
    let (job, node) = match text.split_once('/') {
        Some((job, node)) => (Some(checked(job, Part::Job, hop)?), node),
        None => (None, text),
    };
    Ok(Hop::Srun { job, node: checked(node, Part::Node, hop)? })
}

/// `pod`, `namespace/pod`, `namespace/pod/container`, `/pod/container`
fn parse_kubectl(text: &str, hop: &str) -> Result<Hop, TargetError> {
    let parts: Vec<&str> = text.split('/').collect();
    let (namespace, pod, container) = match parts.as_slice() {
        [pod] => (None, pod, None),
        [namespace, pod] => (Some(checked(namespace, Part::Namespace, hop)?), pod, None),
        [namespace, pod, container] => {
            (optional(namespace, Part::Namespace, hop)?, pod, Some(checked(container, Part::Container, hop)?))
        }
        _ => return Err(TargetError::Argument { hop: hop.into(), wanted: "[namespace/]pod[/container]" }),
    };
    Ok(Hop::Kubectl { namespace, pod: checked(pod, Part::Pod, hop)?, container })
}

fn parse_command(text: &str, hop: &str) -> Result<Hop, TargetError> {
    let words = shell::split(text.as_ref()).map_err(|source| TargetError::Words { hop: hop.into(), source })?;
    let words: Vec<String> = words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    command(words, hop)
}

/// A program and its arguments, which may be anything but what no shell reads as one word.
pub(super) fn command(words: Vec<String>, hop: &str) -> Result<Hop, TargetError> {
    let refuse = |part, bad| Err(TargetError::Character { hop: hop.into(), part, bad });
    match words.first() {
        None => return Err(TargetError::Missing { hop: hop.into(), part: Part::Program }),
        Some(program) if program.is_empty() => {
            return Err(TargetError::Missing { hop: hop.into(), part: Part::Program });
        }
        // `exec -x` of a login shell would take it for an option.
        Some(program) if program.starts_with('-') => return refuse(Part::Program, '-'),
        Some(_) => {}
    }
    match words.iter().flat_map(|word| word.chars()).find(|c| c.is_control()) {
        Some(bad) => refuse(Part::Word, bad),
        None => Ok(Hop::Command { words }),
    }
}

/// Refuses what ssh itself refuses in names (options and the syntax of shells), and says so better.
pub(super) fn checked(name: &str, part: Part, hop: &str) -> Result<String, TargetError> {
    if name.is_empty() {
        return Err(TargetError::Missing { hop: hop.into(), part });
    }
    let strange = |c: char| c.is_whitespace() || c.is_control() || "'`\"$\\;&<>|(){}[]!+*?".contains(c);
    let misplaced = match part {
        // A user may hold an `@` (ssh takes the last one) and no colon, a host the one in brackets and not the other.
        Part::User => &[':', '/'][..],
        // Several hosts are a node set.
        Part::Host => &['@', '/', ','],
        // `registry:5000/name:tag@sha256:...`
        Part::Image => &[],
        // A node is one node, and the name of a namespace is one of a file.
        Part::Node => &[':', '@', '/', ','],
        _ => &[':', '@', '/'],
    };
    let wrong =
        |c: char| strange(c) || misplaced.contains(&c) || part == Part::Job && !(c.is_ascii_digit() || c == '_');
    let bad = match part {
        _ if name.starts_with('-') => Some('-'),
        Part::Netns if matches!(name, "." | "..") => Some('.'),
        _ => name.chars().find(|c| wrong(*c)),
    };
    match bad {
        Some(bad) => Err(TargetError::Character { hop: hop.into(), part, bad }),
        None => Ok(name.into()),
    }
}
