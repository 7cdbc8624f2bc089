//! Tunnels to this machine: functions of this very test executable, in another process of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use remotely::tunnel::{ErrorKind, Line};
use remotely::{Receiver, Sender, Tunnel, channel, exec, here, remote};
use serde::{Deserialize, Serialize};

#[remote]
fn get_pid() -> u32 {
    std::process::id()
}

#[remote]
fn get_parent() -> u32 {
    std::os::unix::process::parent_id()
}

#[remote]
async fn measure(text: String) -> usize {
    text.len()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    name: String,
    sizes: BTreeMap<String, Vec<i128>>,
    inner: Option<Box<Record>>,
    #[serde(flatten)]
    more: BTreeMap<String, Untagged>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(f64),
    Text(String),
}

#[remote]
fn give_back(record: Record) -> Record {
    record
}

#[remote]
fn open(path: std::path::PathBuf) -> io::Result<()> {
    std::fs::File::open(path).map(drop)
}

#[remote]
fn exit(status: i32) {
    eprintln!("I am going");
    std::process::exit(status)
}

#[remote]
#[expect(clippy::disallowed_methods, reason = "what users do")]
fn print(child: bool) {
    println!("one\ntwo");
    eprintln!("three");
    if child {
        let status =
            Command::new("sh").args(["-c", "echo four; printf five >&2; cat; readlink /proc/self/fd/0"]).status();
        assert!(status.unwrap().success());
    }
}

#[remote]
async fn forever() {
    std::future::pending().await
}

#[remote]
fn measure_lines(of: Receiver<String>, to: Sender<usize>) {
    let mut of = of;
    while let Ok(Some(line)) = of.blocking_recv() {
        to.blocking_send(line.len()).unwrap();
    }
}

#[remote]
async fn ask_way() -> (Vec<String>, u8) {
    (here::path(), here::depth())
}

/// Calls itself `more` links further on.
#[remote]
async fn nested(more: u32) -> Result<Vec<String>, remotely::Error> {
    if more == 0 {
        return Ok(here::path());
    }
    Box::pin(Tunnel::local().named(format!("n{more}")).call(nested, (more - 1,))).await
}

/// Leaves processes behind: one in a session of its own whose parent has gone, and one that is to be kept.
#[remote]
#[expect(clippy::disallowed_methods, reason = "what users do")]
fn leave_behind(mark: String) {
    let stray = format!("(setsid sh -c 'sleep 1000; : {mark}' >/dev/null 2>&1 &)");
    let kept = format!("(REMOTELY_KEEP=1 setsid sh -c 'sleep 300; : {mark}-kept' >/dev/null 2>&1 &)");
    assert!(Command::new("sh").args(["-c", &stray]).status().unwrap().success());
    assert!(Command::new("sh").args(["-c", &kept]).status().unwrap().success());
}

/// A tunnel whose printed lines are kept.
fn listening() -> (Tunnel, Arc<Mutex<Vec<Line>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = lines.clone();
    (Tunnel::local().on_line(move |line| heard.lock().unwrap().push(line.clone())), lines)
}

fn quiet() -> Tunnel {
    listening().0
}

fn processes(mark: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.windows(mark.len()).any(|window| window == mark.as_bytes())
    };
    numbers.filter(has).collect()
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn functions_run_in_another_process() {
    let tunnel = quiet();
    assert!(!tunnel.is_connected(), "nothing happens before it must");
    let there = tunnel.call(get_pid, ()).await.unwrap();
    assert_ne!(there, std::process::id());
    assert!(tunnel.is_connected());
    assert_eq!(tunnel.call(get_pid, ()).await.unwrap(), there, "the agent stays");
    assert_eq!(tunnel.call(measure, ("four".into(),)).await.unwrap(), 4);
    assert_eq!(measure("four".into()).await, 4, "it can be called here, too");
}

#[tokio::test]
async fn every_shape_of_data_arrives() {
    let inner = Record {
        name: "\u{0}ä\u{1f600}".into(),
        sizes: BTreeMap::from([("big".into(), vec![i128::MIN, -1, 0, i128::MAX])]),
        inner: None,
        more: BTreeMap::from([("x".into(), Untagged::Number(1.5)), ("y".into(), Untagged::Text("z".into()))]),
    };
    let record = Record { inner: Some(Box::new(inner.clone())), ..inner };
    assert_eq!(quiet().call(give_back, (record.clone(),)).await.unwrap(), record);
}

