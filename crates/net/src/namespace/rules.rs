//! The rules inside: what leaves is redirected to our sockets, by the kernel's own means.

use std::fmt::Write as _;

/// The mark of what is to be delivered here although it goes elsewhere.
pub(super) const MARK: u32 = 1;
/// The routing table that says so.
pub(super) const TABLE: u8 = 100;

/// Ports of the sockets of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) connections: u16,
    pub(super) datagrams: u16,
}

/// For `nft -f -`. Without IPv6 where the kernel has none.
pub(super) fn text(v4: Ports, v6: Option<Ports>) -> String {
    let mut redirect = format!("    meta nfproto ipv4 meta l4proto tcp redirect to :{}\n", v4.connections);
    let mut deliver = format!(
        "    meta mark {MARK} meta nfproto ipv4 meta l4proto udp tproxy ip to 127.0.0.1:{} accept\n",
        v4.datagrams
    );
    if let Some(v6) = v6 {
        let _ = writeln!(redirect, "    meta nfproto ipv6 meta l4proto tcp redirect to :{}", v6.connections);
        let _ = writeln!(
            deliver,
            "    meta mark {MARK} meta nfproto ipv6 meta l4proto udp tproxy ip6 to [::1]:{} accept",
            v6.datagrams
        );
    }
    format!(
        "table inet remotely {{
  chain connections {{
    type nat hook output priority -100; policy accept;
    fib daddr type {{ local, broadcast, multicast }} return
{redirect}  }}
  chain datagrams {{
    type route hook output priority mangle; policy accept;
    fib daddr type {{ local, broadcast, multicast }} return
    meta l4proto udp meta mark set {MARK}
    icmp type echo-request meta mark set {MARK}
  }}
  chain arriving {{
    type filter hook prerouting priority mangle; policy accept;
{deliver}  }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_the_ports_of_each_family() {
        let v4 = Ports { connections: 1, datagrams: 2 };
        let both = text(v4, Some(Ports { connections: 3, datagrams: 4 }));
        for part in ["ipv4 meta l4proto tcp redirect to :1", "ip to 127.0.0.1:2 ", "tcp redirect to :3", "to [::1]:4 "]
        {
            assert!(both.contains(part), "{part} in {both}");
        }
        assert!(!text(v4, None).contains("ipv6"));
    }
}
