//! What chopsticks gets wrong, as found by running it: each of these hangs there, loses something or fails.

use std::error::Error as _;
use std::fmt;
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use remotely::target::{Hop, Ssh, Target};
use remotely::tunnel::ErrorKind;
use remotely::{Group, Tunnel, facts, remote};
use serde::{Deserialize, Serialize};

use crate::{check_output, get_pid, group, listening, local, sleep, text, way};

const LIMIT: Duration = Duration::from_secs(30);

#[remote]
#[expect(clippy::disallowed_methods, reason = "what users do")]
fn run_printing(script: String) -> Option<i32> {
    std::process::Command::new("sh").args(["-c", &script]).status().unwrap().code()
}

/// There, the standard output of a program that a function starts is the protocol.
#[tokio::test]
async fn a_child_that_prints_neither_hangs_nor_corrupts() {
    let (tunnel, heard) = listening("a");
    let call = |script: &str| tunnel.call(run_printing, (script.to_owned(),)).timeout(LIMIT);
    assert_eq!(call("echo hi; exit 3").await.unwrap(), Some(3));
    assert_eq!(text(&heard), ["hi"]);
    // What could be taken for anything, and nothing to read for who reads.
    assert_eq!(call("head -c 1000000 /dev/urandom; head -c 100000 /dev/urandom >&2; cat").await.unwrap(), Some(0));
    let received: usize = heard.lock().unwrap().iter().map(|line| line.bytes.len() + 1).sum();
    assert!(received >= 1_100_000, "{received}");
    // One who goes on printing when the call has returned.
    assert_eq!(call("(sleep 0.2; echo late) & exit 0").await.unwrap(), Some(0));
    tunnel.call(sleep, (600,)).await.unwrap();
    assert_eq!(text(&heard).last().unwrap(), "late");
}

/// There, a host needs an interpreter of the right version.
#[tokio::test]
async fn a_host_needs_nothing() {
    let home = format!("HOME={}", std::env::var("HOME").unwrap_or_else(|_| "/".into()));
    let target = Target::local().command(["env", "-i", "PATH=/usr/bin:/bin", &home]).unwrap();
    let said = Tunnel::new(target).call(check_output, ("env | grep -c ^PYTHON".into(),)).await;
    assert!(said.unwrap_err().to_string().contains("exit status: 1"), "grep has found none");
}

/// There, select(2) ends it at about 340 hosts, of which each has three descriptors.
#[tokio::test]
async fn more_hosts_at_once_than_select_has_descriptors() {
    let few = 40;
    // All that is opened from here on has a higher number than select(2) knows.
    let taken: Vec<_> = (0..1100).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let group: Group = (0..few).map(|n| local(&format!("n{n}"))).collect();
    let first = group.call(get_pid, ()).await.raise_failures().unwrap();
    // As many names again, over the same links.
    let again = group.call(get_pid, ()).await.raise_failures().unwrap();
    assert_eq!((first.len(), first), (few, again));
    drop(taken);
    group.close().await;
}

/// There, a fetch that fails removes the file that it was to replace.
#[tokio::test]
async fn a_failed_fetch_leaves_the_local_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("here"), "precious").unwrap();
    std::fs::create_dir(at("tree")).unwrap();
    let tunnel = local("a");
    for source in [at("missing"), at("tree"), "/proc/self/mem".into()] {
        let error = tunnel.fetch(&source, at("here")).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Copy(_)), "{error}");
        assert_eq!(std::fs::read_to_string(at("here")).unwrap(), "precious", "{source:?}");
    }
    // A link that is lost in the middle.
    std::fs::write(at("large"), vec![7; 64 << 20]).unwrap();
    let pid = tunnel.call(get_pid, ()).await.unwrap();
    let killing = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        kill(pid);
    };
    let (fetched, ()) = tokio::join!(tunnel.fetch(at("large"), at("here")).into_future(), killing);
    match fetched {
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Lost { .. }), "{error:?}");
            assert_eq!(std::fs::read_to_string(at("here")).unwrap(), "precious");
        }
        Ok(_) => assert_eq!(std::fs::metadata(at("here")).unwrap().len(), 64 << 20),
    }
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// There, a port that is a number is an error.
#[tokio::test]
async fn ports_are_numbers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = Target::ssh(&format!("nobody@127.0.0.1:{port}")).unwrap();
    let ssh = Ssh { user: Some("nobody".into()), host: "127.0.0.1".into(), port: Some(port) };
    assert_eq!(target.hops(), [Hop::Ssh(ssh)]);
    // It is ssh that comes, and goes at once.
    let accepting = std::thread::spawn(move || listener.accept().map(drop));
    let error = Tunnel::new(target).on_line(|_| {}).connect().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Connect(_)), "{error:?}");
    accepting.join().unwrap().unwrap();
}

#[remote]
fn write_to_stderr(bytes: Vec<u8>) {
    std::io::stderr().write_all(&bytes).unwrap();
}

