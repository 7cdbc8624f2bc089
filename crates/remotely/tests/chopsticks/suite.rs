//! What chopsticks' own tests check.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use remotely::copy::{Hash, Options};
use remotely::{Group, Queue, Tunnel, remote};
use serde::{Deserialize, Serialize};

use crate::{char_range, check_output, get_pid, group, local, sleep};

fn hash(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

#[tokio::test]
async fn a_file_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let (there, here) = (dir.path().join("there"), dir.path().join("here"));
    let data: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&there, &data).unwrap();
    let report = local("a").fetch(&there, &here).await.unwrap();
    assert_eq!(std::fs::read(&here).unwrap(), data);
    assert_eq!((&report.remote, &report.local), (&there, &here));
    assert_eq!((report.bytes, report.hash), (data.len() as u64, Some(hash(&data))));
}

#[tokio::test]
async fn a_file_is_put_with_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    std::fs::write(&here, "GPL\n").unwrap();
    let tunnel = local("a");
    let report = tunnel.put(&here, &there).mode(0o760).await.unwrap();
    assert_eq!((report.remote, report.bytes, report.hash), (there.clone(), 4, Some(hash(b"GPL\n"))));
    let shown = tunnel.call(check_output, (format!("ls -l {}", there.display()),)).await.unwrap();
    assert!(shown.starts_with("-rwxrw---- 1 "), "{shown}");
    // Over what is there, at once: never a mixture, never another mode.
    let report = tunnel.put(&here, &there).mode(0o600).await.unwrap();
    assert_eq!(report.files, 1);
    assert_eq!(std::fs::metadata(&there).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[tokio::test]
async fn without_a_destination_there_is_a_temporary_one() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("here");
    std::fs::write(&here, "x").unwrap();
    let tunnel = local("a");
    let put = tunnel.put_temporary(&here).await.unwrap();
    assert_eq!(std::fs::read(&put.remote).unwrap(), b"x");
    let fetched = tunnel.fetch_temporary(&put.remote).await.unwrap();
    assert_eq!(std::fs::read(&fetched.local).unwrap(), b"x");
    for path in [put.remote, fetched.local] {
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}

/// Chopsticks looks for data of a package: what a function stands on is in the program.
#[tokio::test]
async fn functions_bring_what_they_stand_on() {
    static TABLE: [&str; 2] = ["zero", "one"];
    #[remote]
    fn spell(n: usize) -> (String, usize) {
        (TABLE[n].to_owned(), include_str!("suite.rs").len())
    }
    assert_eq!(local("a").call(spell, (1,)).await.unwrap(), ("one".to_owned(), include_str!("suite.rs").len()));
}

/// Chopsticks looks that its container is gone.
#[tokio::test]
async fn nothing_is_left_after_the_end() {
    let gone = |pid: u32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
    for close in [true, false] {
        let tunnel = local("a");
        let pid = tunnel.call(get_pid, ()).await.unwrap();
        assert!(!gone(pid));
        if close {
            tunnel.close().await;
        } else {
            drop(tunnel);
        }
        let began = Instant::now();
        while !gone(pid) {
            assert!(began.elapsed() < Duration::from_secs(10), "the agent is still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[remote]
fn say_name() -> String {
    remotely::here::host()
}

#[remote]
fn is_three() -> bool {
    remotely::here::host().starts_with("py3")
}

#[tokio::test]
async fn groups_answer_filter_and_are_used_again() {
    let group = group(&["py27", "py35", "py36"]);
    for _ in 0..2 {
        let names = group.call(say_name, ()).await.raise_failures().unwrap();
        assert!(names.iter().all(|(host, said)| host == said) && names.len() == 3, "{names:?}");
    }
    assert_eq!(group.filter(is_three, (), false).await.unwrap().hosts().collect::<Vec<_>>(), ["py35", "py36"]);
    assert_eq!(group.filter(is_three, (), true).await.unwrap().hosts().collect::<Vec<_>>(), ["py27"]);
}

#[tokio::test]
async fn groups_fetch_under_names_of_their_own_and_put() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let group = group(&["a", "b"]);
    std::fs::write(at("x"), "content").unwrap();
    let put = group.put(at("x"), at("put-{host}"), &Options::default()).await.raise_failures().unwrap();
    assert!(put.values().all(|report| report.bytes == 7), "{put:?}");
    let fetched = group.fetch(at("put-{host}"), at("x-{host}"), &Options::default()).unwrap().await;
    for (host, report) in fetched.raise_failures().unwrap() {
        assert_eq!(std::fs::read(at(&format!("x-{host}"))).unwrap(), b"content");
        assert_eq!(report.hash, Some(hash(b"content")));
    }
    // A place for all of them is refused before anything is asked.
    assert!(group.fetch(at("x"), at("same"), &Options::default()).is_err());
}

#[tokio::test]
async fn results_of_a_queue() {
    let (queue, tunnel) = (Queue::new(), local("a"));
    let first = queue.call(&tunnel, char_range, ('a', 'c'));
    let second = queue.call(&tunnel, char_range, ('x', 'z'));
    queue.finished().await;
    assert_eq!((first.await.unwrap(), second.await.unwrap()), ("abc".to_owned(), "xyz".to_owned()));
}

#[tokio::test]
async fn hosts_of_a_queue_work_beside_each_other() {
    let (queue, a, b) = (Queue::new(), local("a"), local("b"));
    (&a + &b).connect().await.raise_failures().unwrap();
    let began = Instant::now();
    for (tunnel, millis) in [(&a, 750), (&b, 500), (&a, 250), (&b, 500)] {
        drop(queue.call(tunnel, sleep, (millis,)));
    }
    queue.finished().await;
    let took = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_millis(1700)).contains(&took), "{took:?}");
}

/// What chopsticks does by callbacks is what follows an await.
#[tokio::test]
async fn more_is_put_into_a_queue_when_a_result_is_there() {
    let (queue, a, b) = (Queue::new(), local("a"), local("b"));
    let results = Arc::new(Mutex::new(Vec::new()));
    let (again, kept) = (queue.clone(), results.clone());
    let first = queue.call(&a, char_range, ('a', 'c'));
    tokio::spawn(async move {
        let value = first.await.unwrap();
        kept.lock().unwrap().push(value);
        let next = again.call(&b, char_range, ('x', 'z')).await.unwrap();
        kept.lock().unwrap().push(next);
    })
    .await
    .unwrap();
    assert_eq!(*results.lock().unwrap(), ["abc", "xyz"]);
}

#[tokio::test]
async fn groups_in_a_queue() {
    let (queue, group) = (Queue::new(), group(&["a", "b"]));
    let said = queue.call_each(&group, char_range, ('x', 'z'));
    queue.finished().await;
    let said = said.await.raise_failures().unwrap();
    assert_eq!(said.into_values().collect::<Vec<_>>(), ["xyz", "xyz"]);
}

#[remote]
async fn ping(further: String) -> Result<String, remotely::Error> {
    Tunnel::local().named(further).call(say_name, ()).await
}

#[remote]
async fn recursive() -> Result<(), remotely::Error> {
    Box::pin(Tunnel::local().call(recursive, ())).await
}

#[tokio::test]
async fn tunnels_from_within_tunnels() {
    assert_eq!(local("a").call(ping, ("py36".into(),)).await.unwrap(), "py36");
    let error = recursive().await.unwrap_err().to_string();
    let path = "localhost -> localhost -> localhost -> localhost";
    assert!(error.ends_with(&format!("depth limit of 2 exceeded at {path}")), "{error}");
}

#[test]
fn tunnels_show_what_they_are() {
    let shown = |target: &str| format!("{:?}", Tunnel::to(target).unwrap());
    assert_eq!(shown("dev@web1:2222"), r#"Tunnel("dev@web1:2222")"#);
    assert_eq!(shown("gw+docker:py36"), r#"Tunnel("gw+docker:py36")"#);
    assert_eq!(format!("{:?}", group(&["a", "b"])), r#"Group(["a", "b"])"#);
}

/// Whatever the way there is: the name counts.
#[test]
fn hosts_are_equal_by_name() {
    let by_ssh = Tunnel::to("a").unwrap();
    assert_eq!(Group::from(local("a")), Group::from(&by_ssh));
    assert!((local("a") - by_ssh).is_empty());
}

fn some_hosts() -> impl Strategy<Value = BTreeSet<u8>> {
    proptest::collection::btree_set(0..6_u8, 0..6)
}

fn group_of(hosts: &BTreeSet<u8>) -> Group {
    hosts.iter().map(|host| Tunnel::local().named(host.to_string())).collect()
}

proptest! {
    #[test]
    fn operators_are_those_of_sets(left in some_hosts(), right in some_hosts()) {
        let (l, r) = (group_of(&left), group_of(&right));
        prop_assert_eq!(&l | &r, group_of(&(&left | &right)));
        prop_assert_eq!(&l + &r, group_of(&(&left | &right)));
        prop_assert_eq!(&l & &r, group_of(&(&left & &right)));
        prop_assert_eq!(&l - &r, group_of(&(&left - &right)));
        prop_assert_eq!(&l ^ &r, group_of(&(&left ^ &right)));
        prop_assert_eq!(l.union(&r), &l | &r);
        prop_assert_eq!(l.intersection(&r), &l & &r);
        prop_assert_eq!(l.difference(&r), &l - &r);
        prop_assert_eq!(l.symmetric_difference(&r), &l ^ &r);
    }
}

/// What pencode has: None, bool, numbers of any size, text, bytes, lists, tuples, sets and dictionaries, one in the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Value {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    Bytes(bytes::Bytes),
    Optional(Option<bool>),
    Pair(char, ()),
    List(Vec<Value>),
    Set(BTreeSet<String>),
    Dict(BTreeMap<String, Value>),
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::Bool),
        any::<i128>().prop_map(Value::Int),
        any::<i64>().prop_map(|n| Value::Int(n.into())),
        any::<f64>().prop_map(Value::Float),
        any::<String>().prop_map(Value::Text),
        any::<Vec<u8>>().prop_map(|bytes| Value::Bytes(bytes.into())),
        any::<Option<bool>>().prop_map(Value::Optional),
        any::<char>().prop_map(|c| Value::Pair(c, ())),
        proptest::collection::btree_set(any::<String>(), 0..4).prop_map(Value::Set),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            proptest::collection::btree_map(any::<String>(), inner, 0..6).prop_map(Value::Dict),
        ]
    })
}

#[remote]
fn give_back(value: Value) -> Value {
    value
}

#[test]
fn all_data_comes_back_as_it_was() {
    let tunnel = remotely::blocking::Tunnel::from(local("a"));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let checked = proptest::test_runner::TestRunner::new(config).run(&value(), |value| {
        let back = tunnel.call(give_back, (value.clone(),)).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(back, value);
        Ok(())
    });
    checked.unwrap();
    tunnel.close();
}