#[tokio::test]
async fn calls_travel_together_and_come_back_in_any_order() {
    let tunnel = quiet();
    let calls = (0..2000).map(|n| tunnel.call(measure, ("x".repeat(n % 100),)));
    for (n, length) in futures_util::future::join_all(calls).await.into_iter().enumerate() {
        assert_eq!(length.unwrap(), n % 100);
    }
}

#[tokio::test]
async fn errors_tell_the_host_and_what_happened() {
    let tunnel = quiet().named("web1");
    let error = tunnel.call(open, ("/no/such".into(),)).await.unwrap_err();
    assert_eq!(error.to_string(), "web1: No such file or directory (os error 2)");
    assert_eq!((error.host(), error.path()), ("web1", &["localhost".to_owned(), "web1".into()][..]));
    assert!(matches!(error.kind(), ErrorKind::Failed(_)));
}

#[tokio::test]
async fn a_function_that_ends_its_process_is_an_error_and_the_next_call_connects_again() {
    let (tunnel, lines) = listening();
    let before = tunnel.call(get_pid, ()).await.unwrap();
    let error = tunnel.call(exit, (3,)).await.unwrap_err();
    let ErrorKind::Lost { status, stderr, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!((status.unwrap().code(), stderr.as_str()), (Some(3), "I am going"));
    assert!(error.to_string().ends_with("the last it said: I am going"), "{error}");
    assert_eq!(lines.lock().unwrap().len(), 1);
    assert_ne!(tunnel.call(get_pid, ()).await.unwrap(), before);
}

#[tokio::test]
async fn what_is_printed_comes_as_lines_before_the_call_returns() {
    let (tunnel, lines) = listening();
    tunnel.named("n1").call(print, (false,)).await.unwrap();
    tunnel.named("n1").call(print, (true,)).await.unwrap();
    let lines: Vec<_> = lines
        .lock()
        .unwrap()
        .iter()
        .map(|line| (line.host.clone(), line.is_error, String::from_utf8(line.bytes.to_vec()).unwrap()))
        .collect();
    let of = |is_error| -> Vec<&str> {
        let lines = lines.iter().filter(|(host, error, _)| host == "n1" && *error == is_error);
        lines.map(|(_, _, text)| text.as_str()).collect()
    };
    assert_eq!(of(false), ["one", "two", "one", "two", "four", "/dev/null"]);
    assert_eq!(of(true), ["three", "three", "five"]);
}

/// The most memory that this process has had, in KiB.
#[remote]
fn measure_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[remote]
#[expect(clippy::disallowed_methods, reason = "what users do")]
fn run(script: String) {
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
}

#[remote]
fn print_lines(count: usize, size: usize) -> Vec<u8> {
    (0..count).for_each(|n| println!("{n}"));
    vec![1; size]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_answer_overtakes_what_was_printed_before_it() {
    let (tunnel, lines) = listening();
    let mut printed = 0;
    for (rounds, count, size) in [(300, 10, 0), (30, 10, 100_000), (30, 1000, 0), (3, 100_000, 100_000)] {
        for _ in 0..rounds {
            tunnel.call(print_lines, (count, size)).await.unwrap();
            printed += count;
            assert_eq!(lines.lock().unwrap().len(), printed, "{count} lines, {size} bytes");
        }
    }
}

#[tokio::test]
async fn whoever_prints_without_end_waits_for_who_takes_it() {
    let taken = Arc::new(Mutex::new(0));
    let taking = taken.clone();
    let tunnel = Tunnel::local().on_line(move |line| *taking.lock().unwrap() += line.bytes.len());
    let before = tunnel.call(measure_memory, ()).await.unwrap();
    // A line that has no end, and lines that come faster than they go.
    tunnel.call(run, ("head -c 60000000 /dev/zero".into(),)).await.unwrap();
    tunnel.call(run, ("yes $(printf %01000d 0) | head -c 60000000".into(),)).await.unwrap();
    eventually("all has been taken", || *taken.lock().unwrap() >= 119_900_000).await;
    let grown = tunnel.call(measure_memory, ()).await.unwrap() - before;
    assert!(grown < 24 << 10, "{grown} KiB more");
}

#[tokio::test]
async fn a_tunnel_can_be_closed_while_it_connects() {
    let silent = remotely::Target::local().command(["sh", "-c", "exec sleep 600", "sh"]).unwrap();
    let tunnel = Tunnel::new(silent);
    let (connected, ()) = tokio::join!(tunnel.connect(), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let closed = tokio::time::timeout(Duration::from_secs(5), tunnel.close()).await;
        assert!(closed.is_ok(), "closing waits for who never answers");
    });
    assert!(matches!(connected.unwrap_err().kind(), ErrorKind::Closed));
}

/// Panics when it is written, or read.
struct Brittle;

impl serde::Serialize for Brittle {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("it does not like to be written")
    }
}

