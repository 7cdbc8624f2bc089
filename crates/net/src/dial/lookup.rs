//! The addresses of a name, as this machine would find them: itself, /etc/hosts, DNS. Not by libc, whose modules for names are not
//! in a static executable. Used by `connect`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use rustix::rand::{GetRandomFlags, getrandom};

use super::question::{HEADER, code, question_of};
use super::resolv::Resolvers;

const A: u16 = 1;
const AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// In the order in which they are to be tried: IPv6 first, as the user's own libc would mostly have it.
pub(super) async fn addresses(name: &str, resolvers: &Resolvers) -> Vec<IpAddr> {
    let bare = name.trim_matches(['[', ']']);
    if let Ok(ip) = bare.parse() {
        return vec![ip];
    }
    let name = name.trim_end_matches('.');
    let hosts = tokio::task::spawn_blocking(|| fs::read("/etc/hosts").unwrap_or_default()).await.unwrap_or_default();
    let found = in_hosts(&String::from_utf8_lossy(&hosts), name);
    if !found.is_empty() {
        return found;
    }
    if name.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    let resolv = resolvers.resolv();
    let searched = resolv.search.iter().map(|domain| format!("{name}.{domain}"));
    let whole = name.matches('.').count() >= resolv.dots;
    let mut names: Vec<String> = searched.collect();
    names.insert(if whole { 0 } else { names.len() }, name.to_owned());
    for name in names {
        let (six, four) = tokio::join!(asked(&name, AAAA, resolvers), asked(&name, A, resolvers));
        let found: Vec<IpAddr> = six.into_iter().chain(four).take(ADDRESSES_MAX).collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn in_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let line = |line: &str| {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(ip)
    };
    hosts.lines().filter_map(line).take(ADDRESSES_MAX).collect()
}

async fn asked(name: &str, kind: u16, resolvers: &Resolvers) -> Vec<IpAddr> {
    let Some(question) = question(name, kind) else { return Vec::new() };
    for server in resolvers.servers() {
        match resolvers.asker.ask(server, &question, true).await {
            Ok(answer) if matches!(code(&answer), 0 | 3) => return records(&answer),
            Ok(_) => {}
            Err(error) => tracing::debug!(%server, %error, "no answer about a name"),
        }
    }
    Vec::new()
}

/// A question as DNS has it; `None` for what cannot be a name.
fn question(name: &str, kind: u16) -> Option<BytesMut> {
    let mut id = [0; 2];
    getrandom(&mut id, GetRandomFlags::empty()).ok()?;
    let mut out = BytesMut::new();
    out.put_slice(&id);
    // Recursion desired; one question.
    out.put_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        out.put_u8(length);
        out.put_slice(label.as_bytes());
    }
    out.put_u8(0);
    out.put_u16(kind);
    out.put_u16(CLASS_IN);
    Some(out)
}

/// All addresses in the answers of a message, whatever names they belong to: those of aliases are meant too.
fn records(message: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let Some(count) = message.get(6..8) else { return found };
    let count = u16::from_be_bytes([count[0], count[1]]);
    let Some(question) = question_of(message) else { return found };
    let mut at = HEADER + question.len();
    for _ in 0..count {
        let Some(behind) = skip_name(message, at) else { break };
        let Some(&[k1, k2, c1, c2, _, _, _, _, l1, l2]) = message.get(behind..).and_then(|rest| rest.first_chunk())
        else {
            break;
        };
        let data = behind + 10;
        at = data + usize::from(u16::from_be_bytes([l1, l2]));
        let Some(data) = message.get(data..at) else { break };
        let kind = (u16::from_be_bytes([k1, k2]), u16::from_be_bytes([c1, c2]));
        match (kind, data.first_chunk::<4>(), data.first_chunk::<16>(), data.len()) {
            ((A, CLASS_IN), Some(ip), _, 4) => found.push(Ipv4Addr::from(*ip).into()),
            ((AAAA, CLASS_IN), _, Some(ip), 16) => found.push(Ipv6Addr::from(*ip).into()),
            _ => {}
        }
    }
    found
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += usize::from(length) + 1,
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_behind_aliases() {
        let mut message = question("www.example", A).unwrap();
        message[2] |= 0x80;
        message[7] = 2;
        // An alias, then the address of what it stands for.
        message.put_slice(b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x09\x00\x04\x01x\xc0\x10");
        message.put_slice(b"\xc0\x29\x00\x01\x00\x01\x00\x00\x00\x09\x00\x04\x0a\x00\x00\x07");
        assert_eq!(records(&message), ["10.0.0.7".parse::<IpAddr>().unwrap()]);
        for end in 0..message.len() {
            records(&message[..end]);
        }
    }

    #[test]
    fn hosts_lines_may_have_several_names_and_comments() {
        let hosts = "127.0.0.1 localhost\n10.0.0.1 a A.example # b\nfd00::1 a\nnonsense a\n";
        assert_eq!(in_hosts(hosts, "a"), ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!(in_hosts(hosts, "a.example").len(), 1);
        assert!(in_hosts(hosts, "b").is_empty());
    }

    #[test]
    fn what_cannot_be_a_name_is_not_asked_for() {
        assert!(question("a..b", A).is_none());
        assert!(question(&"x".repeat(64), A).is_none());
        assert!(question("", A).is_none());
    }
}
