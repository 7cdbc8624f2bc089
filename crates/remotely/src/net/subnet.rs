//! Addresses that are reached from the host: `ADDRESS[/WIDTH][:PORT[-PORT]]`.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

/// Some addresses and ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subnet {
    ip: IpAddr,
    width: u8,
    ports: RangeInclusive<u16>,
}

/// A text is no subnet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum SubnetError {
    /// The address.
    #[error("'{0}' is no address")]
    Address(String),
    /// The width.
    #[error("'{0}' is no width of such an address")]
    Width(String),
    /// The ports.
    #[error("'{0}' are no ports")]
    Ports(String),
}

impl Subnet {
    /// Whether this is one of them.
    pub(crate) fn contains(&self, ip: IpAddr, port: u16) -> bool {
        let same = match (self.ip, ip) {
            (IpAddr::V4(of), IpAddr::V4(ip)) => {
                of.to_bits().checked_shr(32 - u32::from(self.width))
                    == ip.to_bits().checked_shr(32 - u32::from(self.width))
            }
            (IpAddr::V6(of), IpAddr::V6(ip)) => {
                of.to_bits().checked_shr(128 - u32::from(self.width))
                    == ip.to_bits().checked_shr(128 - u32::from(self.width))
            }
            _ => false,
        };
        same && self.ports.contains(&port)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let (address, rest) = match text.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
            Some((address, rest)) => (address, rest),
            // A colon is part of an address of IPv6, which has brackets where ports follow.
            None if text.matches(':').count() > 1 => text.split_at(text.find('/').unwrap_or(text.len())),
            None => text.split_at(text.find(['/', ':']).unwrap_or(text.len())),
        };
        let (width, ports) = match rest.split_once(':') {
            Some((width, ports)) => (width, Some(ports)),
            None => (rest, None),
        };
        let (bare, inside) = address.split_once('/').unwrap_or((address, width.strip_prefix('/').unwrap_or(width)));
        let address = if bare == "0" { "0.0.0.0" } else { bare };
        let ip: IpAddr = address.parse().map_err(|_| SubnetError::Address(text.to_owned()))?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let width = match inside {
            "" => most,
            width => {
                width.parse().ok().filter(|width| *width <= most).ok_or_else(|| SubnetError::Width(width.to_owned()))?
            }
        };
        let ports = ports.map_or(Some(0..=u16::MAX), range);
        let ports = ports.ok_or_else(|| SubnetError::Ports(text.to_owned()))?;
        Ok(Self { ip, width, ports })
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_hold_what_they_say() {
        let holds =
            |subnet: &str, ip: &str, port| subnet.parse::<Subnet>().unwrap().contains(ip.parse().unwrap(), port);
        assert!(holds("10.0.0.0/8", "10.255.0.1", 80) && !holds("10.0.0.0/8", "11.0.0.1", 80));
        assert!(holds("0/0", "8.8.8.8", 1) && !holds("0/0", "::1", 1) && holds("::/0", "::1", 1));
        assert!(holds("10.0.0.1", "10.0.0.1", 1) && !holds("10.0.0.1", "10.0.0.2", 1));
        assert!(holds("10.0.0.0/24:80-90", "10.0.0.9", 90) && !holds("10.0.0.0/24:80-90", "10.0.0.9", 91));
        assert!(holds("[fd00::/64]:22", "fd00::9", 22) && !holds("[fd00::/64]:22", "fd00::9", 23));
        assert!(holds("[fd00::]/64:22", "fd00::9", 22) && holds("fd00::/64", "fd00::9", 23));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["10.0.0.0/33", "::/129", "10.0.0.0:70000", "10.0.0.0:9-8", "nonsense", "10.0.0.0/x", ""] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }
}
