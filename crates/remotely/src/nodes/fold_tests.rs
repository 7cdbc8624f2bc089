//! Folding: what is printed, that it is read as the same set again, and how long it takes.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::nodes::{Node, NodeSet};
use crate::target::{Hop, Target};

fn folded(names: &str) -> String {
    fold(names.split_whitespace())
}

#[test]
fn names_fold_in_natural_order() {
    let table = [
        ("", ""),
        ("web1", "web1"),
        ("web2 web1 db3", "db3,web[1-2]"),
        ("web1 web2 web3 web5 web9 web10", "web[1-3,5,9-10]"),
        ("web08 web09 web10", "web[08-10]"),
        ("web9 web10 web11", "web[9-11]"),
        ("web98 web99 web100", "web[98-100]"),
        ("web098 web099 web100 web101", "web[098-101]"),
        ("web01 web99 web100", "web[01,99,100]"),
        ("web1 web01 web001", "web[1,01,001]"),
        ("web0 web1", "web[0-1]"),
        ("web00 web01", "web[00-01]"),
        ("web1 web3 web5", "web[1,3,5]"),
        ("web1 web3 web5 web7", "web[1-7/2]"),
        ("web010 web020 web030 web040 web41", "web[010-040/10,41]"),
        ("1 2 3", "[1-3]"),
        ("a1b1 a1b2 a2b1", "a1b[1-2],a2b1"),
        ("a1b1 a1b2 a2b1 a2b2", "a[1-2]b[1-2]"),
        ("a1b1 a2b1 a3b1 a1b2", "a1b[1-2],a[2-3]b1"),
        ("10.0.0.1 10.0.0.2 10.0.1.1 10.0.1.2", "10.0.[0-1].[1-2]"),
        ("web1.example.com web2.example.com web1", "web1,web[1-2].example.com"),
        ("u@web1:22 u@web2:22 u@web2:23 u@web1:23", "u@web[1-2]:[22-23]"),
        ("[::1] [::2]", "[::1],[::2]"),
        ("[::1]:22 [::1]:23", "[::1]:[22-23]"),
        ("n999999999999999999 n1000000000000000000", "n999999999999999999,n1000000000000000000"),
        ("a1b2c3d4e5 a1b2c3d4e6 a2b2c3d4e5 a2b2c3d4e6", "a1b2c3d4e[5-6],a2b2c3d4e[5-6]"),
        ("b a c", "a,b,c"),
    ];
    for (names, expected) in table {
        assert_eq!(folded(names), expected, "{names}");
    }
    let odd = fold(["a b", "@x", "it's", "'\"", "c*"].into_iter());
    assert_eq!(odd, r#"''"'"'"','@x','a b','c*',"it's""#);
}

#[test]
fn quoted_names_are_read_as_they_are() {
    for name in ["a b", "@x", "it's", "'\"", "c*", "a[1]", "{", "\"", "'''", "#"] {
        let text = fold([name].into_iter());
        let Ok(crate::nodes::expression::Expression::Word(word)) = crate::nodes::parse::parse(&text) else {
            panic!("{text}")
        };
        assert_eq!((word.expand(), word.wild), (vec![name.to_owned()], false), "{text}");
    }
}

#[test]
fn a_grid_is_one_term_whatever_the_order_of_its_names() {
    let mut nodes: Vec<Node> = "rack[1-30]node[001-100]".parse::<NodeSet>().unwrap().into_iter().collect();
    nodes.reverse();
    nodes.rotate_left(1234);
    let set: NodeSet = nodes.into_iter().collect();
    assert_eq!(set.fold(), "rack[1-30]node[001-100]");
    let holes = set - "rack7node[013-015]".parse::<NodeSet>().unwrap();
    assert_eq!(holes.fold(), "rack[1-6,8-30]node[001-100],rack7node[001-012,016-100]");
}

/// A set of this size took clustershell minutes where nothing folds.
#[test]
fn what_does_not_fold_takes_no_longer_than_what_does() {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 20
    };
    let unlike: NodeSet =
        (0..100_000).map(|_| Node::new(&format!("h{:x}x{:x}", random(), random())).unwrap()).collect();
    let sparse: NodeSet =
        (0..100_000).map(|_| Node::new(&format!("h{}-{}-{}", random(), random(), random())).unwrap()).collect();
    for set in [unlike, sparse] {
        let begun = Instant::now();
        let text = set.fold();
        let half: NodeSet = set.iter().step_by(2).cloned().collect();
        assert_eq!((&set - &half).len() + (&set & &half).len(), set.len());
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(text.parse::<NodeSet>().unwrap(), set);
    }
}

