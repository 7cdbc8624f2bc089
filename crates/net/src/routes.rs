//! Which networks a machine reaches by routes of its own (`--auto-nets`), and whether an address is one of its own: asked of the kernel
//! by netlink. Run on the dial side, and by the elevated helper.

use std::io;
use std::net::IpAddr;

use crate::netlink::{ACKNOWLEDGED, DUMP, Netlink, attribute};
use crate::subnet::{Family, Subnet};

const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const DESTINATION: u16 = 1;
const TABLE: u16 = 15;
const MAIN: u32 = 254;
const UNICAST: u8 = 1;
/// `struct rtmsg`.
const FIXED: usize = 12;
/// Where in it the type of the route is.
const TYPE: usize = 7;

/// Whether nobody but this machine, or a whole network, has this address: one of its own, of loopback, multicast, broadcast, none.
/// Where the kernel does not tell, it is taken for one.
pub(crate) fn is_here(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip == IpAddr::from([255; 4]) {
        return true;
    }
    let (family, address) = match ip {
        IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
    };
    let mut body = vec![0; FIXED];
    // The family, and the width of the destination.
    body[0] = family as u8;
    body[1] = address.len() as u8 * 8;
    body.extend((address.len() as u16 + 4).to_ne_bytes());
    body.extend(DESTINATION.to_ne_bytes());
    body.extend(address);
    let mut foreign = false;
    // Local, broadcast, anycast, multicast.
    let ours = |kind: u8| (2..=5).contains(&kind);
    let answer = Netlink::open(None).and_then(|netlink| {
        netlink.ask(GET_ROUTE, ACKNOWLEDGED, &body, |kind, route| {
            foreign |= kind == NEW_ROUTE && route.get(TYPE).is_some_and(|kind| !ours(*kind));
        })
    });
    match answer {
        Ok(()) => !foreign,
        // No way leads there, or one on which all ends.
        Err(error) => !matches!(
            error.raw_os_error(),
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL | libc::EAGAIN)
        ),
    }
}

/// What a machine has routes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// Networks of the main routing table, of both families. Not among them: default routes, single addresses, and what leads nowhere else:
    /// loopback, link-local, multicast.
    pub networks: Vec<Subnet>,
    /// Whether there is a default route, of IPv4 and of IPv6.
    pub default: (bool, bool),
}

/// Those of this machine.
///
/// # Errors
///
/// The kernel breaks off its answer.
pub fn routes() -> io::Result<Routes> {
    let netlink = Netlink::open(None)?;
    let mut found = Routes::default();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut question = [0; FIXED];
        question[0] = u8::try_from(family).unwrap_or_default();
        let asked = netlink.ask(GET_ROUTE, DUMP, &question, |_, body| {
            found.networks.extend(route(body));
            let default = if family == libc::AF_INET { &mut found.default.0 } else { &mut found.default.1 };
            *default |= is_default(body);
        });
        match asked {
            // A kernel without IPv6.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {}
            asked => asked?,
        }
    }
    found.networks.sort_unstable();
    found.networks.dedup();
    Ok(found)
}

/// Of the main table, and not one that leads nowhere.
fn is_default(body: &[u8]) -> bool {
    body.split_first_chunk::<FIXED>().is_some_and(|(&[_, width, _, _, table, _, _, kind, ..], _)| {
        width == 0 && u32::from(table) == MAIN && kind == UNICAST
    })
}

fn route(body: &[u8]) -> Option<Subnet> {
    let (&[_, width, _, _, table, _, _, kind, ..], attributes) = body.split_first_chunk::<FIXED>()?;
    let table = attribute(attributes, TABLE)
        .and_then(|table| table.first_chunk())
        .map_or(u32::from(table), |table| u32::from_ne_bytes(*table));
    let destination = attribute(attributes, DESTINATION)?;
    let address: IpAddr = match *destination {
        [a, b, c, d] => [a, b, c, d].into(),
        ref six => <[u8; 16]>::try_from(six).ok()?.into(),
    };
    let leads = match address {
        IpAddr::V4(address) => {
            !address.is_loopback() && !address.is_link_local() && !address.is_multicast() && address.octets()[0] != 0
        }
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local() && !address.is_multicast(),
    };
    let some = width > 0 && width < Family::of(address).bits();
    (table == MAIN && kind == UNICAST && some && leads).then(|| Subnet::new(address, width, None))?
}
