//! Groups and queues of tunnels to this machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use remotely::copy::Options;
use remotely::password::{Password, Passwords};
use remotely::tunnel::ErrorKind;
use remotely::{Group, Queue, Tunnel, here, remote};

#[remote]
fn get_host() -> String {
    here::host()
}

#[remote]
fn is_among(hosts: Vec<String>) -> bool {
    hosts.contains(&here::host())
}

#[remote]
async fn wait(millis: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(millis)).await;
    millis
}

#[remote]
fn fail_on(host: String) -> Result<u32, String> {
    if here::host() == host { Err("not here".into()) } else { Ok(7) }
}

#[remote]
fn get_variable(name: String) -> Option<String> {
    std::env::var(name).ok()
}

fn local(name: &str) -> Tunnel {
    Tunnel::local().named(name).on_line(|_| {})
}

fn group(names: &[&str]) -> Group {
    names.iter().map(|name| local(name)).collect()
}

fn dead(name: &str) -> Tunnel {
    // Nothing listens there, and ssh says so at once.
    Tunnel::to("nobody@127.0.0.1:1").unwrap().named(name).on_line(|_| {})
}

fn hosts(group: &Group) -> Vec<&str> {
    group.hosts().collect()
}

#[tokio::test]
async fn every_host_answers_in_the_order_of_the_group() {
    let group = group(&["c", "a", "b", "a"]);
    assert_eq!((hosts(&group), group.len()), (vec!["c", "a", "b"], 3));
    let results = group.call(get_host, ()).await;
    let said: Vec<_> = results.successful().map(|(host, said)| (host, said.as_str())).collect();
    assert_eq!(said, [("c", "c"), ("a", "a"), ("b", "b")]);
    assert!(group.tunnels().iter().all(Tunnel::is_connected));
    group.close().await;
    assert!(!group.tunnels().iter().any(Tunnel::is_connected));
    assert_eq!(group.call(get_host, ()).await.len(), 3, "it can be used again");
}

#[tokio::test]
async fn a_dead_host_keeps_nobody_but_itself() {
    let group = group(&["a", "b"]) | dead("d");
    let mut results = group.call(fail_on, ("b".into(),));
    let (mut ok, mut failed, mut lost) = (0, 0, 0);
    while let Some((host, result)) = results.next().await {
        match result.as_ref().map_err(|error| error.kind()) {
            Ok(7) => ok += 1,
            Err(ErrorKind::Failed(told)) => {
                assert_eq!((host.as_str(), told.message.as_str()), ("b", "not here"));
                failed += 1;
            }
            Err(ErrorKind::Connect(_)) => {
                assert_eq!(host, "d");
                lost += 1;
            }
            other => panic!("{host}: {other:?}"),
        }
    }
    assert_eq!((ok, failed, lost), (1, 1, 1));
    let failures = group.call(fail_on, ("b".into(),)).await.raise_failures().unwrap_err();
    let text = failures.to_string();
    assert!(text.starts_with("2 of 3 hosts failed\n  b: not here\n  d: no link to nobody@127.0.0.1:1"), "{text}");
}

#[tokio::test]
async fn what_takes_too_long_is_given_up_alone() {
    let group = group(&["a", "b"]).call_timeout(Duration::from_millis(300));
    group.connect().await.raise_failures().unwrap();
    let results = group.call(wait, (60_000,)).await;
    assert!(results.failures().all(|(_, error)| matches!(error.kind(), ErrorKind::Timeout(_))));
    assert_eq!(results.failures().count(), 2);
    assert_eq!(group.call(wait, (1,)).await.successful().count(), 2);
}

#[tokio::test]
async fn no_more_work_at_once_than_the_window_allows() {
    let group = group(&["a", "b", "c", "d"]).call_window(2);
    group.connect().await.raise_failures().unwrap();
    let began = Instant::now();
    assert_eq!(group.call(wait, (200,)).await.successful().count(), 4);
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
}

#[tokio::test]
async fn hosts_are_chosen_by_a_function_of_theirs() {
    let group = group(&["a", "b", "c"]);
    let among = (vec!["a".to_owned(), "c".into()],);
    assert_eq!(hosts(&group.filter(is_among, among.clone(), false).await.unwrap()), ["a", "c"]);
    assert_eq!(hosts(&group.filter(is_among, among.clone(), true).await.unwrap()), ["b"]);
    assert!((group | dead("d")).filter(is_among, among, false).await.is_err());
}

#[test]
fn groups_and_tunnels_are_sets() {
    let (left, right, one) = (group(&["a", "b", "c"]), group(&["c", "d"]), local("b"));
    assert_eq!(hosts(&(&left | &right)), ["a", "b", "c", "d"]);
    assert_eq!(hosts(&(&left + &right)), ["a", "b", "c", "d"]);
    assert_eq!(hosts(&(&left & &right)), ["c"]);
    assert_eq!(hosts(&(&left - &right)), ["a", "b"]);
    assert_eq!(hosts(&(&left ^ &right)), ["a", "b", "d"]);
    assert_eq!(hosts(&(&left - &one)), ["a", "c"]);
    assert_eq!(hosts(&(&one | &right)), ["b", "c", "d"]);
    assert_eq!((&left - &right) | "x".pipe(local), group(&["x", "b", "a"]), "in whatever order");
}

