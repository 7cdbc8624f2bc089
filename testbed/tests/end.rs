//! The end: whichever process dies, and however, nothing of a run stays on either side, and the client says what happened.

use std::time::{Duration, Instant};

use testbed::leftover::Running;
use testbed::{HostOptions, Pair, Process, Wire};

const LIMIT: Duration = Duration::from_secs(15);
/// After the end is known.
const CLEAN: Duration = Duration::from_secs(10);
/// Until a silent peer is known to be gone.
const SILENCE: Duration = Duration::from_secs(15);

/// A command there with children that do not want to end: other sessions, ignored signals, open files, a busy one.
const STUBBORN: &str = "trap '' HUP INT TERM PIPE
setsid sh -c 'trap \"\" HUP INT TERM; sleep 1001 & sleep 1002' >/dev/null 2>&1 </dev/null &
(setsid setsid sleep 1003 &) >/dev/null 2>&1
exec 5>open-file; echo x >&5
while :; do echo y >busy; rm busy; done &
sleep 0.3; echo ready; while :; do sleep 1; done";

fn stubborn(pair: &Pair) -> Process {
    let process = pair.start_there(&["bash", "-c", STUBBORN]);
    process.expect("ready\n", LIMIT);
    process
}

/// Our processes on the host, that is not sshd's and not the command's.
fn agents(pair: &Pair) -> Vec<Running> {
    let mut all = pair.host.processes();
    all.retain(|p| p.arguments.contains("agent") && !p.arguments.contains("sshd"));
    assert!(!all.is_empty(), "no agent runs on the host");
    all
}

/// The client must have ended with `code` by now or soon, saying something that has `text` in it.
#[track_caller]
fn told(mut process: Process, limit: Duration, text: &str) {
    let status = process.ended(limit).expect("the client ends");
    // ssh may have said something before.
    let said = process.last_words(Duration::from_secs(2));
    assert_eq!(status.code(), Some(255), "{status}: {said}");
    assert!(said.contains("remotely: ") && said.contains(text), "{said:?}");
}

#[test]
fn the_client_is_killed() {
    let pair = Pair::start();
    for signal in [9, 15, 1] {
        let mut process = stubborn(&pair);
        process.signal(signal);
        // Signals that can be passed on are; this command ignores them, so the client stays until it is asked firmly.
        if signal != 9 && process.ended(Duration::from_secs(2)).is_none() {
            process.signal(9);
        }
        process.ended(LIMIT).expect("the client ends");
        let took = pair.clean_within(CLEAN);
        println!("client, signal {signal}: clean after {took:?}");
    }
}

#[test]
fn ssh_is_killed() {
    let pair = Pair::start();
    let process = stubborn(&pair);
    let of_ssh = pair.client.processes().into_iter().find(|p| p.name == "ssh").expect("an ssh runs");
    // It ignores what a terminal or a shell sends to the whole process group: that is for the command.
    testbed::spawn::send_signal(of_ssh.pid, 15);
    testbed::spawn::send_signal(of_ssh.pid, 9);
    told(process, Duration::from_secs(5), "");
    println!("ssh: clean after {:?}", pair.clean_within(CLEAN));
}

#[test]
fn each_process_on_the_host_is_killed() {
    let pair = Pair::start();
    let probe = stubborn(&pair);
    let count = agents(&pair).len();
    drop(probe);
    pair.clean_within(CLEAN);
    for which in 0..count {
        let process = stubborn(&pair);
        let all = agents(&pair);
        let victim = all.get(which).unwrap_or(&all[0]).clone();
        pair.host.signal(victim.pid, 9);
        told(process, Duration::from_secs(10), "");
        println!("{victim}: clean after {:?}", pair.clean_within(CLEAN));
    }
}

#[test]
fn the_session_of_sshd_is_killed() {
    let pair = Pair::start();
    let process = stubborn(&pair);
    for session in pair.host.processes().into_iter().filter(|p| p.name == "sshd") {
        pair.host.signal(session.pid, 9);
    }
    told(process, Duration::from_secs(5), "");
    println!("sshd: clean after {:?}", pair.clean_within(CLEAN));
}

#[test]
fn the_connection_is_reset() {
    let pair = Pair::start();
    let process = stubborn(&pair);
    pair.relay.reset();
    told(process, Duration::from_secs(5), "");
    println!("reset: clean after {:?}", pair.clean_within(CLEAN));
}

