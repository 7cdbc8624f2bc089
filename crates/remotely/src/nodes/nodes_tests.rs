//! Expressions with what engines answer, and the limits of looking things up. No engine is started.

use super::engine::Query;
use super::*;

fn sources(groups: &str) -> Sources {
    let mut sources = Sources::new();
    sources.add("inv", "inv", Format::Groups, groups).unwrap();
    sources
}

/// What comes out when each engine answers as the table says; and how often it was asked.
fn answered(text: &str, groups: &str, table: &[(&str, &str)]) -> (String, usize) {
    let (expression, sources) = (parse::parse(text).unwrap(), sources(groups));
    let mut answers = Answers::new();
    let mut asked = 0;
    loop {
        match evaluate::evaluate(&expression, &sources, &answers).unwrap() {
            Outcome::Nodes(nodes) => return (nodes.fold(), asked),
            Outcome::Ask(queries) => {
                for query in queries {
                    asked += 1;
                    let said = table.iter().find(|(word, _)| Query::of(word) == Some(Ok(query.clone()))).unwrap().1;
                    answers.insert(query, said.parse().unwrap());
                }
            }
        }
    }
}

#[test]
fn what_engines_answer_is_a_term_like_others_and_asked_for_once() {
    let table = [("slurm:1", "n[0-7]"), ("slurm:2", "n[6-9]"), ("kubectl:-l a=b", "web-[0-2]"), ("slurm:3", "")];
    let groups = "job: slurm:1\nboth: @job & slurm:2\nnone: n9*\n";
    let expected = [
        ("slurm:1 ! n3", groups, "n[0-2,4-7]", 1),
        ("slurm:1 slurm:1 & slurm:2", groups, "n[6-7]", 2),
        ("@both", groups, "n[6-7]", 2),
        ("@both,@job,kubectl:-l a=b", groups, "n[0-7],web-[0-2]", 3),
        ("slurm:3", groups, "", 1),
        // In an inventory a wildcard is about the hosts that are listed there.
        ("@none", groups, "", 0),
        // Elsewhere about those of groups, too: what is not known yet may be among what an engine says.
        ("n9*,slurm:2 ! slurm:3", "job: slurm:1\nother: slurm:2\n", "n[6-9]", 3),
    ];
    for (text, groups, nodes, asked) in expected {
        assert_eq!(answered(text, groups, &table), (nodes.to_owned(), asked), "{text}");
    }
}

#[test]
fn without_waiting_engines_are_refused() {
    assert!(matches!(NodeSet::look_up("a slurm:1", &Sources::new()), Err(NodeError::Engine)));
    assert!(matches!("kubectl:-l a=b".parse::<NodeSet>(), Err(NodeError::Engine)));
}

#[tokio::test]
async fn resolving_is_looking_up_where_no_engine_is_asked() {
    let sources = sources("web: web[1-9]\n");
    let nodes = NodeSet::resolve("@web ! web[2-8]", &sources).await.unwrap();
    assert_eq!(nodes.iter().map(Node::name).collect::<Vec<_>>(), ["web1", "web9"]);
    assert_eq!(nodes.node("web9").unwrap().target(), "web9".parse().unwrap());
    let wrong = NodeSet::resolve("@nosuch", &sources).await.unwrap_err();
    assert_eq!(wrong.to_string(), "there is no group @nosuch, there are @web");
    let futures = (0..3).map(async |n| {
        tokio::task::yield_now().await;
        n
    });
    assert_eq!(join_all(futures).await, [0, 1, 2]);
}

/// What takes too long is refused as what is too much.
#[test]
fn operators_on_large_sets_are_bounded() {
    let text = format!("n[1-900000]{}", "!x".repeat(1000));
    assert!(matches!(text.parse::<NodeSet>(), Err(NodeError::TooLarge { .. })));
    let groups = sources("many: n[1-200000]\n");
    for text in ["@many @many @many @many @many @many", "{a,b,c,d,e}{a,b,c,d,e}{a,b,c,d,e}{a,b,c,d,e}*"] {
        assert!(
            matches!(NodeSet::look_up(text, &groups), Err(NodeError::TooLarge { .. } | NodeError::Nothing { .. })),
            "{text}"
        );
    }
    assert_eq!(NodeSet::look_up("@many & n[1-3] ! n2*", &groups).unwrap().fold(), "n[1,3]");
}