impl<'de> serde::Deserialize<'de> for Brittle {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("it does not like to be read")
    }
}

#[remote]
fn make_brittle() -> Brittle {
    Brittle
}

#[remote]
async fn make_brittle_later() -> Brittle {
    tokio::task::yield_now().await;
    Brittle
}

#[remote]
fn r#type(r#in: u8) -> u8 {
    r#in + 1
}

#[tokio::test]
async fn what_panics_while_it_is_written_there_is_a_panic_of_the_call() {
    let tunnel = quiet();
    let failed = [tunnel.call(make_brittle, ()).await, tunnel.call(make_brittle_later, ()).await];
    for result in failed {
        let Err(error) = result else { panic!("it was written") };
        let ErrorKind::Panicked(told) = error.kind() else { panic!("{error:?}") };
        assert!(told.message.starts_with("it does not like to be written (") && told.stderr.is_empty(), "{told:?}");
        assert!(error.backtrace().is_some());
    }
    assert_eq!(tunnel.call(r#type, (1,)).await.unwrap(), 2);
}

#[tokio::test]
async fn a_call_can_be_given_up() {
    let tunnel = quiet();
    let error = tunnel.call(forever, ()).timeout(Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout(_)), "{error:?}");
    assert_eq!(error.to_string(), "localhost: not done within 0.2 s");
    assert!(tunnel.call(get_pid, ()).await.is_ok());
}

#[tokio::test]
async fn channels_are_arguments() {
    let tunnel = quiet();
    let ((to_there, of), (to, mut from_there)) = (channel(), channel());
    let call = tunnel.call(measure_lines, (of, to));
    let talk = async {
        for text in ["a", "bcd", ""] {
            to_there.send(text.to_owned()).await.unwrap();
            assert_eq!(from_there.recv().await.unwrap(), Some(text.len()));
        }
        drop(to_there);
        assert_eq!(from_there.recv().await.unwrap(), None);
    };
    tokio::join!(call, talk).0.unwrap();
}

#[tokio::test]
async fn tunnels_go_on_from_there_as_far_as_allowed() {
    let tunnel = quiet().named("web1");
    assert_eq!(tunnel.call(ask_way, ()).await.unwrap(), (vec!["localhost".into(), "web1".into()], 1));
    assert_eq!(tunnel.call(nested, (1,)).await.unwrap(), ["localhost", "web1", "n1"]);
    let error = tunnel.call(nested, (2,)).await.unwrap_err();
    assert!(error.to_string().contains("depth limit of 2 exceeded at localhost -> web1 -> n2 -> n1"), "{error}");
    let deeper = quiet().named("web1").depth_limit(3);
    assert_eq!(deeper.call(nested, (2,)).await.unwrap(), ["localhost", "web1", "n2", "n1"]);
    let error = quiet().depth_limit(0).call(get_pid, ()).await.unwrap_err();
    assert_eq!(error.to_string(), "depth limit of 0 exceeded at localhost -> localhost");
}

#[tokio::test]
async fn a_tunnel_that_was_closed_can_be_used_again() {
    let tunnel = quiet();
    let before = tunnel.call(get_pid, ()).await.unwrap();
    let waiting = tunnel.call(forever, ());
    let closing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        tunnel.close().await;
    };
    let (waited, ()) = tokio::join!(waiting, closing);
    assert!(matches!(waited.unwrap_err().kind(), ErrorKind::Closed));
    assert!(!tunnel.is_connected());
    assert_ne!(tunnel.call(get_pid, ()).await.unwrap(), before);
}

