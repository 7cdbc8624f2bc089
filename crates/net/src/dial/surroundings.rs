//! What this machine knows of its network: routes, names, and where it looks for short ones.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use remotely_proto::message::encode;
use remotely_proto::net::{HOSTS_MAX, Surroundings};
use remotely_session::Stream;

use super::resolv::Resolv;

/// Most routes that are told.
const ROUTES_MAX: usize = 16 << 10;

pub(super) async fn serve(mut stream: Stream) {
    stream.recv.stop();
    let Ok(found) = tokio::task::spawn_blocking(look).await else { return };
    let (message, _) = encode(&found, Bytes::new());
    if stream.send.send(message).await.is_ok() {
        stream.send.finish();
    }
}

fn look() -> Surroundings {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (four, six) = (read("/proc/net/route"), read("/proc/net/ipv6_route"));
    let mut routes: Vec<(IpAddr, u8)> =
        four.lines().filter_map(route_v4).chain(six.lines().filter_map(route_v6)).collect();
    let has_default = |v4: bool| routes.iter().any(|(ip, width)| *width == 0 && ip.is_ipv4() == v4);
    let default = (has_default(true), has_default(false));
    routes.retain(|(ip, width)| *width > 0 && !ip.is_loopback() && !ip.is_multicast());
    routes.sort();
    routes.dedup();
    routes.truncate(ROUTES_MAX);
    let mut hosts = fs::read("/etc/hosts").unwrap_or_default();
    hosts.truncate(HOSTS_MAX);
    let search = Resolv::read().search;
    Surroundings { routes, hosts: hosts.into(), search, default }
}

/// A line of /proc/net/route: interface, destination, gateway, flags, three counts, mask, and more; addresses as the memory
/// of this machine has them.
fn route_v4(line: &str) -> Option<(IpAddr, u8)> {
    let mut words = line.split_ascii_whitespace();
    let destination = u32::from_str_radix(words.nth(1)?, 16).ok()?;
    let flags = u32::from_str_radix(words.nth(1)?, 16).ok()?;
    let mask = u32::from_str_radix(words.nth(3)?, 16).ok()?;
    let up = flags & 1 != 0 && flags & REJECT == 0;
    let ip = Ipv4Addr::from(destination.to_ne_bytes());
    up.then_some((ip.into(), mask.count_ones() as u8))
}

/// A line of /proc/net/ipv6_route: destination, width, source, width, next hop, metric, two counts, flags, interface.
fn route_v6(line: &str) -> Option<(IpAddr, u8)> {
    let mut words = line.split_ascii_whitespace();
    let destination = u128::from_str_radix(words.next()?, 16).ok()?;
    let width = u8::from_str_radix(words.next()?, 16).ok()?;
    let flags = u32::from_str_radix(words.nth(6)?, 16).ok()?;
    let interface = words.next()?;
    let ip = Ipv6Addr::from_bits(destination);
    let wanted = flags & (REJECT | LOCAL) == 0 && interface != "lo" && !ip.is_unicast_link_local();
    wanted.then_some((ip.into(), width))
}

/// RTF_REJECT of linux/route.h.
const REJECT: u32 = 0x0200;
/// RTF_LOCAL of linux/ipv6_route.h.
const LOCAL: u32 = 0x8000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let default = "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0";
        assert_eq!(route_v4(default), Some(([0, 0, 0, 0].into(), 0)));
        let network = format!(
            "eth1\t{:08X}\t00000000\t0001\t0\t0\t0\t{:08X}\t0\t0\t0",
            ne([10, 7, 8, 0]),
            ne([255, 255, 254, 0])
        );
        assert_eq!(route_v4(&network), Some(([10, 7, 8, 0].into(), 23)));
        assert_eq!(route_v4("Iface\tDestination\tGateway\tFlags"), None);
        let six = "fd720000000000000000000000000000 40 00000000000000000000000000000000 00 \
                   00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0";
        assert_eq!(route_v6(six), Some(("fd72::".parse().unwrap(), 64)));
        assert_eq!(route_v6(&six.replace("00000001 eth0", "00200200 lo")), None);
        assert_eq!(route_v6("nonsense"), None);
    }

    fn ne(octets: [u8; 4]) -> u32 {
        u32::from_ne_bytes(octets)
    }
}
