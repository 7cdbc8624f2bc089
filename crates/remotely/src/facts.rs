//! Facts about a host: what it is, what it has, how busy it is. One call brings them all; each is also a function of its own.
//!
//! They are read from where the kernel tells them (proc(5), uname(2), statvfs(3), getifaddrs(3)); no program is started.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{Call, Tunnel};

/// What there is to know about a host at a glance. What cannot be found out is empty, 0 or `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// As the kernel has it (uname(2)).
    pub hostname: String,
    /// The distribution, from os-release(5): `PRETTY_NAME`.
    pub os: Option<String>,
    /// The kernel's release: `6.1.0-18-amd64`.
    pub kernel: String,
    /// The machine: `x86_64`.
    pub arch: String,
    /// Processors that may be used by who asks.
    pub cpus: u32,
    /// What they are called.
    pub cpu_model: Option<String>,
    /// Memory.
    pub memory: Memory,
    /// Seconds since the start.
    pub uptime: f64,
    /// Average number of busy processes of the last 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// The user who asks, by number.
    pub uid: u32,
    /// Addresses of the network interfaces.
    pub addresses: Vec<Address>,
    /// Routes of the main table.
    pub routes: Vec<Route>,
    /// Mounted file systems that have a device.
    pub filesystems: Vec<FileSystem>,
}

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What could be had without swapping.
    pub available: u64,
    /// Swap.
    pub swap: u64,
}

/// An address of a network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Name of the interface.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Bits of the network.
    pub prefix: u8,
}

/// A way to a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The network; the unspecified address with prefix 0 is the default route.
    pub destination: IpAddr,
    /// Bits of the network.
    pub prefix: u8,
    /// Whom to send to, if not to the destination itself.
    pub gateway: Option<IpAddr>,
    /// Name of the interface.
    pub interface: String,
}

/// A mounted file system; sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// Where it is mounted.
    pub mount: String,
    /// Its device.
    pub device: String,
    /// What kind it is.
    pub kind: String,
    /// All of it.
    pub size: u64,
    /// What an ordinary user may still use.
    pub available: u64,
}

impl Tunnel {
    /// Asks for the facts of the host.
    pub fn facts(&self) -> Call<gather> {
        self.call(gather, ())
    }
}

/// All facts of the host that this is called on.
#[remotely_macros::remote]
pub fn gather() -> Facts {
    let uname = rustix::system::uname();
    let text = |name: &CStr| name.to_string_lossy().into_owned();
    Facts {
        hostname: text(uname.nodename()),
        os: os(),
        kernel: text(uname.release()),
        arch: text(uname.machine()),
        cpus: std::thread::available_parallelism().map_or(0, |count| count.get() as u32),
        cpu_model: cpu_model(),
        memory: memory(),
        uptime: numbers("/proc/uptime").first().copied().unwrap_or_default(),
        load: numbers("/proc/loadavg").first_chunk().copied().unwrap_or_default(),
        uid: rustix::process::getuid().as_raw(),
        addresses: addresses(),
        routes: routes(),
        filesystems: filesystems(),
    }
}

/// Addresses of the network interfaces of the host that this is called on.
#[remotely_macros::remote]
pub fn addresses() -> Vec<Address> {
    let mut first = std::ptr::null_mut();
    // SAFETY: the pointer is valid; on success the list is ours until it is freed below.
    if unsafe { libc::getifaddrs(&mut first) } != 0 {
        return Vec::new();
    }
    let (mut found, mut next) = (Vec::new(), first);
    while !next.is_null() {
        // SAFETY: an entry of the list, which ends with null; its name is a string of C.
        let (entry, interface) = unsafe { (&*next, CStr::from_ptr((*next).ifa_name)) };
        if let (Some(address), Some(mask)) = (address(entry.ifa_addr), address(entry.ifa_netmask)) {
            let prefix = match mask {
                IpAddr::V4(mask) => u32::from(mask).count_ones(),
                IpAddr::V6(mask) => u128::from(mask).count_ones(),
            };
            found.push(Address { interface: interface.to_string_lossy().into_owned(), address, prefix: prefix as u8 });
        }
        next = entry.ifa_next;
    }
    // SAFETY: the list that getifaddrs has made, once.
    unsafe { libc::freeifaddrs(first) };
    found
}

