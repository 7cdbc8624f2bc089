//! Plans applied to a kernel: who answers a connection or a datagram with each method, in both families; and that nothing is left.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod place;

use place::{ask, ask_datagram, sh, state, tunnel, tunnel_datagrams};
use remotely_net::firewall::{Applier, release};
use remotely_net::rules::{Desired, Listeners, METHODS, Method, Nat, Nft, Own, Plan, Protocol, Tproxy};
use remotely_net::subnet::{Rule, Table, parse};

fn table(rules: &[&str]) -> Table {
    Table::new(rules.iter().map(|text| Rule {
        subnet: parse(text.trim_start_matches('!'), &mut |_| unreachable!(), &mut Vec::new()).unwrap()[0],
        exclude: text.starts_with('!'),
    }))
}

const RULES: [&str; 8] = [
    "10.0.0.0/8",
    "!10.1.0.0/16",
    "10.1.2.0/24",
    "!10.2.0.0/16:80",
    "10.1.9.9/32:8000-8100",
    "fd00::/8",
    "!fd00:1::/32",
    "10.3.0.0/16:22",
];

fn desired(method: &dyn Method, any: bool) -> Desired {
    let (v4, v6) = tunnel(!method.abilities().transparent, any);
    let (dns4, dns6) = tunnel(true, any);
    let names = place::datagrams(format!("{}:{dns4}", if any { "0.0.0.0" } else { "127.0.0.1" }).parse().unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 100];
        while let Ok((_, from)) = names.recv_from(&mut buffer) {
            let _ = names.send_to(b"names", from);
        }
    });
    Desired {
        tcp: Listeners { v4: Some(v4), v6: Some(v6) },
        dns: Listeners { v4: Some(dns4), v6: Some(dns6) },
        nameservers: ["10.1.0.53", "127.0.0.53", "192.0.2.1"].map(|address| address.parse().unwrap()).to_vec(),
        router: any,
        ..Desired::new(v4, table(&RULES))
    }
}

fn applied(method: &dyn Method, desired: &Desired) -> (Applier, Plan) {
    let plan = method.plan(desired).unwrap();
    let mut applier = Applier::new();
    applier.apply(&plan).unwrap();
    (applier, plan)
}

fn tcp_goes_where_it_should() {
    let table = [
        ("10.0.0.1:80", true),
        ("10.0.0.1:9999", true),
        ("10.1.0.1:80", false),
        ("10.1.2.3:80", true),
        ("10.1.9.9:8080", true),
        ("10.1.9.9:22", false),
        ("10.2.0.1:80", false),
        ("10.2.0.1:22", true),
        ("10.3.0.1:22", true),
        ("192.0.2.1:80", false),
        ("[fd00::1]:80", true),
        ("[fd00:1::1]:80", false),
        ("[2001:db8::1]:80", false),
    ];
    for (address, captured) in table {
        let wanted = if captured { format!("tunnel {address}") } else { "peer".into() };
        assert_eq!(ask(address), wanted, "{address}");
    }
}

fn names_go_to_our_listener() {
    for server in ["10.1.0.53:53", "127.0.0.53:53", "192.0.2.1:53"] {
        assert_eq!(ask_datagram(server), "names", "{server}");
        assert_eq!(ask(server), format!("tunnel {server}"));
    }
    assert_eq!(ask_datagram("192.0.2.1:80"), "peer");
}

fn method_does_all(method: &dyn Method) {
    let _place = place::make();
    let before = state();
    let desired = desired(method, false);
    assert_eq!(ask("10.0.0.1:80"), "peer");
    let (mut applier, plan) = applied(method, &desired);
    let once = state();
    assert_ne!(once, before);
    applier.apply(&plan).unwrap();
    assert_eq!(state(), once, "applying twice changes nothing");
    Applier::new().apply(&plan).unwrap();
    assert_eq!(state(), once, "nor does it when somebody else does it");
    tcp_goes_where_it_should();
    names_go_to_our_listener();
    applier.undo(&plan);
    assert_eq!(state(), before);
    assert_eq!(ask("10.0.0.1:80"), "peer");
}

#[test]
fn nft_captures_and_leaves_nothing() {
    method_does_all(&Nft);
}

#[test]
fn nat_captures_and_leaves_nothing() {
    method_does_all(&Nat);
}

#[test]
fn tproxy_captures_and_leaves_nothing() {
    method_does_all(&Tproxy);
}