trait Pipe: Sized {
    fn pipe<T>(self, to: impl FnOnce(Self) -> T) -> T {
        to(self)
    }
}

impl Pipe for &str {}

#[tokio::test]
async fn equal_answers_are_folded() {
    let group = group(&["a", "b", "c"]);
    let results = group.call(is_among, (vec!["b".into()],)).await;
    assert_eq!(results.folded(), [(vec!["a", "c"], &false), (vec!["b"], &true)]);
}

#[tokio::test]
async fn a_queue_keeps_the_order_of_each_host_and_all_hosts_busy() {
    let (queue, group) = (Queue::new(), group(&["a", "b"]));
    group.connect().await.raise_failures().unwrap();
    let [a, b] = group.tunnels() else { unreachable!() };
    let order = Arc::new(AtomicUsize::new(0));
    let noted = |tunnel: &Tunnel, millis: u64| {
        let (tunnel, order) = (tunnel.clone(), order.clone());
        queue.put(&tunnel.clone(), async move {
            tunnel.call(wait, (millis,)).await?;
            Ok(order.fetch_add(1, Ordering::SeqCst))
        })
    };
    let began = Instant::now();
    let (first, second, other) = (noted(a, 300), noted(a, 1), noted(b, 1));
    let all = queue.call_each(&group, get_host, ());
    assert_eq!((other.await.unwrap(), first.await.unwrap(), second.await.unwrap()), (0, 1, 2));
    assert!(began.elapsed() < Duration::from_millis(1200), "{:?}", began.elapsed());
    assert_eq!(all.await.successful().count(), 2);
    queue.finished().await;
    assert!(queue.is_empty());
}

#[tokio::test]
async fn work_may_put_in_more_work() {
    let (queue, tunnel) = (Queue::new(), local("a"));
    let (again, there) = (queue.clone(), tunnel.clone());
    let outer = queue.put(&tunnel, async move {
        let host = there.call(get_host, ()).await?;
        // Behind this very work: its end is not waited for here.
        drop(again.call(&there, get_host, ()));
        Ok(host)
    });
    queue.finished().await;
    assert_eq!(outer.await.unwrap(), "a");
}

#[test]
fn without_async() {
    let group = remotely::blocking::Group::from(group(&["a", "b"]));
    assert_eq!(group.call(get_host, ()).successful().count(), 2);
    group.close();
}

#[tokio::test]
async fn files_go_to_each_host_and_come_back_under_names_of_their_own() {
    let (group, dir) = (group(&["a", "b"]), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(at("tree/sub")).unwrap();
    std::fs::write(at("tree/sub/file"), "x").unwrap();
    let options = Options { parents: true, ..Options::default() };
    let put = group.put(at("tree"), at("there/{host}"), &options).await;
    assert_eq!(put.successful().map(|(_, report)| report.files).collect::<Vec<_>>(), [1, 1], "{put:?}");
    assert_eq!(std::fs::read_to_string(at("there/b/sub/file")).unwrap(), "x");
    let fetched = group.fetch(at("there/{host}/sub/file"), at("x-{host}"), &options).unwrap().await;
    assert_eq!(fetched.raise_failures().unwrap()["a"].local, at("x-a"));
    let same = group.fetch("file", at("x"), &options).unwrap_err();
    assert_eq!((same.first.as_str(), same.second.as_str()), ("a", "b"));
    let failed = group.fetch("/no/such", at("y-{host}"), &options).unwrap().await.raise_failures().unwrap_err();
    assert!(failed.to_string().contains("a: cannot open \"/no/such\" (there)"), "{failed}");
}

#[tokio::test]
async fn the_time_of_sending_the_agent_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let slow = dir.path().join("slow");
    // A little of it, nothing for long, and the rest.
    std::fs::write(&slow, "(dd bs=65536 count=40 2>/dev/null; sleep 4; cat) | \"$@\"").unwrap();
    let home = format!("XDG_CACHE_HOME={}", dir.path().display());
    let target = remotely::Target::local().command(["env", &home, "sh", slow.to_str().unwrap()]).unwrap();
    let slow = Tunnel::new(target).named("slow").on_line(|_| {});
    let began = Instant::now();
    let group = Group::from(slow).connect_timeout(Duration::from_secs(3));
    group.connect().await.raise_failures().unwrap();
    assert!(began.elapsed() > Duration::from_secs(4), "it was sent: {:?}", began.elapsed());
}

