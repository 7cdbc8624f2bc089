//! The connections that a process and its descendants have open: those of our own ssh, also behind a ProxyCommand or a jump host, so that
//! they are left alone by the sockets that there are and not by a guess at an address. Reads /proc.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::rules::{Own, Protocol};

/// `TCP_ESTABLISHED` and `TCP_SYN_SENT`.
const OPEN: [&str; 2] = ["01", "02"];

/// The TCP connections of all that `process` has started and that still are its descendants, but not its own, to other machines or to this
/// one. What another user's process has open cannot be seen and is left out.
///
/// # Errors
///
/// There is no such process, or no /proc.
pub fn of_descendants(process: u32) -> io::Result<Vec<Own>> {
    let mut family = family(process)?;
    family.remove(&process);
    of(process, family)
}

/// The TCP connections of `process` and of all that it has started and that still are its descendants, to other machines or to this one.
/// What another user's process has open cannot be seen and is left out.
///
/// # Errors
///
/// There is no such process, or no /proc.
pub fn connections(process: u32) -> io::Result<Vec<Own>> {
    of(process, family(process)?)
}

/// Those of the `family`, as the first of it is connected.
fn of(process: u32, family: BTreeSet<u32>) -> io::Result<Vec<Own>> {
    let mut sockets = BTreeSet::new();
    for process in family {
        for entry in fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten() {
            let link = fs::read_link(entry.path()).map(|link| link.to_string_lossy().into_owned()).unwrap_or_default();
            sockets.extend(link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse::<u64>().ok()));
        }
    }
    let mut own = Vec::new();
    for table in ["tcp", "tcp6"] {
        // Of the namespace in which it is connected, which need not be ours.
        let text = fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
        own.extend(text.lines().filter_map(|line| connection(line, &sockets)));
    }
    Ok(own)
}

fn connection(line: &str, sockets: &BTreeSet<u64>) -> Option<Own> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (near, far, state, inode) = (words.get(1)?, words.get(2)?, words.get(3)?, words.get(9)?);
    if !OPEN.contains(state) || !sockets.contains(&inode.parse().ok()?) {
        return None;
    }
    Some(Own { protocol: Protocol::Tcp, local: Some(end(near)?), remote: Some(end(far)?) })
}

/// An end of a connection as /proc/net shows it: 32-bit words as they lie in memory, and a port: `0100007F:0016`.
pub(crate) fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    if !address.is_ascii() {
        return None;
    }
    let words = (0..address.len() / 8).map(|word| u32::from_str_radix(&address[word * 8..word * 8 + 8], 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let four = <[u8; 4]>::try_from(&bytes[..]).map(IpAddr::from);
    let address = four.or_else(|_| <[u8; 16]>::try_from(&bytes[..]).map(IpAddr::from)).ok()?;
    Some(SocketAddr::new(address.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

/// The process and its descendants.
fn family(first: u32) -> io::Result<BTreeSet<u32>> {
    fs::metadata(format!("/proc/{first}"))?;
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for process in fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(parent) = parent(process) {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut family = BTreeSet::new();
    let mut next = vec![first];
    while let Some(process) = next.pop() {
        if family.insert(process) {
            next.extend(children.get(&process).into_iter().flatten());
        }
    }
    Ok(family)
}

/// The fourth field of /proc/PID/stat; the second one, in parentheses, may hold anything.
fn parent(process: u32) -> Option<u32> {
    let stat = fs::read(format!("/proc/{process}/stat")).ok()?;
    let behind = stat.iter().rposition(|byte| *byte == b')')? + 1;
    String::from_utf8_lossy(&stat[behind..]).split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::process::Stdio;

    use super::*;

    #[test]
    fn finds_connections_of_descendants_and_no_others() {
        for host in ["127.0.0.1", "::1"] {
            let listener = TcpListener::bind((host, 0)).unwrap();
            let address = listener.local_addr().unwrap();
            let mine = TcpStream::connect(address).unwrap();
            let (served, _) = listener.accept().unwrap();
            let script = format!("(exec 3<>/dev/tcp/{host}/{}; echo x >&3; read line <&3); true", address.port());
            #[expect(clippy::disallowed_methods, reason = "a process of this test, which ends with its connection")]
            let mut child =
                std::process::Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
            let (mut theirs, far) = listener.accept().unwrap();
            theirs.read_exact(&mut [0; 2]).unwrap();
            let own = |local, remote| Own { protocol: Protocol::Tcp, local: Some(local), remote: Some(remote) };
            assert_eq!(connections(child.id()).unwrap(), [own(far, address)]);
            let ours = connections(std::process::id()).unwrap();
            assert!(ours.contains(&own(mine.local_addr().unwrap(), address)));
            assert!(ours.contains(&own(served.local_addr().unwrap(), served.peer_addr().unwrap())));
            assert!(ours.contains(&own(far, address)));
            drop(theirs);
            child.wait().unwrap();
        }
        assert!(connections(u32::MAX).is_err());
    }

    #[test]
    fn reads_ends_as_the_kernel_writes_them() {
        assert_eq!(end("0100007F:0016"), Some("127.0.0.1:22".parse().unwrap()));
        assert_eq!(end("0000000000000000FFFF00000200000A:1F90"), Some("10.0.0.2:8080".parse().unwrap()));
        for bad in ["", ":", "01:1", "0100007F", "0100007F:G", "é00007F0:1", "0100007F0100007F:1"] {
            assert_eq!(end(bad), None, "{bad}");
        }
    }
}
