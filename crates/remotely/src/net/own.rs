//! Our own connections, which must not be captured: those of ssh and of whatever it connects by, found by the live sockets of our
//! children rather than by guessing at names.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use remotely_net::rules::{Own, Protocol};

/// State of /proc/net/tcp: TCP_ESTABLISHED, of the kernel's tcp_states.h.
const ESTABLISHED: &str = "01";

/// The connections of TCP that this process's children have, and a new one of theirs to the same place. `further`: another
/// process whose connections carry ours.
pub(super) fn connections(further: Option<u32>) -> Vec<Own> {
    let processes: Vec<u32> = children_of(std::process::id()).into_iter().chain(further).collect();
    let mut found = HashSet::new();
    for pid in processes {
        let sockets = sockets(pid);
        for table in ["net/tcp", "net/tcp6"] {
            let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(table)).unwrap_or_default();
            found.extend(text.lines().filter_map(connection).filter(|(_, inode)| sockets.contains(inode)).map(|(at, _)| at));
        }
    }
    let remote = found.into_iter().filter(|remote| !remote.ip().is_loopback());
    remote.map(|remote| Own { protocol: Protocol::Tcp, local: None, remote: Some(remote) }).collect()
}

fn children_of(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // Behind the name, which may hold anything: state, then the parent.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        let of_it = children.remove(&pid).unwrap_or_default();
        found.extend(&of_it);
        next.extend(of_it);
    }
    found
}

/// The inodes of the sockets that a process has.
fn sockets(pid: u32) -> HashSet<u64> {
    let links = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"));
    let links = links.into_iter().flatten().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// The far end of a line of /proc/net/tcp, proc_net_tcp of the kernel's documentation, and its inode.
fn connection(line: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(2);
    let (remote, state) = (fields.next()?, fields.next()?);
    let inode = fields.nth(5)?.parse().ok()?;
    (state == ESTABLISHED).then_some((address(remote)?, inode))
}

/// Words of 32 bits in the order of this machine, in hexadecimal.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words: Option<Vec<[u8; 4]>> = ip
        .as_bytes()
        .chunks(8)
        .map(|word| Some(u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?.to_ne_bytes()))
        .collect();
    let ip = match &words?[..] {
        [v4] => IpAddr::V4(Ipv4Addr::from(*v4)),
        [a, b, c, d] => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from([*a, *b, *c, *d].concat()).ok()?)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let line = "   1: 0100007F:A1B2 0200000A:0016 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0";
        assert_eq!(connection(line), Some(("10.0.0.2:22".parse().unwrap(), 4711)));
        assert_eq!(connection(&line.replace(" 01 ", " 0A ")), None);
        let six = line.replace("0200000A:0016", "000000FD000000000000000001000000:0016");
        assert_eq!(connection(&six), Some(("[fd00::1]:22".parse().unwrap(), 4711)));
        let mapped = line.replace("0200000A:0016", "0000000000000000FFFF00000200000A:0016");
        assert_eq!(connection(&mapped), Some(("10.0.0.2:22".parse().unwrap(), 4711)));
        assert_eq!(connection("  sl  local_address rem_address   st tx_queue rx_queue"), None);
    }

    #[test]
    fn connections_of_children_are_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Of this very process: what children have is found by the same way.
        assert!(!sockets(std::process::id()).is_empty());
        let text = fs::read_to_string("/proc/self/net/tcp").unwrap();
        let ends: Vec<_> = text.lines().filter_map(connection).map(|(at, _)| at).collect();
        assert!(ends.contains(&near.peer_addr().unwrap()), "{ends:?}");
        assert!(children_of(1).contains(&std::process::id()) || std::process::id() == 1);
    }
}
