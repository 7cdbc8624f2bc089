//! The files by which the command looks up names.

use std::fmt::Write as _;
use std::net::IpAddr;

use remotely_net::namespace::{ADDRESS_V4, Start};
use remotely_proto::net::Surroundings;

/// What the command has to know. `whole`: everything goes to the host.
pub(super) fn start(there: &Surroundings, whole: bool) -> Start {
    let hosts = std::fs::read("/etc/hosts").unwrap_or_default();
    let no_v6 = whole && !there.default.1 && !there.routes.iter().any(|(ip, _)| ip.is_ipv6());
    Start {
        resolv: resolv(there).into_bytes(),
        hosts: merge(&String::from_utf8_lossy(&hosts), &String::from_utf8_lossy(&there.hosts), whole).into_bytes(),
        no_v6,
    }
}

fn resolv(there: &Surroundings) -> String {
    let mut text = format!("nameserver {ADDRESS_V4}\n");
    let domains = there.search.iter().filter(|domain| !domain.is_empty() && !domain.contains(char::is_whitespace));
    let domains: Vec<&str> = domains.map(String::as_str).collect();
    if !domains.is_empty() {
        let _ = writeln!(text, "search {}", domains.join(" "));
    }
    text
}

/// What is called by a loopback address is this machine in either case. Of the host's names the host's addresses are meant; those of here
/// count where the addresses of here can be reached.
fn merge(here: &str, there: &str, whole: bool) -> String {
    let of_here = here.lines().filter(|line| !whole || is_own(line) != Some(false));
    let of_there = there.lines().filter(|line| is_own(line) == Some(false));
    of_here.chain(of_there).fold(String::new(), |text, line| text + line + "\n")
}

/// Whether a line is about the machine itself; `None` for one that is about nothing.
fn is_own(line: &str) -> Option<bool> {
    let address = line.split('#').next()?.split_ascii_whitespace().next()?;
    let ip: IpAddr = address.parse().ok()?;
    // What IPv6 has for all nodes of a link is everywhere the same.
    Some(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_are_of_here_and_all_others_of_there() {
        let here = "127.0.0.1 localhost me\nff02::1 ip6-allnodes\n10.1.1.1 printer\n";
        let there = "127.0.0.1 localhost far\n10.9.9.9 db # the database\n";
        assert_eq!(
            merge(here, there, true),
            "127.0.0.1 localhost me\nff02::1 ip6-allnodes\n10.9.9.9 db # the database\n"
        );
        assert!(merge(here, there, false).contains("10.1.1.1 printer\n"));
    }

    #[test]
    fn the_domains_of_the_host_are_searched() {
        let mut there =
            Surroundings { routes: vec![], hosts: Vec::new().into(), search: vec![], default: (true, false) };
        assert_eq!(resolv(&there), "nameserver 192.0.0.2\n");
        there.search = vec!["corp.example".into(), "a\nnameserver 6.6.6.6".into()];
        assert_eq!(resolv(&there), "nameserver 192.0.0.2\nsearch corp.example\n");
    }
}