/// There, one such line ends the thread that shows what all hosts say.
#[tokio::test]
async fn a_line_that_is_no_text_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let script = way(&dir, "printf 'way \\377\\n' >&2; exec \"$@\"");
    let (_, heard) = listening("");
    let heard_by = || {
        let heard = heard.clone();
        move |line: &remotely::tunnel::Line| heard.lock().unwrap().push(line.clone())
    };
    let target = Target::local().command([script.to_str().unwrap()]).unwrap();
    let (odd, other) = (Tunnel::new(target).named("odd"), local("other"));
    let (odd, other) = (odd.on_line(heard_by()), other.on_line(heard_by()));
    odd.call(write_to_stderr, (b"\xff\xfe\0\xc3\n\xe2\x82\nafter\n".to_vec(),)).await.unwrap();
    other.call(write_to_stderr, (b"also\n".to_vec(),)).await.unwrap();
    let lines: Vec<_> = heard.lock().unwrap().iter().map(|line| (line.host.clone(), line.bytes.to_vec())).collect();
    let wanted = [
        ("odd", &b"way \xff"[..]),
        ("odd", b"\xff\xfe\0\xc3"),
        ("odd", b"\xe2\x82"),
        ("odd", b"after"),
        ("other", b"also"),
    ];
    assert_eq!(lines, wanted.map(|(host, bytes)| (host.to_owned(), bytes.to_vec())));
    // And it is shown in an error, as far as it is text.
    let error = odd.call(fail, ()).await.unwrap_err();
    assert!(error.stderr().starts_with("way \u{fffd}\n") && error.stderr().ends_with("\nafter"), "{error:?}");
}

/// There, this fails always.
#[test]
fn routes_can_be_asked_for() {
    let (there, here) = (remotely::blocking::Tunnel::local().call(facts::routes, ()).unwrap(), facts::routes());
    assert_eq!(there, here);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Trouble {
    Full { left: u64 },
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the disk is nearly full")
    }
}

impl std::error::Error for Trouble {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        static CAUSE: fmt::Error = fmt::Error;
        Some(&CAUSE)
    }
}

#[remote]
fn fail() -> Result<(), Trouble> {
    Err(Trouble::Full { left: 7 })
}

#[remote]
fn fall_over(n: usize) -> u8 {
    [1, 2, 3][n]
}

/// There, an error is a text, and the stack that its documentation promises is not there.
#[tokio::test]
async fn errors_have_a_type_a_cause_and_a_stack() {
    let tunnel = local("web1");
    let error = tunnel.call(fail, ()).await.unwrap_err();
    assert_eq!(error.downcast(), Some(Trouble::Full { left: 7 }));
    assert_eq!(error.downcast::<String>(), None);
    assert_eq!(error.to_string(), "web1: the disk is nearly full");
    assert_eq!(error.source().unwrap().to_string(), fmt::Error.to_string());

    let error = tunnel.call(fall_over, (3,)).await.unwrap_err();
    let ErrorKind::Panicked(told) = error.kind() else { panic!("{error:?}") };
    assert!(told.message.contains("index out of bounds"), "{error}");
    assert!(told.message.contains("bugs.rs:"), "it tells where: {error}");
    assert!(error.backtrace().unwrap().contains("fall_over"), "{error:?}");
    assert_eq!(tunnel.call(fall_over, (2,)).await.unwrap(), 3, "the agent lives");
}

#[remote]
fn measure(bytes: bytes::Bytes) -> usize {
    bytes.len()
}

/// There, a pipe that breaks while something is written shows a stack, and nothing can be asked until the tunnel is closed.
#[tokio::test]
async fn a_broken_pipe_is_an_error_and_the_next_call_connects_again() {
    let tunnel = local("a");
    let pid = tunnel.call(get_pid, ()).await.unwrap();
    let stop = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    // It reads no more, so that the pipe is full when it goes.
    rustix::process::kill_process(stop, rustix::process::Signal::STOP).unwrap();
    let bytes = bytes::Bytes::from(vec![0; 64 << 20]);
    let killing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        kill(pid);
    };
    let (large, small, ()) =
        tokio::join!(tunnel.call(measure, (bytes.clone(),)), tunnel.call(measure, (bytes.slice(..5),)), killing);
    for result in [large, small] {
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Lost { .. }), "{error:?}");
    }
    assert_eq!(tunnel.call(measure, (bytes,)).timeout(LIMIT).await.unwrap(), 64 << 20);
    assert_ne!(tunnel.call(get_pid, ()).await.unwrap(), pid);
}

/// There, a tunnel does one call at a time.
#[tokio::test]
async fn calls_do_not_wait_for_each_other() {
    let group = group(&["a"]);
    group.connect().await.raise_failures().unwrap();
    let tunnel = &group.tunnels()[0];
    let began = std::time::Instant::now();
    let slow = futures_util::future::join_all((0..100).map(|_| tunnel.call(sleep, (500,))));
    let quick = async {
        tunnel.call(get_pid, ()).await.unwrap();
        began.elapsed()
    };
    let (slow, quick) = tokio::join!(slow, quick);
    assert!(slow.into_iter().all(|result| result.is_ok()));
    assert!(quick < Duration::from_millis(450), "behind others: {quick:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "one after the other: {:?}", began.elapsed());
}