fn address(raw: *const libc::sockaddr) -> Option<IpAddr> {
    if raw.is_null() {
        return None;
    }
    // SAFETY: not null, so it is a socket address of the family that it says, and as long as such a one is.
    unsafe {
        match i32::from((*raw).sa_family) {
            libc::AF_INET => {
                let address = &*raw.cast::<libc::sockaddr_in>();
                Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                let address = &*raw.cast::<libc::sockaddr_in6>();
                Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

/// Routes of the host that this is called on.
#[remotely_macros::remote]
pub fn routes() -> Vec<Route> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    v4.lines().skip(1).filter_map(route_v4).chain(v6.lines().filter_map(route_v6)).collect()
}

/// A line of /proc/net/route: interface, destination, gateway, flags, three counts, mask; the addresses in hexadecimal, in
/// the byte order of the machine.
fn route_v4(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [interface, destination, gateway, _, _, _, _, mask, ..] = fields[..] else { return None };
    let address = |text| Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?.to_ne_bytes()));
    let gateway = Some(address(gateway)?).filter(|gateway| !gateway.is_unspecified());
    Some(Route {
        destination: address(destination)?.into(),
        prefix: u32::from(address(mask)?).count_ones() as u8,
        gateway: gateway.map(Into::into),
        interface: interface.into(),
    })
}

/// A line of /proc/net/ipv6_route: destination and prefix, source and prefix, next hop, metric, two counts, flags, interface.
/// Those of the loopback interface and of reject routes are left out.
fn route_v6(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [destination, prefix, _, _, gateway, _, _, _, _, interface] = fields[..] else { return None };
    let address = |text| Some(Ipv6Addr::from(u128::from_str_radix(text, 16).ok()?));
    let gateway = Some(address(gateway)?).filter(|gateway| !gateway.is_unspecified());
    (interface != "lo").then_some(())?;
    Some(Route {
        destination: address(destination)?.into(),
        prefix: u8::from_str_radix(prefix, 16).ok()?,
        gateway: gateway.map(Into::into),
        interface: interface.into(),
    })
}

/// Mounted file systems of the host that this is called on, each device once.
#[remotely_macros::remote]
pub fn filesystems() -> Vec<FileSystem> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut by_device = BTreeMap::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ').map(unescaped);
        let (Some(device), Some(mount), Some(kind)) = (fields.next(), fields.next(), fields.next()) else { continue };
        if !device.starts_with('/') {
            continue;
        }
        let Ok(stat) = rustix::fs::statvfs(mount.as_str()) else { continue };
        let (size, available) = (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize);
        by_device.entry(device.clone()).or_insert(FileSystem { mount, device, kind, size, available });
    }
    by_device.into_values().collect()
}

/// The kernel writes blanks and backslashes in names as three octal digits.
fn unescaped(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => text.push(char::from(byte)),
            None => text.push('\\'),
        }
        rest = after.get(3..).unwrap_or_default();
    }
    text + rest
}

fn os() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release")).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches(['"', '\'']).to_owned())
}

fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name") || line.starts_with("Model"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory() -> Memory {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or_default() << 10
    };
    Memory { total: of("MemTotal"), available: of("MemAvailable"), swap: of("SwapTotal") }
}

/// The numbers at the beginning of a file's first line.
fn numbers(path: &str) -> Vec<f64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let default = route_v4("eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0").unwrap();
        assert_eq!((default.prefix, default.gateway), (0, Some("192.168.1.1".parse().unwrap())));
        let net = route_v4("eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0").unwrap();
        assert_eq!((net.destination, net.prefix, net.gateway), ("192.168.1.0".parse().unwrap(), 24, None));
        let v6 = "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0";
        let v6 = route_v6(v6).unwrap();
        assert_eq!((v6.destination, v6.prefix, v6.interface.as_str()), ("fe80::".parse().unwrap(), 64, "eth0"));
        assert!(route_v4("Iface Destination").is_none() && route_v6("x").is_none());
    }

    #[test]
    fn this_machine_has_facts() {
        let facts = gather();
        assert!(facts.cpus > 0 && facts.memory.total > facts.memory.available && facts.uptime > 0.0, "{facts:?}");
        assert!(facts.addresses.iter().any(|address| address.address.is_loopback()), "{facts:?}");
    }

    #[test]
    fn names_of_mounts_are_unescaped() {
        assert_eq!(unescaped(r"/a\040b\134c"), "/a b\\c");
    }
}