#[tokio::test]
async fn what_functions_start_ends_with_the_link() {
    for kill in [0, 1, 2] {
        let tunnel = quiet();
        let mark = format!("left-behind-{}-{kill}", std::process::id());
        tunnel.call(leave_behind, (mark.clone(),)).await.unwrap();
        let (agent, keeper) = (tunnel.call(get_pid, ()).await.unwrap(), tunnel.call(get_parent, ()).await.unwrap());
        let kept = format!("{mark}-kept");
        // As words of their own: the shell that starts one has them in its script, and not yet in its environment.
        let runs = |words: String| processes(&format!("\0{words}")).len() == 1;
        let both = || runs(format!("sleep 1000; : {mark}")) && runs(format!("sleep 300; : {kept}"));
        eventually("both run", both).await;
        let end = |pid: u32| {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        };
        match kill {
            0 => tunnel.close().await,
            1 => end(agent),
            _ => end(keeper),
        }
        // What was to be kept carries the mark as well. Without its keeper, a process that has left its parent cannot be
        // told from others.
        let left = || processes(&mark).into_iter().filter(|pid| !processes(&kept).contains(pid)).count();
        if kill < 2 {
            eventually("the stray is gone", || left() == 0).await;
            assert_eq!(processes(&kept).len(), 1, "{kill}: what was to be kept runs on");
        }
        for pid in processes(&mark) {
            end(pid);
        }
    }
}

#[tokio::test]
async fn commands_of_the_host_run_with_their_streams() {
    let tunnel = quiet();
    let script = "cat; echo \"$1|$X\"; echo oops >&2; exit 7";
    let command = exec::Command::shell(script).arg("-").arg("a b").env("X", "y").current_dir("/");
    let (feeding, input) = channel();
    let mut running = tunnel.start(command.clone(), Some(input));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let talk = async {
        feeding.send("fed ".into()).await.unwrap();
        drop(feeding);
    };
    let listen = async {
        while let Some(chunk) = running.next().await {
            match chunk {
                exec::Chunk::Output(bytes) => out.extend(bytes),
                exec::Chunk::Error(bytes) => err.extend(bytes),
            }
        }
    };
    tokio::join!(talk, listen);
    assert_eq!((out.as_slice(), err.as_slice()), (&b"fed a b|y\n"[..], &b"oops\n"[..]));
    assert_eq!(running.status().await.unwrap().code(), Some(7));

    let output = tunnel.output(command).await.unwrap();
    assert_eq!(
        (&output.stdout[..], &output.stderr[..], output.status.code()),
        (&b"a b|y\n"[..], &b"oops\n"[..], Some(7))
    );
    let killed = tunnel.output(exec::Command::shell("kill -9 $$")).await.unwrap();
    assert_eq!((killed.status.signal(), killed.status.shell_code()), (Some(9), 137));
    let error = tunnel.output(exec::Command::new("/no/such")).await.unwrap_err();
    assert_eq!(error.to_string(), "localhost: /no/such: command not found");
    assert_eq!(error.downcast(), Some(exec::StartError::NotFound("/no/such".into())));
    let large = tunnel.output(exec::Command::shell("head -c 20000000 /dev/zero")).await.unwrap();
    assert_eq!(large.stdout.len(), 20_000_000);
}

#[tokio::test]
async fn a_command_that_nobody_wants_is_ended() {
    let tunnel = quiet();
    tunnel.connect().await.unwrap();
    let mark = format!("unwanted-{}", std::process::id());
    let running = tunnel.start(exec::Command::shell(format!("sleep 1000; : {mark}")), None);
    let wait = async { running.status().await };
    assert!(tokio::time::timeout(Duration::from_millis(500), wait).await.is_err());
    eventually("it has been ended", || processes(&mark).is_empty()).await;
    assert!(tunnel.is_connected());
    let yes = tunnel.start(exec::Command::new("yes"), None);
    let mut yes = yes;
    assert!(yes.next().await.is_some());
    drop(yes);
    eventually("so has the other", || {
        processes("yes\0").iter().all(|pid| {
            let parent = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !parent.contains("(yes)")
        })
    })
    .await;
}

#[test]
fn without_async() {
    let tunnel = remotely::blocking::Tunnel::local();
    assert_ne!(tunnel.call(get_pid, ()).unwrap(), std::process::id());
    let error = tunnel.call_within(Duration::from_millis(100), forever, ()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout(_)));
    tunnel.close();
}
