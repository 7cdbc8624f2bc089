//! What a kernel has to be told so that connections, datagrams and questions about names come to our listeners: a pure function from
//! the desired state to text, one file per method. Called by the elevated helper and by the private namespace; starts no process.

mod iptables;
mod nft;
mod pf;

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use crate::subnet::{Family, Table};

pub use iptables::Nat;
pub use nft::{Nft, Tproxy};
pub use pf::Pf;

/// A way to intercept. What it plans depends on nothing but its argument.
pub trait Method: fmt::Debug + Sync {
    /// As it is called on the command line.
    fn name(&self) -> &'static str;

    /// What it can do besides TCP and DNS of both families.
    fn abilities(&self) -> Abilities;

    /// The steps to the desired state, and those back. Applying twice changes nothing.
    ///
    /// # Errors
    ///
    /// Something is desired that this method cannot do.
    fn plan(&self, desired: &Desired) -> Result<Plan, PlanError>;
}

/// What a method can do besides TCP and DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// UDP other than DNS.
    pub udp: bool,
    /// Only what one user or group sends.
    pub user: bool,
    /// The listeners must be transparent (`IP_TRANSPARENT`), those of UDP always are.
    pub transparent: bool,
    /// Drop instead of sending in clear when the listeners are gone.
    pub kill_switch: bool,
    /// Programs without which it does not work.
    pub programs: &'static [&'static str],
}

/// All methods for this system, the preferred one first. `tproxy` is never chosen by itself.
pub const METHODS: [&dyn Method; 4] = [&Nft, &Nat, &Tproxy, &Pf];

/// The method of that name.
#[must_use]
pub fn method(name: &str) -> Option<&'static dyn Method> {
    METHODS.into_iter().find(|method| method.name() == name)
}

/// A port for each family; `None` where that family is not captured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listeners {
    /// Of the listener for IPv4.
    pub v4: Option<u16>,
    /// Of the listener for IPv6.
    pub v6: Option<u16>,
}

impl Listeners {
    /// The port for a family.
    #[must_use]
    pub fn of(self, family: Family) -> Option<u16> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    fn any(self) -> bool {
        self.v4.is_some() || self.v6.is_some()
    }
}

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A connection of our own, which is never captured: that of ssh, or our own questions to a nameserver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Own {
    /// What it speaks.
    pub protocol: Protocol,
    /// Its near end; an unspecified address stands for any. `None` where a new connection to the same place is ours too.
    pub local: Option<SocketAddr>,
    /// Its far end; `None` for any.
    pub remote: Option<SocketAddr>,
}

impl Own {
    fn family(&self) -> Option<Family> {
        self.remote.or(self.local).map(|end| Family::of(end.ip()))
    }
}

/// What shall be captured, and where it shall come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Names the table or chain, so that several captures stand side by side.
    pub instance: u16,
    /// Which destinations.
    pub table: Table,
    /// Where TCP comes to.
    pub tcp: Listeners,
    /// Where UDP comes to; transparent sockets.
    pub udp: Listeners,
    /// Where questions about names come to, over UDP and TCP.
    pub dns: Listeners,
    /// The nameservers whose port 53 is intercepted.
    pub nameservers: Vec<IpAddr>,
    /// What is never captured.
    pub own: Vec<Own>,
    /// Only what this user sends.
    pub user: Option<u32>,
    /// Only what this group sends.
    pub group: Option<u32>,
    /// Marks packets on their way to transparent listeners; `None` for one of our own.
    pub mark: Option<u32>,
    /// The listeners are open to others: capture also what comes in from them.
    pub router: bool,
    /// Drop what would have been captured, when the capture is gone.
    pub kill_switch: bool,
    /// The rules go when the process goes that has made them. Not in a private namespace, which goes by itself.
    pub owned: bool,
}

impl Desired {
    /// Captures nothing yet.
    #[must_use]
    pub fn new(instance: u16, table: Table) -> Self {
        Self {
            instance,
            table,
            tcp: Listeners::default(),
            udp: Listeners::default(),
            dns: Listeners::default(),
            nameservers: Vec::new(),
            own: Vec::new(),
            user: None,
            group: None,
            mark: None,
            router: false,
            kill_switch: false,
            owned: false,
        }
    }