fn name() -> impl Strategy<Value = String> {
    let padded = (0_u64..120, 0_usize..4).prop_map(|(number, width)| format!("{number:0width$}"));
    prop_oneof![
        4 => ("[ab]", padded.clone(), "[.x-]?", padded.clone()).prop_map(|(a, b, c, d)| format!("{a}{b}{c}{d}")),
        2 => ("w", padded.clone()).prop_map(|(a, b)| format!("{a}{b}")),
        1 => (padded.clone(), padded.clone(), padded.clone(), padded.clone(), padded.clone())
            .prop_map(|(a, b, c, d, e)| format!("{a}.{b}.{c}.{d}.{e}")),
        1 => (1_u16..400).prop_map(|port| format!("u@[fe80::{port:x}%e0]:{port}")),
        1 => "[a-z0-9é*?#~=]{1,6}",
        1 => Just("local:".to_owned()),
    ]
}

fn set() -> impl Strategy<Value = NodeSet> {
    let nodes = prop::collection::vec(name(), 0..60);
    nodes.prop_map(|names| names.iter().filter_map(|name| Node::new(name).ok()).collect())
}

fn names(set: &NodeSet) -> Vec<&str> {
    set.iter().map(Node::name).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_folded_is_read_as_the_same_set(set in set()) {
        let text = set.fold();
        let again: NodeSet = text.parse().unwrap();
        prop_assert_eq!(&again, &set, "{}", text);
        prop_assert_eq!(again.fold(), text, "the same set has one text");
    }

    #[test]
    fn sets_obey_their_algebra(a in set(), b in set(), c in set()) {
        prop_assert_eq!(&a | &b, &b | &a);
        prop_assert_eq!(&a + &b, &a | &b);
        prop_assert_eq!(&a & &b, &b & &a);
        prop_assert_eq!(&a ^ &b, (&a | &b) - (&a & &b));
        prop_assert_eq!((&a | &b) & &c, (&a & &c) | (&b & &c));
        prop_assert_eq!(&a - (&b | &c), (&a - &b) & (&a - &c));
        prop_assert_eq!((&a - &b) | (&a & &b), a.clone());
        prop_assert_eq!(&a ^ &a, NodeSet::new());
        for node in &(&a | &b) {
            let (left, right) = (a.contains(node.name()), b.contains(node.name()));
            prop_assert!(left || right);
            prop_assert_eq!((&a & &b).contains(node.name()), left && right);
            prop_assert_eq!((&a - &b).contains(node.name()), left && !right);
            prop_assert_eq!((&a ^ &b).contains(node.name()), left != right);
        }
        // The order is that of the left side, then that of the right.
        let both = &a | &b;
        prop_assert_eq!(names(&both)[..a.len()].to_vec(), names(&a));
        let added = &b - &a;
        prop_assert_eq!(names(&both)[a.len()..].to_vec(), names(&added));
        // In an expression as among values.
        let text = format!("({}) ! ({})", a.fold(), b.fold());
        if !a.is_empty() && !b.is_empty() {
            prop_assert_eq!(text.parse::<NodeSet>().unwrap(), &a - &b);
        }
    }

    #[test]
    fn parts_are_the_whole_in_order(set in set(), parts in 0_usize..9) {
        let split = set.split(parts);
        prop_assert_eq!(split.len(), parts.min(set.len()));
        let joined: Vec<&str> = split.iter().flat_map(names).collect();
        if parts > 0 {
            prop_assert_eq!(joined, names(&set));
        }
        let sizes: Vec<usize> = split.iter().map(NodeSet::len).collect();
        prop_assert!(sizes.windows(2).all(|pair| pair[0] >= pair[1] && pair[0] - pair[1] <= 1));
        prop_assert!(sizes.first().zip(sizes.last()).is_none_or(|(first, last)| first - last <= 1));
    }
}

#[test]
fn a_node_is_named_as_its_target_prints() {
    let node = Node::new("ssh://web1:22").unwrap();
    assert_eq!((node.name(), node.target()), ("web1:22", "web1:22".parse::<Target>().unwrap()));
    let one: NodeSet = "web1 ssh:web1 ssh://web1 [web1]".parse().unwrap_or_default();
    assert!(one.len() <= 1);
    assert_eq!("web1 ssh:web1 ssh://web1".parse::<NodeSet>().unwrap().len(), 1);
    let named = Node::named("db", "local:".parse::<Target>().unwrap());
    assert_eq!(named.target().hops(), [Hop::Local]);
}
