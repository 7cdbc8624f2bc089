//! Forgets tracked connections that lead to ports of ours. Without that, a new connection that happens to have the source port of an
//! old one is sent to a listener that is gone, and refused.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use rustix::net::netlink::NETFILTER;

use crate::netlink::{ACKNOWLEDGED, DUMP, Netlink, attribute};
use crate::routes;
use crate::rules::Protocol;

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const TUPLE_IP: u16 = 1;
const IP_V4_SRC: u16 = 1;
const IP_V6_SRC: u16 = 3;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
/// `CTA_TUPLE_ORIG` as it is sent: nested.
const NESTED_ORIG: u16 = 0x8000 | TUPLE_ORIG;
/// The destination was translated.
const DST_NAT: u32 = 1 << 5;

/// Deletes the entries whose destination was translated to one of these ports of this machine; tells how many there were. What others
/// translate to somebody else's port of the same number stays. A kernel that tracks nothing has none.
///
/// # Errors
///
/// Not root, or the kernel breaks off its answer.
pub fn forget(ports: &[(Protocol, u16)]) -> io::Result<usize> {
    let netlink = Netlink::open(Some(NETFILTER))?;
    let mut stale = Vec::new();
    let mut here: HashMap<IpAddr, bool> = HashMap::new();
    let dump = netlink.ask(GET, DUMP, &[0; 4], |_, body| {
        let Some((&[family, ..], entry)) = body.split_first_chunk::<4>() else { return };
        if let Some(answers) = who_answers(entry, ports)
            && *here.entry(answers).or_insert_with(|| routes::is_here(answers))
            && let Some(tuple) = attribute(entry, TUPLE_ORIG)
        {
            stale.push((family, tuple.to_vec()));
        }
    });
    match dump {
        // No connection tracking in this kernel, or none used yet.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(0),
        dump => dump?,
    }
    let mut deleted = 0;
    for (family, tuple) in stale {
        let mut body = vec![family, 0, 0, 0];
        body.extend(u16::try_from(tuple.len() + 4).unwrap_or(u16::MAX).to_ne_bytes());
        body.extend(NESTED_ORIG.to_ne_bytes());
        body.extend(tuple);
        match netlink.ask(DELETE, ACKNOWLEDGED, &body, |_, _| ()) {
            Ok(()) => deleted += 1,
            // It has gone by itself.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// Where the answers of an entry come from whose destination was translated to one of the ports, on whatever machine.
fn who_answers(entry: &[u8], ports: &[(Protocol, u16)]) -> Option<IpAddr> {
    let status = attribute(entry, STATUS)?.first_chunk()?;
    if u32::from_be_bytes(*status) & DST_NAT == 0 {
        return None;
    }
    let reply = attribute(entry, TUPLE_REPLY)?;
    let protocol = attribute(reply, TUPLE_PROTO)?;
    let port = u16::from_be_bytes(*attribute(protocol, PROTO_SRC_PORT)?.first_chunk()?);
    let protocol = match i32::from(*attribute(protocol, PROTO_NUM)?.first()?) {
        libc::IPPROTO_TCP => Protocol::Tcp,
        libc::IPPROTO_UDP => Protocol::Udp,
        _ => return None,
    };
    if !ports.contains(&(protocol, port)) {
        return None;
    }
    let address = attribute(reply, TUPLE_IP)?;
    let v4 = || attribute(address, IP_V4_SRC)?.first_chunk().map(|ip: &[u8; 4]| IpAddr::from(*ip));
    let v6 = || attribute(address, IP_V6_SRC)?.first_chunk().map(|ip: &[u8; 16]| IpAddr::from(*ip));
    v4().or_else(v6)
}