    /// The mark of packets on their way to transparent listeners.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.mark.unwrap_or(self.routes())
    }

    /// The number of the routing table that takes marked packets to this machine.
    #[must_use]
    pub fn routes(&self) -> u32 {
        0x5200_0000 | u32::from(self.instance)
    }

    fn nameservers(&self, family: Family) -> Vec<String> {
        let ours = self.nameservers.iter().filter(|address| Family::of(**address) == family);
        let mut shown: Vec<String> = ours.map(ToString::to_string).collect();
        shown.sort_unstable();
        shown.dedup();
        shown
    }

    /// The port of the DNS listener, where there is something for it.
    fn dns(&self, family: Family) -> Option<u16> {
        self.dns.of(family).filter(|_| !self.nameservers(family).is_empty())
    }

    fn own(&self, family: Family) -> impl Iterator<Item = &Own> {
        self.own.iter().filter(move |own| own.family() == Some(family))
    }

    /// Refuses what a method cannot do.
    fn within(&self, method: &dyn Method) -> Result<(), PlanError> {
        let name = method.name();
        let abilities = method.abilities();
        if self.udp.any() && !abilities.udp {
            return Err(PlanError::Udp { method: name });
        }
        if (self.user.is_some() || self.group.is_some()) && !abilities.user {
            return Err(PlanError::User { method: name });
        }
        if self.kill_switch && !abilities.kill_switch {
            return Err(PlanError::KillSwitch { method: name });
        }
        Ok(())
    }
}

/// One thing to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// One transaction of nft.
    Nft {
        /// What `nft -f -` reads.
        text: String,
        /// The table must be held by who makes it: goes through a process that stays.
        held: bool,
    },
    /// A command.
    Run {
        /// Its name, and its arguments.
        argv: Vec<String>,
        /// Its standard input.
        input: String,
    },
    /// A command, but where another one succeeds.
    Unless {
        /// The other one, which changes nothing.
        there: Vec<String>,
        /// Its name, and its arguments.
        argv: Vec<String>,
    },
}

impl Step {
    pub(crate) fn run(line: &str) -> Self {
        Self::Run { argv: words(line), input: String::new() }
    }

    pub(crate) fn unless(there: &str, line: &str) -> Self {
        Self::Unless { there: words(there), argv: words(line) }
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nft { text, held: true } => writeln!(f, "nft -i\n{text}"),
            Self::Nft { text, held: false } => writeln!(f, "nft -f -\n{text}"),
            Self::Run { argv, input } => writeln!(f, "{}\n{input}", argv.join(" ")),
            Self::Unless { there, argv } => writeln!(f, "{}\nunless: {}", argv.join(" "), there.join(" ")),
        }
    }
}

/// What leads to the desired state, and back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order; each must succeed.
    pub apply: Vec<Step>,
    /// In this order; each may fail, since there may be nothing to undo. Also leads back from half of `apply`. Without what the owner of
    /// an owned table takes with him, and without the kill switch.
    pub undo: Vec<Step>,
    /// Lifts the kill switch; each may fail.
    pub release: Vec<Step>,
}

impl Plan {
    /// As text, for tests and for `-v`.
    #[must_use]
    pub fn show(&self) -> String {
        let mut text = String::new();
        for (name, steps) in [("apply", &self.apply), ("undo", &self.undo), ("release", &self.release)] {
            for step in steps {
                // Writing to a string does not fail.
                let _ = write!(text, "{name}: {step}");
            }
        }
        text
    }
}

/// What a method cannot do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// UDP besides DNS.
    #[error("method {method} can't capture UDP besides DNS: use --method tproxy")]
    Udp {
        /// The method.
        method: &'static str,
    },
    /// One user's or group's traffic.
    #[error("method {method} can't tell users apart (--user, --group): use --method nft or nat")]
    User {
        /// The method.
        method: &'static str,
    },
    /// The kill switch.
    #[error("method {method} has no kill switch: use --method nft or nat")]
    KillSwitch {
        /// The method.
        method: &'static str,
    },
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