#[test]
fn owned_tables_go_with_their_owner() {
    let _place = place::make();
    for method in [&Nft as &dyn Method, &Tproxy] {
        let before = state();
        let desired = Desired { owned: true, ..desired(method, false) };
        let (mut applier, plan) = applied(method, &desired);
        tcp_goes_where_it_should();
        let fewer = Desired { table: table(&["10.0.0.0/8"]), ..desired };
        applier.apply(&method.plan(&fewer).unwrap()).unwrap();
        assert_eq!(ask("10.1.0.1:80"), "tunnel 10.1.0.1:80", "changed in place");
        assert_eq!(ask("[fd00::1]:80"), "peer");
        applier.undo(&plan);
        assert_eq!(state(), before);
    }
}

#[test]
fn datagrams_are_taken_transparently() {
    let _place = place::make();
    for method in [&Nft as &dyn Method, &Tproxy] {
        let before = state();
        let (v4, v6) = tunnel_datagrams();
        let desired = Desired { udp: Listeners { v4: Some(v4), v6: Some(v6) }, ..desired(method, false) };
        let (mut applier, plan) = applied(method, &desired);
        for address in ["10.0.0.1:80", "10.1.2.3:4000", "[fd00::1]:80"] {
            assert_eq!(ask_datagram(address), format!("tunnel {address}"), "{}", method.name());
        }
        for address in ["10.1.0.1:80", "10.2.0.1:80", "192.0.2.1:80", "[fd00:1::1]:80"] {
            assert_eq!(ask_datagram(address), "peer", "{}", method.name());
        }
        tcp_goes_where_it_should();
        names_go_to_our_listener();
        applier.undo(&plan);
        assert_eq!(state(), before);
    }
}

#[test]
fn own_connections_are_left_alone() {
    let _place = place::make();
    for method in [&Nft as &dyn Method, &Nat, &Tproxy] {
        let own = |local: Option<&str>, remote: Option<&str>| Own {
            protocol: Protocol::Tcp,
            local: local.map(|end| end.parse().unwrap()),
            remote: remote.map(|end| end.parse().unwrap()),
        };
        let desired = Desired {
            own: vec![
                own(None, Some("10.0.0.1:22")),
                own(Some("192.0.2.2:40000"), Some("10.0.0.2:22")),
                own(Some("0.0.0.0:40001"), None),
                own(None, Some("[fd00::1]:22")),
            ],
            ..desired(method, false)
        };
        let (mut applier, plan) = applied(method, &desired);
        assert_eq!(ask("10.0.0.1:22"), "peer");
        assert_eq!(ask("10.0.0.1:80"), "tunnel 10.0.0.1:80");
        assert_eq!(ask("10.0.0.2:22"), "tunnel 10.0.0.2:22");
        assert_eq!(ask("[fd00::1]:22"), "peer");
        assert_eq!(from("192.0.2.2:40000", "10.0.0.2:22"), "peer");
        assert_eq!(from("192.0.2.2:40001", "10.0.0.3:80"), "peer");
        applier.undo(&plan);
    }
}

