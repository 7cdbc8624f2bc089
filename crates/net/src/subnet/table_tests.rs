//! Which rule decides: sshuttle's own list, and layers compared with a plain search.

use proptest::prelude::*;

use super::super::{Subnet, number, parse};
use super::*;

fn rule(text: &str) -> Rule {
    let subnet = parse(text.trim_start_matches('!'), &mut |_| unreachable!(), &mut Vec::new()).unwrap()[0];
    Rule { subnet, exclude: text.starts_with('!') }
}

fn shown(rule: &Rule) -> String {
    format!("{}{}", if rule.exclude { "!" } else { "" }, rule.subnet)
}

#[test]
fn is_ordered_as_in_sshuttle() {
    // What `sorted(subnets, key=subnet_weight, reverse=True)` of sshuttle 2.0 gives for these.
    let wanted = [
        "!192.168.69.70/32:80",
        "!0.0.0.0/0:8000",
        "!0.0.0.0/0:400-450",
        "!0.0.0.0/0:8000-8500",
        "!0.0.0.0/0:8000-9000",
        "!192.168.69.70/32",
        "192.168.69.70/32",
        "192.168.69.0/24",
        "192.168.0.0/16",
        "!0.0.0.0/0",
    ];
    let table = Table::new(wanted.iter().rev().map(|text| rule(text)));
    assert_eq!(table.rules().iter().map(shown).collect::<Vec<_>>(), wanted);
}

#[test]
fn cuts_nested_subnets_into_intervals() {
    let table = Table::new(["10.0.0.0/8", "!10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32:22", "!10.1.2.0/24"].map(rule));
    let layers = table.layers(Family::V4);
    let shown: Vec<String> = layers
        .iter()
        .map(|layer| {
            let spans = layer.spans.iter().map(|span| {
                let (first, last) = (Family::V4.address(span.first), Family::V4.address(span.last));
                format!("{}{first}-{last}", if span.exclude { "!" } else { "" })
            });
            format!("{:?} {}", layer.ports.map(|ports| ports.to_string()), spans.collect::<Vec<_>>().join(" "))
        })
        .collect();
    assert_eq!(
        shown,
        ["Some(\"22\") 10.1.2.3-10.1.2.3", "None 10.0.0.0-10.0.255.255 !10.1.0.0-10.1.255.255 10.2.0.0-10.255.255.255"]
    );
    assert!(table.layers(Family::V6).is_empty());
    let all = Table::new(["::/0", "!ffff::/16", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"].map(rule));
    assert_eq!(all.layers(Family::V6)[0].spans.len(), 3);
}

#[test]
fn layers_of_many_rules_stay_small() {
    let mut rules = vec![rule("0/0")];
    for net in 0..5000u32 {
        let subnet = Subnet::new(Family::V4.address((10 << 24 | net << 8).into()), 24, None).unwrap();
        rules.push(Rule { subnet, exclude: net % 2 == 0 });
    }
    let layers = Table::new(rules).layers(Family::V4);
    assert_eq!(layers.len(), 1);
    assert_eq!(layers[0].spans.len(), 5001);
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    // Few bits and ports, so that they overlap.
    let ports = prop_oneof![Just(None), (1u16..12, 0u16..6).prop_map(|(first, more)| Ports::new(first, first + more))];
    let one = (any::<bool>(), 0u8..8, 0u8..=6, any::<bool>(), ports).prop_map(|(six, bits, width, exclude, ports)| {
        let family = if six { Family::V6 } else { Family::V4 };
        let shift = family.bits() - 3;
        let width = if width > 3 { family.bits() - 6 + width } else { width };
        let subnet = Subnet::new(family.address(u128::from(bits) << shift), width, ports).unwrap();
        Rule { subnet, exclude }
    });
    proptest::collection::vec(one, 0..12)
}

fn ask(layers: &[Layer], address: u128, port: u16) -> bool {
    for layer in layers.iter().filter(|layer| layer.ports.is_none_or(|ports| ports.contains(port))) {
        if let Some(span) = layer.spans.iter().find(|span| (span.first..=span.last).contains(&address)) {
            return !span.exclude;
        }
    }
    false
}

proptest! {
    #[test]
    fn layers_answer_as_the_rules_do(rules in rules(), high in 0u128..8, low in 0u128..3, port in 1u16..20) {
        let table = Table::new(rules);
        for family in Family::ALL {
            let layers = table.layers(family);
            for layer in &layers {
                prop_assert!(!layer.spans.is_empty());
                for pair in layer.spans.windows(2) {
                    prop_assert!(pair[0].last < pair[1].first);
                }
            }
            let top = if family == Family::V4 { u128::from(u32::MAX) } else { u128::MAX };
            for bits in [high << (family.bits() - 3) | low, top, 0] {
                let address = family.address(bits);
                prop_assert_eq!(number(address), bits);
                prop_assert_eq!(ask(&layers, bits, port), table.captures(address, port), "{} {}", address, port);
            }
        }
    }
}
