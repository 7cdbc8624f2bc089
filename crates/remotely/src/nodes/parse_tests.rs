//! What is an expression and what is not: tables, bash's and clustershell's answers, and any text at all.

use proptest::prelude::*;

use super::*;
use crate::nodes::{NodeError, NodeSet};

fn names(text: &str) -> Vec<String> {
    let nodes: NodeSet = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    nodes.iter().map(|node| node.name().to_owned()).collect()
}

#[test]
fn expressions_expand_in_their_order() {
    let table: &[(&str, &str)] = &[
        ("", ""),
        ("  ", ""),
        ("web1", "web1"),
        ("web[1-3]", "web1 web2 web3"),
        ("web[3,1-2,2]", "web3 web1 web2"),
        ("web[001-007/2]", "web001 web003 web005 web007"),
        ("web[08-10]", "web08 web09 web10"),
        ("web[98-102]", "web98 web99 web100 web101 web102"),
        // pdsh and old clustershells read it so, newer ones refuse it.
        ("web[09-10,098-101]", "web09 web10 web098 web099 web100 web101"),
        ("web[01-100/33]", "web01 web34 web67 web100"),
        ("[1-3]", "1 2 3"),
        ("rack[1-2]node[01-03]", "rack1node01 rack1node02 rack1node03 rack2node01 rack2node02 rack2node03"),
        ("a[1-2][1-2]", "a11 a12 a21 a22"),
        ("web{1..3}", "web1 web2 web3"),
        ("web{3..1}", "web3 web2 web1"),
        ("web{01..3}", "web01 web02 web03"),
        ("web{1..9..4}", "web1 web5 web9"),
        ("n{a..e..2}", "na nc ne"),
        ("n{C..A}", "nC nB nA"),
        ("{a,b}{1,2}", "a1 a2 b1 b2"),
        ("web{,-old}", "web web-old"),
        ("{a,b{1..2},c[3-4]}x", "ax b1x b2x c3x c4x"),
        ("a,b c\td  ,  e", "a b c d e"),
        ("a b a", "a b"),
        ("user@web[1-2]:22", "user@web1:22 user@web2:22"),
        ("ssh:gw+sudo+ssh:web[1-2]", "gw+sudo+web1 gw+sudo+web2"),
        ("ssh://u@web1:22", "u@web1:22"),
        ("local:", "local:"),
        ("[::1]", "[::1]"),
        ("u@[fe80::1%eth0]:2[1-2]", "u@[fe80::1%eth0]:21 u@[fe80::1%eth0]:22"),
        ("'web1' \"web2\" we'b'3", "web1 web2 web3"),
        ("node[1-5]^node[4-9],node7&node[1-7]", "node1 node2 node3 node6 node7"),
        ("a,b!a", "b"),
        ("a ! b !c", "a"),
        ("a!(a,b),b", "b"),
        ("(a b)&(b c)", "b"),
        ("((a))", "a"),
        ("web[1-3]!web[1-3]", ""),
    ];
    for (text, expected) in table {
        assert_eq!(names(text).join(" "), *expected, "{text}");
    }
}

