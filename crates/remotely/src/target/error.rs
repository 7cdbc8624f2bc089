//! Why a word is not a target. Made by [`super::parse`].

use std::fmt;

use super::SCHEMES;
use crate::transport::shell::SplitError;

/// Which part of a hop an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The name of a user.
    User,
    /// The name or address of a host.
    Host,
    /// The name or id of a container.
    Container,
    /// The name of an image.
    Image,
    /// The name of a network namespace.
    Netns,
    /// The number of a Slurm job.
    Job,
    /// The name of a node.
    Node,
    /// The name of a Kubernetes namespace.
    Namespace,
    /// The name of a pod.
    Pod,
    /// The name of a machine.
    Machine,
    /// The first word of a command.
    Program,
    /// Another word of a command.
    Word,
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Part::User => "user name",
            Part::Host => "host name",
            Part::Container => "container",
            Part::Image => "image",
            Part::Netns => "network namespace",
            Part::Job => "job number",
            Part::Node => "node",
            Part::Namespace => "namespace",
            Part::Pod => "pod",
            Part::Machine => "machine",
            Part::Program => "program",
            Part::Word => "command",
        })
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
    /// `slurm:JOB`, which stands for several hosts, or for one that there is not yet.
    #[error(
        "in {hop:?}, slurm: is no way to one host: `remotely exec {hop} -- ...` goes to all nodes of a job, srun:JOB/NODE to one of them, `remotely slurm: -- ...` asks for a new one (a host of that name is ssh:{hop})"
    )]
    Slurm {
        /// The hop.
        hop: String,
    },
    /// Something after the colon of a transport that takes nothing.
    #[error("in {hop:?}, {scheme}: takes nothing after the colon (a host of that name is ssh:{hop})")]
    NoArgument {
        /// The hop.
        hop: String,
        /// The transport.
        scheme: &'static str,
    },
    /// Something after the colon that this transport does not know.
    #[error("in {hop:?}, {wanted} is wanted after the colon")]
    Argument {
        /// The hop.
        hop: String,
        /// What could stand there.
        wanted: &'static str,
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
    /// The words of a command cannot be told apart.
    #[error("in {hop:?}, the command cannot be split into words: {source}")]
    Words {
        /// The hop.
        hop: String,
        /// Why not.
        source: SplitError,
    },
}
