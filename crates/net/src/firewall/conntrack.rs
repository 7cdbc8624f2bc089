//! Forgets tracked connections that lead to ports of ours. Without that, a new connection that happens to have the source port of an
//! old one is sent to a listener that is gone, and refused.

use std::io;

use rustix::net::netlink::NETFILTER;

use crate::netlink::{ACKNOWLEDGED, DUMP, Netlink, attribute};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const TUPLE_PROTO: u16 = 2;
const PROTO_SRC_PORT: u16 = 2;
/// `CTA_TUPLE_ORIG` as it is sent: nested.
const NESTED_ORIG: u16 = 0x8000 | TUPLE_ORIG;
/// The destination was translated.
const DST_NAT: u32 = 1 << 5;

/// Deletes the entries whose destination was translated to one of these ports here; tells how many there were. A kernel that tracks
/// nothing has none.
///
/// # Errors
///
/// Not root, or the kernel breaks off its answer.
pub fn forget(ports: &[u16]) -> io::Result<usize> {
    let netlink = Netlink::open(Some(NETFILTER))?;
    let mut stale = Vec::new();
    let dump = netlink.ask(GET, DUMP, &[0; 4], |_, body| {
        let Some((&[family, ..], entry)) = body.split_first_chunk::<4>() else { return };
        if leads_to(entry, ports)
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

fn leads_to(entry: &[u8], ports: &[u16]) -> bool {
    let translated = attribute(entry, STATUS)
        .and_then(|status| status.first_chunk())
        .is_some_and(|status| u32::from_be_bytes(*status) & DST_NAT != 0);
    let answers = attribute(entry, TUPLE_REPLY)
        .and_then(|tuple| attribute(tuple, TUPLE_PROTO))
        .and_then(|protocol| attribute(protocol, PROTO_SRC_PORT))
        .and_then(|port| port.first_chunk());
    translated && answers.is_some_and(|port| ports.contains(&u16::from_be_bytes(*port)))
}