/// What bash makes of braces, bash says.
#[test]
fn braces_are_those_of_bash() {
    #[expect(clippy::disallowed_methods, reason = "compares with bash")]
    let bash = |text: &str| {
        let output = std::process::Command::new("bash").args(["-c", &format!("echo {text}")]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for text in [
        "w{1..12}",
        "w{01..12}",
        "w{1..012}",
        "w{9..11}",
        "w{11..9}",
        "w{1..10..3}",
        "w{10..1..3}",
        "w{a..f}",
        "w{f..a..2}",
        "w{a,b}x{1..2}",
        "{w{1,2},v}",
        "w{1..2}{3..4}",
        "w{,x}",
        "w{0..0}",
        "w{00..3}",
        "w{5..5..2}",
    ] {
        assert_eq!(names(text).join(" "), bash(text), "{text}");
    }
}

#[test]
fn errors_point_at_the_place() {
    let table = [
        ("web[1-", "column 7, behind \"web[1-\": expected a number, found the end"),
        ("web[", "column 5, behind \"web[\": expected a number, found the end"),
        ("web[]", "column 5, behind \"web[\": expected a number, found ']'"),
        ("web[1", "column 6, behind \"web[1\": expected ',' or ']', found the end"),
        ("web[1-2,]", "column 9, behind \"web[1-2,\": expected a number, found ']'"),
        ("web[a-c]", "column 5, behind \"web[\": expected a number, found 'a'"),
        ("web[5-1]", "column 7, behind \"web[5-\": expected a number that is not below the first, found '1'"),
        ("web[8-010]", "column 7, behind \"web[8-\": expected as many digits as the first number has, found '0'"),
        ("web[1-9/0]", "column 9, behind \"web[1-9/\": expected a step above 0, found '0'"),
        ("web[1-9/]", "column 9, behind \"web[1-9/\": expected a step, found ']'"),
        ("web[01:50]", "column 5, behind \"web[\": expected an IPv6 address, or numbers such as 1-3,7, found '0'"),
        ("web1]", "column 5, behind \"web1\": expected no ']' without its '[', found ']'"),
        ("web}", "column 4, behind \"web\": expected no '}' without its '{', found '}'"),
        ("web{a}", "column 6, behind \"web{a\": expected ',' and another alternative, found '}'"),
        ("web{a,b", "column 8, behind \"web{a,b\": expected ',' or '}', found the end"),
        ("web{a b}", "column 6, behind \"web{a\": expected ',' or '}', found ' '"),
        ("web{1..}", "column 8, behind \"web{1..\": expected a number, found '}'"),
        ("web{1..2..0}", "column 11, behind \"web{1..2..\": expected a step above 0, found '0'"),
        ("web{a..B}", "column 8, behind \"web{a..\": expected a letter of the same case, found 'B'"),
        ("a,,b", "column 3, behind \"a,\": expected a node, a @group or '(', found ','"),
        ("a,", "column 3, behind \"a,\": expected a node, a @group or '(', found the end"),
        ("!a", "column 1: expected a node, a @group or '(', found '!'"),
        ("a & & b", "column 5, behind \"a & \": expected a node, a @group or '(', found '&'"),
        ("(a", "column 3, behind \"(a\": expected ')', found the end"),
        ("()", "column 2, behind \"(\": expected a node, a @group or '(', found ')'"),
        ("a)", "column 2, behind \"a\": expected an operator or the end, found ')'"),
        ("a(b)", "column 2, behind \"a\": expected an operator: ',' '!' '&' or '^', found '('"),
        ("'a", "column 3, behind \"'a\": expected a closing ', found the end"),
        ("@", "column 2, behind \"@\": expected the name of a group, found the end"),
        ("@x:", "column 4, behind \"@x:\": expected the name of a group, found the end"),
        ("slurm:x", "column 1: expected the number of a job: slurm:1234, found 's'"),
        (
            "kubectl:-l",
            "column 11, behind \"kubectl:-l\": expected a value for the last option (in a shell all of it stands in quotes), found the end",
        ),
    ];
    for (text, message) in table {
        let error = parse(text).expect_err(text);
        assert_eq!(error.to_string(), message, "{text}");
    }
    let long = format!("{}[1-", "é".repeat(1000));
    let error = parse(&long).unwrap_err();
    assert_eq!((error.column, error.before.chars().count()), (1004, 40));
}

#[test]
fn a_command_of_several_words_is_never_taken_for_several_hosts() {
    for text in [
        "command:lxc exec web",
        "command:lxc\texec web",
        "a,gw+command:x y",
        "(command:x 'y')",
        "command:x y!z",
        "command:x (a)",
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.expected, "quotes around a command of several words", "{text}");
    }
    let error = parse("web1, command:lxc exec web --, db").unwrap_err().to_string();
    assert!(
        error.ends_with(r#"; write 'command:lxc exec web --', which in a shell is "'command:lxc exec web --'""#),
        "{error}"
    );
    assert_eq!(names("'command:lxc exec web' a").join("|"), "command:lxc exec web|a");
    assert_eq!(names("command:in-vm , a").join("|"), "command:in-vm|a");
    assert_eq!(names("(command:in-vm )").join("|"), "command:in-vm");
    for text in ["kubectl:-l a=b,c=d", "kubectl:-l a!=b", "kubectl:-l a in (b,c)", "x kubectl:-l a notin (b)"] {
        let error = parse(text).expect_err(text);
        assert!(error.expected.starts_with("quotes around a selector"), "{text}");
    }
    for text in ["kubectl:-l a=b,web1", "kubectl:-l a=b inner", "kubectl:-l a=b,kubectl:-l=c", "kubectl:-l a=b ! web1"]
    {
        assert!(parse(text).is_ok(), "{text}");
    }
}

#[test]
fn what_is_no_target_is_refused_with_its_name() {
    for text in ["a=b c;d", "web[1-2]:99999", "::1", "{,a}", "'a b'", "nosuch:[1-2]x"] {
        assert!(matches!(text.parse::<NodeSet>(), Err(NodeError::Target { .. })), "{text}");
    }
}

#[test]
fn too_much_is_refused_before_it_is_written_out() {
    for text in [
        "n[1-1000001]",
        "n[1-1000][1-1001]",
        "n[1-999999999999999999]",
        "n[0-999999999999999999][0-999999999999999999][0-999999999999999999]",
        "n[1-600000],m[1-600000]",
        &"{a,b}".repeat(40),
        &format!("{}[1-1000000]", "x".repeat(1000)),
    ] {
        assert!(matches!(text.parse::<NodeSet>(), Err(NodeError::TooLarge { limit: 1_000_000 })), "{text}");
    }
    assert!(parse(&"(".repeat(100_000)).is_err());
    assert!(parse(&"{".repeat(100_000)).is_err());
    assert!(parse(&"{a,".repeat(100_000)).is_err());
}

#[test]
fn blanks_belong_to_the_options_of_a_query() {
    let queries = |text: &str| {
        let Ok(Expression::Combined(operands)) = parse(text) else { panic!("{text}") };
        operands.iter().filter(|(_, operand)| matches!(operand, Expression::Query(_))).count()
    };
    assert_eq!(queries("kubectl:-l app=web -n prod a"), 1);
    assert_eq!(queries("a, kubectl:-l app=web,kubectl:-n x -l 'a in (b,c)' -A & slurm:12_3"), 3);
    assert_eq!(queries("'kubectl:-l app=web,x!=y' (slurm:)"), 2);
    assert!(parse("kubectl:--context x -l a").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in r#"([a-c0-9@:,!&^(){}'"*? ./-]|\[|\]|\.\.|\PC){0,40}"#) {
        let _ = parse(&text);
    }

    #[test]
    fn what_is_counted_is_what_is_written(
        ranges in prop::collection::vec((0_u64..200, 0_u64..50, 1_u64..7, 0_usize..2), 1..3),
        braces in prop::collection::vec((0_u64..30, 0_u64..30), 0..2),
    ) {
        let mut text = String::from("n");
        let mut expected = 1;
        for (first, more, step, zero) in ranges {
            let last = first + more;
            let width = if zero == 1 { 4 } else { 0 };
            text += &format!("x[{first:0width$}-{last:0width$}/{step}]");
            expected *= more / step + 1;
        }
        for (first, last) in braces {
            text += &format!("y{{{first}..{last}}}");
            expected *= first.abs_diff(last) + 1;
        }
        let Ok(Expression::Word(word)) = parse(&text) else { panic!("{text}") };
        prop_assert_eq!(word.cost().names, expected);
        let names = word.expand();
        prop_assert_eq!(names.len() as u64, expected);
        prop_assert!(names.iter().all(|name| name.len() as u64 * expected <= word.cost().text));
    }
}