#[tokio::test]
async fn transfers_of_a_queue_are_in_the_order_of_each_host() {
    let (queue, group, dir) = (Queue::new(), group(&["a", "b"]), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("file"), "x").unwrap();
    let options = Options { parents: true, ..Options::default() };
    let slow = queue.call_each(&group, wait, (300,));
    let put = queue.put_each(&group, at("file"), at("there/{host}/file"), &options);
    let fetched = queue.fetch_each(&group, at("there/{host}/file"), at("x-{host}"), &options).unwrap();
    let called = queue.call(&group.tunnels()[0], get_host, ());
    // Nothing of this is put in.
    assert!(queue.fetch_each(&group, at("file"), at("same"), &options).is_err());
    assert_eq!(queue.len(), 7);
    assert!(!at("there").exists(), "the work before has not ended");
    assert_eq!(called.await.unwrap(), "a");
    let results = (slow.await.successful().count(), put.await, fetched.await);
    assert_eq!((results.0, results.1.successful().count(), results.2.successful().count()), (2, 2, 2), "{results:?}");
    assert_eq!(results.2.get("b").unwrap().as_ref().unwrap().local, at("x-b"));
    queue.finished().await;
    assert!(!at("same").exists() && std::fs::read_to_string(at("x-a")).unwrap() == "x");
}

#[tokio::test]
async fn a_step_leads_each_host_further_and_is_nothing_yet() {
    let group = group(&["a", "b"]);
    group.connect().await.raise_failures().unwrap();
    let further = group.command(["env", "STEP=1"]).unwrap().command(["env", "ANOTHER=2"]).unwrap();
    assert_eq!(hosts(&further), ["a", "b"]);
    assert!(!further.tunnels().iter().any(Tunnel::is_connected));
    for name in ["STEP", "ANOTHER"] {
        let said = further.call(get_variable, (name.into(),)).await.raise_failures().unwrap();
        assert_eq!(said["a"], said["b"]);
        assert!(said["a"].is_some(), "{name}");
        let before = group.call(get_variable, (name.into(),)).await.raise_failures().unwrap();
        assert_eq!(before["a"], None, "the group goes its own way still");
    }
    assert_eq!(further.call(get_host, ()).await.raise_failures().unwrap()["b"], "b");
}

/// What stands for sudo on hosts whose variable `WANTED` is the password: asks as it does, three times.
const SUDO: &str = r#"#!/bin/sh
while :; do
    case $1 in
    -n) exit 1 ;;
    -S | -H) shift ;;
    -p) prompt=$2; shift 2 ;;
    -u) shift 2 ;;
    --) shift; break ;;
    *) exit 1 ;;
    esac
done
for i in 1 2 3; do
    printf %s "$prompt" >&2
    IFS= read -r line || exit 1
    [ "$line" != "$WANTED" ] || exec "$@"
done
exit 1
"#;

/// A stand-in for ssh: each name is a host, which is this machine.
const SSH: &str = r#"#!/bin/sh
while [ "$1" != -- ]; do shift; done
export NUMBER="$2" WANTED=usual
[ "$2" != odd ] || WANTED=odd
exec sh -c "$3"
"#;

fn write_program(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_group_with_one_password_is_asked_for_it_once() {
    let dir = tempfile::tempdir().unwrap();
    write_program(&dir.path().join("sudo"), SUDO);
    let path = format!("PATH={}:/usr/local/bin:/usr/bin:/bin", dir.path().display());
    write_program(&dir.path().join("ssh"), SSH);
    let host = |name: &str| Tunnel::to(&format!("command:env {path}+{name}")).unwrap().named(name).on_line(|_| {});
    let asked = Arc::new(Mutex::new(Vec::new()));
    let questions = asked.clone();
    let passwords = Passwords::from_fn(move |question| {
        // Longer than a host has for connecting.
        std::thread::sleep(Duration::from_millis(1500));
        let way = question.way.to_string();
        let answer = Password::new(if way.contains("odd") { "odd" } else { "usual" });
        questions.lock().unwrap().push((way, question.unlike));
        Some(answer)
    })
    .shared();
    let usual: Group = ["0", "1", "2", "3", "4"].map(host).into_iter().collect();
    let usual = usual.sudo(None).unwrap().connect_timeout(Duration::from_secs(1)).passwords(passwords.clone());
    let numbers = usual.call(get_variable, ("NUMBER".into(),)).await.raise_failures().unwrap();
    assert_eq!(numbers.values().flatten().collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
    assert_eq!(asked.lock().unwrap().len(), 1, "{asked:?}");
    // The one that has another is asked about by itself.
    let odd = Group::from(host("odd")).sudo(None).unwrap().connect_timeout(Duration::from_secs(1));
    let both = usual.clone() | odd.passwords(passwords);
    assert_eq!(both.call(get_host, ()).await.successful().count(), 6);
    let asked = asked.lock().unwrap();
    assert!(asked.len() == 2 && asked[1].0.contains("+odd+") && asked[1].1, "{asked:?}");
}
