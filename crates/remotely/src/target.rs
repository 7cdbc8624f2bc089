//! Targets: what the user writes to name a host, as `[scheme:]rest` hops joined by `+`.
//!
//! Types, printing and building; [`parse`] reads the text and checks every part of it, also for those who build.
//! [`transport`](crate::transport) turns the hops into a command line. A target is text, and nothing in it can be taken
//! for an option or a shell's syntax later.

mod build;
mod error;
mod parse;

use std::fmt;

pub use self::error::{Part, TargetError};
use crate::transport::shell;

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
    /// `su`, `su:user`: the same by su(1).
    Su {
        /// The user.
        user: Option<String>,
    },
    /// `docker:container`, one that runs.
    Docker {
        /// Its name or id.
        container: String,
    },
    /// `podman:container`, one that runs.
    Podman {
        /// Its name or id.
        container: String,
    },
    /// `docker-run:image`: a new container, which is removed at the end.
    DockerRun {
        /// The image.
        image: String,
    },
    /// `podman-run:image`: a new container, which is removed at the end.
    PodmanRun {
        /// The image.
        image: String,
    },
    /// `nsenter:pid`: all namespaces, the root and the directory of a process.
    Nsenter {
        /// The process.
        pid: u32,
    },
    /// `netns:name`: the network of a namespace that ip-netns(8) knows.
    Netns {
        /// Its name.
        name: String,
    },
    /// `srun:[job/]node`: a node of a Slurm cluster, as a step of a job of its own, or of one that is there.
    Srun {
        /// The allocation.
        job: Option<String>,
        /// The node.
        node: String,
    },
    /// `kubectl:[namespace/]pod[/container]`; `kubectl:/pod/container` in the namespace of the configuration.
    Kubectl {
        /// The namespace, if not that of the configuration.
        namespace: Option<String>,
        /// The pod.
        pod: String,
        /// The container, if not the pod's default one.
        container: Option<String>,
    },
    /// `machine:name`: a machine of systemd-machined.
    Machine {
        /// Its name.
        name: String,
    },
    /// `systemd:`, `systemd:user`: a transient unit of the system's service manager, or of the user's own.
    Systemd {
        /// Whether it is the user's.
        user: bool,
    },
    /// `command:WORDS`: whatever runs the command that is put behind these words.
    Command {
        /// At least one.
        words: Vec<String>,
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
pub const SCHEMES: &[&str] = &[
    "ssh:",
    "local:",
    "sudo:",
    "su:",
    "docker:",
    "docker-run:",
    "podman:",
    "podman-run:",
    "nsenter:",
    "netns:",
    "srun:",
    "kubectl:",
    "machine:",
    "systemd:",
    "command:",
];

impl Target {
    /// The hops, from here to there.
    pub fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// The way up to the hop `n` and with it; the whole way if it has fewer.
    #[must_use]
    pub fn up_to(&self, n: usize) -> Self {
        Self { hops: self.hops.iter().take(n + 1).cloned().collect() }
    }

    /// The same way with one more hop at its end, whose parts are known to be good.
    #[must_use]
    pub(crate) fn with(mut self, hop: Hop) -> Self {
        self.hops.push(hop);
        self
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
            Hop::Su { user: None } => out.write_str("su"),
            Hop::Su { user: Some(user) } => write!(out, "su:{user}"),
            Hop::Docker { container } => write!(out, "docker:{container}"),
            Hop::Podman { container } => write!(out, "podman:{container}"),
            Hop::DockerRun { image } => write!(out, "docker-run:{image}"),
            Hop::PodmanRun { image } => write!(out, "podman-run:{image}"),
            Hop::Nsenter { pid } => write!(out, "nsenter:{pid}"),
            Hop::Netns { name } => write!(out, "netns:{name}"),
            Hop::Srun { job: None, node } => write!(out, "srun:{node}"),
            Hop::Srun { job: Some(job), node } => write!(out, "srun:{job}/{node}"),
            Hop::Kubectl { namespace, pod, container } => {
                out.write_str("kubectl:")?;
                match (namespace, container) {
                    (None, None) => out.write_str(pod),
                    (Some(namespace), None) => write!(out, "{namespace}/{pod}"),
                    (namespace, Some(container)) => {
                        write!(out, "{}/{pod}/{container}", namespace.as_deref().unwrap_or_default())
                    }
                }
            }
            Hop::Machine { name } => write!(out, "machine:{name}"),
            Hop::Systemd { user: false } => out.write_str("systemd:"),
            Hop::Systemd { user: true } => out.write_str("systemd:user"),
            Hop::Command { words } => {
                out.write_str("command:")?;
                for (n, word) in words.iter().enumerate() {
                    if n > 0 {
                        out.write_str(" ")?;
                    }
                    let word = if word.contains('+') {
                        shell::quote_whole(word.as_ref())
                    } else {
                        shell::quote(word.as_ref())
                    };
                    out.write_str(&word.to_string_lossy())?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Ssh {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A host that is named as a transport is must say that it is a host.
        if self.user.is_none() && is_scheme(&self.host) {
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

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
