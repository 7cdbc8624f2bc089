//! Networks that a machine reaches, as its kernel tells them, in a namespace with known routes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod place;

use place::sh;
use remotely_net::routes::routes;

#[test]
fn auto_nets_are_the_networks_of_the_main_table() {
    place::own_network();
    assert!(routes().unwrap().networks.is_empty());
    sh("ip link add d0 type veth peer name d1; ip link set d1 up; ip link set d0 up; ip addr add 192.168.7.9/24 dev d0; ip addr add fd07::9/64 dev d0 nodad
        ip route add default via 192.168.7.1; ip route add 10.0.0.0/8 via 192.168.7.2; ip route add 10.1.2.3/32 via 192.168.7.2
        ip route add blackhole 172.16.0.0/12; ip route add 10.9.0.0/16 dev d0 table 77; ip route add 127.9.0.0/16 dev d0
        ip -6 route add default via fd07::1; ip -6 route add fd99::/32 via fd07::2; ip route add 10.0.0.0/8 dev d0 metric 9");
    let shown: Vec<String> = routes().unwrap().networks.iter().map(ToString::to_string).collect();
    assert_eq!(routes().unwrap().default, (true, true));
    assert_eq!(shown, ["10.0.0.0/8", "192.168.7.0/24", "fd07::/64", "fd99::/32"]);
}

#[test]
fn a_thousand_routes_are_read() {
    place::own_network();
    sh("ip link add d0 type veth peer name d1; ip link set d1 up; ip link set d0 up
        for n in $(seq 0 999); do echo route add 10.$((n / 250)).$((n % 250)).0/24 dev d0; done | ip -batch -");
    assert_eq!(routes().unwrap().networks.len(), 1000);
}
