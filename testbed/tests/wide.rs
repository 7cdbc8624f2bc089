//! Links over several sessions of one ssh connection: opened when they help, refused by some servers, shared with the user's own
//! connection; and nothing of them is left behind.

use std::io::Write;
use std::time::{Duration, Instant};

use testbed::{HostOptions, Outcome, Pair, Process, Wire};

const LIMIT: Duration = Duration::from_secs(60);
const CLEAN: Duration = Duration::from_secs(10);
const MEBIBYTES: u32 = 96;

/// A host 20 ms away with something to fetch, and the agent.
fn pair(sshd: &[&str]) -> Pair {
    let sshd = sshd.iter().map(|&option| option.to_owned()).collect();
    let pair = Pair::with(HostOptions { sshd, ..HostOptions::default() }, Wire::rtt(20));
    pair.host.sh(&format!("head -c {MEBIBYTES}M /dev/urandom >/home/dev/blob && chown dev /home/dev/blob"));
    let outcome = fetch(&pair, &["--pipes", "1"]);
    assert_eq!(outcome.code(), 0, "{outcome}");
    pair
}

fn fetch(pair: &Pair, words: &[&str]) -> Outcome {
    let target = pair.target();
    let words = ["fetch"].iter().chain(words).copied().chain([target.as_str(), "blob", "got"]);
    let mut command = pair.client.remotely(words);
    let _ = std::fs::remove_file(pair.client.work().join("got"));
    let outcome = Process::start(command.env("REMOTELY_LOG", "debug"), b"").wait(LIMIT);
    if outcome.code() == 0 {
        let got = pair.here("b2sum <got", LIMIT);
        assert_eq!(got.text(), pair.host.sh("b2sum </home/dev/blob"));
    }
    outcome
}

/// What was to be fetched is not left behind by us.
fn clean(pair: &Pair) -> Duration {
    pair.host.sh("rm -f /home/dev/blob");
    pair.clean_within(CLEAN)
}

fn further_pipes(outcome: &Outcome) -> usize {
    outcome.errors().matches("the link has a further pipe").count()
}

/// Waits until so many further sessions have been joined to the agent, and returns the pids of these processes there.
fn joined(pair: &Pair, count: usize) -> Vec<u32> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let all = pair.host.processes();
        let joined: Vec<u32> = all.iter().filter(|p| p.arguments.ends_with(" join")).map(|p| p.pid).collect();
        if joined.len() == count {
            return joined;
        }
        assert!(Instant::now() < deadline, "{all:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(pair: &Pair, pipes: &str, script: &str) -> Process {
    let target = pair.target();
    Process::start_open(&mut pair.client.remotely(["--pipes", pipes, &target, "--", "sh", "-c", script]))
}

#[test]
fn a_transfer_that_fills_its_session_gets_more_and_leaves_nothing() {
    let pair = pair(&[]);
    let outcome = fetch(&pair, &[]);
    assert_eq!(outcome.code(), 0, "{outcome}");
    assert!(further_pipes(&outcome) > 0, "{outcome}");
    let outcome = fetch(&pair, &["--pipes", "8"]);
    assert_eq!((outcome.code(), further_pipes(&outcome)), (0, 7), "{outcome}");
    let outcome = fetch(&pair, &["--pipes", "1"]);
    assert_eq!((outcome.code(), further_pipes(&outcome)), (0, 0), "{outcome}");
    assert!(!outcome.errors().contains("ControlPath"), "{outcome}");
    clean(&pair);
}

#[test]
fn a_server_that_refuses_more_sessions_is_normal() {
    let pair = pair(&["MaxSessions=1"]);
    let outcome = fetch(&pair, &[]);
    assert_eq!((outcome.code(), further_pipes(&outcome)), (0, 0), "{outcome}");
    assert!(outcome.errors().contains("has no further session"), "{outcome}");
    let target = pair.target();
    let mut command = pair.client.remotely(["fetch", "--pipes", "8", &target, "blob", "got"]);
    let outcome = Process::start(&mut command, b"").wait(LIMIT);
    assert_eq!((outcome.code(), outcome.errors().contains("open failed")), (0, false), "{outcome}");
    clean(&pair);
}

#[test]
fn whoever_is_killed_in_the_middle_nothing_stays() {
    let pair = pair(&[]);
    for victim in ["remotely", "ssh"] {
        let mut process = start(&pair, "8", "cat; sleep 1000");
        joined(&pair, 7);
        // Nothing that could be left behind, either.
        let files: Vec<_> = pair.client.leftovers().into_iter().filter(|left| left.starts_with("here: file")).collect();
        assert_eq!(files, [""; 0]);
        let of_client = pair.client.processes().into_iter().find(|p| p.name == victim);
        testbed::spawn::send_signal(of_client.expect("it runs").pid, 9);
        process.ended(LIMIT).expect("the client ends");
        println!("{victim}: clean after {:?}", clean(&pair));
    }
}

#[test]
fn the_death_of_one_session_is_not_the_end() {
    let pair = pair(&[]);
    let mut process = start(&pair, "4", "echo ready; cat");
    process.expect("ready\n", LIMIT);
    pair.host.signal(joined(&pair, 3)[1], 9);
    let mut stdin = process.stdin();
    stdin.write_all(b"still there\n").expect("the client reads");
    process.expect("still there\n", LIMIT);
    joined(&pair, 2);
    drop((stdin, process));
    clean(&pair);
}

#[test]
fn the_users_own_connection_is_used_if_there_is_one() {
    let pair = pair(&[]);
    let socket = pair.client.home().join("own-%n");
    let config = pair.client.ssh_config();
    let text = std::fs::read_to_string(&config).expect("a configuration");
    let own = format!("  ControlMaster auto\n  ControlPersist 60\n  ControlPath {}\n", socket.display());
    std::fs::write(&config, format!("Host far\n{own}{text}")).expect("write it");
    let opened = pair.here("ssh -fN far && ssh -O check far 2>&1", LIMIT);
    assert_eq!(opened.code(), 0, "{opened}");
    let outcome = fetch(&pair, &[]);
    assert_eq!(outcome.code(), 0, "{outcome}");
    assert!(further_pipes(&outcome) > 0 && !outcome.errors().contains("ControlPath"), "{outcome}");
    let closed = pair.here("ssh -O exit far", LIMIT);
    assert_eq!(closed.code(), 0, "{closed}");
    clean(&pair);
}

#[test]
fn an_ssh_that_cannot_listen_where_we_are_connects_without() {
    let pair = pair(&[]);
    // As one that is kept in a container, which has other numbers for processes.
    let config = pair.client.ssh_config().display().to_string();
    let around = "exec unshare --user --map-current-user --pid --fork --kill-child --mount-proc";
    pair.client.program("ssh", format!("#!/bin/sh\n{around} /usr/bin/ssh -F {config} \"$@\"\n"));
    let outcome = fetch(&pair, &["--pipes", "8"]);
    assert_eq!((outcome.code(), further_pipes(&outcome)), (0, 0), "{outcome}");
    assert!(outcome.errors().contains("ssh cannot listen"), "{outcome}");
    clean(&pair);
}