fn from(local: &str, remote: &str) -> String {
    use std::io::Read as _;
    let family = rustix::net::AddressFamily::INET;
    let socket = rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    rustix::net::bind(&socket, &local.parse::<std::net::SocketAddr>().unwrap()).unwrap();
    rustix::net::connect(&socket, &remote.parse::<std::net::SocketAddr>().unwrap()).unwrap();
    let mut text = String::new();
    std::net::TcpStream::from(socket).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn only_one_user_or_group_is_captured() {
    let _place = place::make();
    for method in [&Nft as &dyn Method, &Nat, &Tproxy] {
        for (user, group) in [(Some(4321), None), (None, Some(4321)), (Some(4321), Some(4321))] {
            let desired = Desired { user, group, ..desired(method, false) };
            let (mut applier, plan) = applied(method, &desired);
            let connect = "import socket;s=socket.create_connection((\"10.0.0.1\",80),3);print(s.recv(99).decode())";
            let as_user = |user: &str| sh(&format!("setpriv {user} /usr/bin/python3 -c '{connect}'"));
            let both = as_user("--reuid 4321 --regid 4321 --clear-groups");
            assert_eq!(both.trim(), "tunnel 10.0.0.1:80", "{}", method.name());
            assert_eq!(ask("10.0.0.1:80"), "peer", "{}", method.name());
            if user.is_some() && group.is_some() {
                assert_eq!(as_user("--reuid 4321 --regid 1 --clear-groups").trim(), "peer");
            }
            applier.undo(&plan);
        }
    }
}

#[test]
fn a_router_captures_what_comes_in() {
    let _place = place::make();
    let guest = place::guest();
    for method in [&Nft as &dyn Method, &Nat, &Tproxy] {
        let desired = desired(method, true);
        let (mut applier, plan) = applied(method, &desired);
        assert_eq!(guest.ask("10.0.0.1:80"), "tunnel 10.0.0.1:80", "{}", method.name());
        // The peer knows no way back to there.
        assert_eq!(guest.ask("10.1.0.1:80"), "nobody", "{}", method.name());
        tcp_goes_where_it_should();
        applier.undo(&plan);
    }
}

#[test]
fn the_kill_switch_stays_until_it_is_lifted() {
    let _place = place::make();
    for method in [&Nft as &dyn Method, &Nat, &Tproxy] {
        let before = state();
        let desired = Desired {
            kill_switch: true,
            owned: method.name() != "nat",
            own: vec![Own { protocol: Protocol::Tcp, local: None, remote: Some("10.0.0.1:22".parse().unwrap()) }],
            ..desired(method, false)
        };
        let (mut applier, plan) = applied(method, &desired);
        applier.apply(&plan).unwrap();
        tcp_goes_where_it_should();
        names_go_to_our_listener();
        applier.undo(&plan);
        for address in ["10.0.0.1:80", "[fd00::1]:80"] {
            assert_eq!(ask(address), "nobody", "{} {address}", method.name());
        }
        assert_eq!(ask("192.0.2.1:53"), "nobody");
        assert_eq!(ask("10.0.0.1:22"), "peer", "the way there must stay open");
        for address in ["10.1.0.1:80", "192.0.2.1:80", "[fd00:1::1]:80"] {
            assert_eq!(ask(address), "peer", "{} {address}", method.name());
        }
        release(&plan);
        assert_eq!(state(), before);
    }
}

#[test]
fn what_fails_halfway_leaves_nothing() {
    let _place = place::make();
    for method in METHODS.into_iter().filter(|method| method.name() != "pf") {
        let before = state();
        let mut plan = method.plan(&desired(method, false)).unwrap();
        plan.apply.push(remotely_net::rules::Step::Nft { text: "no such thing\n".into(), held: false });
        let error = Applier::new().apply(&plan).unwrap_err().to_string();
        assert!(error.starts_with("nft refuses: "), "{error}");
        assert_eq!(state(), before, "{}", method.name());
    }
    let mut plan = Plan::default();
    plan.apply.push(remotely_net::rules::Step::Nft { text: "no such thing\n".into(), held: true });
    let error = Applier::new().apply(&plan).unwrap_err().to_string();
    assert!(error.contains("syntax error"), "{error}");
}

#[test]
fn a_change_that_fails_leaves_the_kill_switch() {
    let _place = place::make();
    for method in [&Nft as &dyn Method, &Nat] {
        let before = state();
        let desired = Desired { kill_switch: true, owned: method.name() == "nft", ..desired(method, false) };
        let (mut applier, plan) = applied(method, &desired);
        let mut broken = plan.clone();
        broken.apply.push(remotely_net::rules::Step::Nft { text: "no such thing\n".into(), held: false });
        applier.apply(&broken).unwrap_err();
        assert_eq!(ask("10.0.0.1:80"), "nobody", "{}", method.name());
        release(&plan);
        assert_eq!(state(), before);
    }
}

#[test]
fn five_hundred_subnets_are_in_at_once() {
    let _place = place::make();
    let subnets: Vec<String> = (0..500).map(|n| format!("10.{}.{}.0/24", n / 100, n % 100 * 2)).collect();
    let many = table(&subnets.iter().map(String::as_str).collect::<Vec<_>>());
    for method in [&Nft as &dyn Method, &Nat] {
        let desired = Desired { table: many.clone(), owned: method.name() == "nft", ..desired(method, false) };
        let start = std::time::Instant::now();
        let (mut applier, plan) = applied(method, &desired);
        let took = start.elapsed();
        println!("{}: {took:?}", method.name());
        assert!(took.as_millis() < 1000, "{}: {took:?}", method.name());
        assert_eq!(ask("10.1.8.1:80"), "tunnel 10.1.8.1:80");
        assert_eq!(ask("10.1.7.1:80"), "peer");
        applier.undo(&plan);
    }
}
