//! Plans as text, for each method, and what is refused.

use super::*;
use crate::subnet::{Rule, parse};

fn table(rules: &[&str]) -> Table {
    Table::new(rules.iter().map(|text| Rule {
        subnet: parse(text.trim_start_matches('!'), &mut |_| unreachable!(), &mut Vec::new()).unwrap()[0],
        exclude: text.starts_with('!'),
    }))
}

fn desired() -> Desired {
    Desired {
        tcp: Listeners { v4: Some(12300), v6: Some(12301) },
        dns: Listeners { v4: Some(5300), v6: None },
        nameservers: vec!["192.0.2.53".parse().unwrap(), "127.0.0.53".parse().unwrap()],
        own: vec![Own {
            protocol: Protocol::Tcp,
            local: Some("192.0.2.2:50000".parse().unwrap()),
            remote: Some("10.1.1.1:22".parse().unwrap()),
        }],
        ..Desired::new(
            12300,
            table(&["10.0.0.0/8", "!10.1.0.0/16", "10.2.0.0/16:8000-8080", "!10.2.3.4:8000-8080", "fd00::/8"]),
        )
    }
}

#[track_caller]
fn same(plan: &Plan, wanted: &str) {
    let shown = plan.show();
    let (shown, wanted) = (shown.trim_end(), wanted.trim_end());
    assert!(shown == wanted, "planned:\n{shown}\n\nwanted:\n{wanted}");
}

#[test]
fn nft_is_one_transaction() {
    same(&Nft.plan(&Desired { owned: true, ..desired() }).unwrap(), include_str!("plans/nft"));
}

#[test]
fn nft_for_one_user_as_a_router_has_a_kill_switch() {
    let one = Desired { user: Some(1000), group: Some(100), kill_switch: true, ..desired() };
    same(&Nft.plan(&one).unwrap(), include_str!("plans/nft-user-keep"));
    let router = Desired { router: true, kill_switch: true, ..desired() };
    same(&Nft.plan(&router).unwrap(), include_str!("plans/nft-router-keep"));
}

#[test]
fn a_private_namespace_is_taken_whole() {
    let udp = Listeners { v4: Some(12302), v6: Some(12303) };
    let all = Desired { udp, own: Vec::new(), table: table(&["0/0", "::/0"]), ..desired() };
    same(&Nft.plan(&all).unwrap(), include_str!("plans/namespace"));
}

#[test]
fn tproxy_routes_what_it_marks() {
    let udp = Listeners { v4: Some(12302), v6: Some(12303) };
    let all = Desired { udp, mark: Some(1), owned: true, ..desired() };
    same(&Tproxy.plan(&all).unwrap(), include_str!("plans/tproxy"));
    let router = Desired { udp, router: true, kill_switch: true, ..desired() };
    same(&Tproxy.plan(&router).unwrap(), include_str!("plans/tproxy-router-keep"));
}

#[test]
fn nat_is_one_transaction_per_family() {
    same(&Nat.plan(&desired()).unwrap(), include_str!("plans/nat"));
    let all = Desired { router: true, kill_switch: true, ..desired() };
    same(&Nat.plan(&all).unwrap(), include_str!("plans/nat-router-keep"));
    let one = Desired { user: Some(1000), group: Some(100), router: true, ..desired() };
    same(&Nat.plan(&one).unwrap(), include_str!("plans/nat-user"));
}

#[test]
fn pf_has_an_anchor() {
    same(&Pf.plan(&desired()).unwrap(), include_str!("plans/pf"));
}

#[test]
fn what_a_method_cannot_do_is_refused() {
    let udp = Desired { udp: Listeners { v4: Some(1), v6: None }, ..desired() };
    assert_eq!(Nat.plan(&udp), Err(PlanError::Udp { method: "nat" }));
    assert_eq!(Pf.plan(&udp), Err(PlanError::Udp { method: "pf" }));
    assert_eq!(Pf.plan(&Desired { user: Some(1), ..desired() }), Err(PlanError::User { method: "pf" }));
    assert_eq!(Pf.plan(&Desired { kill_switch: true, ..desired() }), Err(PlanError::KillSwitch { method: "pf" }));
    assert!(method("ipfw").is_none());
    for method in METHODS {
        assert_eq!(super::method(method.name()).map(Method::name), Some(method.name()));
        assert!(method.plan(&desired()).is_ok());
    }
}

#[test]
fn the_same_is_planned_whatever_the_order() {
    let mut rules = desired().table.rules().to_vec();
    rules.reverse();
    let other = Desired { table: Table::new(rules), ..desired() };
    for method in METHODS {
        assert_eq!(method.plan(&other), method.plan(&desired()));
    }
}
