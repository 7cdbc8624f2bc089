//! Which destinations are captured: subnets with ports, what is excepted from them, and which of two that overlap decides.
//! Used by the command line, by whoever plans rules, and by capture. Resolves no names and reads no clock.

mod parse;
mod table;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use parse::{Caution, Resolve, SubnetError, parse, read};
pub use table::{Layer, Span, Table};

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4, 2 on the wire.
    V4,
    /// IPv6, 10 on the wire.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Of which family an address is.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Bits of an address.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The address that a number stands for; bits above those of the family are dropped.
    #[must_use]
    pub fn address(self, number: u128) -> IpAddr {
        match self {
            #[expect(clippy::cast_possible_truncation, reason = "an IPv4 address has 32 bits")]
            Self::V4 => Ipv4Addr::from_bits(number as u32).into(),
            Self::V6 => Ipv6Addr::from_bits(number).into(),
        }
    }
}

/// An address as a number, so that intervals can be reckoned with.
#[must_use]
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// A range of ports, both ends included. Never empty, never port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// `None` where the range is reversed or begins at 0.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(Self { first, last })
    }

    /// The lowest of them.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest of them.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    /// Whether a port is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// Addresses that begin with the same bits, and optionally a range of ports there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    network: IpAddr,
    width: u8,
    ports: Option<Ports>,
}

impl Subnet {
    /// `None` where `width` is larger than an address of this family. Bits of the address behind the width are dropped.
    #[must_use]
    pub fn new(address: IpAddr, width: u8, ports: Option<Ports>) -> Option<Self> {
        let family = Family::of(address);
        let rest = family.bits().checked_sub(width)?;
        let kept = u128::MAX.checked_shl(rest.into()).unwrap_or(0);
        Some(Self { network: family.address(number(address) & kept), width, ports })
    }

    /// One address, all of its ports.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        Self { network: address, width: Family::of(address).bits(), ports: None }
    }

    /// The first address of it.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// How many leading bits are the same.
    #[must_use]
    pub fn width(&self) -> u8 {
        self.width
    }

    /// The ports that are meant; `None` for all.
    #[must_use]
    pub fn ports(&self) -> Option<Ports> {
        self.ports
    }

    /// Of which family it is.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.network)
    }

    /// The first and the last address, as numbers.
    #[must_use]
    pub fn bounds(&self) -> (u128, u128) {
        let first = number(self.network);
        let inside = 1u128.checked_shl((self.family().bits() - self.width).into()).map_or(u128::MAX, |size| size - 1);
        (first, first | inside)
    }

    /// Whether a destination is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr, port: u16) -> bool {
        let (first, last) = self.bounds();
        Family::of(address) == self.family()
            && (first..=last).contains(&number(address))
            && self.ports.is_none_or(|ports| ports.contains(port))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.network, self.ports) {
            (network, None) => write!(f, "{network}/{}", self.width),
            (IpAddr::V4(network), Some(ports)) => write!(f, "{network}/{}:{ports}", self.width),
            (IpAddr::V6(network), Some(ports)) => write!(f, "[{network}/{}]:{ports}", self.width),
        }
    }
}

/// A subnet, and whether it is captured or excepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What it is about.
    pub subnet: Subnet,
    /// Excepted from being captured (`-x`).
    pub exclude: bool,
}

impl Rule {
    /// Captured.
    #[must_use]
    pub fn include(subnet: Subnet) -> Self {
        Self { subnet, exclude: false }
    }

    /// Excepted.
    #[must_use]
    pub fn exclude(subnet: Subnet) -> Self {
        Self { subnet, exclude: true }
    }

    /// Who has the larger one decides: fewer ports first, then more leading bits, and excepted before captured
    /// (sshuttle's `subnet_weight`).
    fn weight(&self) -> (i32, u8, bool) {
        let narrow = self.subnet.ports.map_or(-65535, |ports| i32::from(ports.first) - i32::from(ports.last));
        (narrow, self.subnet.width, self.exclude)
    }
}