#[test]
fn heavy_a_cable_is_pulled() {
    let pair = Pair::start();
    let process = stubborn(&pair);
    let started = Instant::now();
    pair.relay.freeze();
    told(process, SILENCE + Duration::from_secs(3), "");
    println!("silence: known here after {:?}", started.elapsed());
    // The host knows by itself: nothing reaches it any more. sshd's own session stays, as it would without us.
    let deadline = started + SILENCE + CLEAN;
    loop {
        let mut left = pair.host.processes();
        left.retain(|p| p.name != "sshd");
        let here = pair.client.leftovers();
        if left.is_empty() && here.is_empty() && pair.host.new_mounts().is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "left over: {left:#?} {here:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("silence: both sides clean after {:?}", started.elapsed());
}

#[test]
fn heavy_a_busy_or_slow_link_is_not_taken_for_dead() {
    // 200 kB/s with 4 MiB waiting in front of it: where they wait, an answer to a ping comes after 20 s.
    let wire = Wire { rate: 200_000, buffer: 4 << 20, ..Wire::rtt(100) };
    let pair = Pair::start();
    // The agent is there already; this is about the command.
    pair.there("$RUN true", LIMIT).success();
    let slow = testbed::Relay::start(pair.host.address(), wire);
    let mut client = pair.client;
    client.reach("slow", slow.address());
    let command = ["dev@slow", "--", "sh", "-c", "head -c 8000000 /dev/zero; echo done >&2"];
    let outcome = Process::start(&mut client.remotely(command), b"").wait(Duration::from_secs(150)).success();
    assert_eq!(outcome.stdout.len(), 8_000_000);
    println!("8 MB at 200 kB/s took {:?}", outcome.took);
}

#[test]
fn heavy_an_idle_link_lives() {
    let pair = Pair::start();
    let outcome = pair.there("$RUN sh -c 'sleep 40; echo awake'", Duration::from_secs(60)).success();
    assert_eq!(outcome.text(), "awake\n");
    pair.clean_within(CLEAN);
}

#[test]
fn cut_at_any_moment() {
    // Cuts after so many bytes hit the login, the bootstrap, the upload, the handshake, the run.
    let pair = Pair::start();
    let mut client = pair.client;
    for bytes in [500, 3000, 5000, 20_000, 300_000, 1_500_000] {
        let relay = testbed::Relay::start(pair.host.address(), Wire { cut_after: bytes, ..Wire::default() });
        let name = format!("cut{bytes}");
        client.reach(&name, relay.address());
        let target = format!("dev@{name}");
        let mut process = Process::start_open(&mut client.remotely([target.as_str(), "--", "cat", "/usr/bin/python3"]));
        let status = process.ended(LIMIT).unwrap_or_else(|| panic!("no end after a cut at {bytes}"));
        let said = process.last_words(Duration::from_secs(2));
        println!("cut after {bytes}: {status}, {}", said.trim_end());
        assert_eq!(status.code(), Some(255), "cut after {bytes}: {said}");
        assert!(said.contains("remotely: "), "cut after {bytes}: {said:?}");
        drop(process);
        let deadline = Instant::now() + CLEAN;
        while !(pair.host.leftovers().is_empty() && client.leftovers().is_empty()) {
            assert!(Instant::now() < deadline, "{bytes}: {:#?} {:#?}", pair.host.leftovers(), client.leftovers());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn heavy_killed_at_random_moments() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(5));
    pair.there("$RUN true", LIMIT).success();
    let script =
        "i=0; while :; do i=$((i+1)); echo $i >f$((i%9)); cat f* >/dev/null; mkdir d; rmdir d; (sleep 2 &); done";
    // Moments spread over login, set-up and work; odd steps, so that repeated runs don't hit the same places.
    for step in 0..14u64 {
        let mut process = pair.start_there(&["sh", "-c", script]);
        std::thread::sleep(Duration::from_millis(40 + step * 67));
        process.signal(9);
        process.ended(LIMIT).expect("it was killed");
        drop(process);
        pair.clean_within(CLEAN);
    }
}

#[test]
fn a_stopped_client_does_not_block_the_host_for_ever() {
    // SIGSTOP of the client is a silent peer to the host: its side is cleaned after the keepalive, not at once.
    let pair = Pair::start();
    let process = pair.start_there(&["sh", "-c", "echo ready; while :; do echo x; sleep 0.1; done"]);
    process.expect("ready\n", LIMIT);
    process.signal(19);
    std::thread::sleep(Duration::from_secs(2));
    process.signal(18);
    let before = process.stdout().len();
    std::thread::sleep(Duration::from_secs(1));
    assert!(process.stdout().len() > before, "it goes on after a short stop");
    drop(process);
    pair.clean_within(CLEAN);
}
