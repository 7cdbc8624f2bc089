//! The agent gets to hosts of every kind by one line of shell: hit, miss, cut upload, many first uses at once, login shells,
//! homes that can't be used, noise, another architecture.

use std::time::Duration;

use testbed::{Home, HostOptions, Pair, Process, Relay, Wire};

const LIMIT: Duration = Duration::from_secs(60);

/// Where agents lie on the host.
fn agents(pair: &Pair) -> Vec<String> {
    let places = "/home /tmp /var/tmp /dev/shm /run";
    let found = pair.host.sh(&format!("find {places} -path '*remotely*/agent-*' 2>/dev/null || true"));
    let mut all: Vec<_> = found.lines().map(str::to_owned).collect();
    all.sort();
    all.dedup();
    all
}

/// Runs there twice, cold and warm, and checks both; returns the agents that are there afterwards.
#[track_caller]
fn works(what: &str, options: HostOptions) -> Vec<String> {
    let pair = Pair::with(options, Wire::default());
    let mut installed = String::new();
    for turn in ["cold", "warm"] {
        let before = pair.relay.passed();
        let outcome = pair.there("echo in | $RUN sh -c 'cat; hostname; echo err >&2; exit 7'", LIMIT);
        let passed = pair.relay.passed() - before;
        println!("{what}, {turn}: {:?}, {passed} bytes", outcome.took);
        assert_eq!(outcome.code(), 7, "{what}, {turn}: {outcome}");
        assert!(outcome.text().starts_with("in\n"), "{what}, {turn}: {outcome}");
        let agents = agents(&pair).join(" ");
        let identity = pair.host.sh(&format!("stat -c '%i %Z %n' {agents}"));
        assert!(turn == "cold" || identity == installed, "{what}: sent again, {identity} after {installed}");
        installed = identity;
        pair.clean_within(Duration::from_secs(10));
    }
    agents(&pair)
}

#[test]
fn cold_and_warm() {
    let agents = works("default", HostOptions::default());
    assert_eq!(agents.len(), 1, "{agents:?}");
    assert!(agents[0].starts_with("/home/dev/.cache/remotely/agent-"), "{agents:?}");
}

#[test]
fn what_a_crash_left_of_an_agent_is_replaced() {
    let pair = Pair::start();
    let run = |what: &str| {
        let outcome = pair.there("echo in | $RUN cat", LIMIT);
        assert_eq!((outcome.code(), outcome.text()), (0, "in\n".into()), "{what}: {outcome}");
        let agents = agents(&pair);
        assert_eq!(agents.len(), 1, "{what}: {agents:?}");
        agents[0].clone()
    };
    let agent = run("cold");
    // The second is a program that dies at once: of that ssh says 255, and not why. The last one is a script of nothing.
    for damage in ["0", "100000", "0 -s 4096"] {
        pair.host.sh(&format!("truncate -s {damage} {agent}"));
        run(damage);
    }
}

#[test]
fn login_shells() {
    for shell in ["/bin/sh", "/bin/csh", "/usr/bin/fish", "/opt/busybox/sh"] {
        works(shell, HostOptions { login_shell: shell.into(), ..HostOptions::default() });
    }
    let options = HostOptions { login_shell: "/opt/busybox/sh".into(), busybox: true, ..HostOptions::default() };
    works("nothing but busybox", options);
}

#[test]
fn homes_that_cannot_be_used() {
    for home in [Home::Noexec, Home::ReadOnly, Home::Room(0), Home::Room(200_000)] {
        let agents = works(&format!("{home:?}"), HostOptions { home, ..HostOptions::default() });
        let elsewhere = agents.iter().all(|path| !path.starts_with("/home/"));
        assert!(elsewhere && agents.len() == 1, "{home:?}: {agents:?}");
    }
    let noexec = |path: &str| (path.to_owned(), "noexec".to_owned());
    let options = HostOptions {
        home: Home::Noexec,
        restricted: ["/var/tmp", "/tmp"].map(noexec).to_vec(),
        ..HostOptions::default()
    };
    works("only /dev/shm is executable", options.clone());
    let nowhere = HostOptions { restricted: ["/var/tmp", "/tmp", "/dev/shm", "/run"].map(noexec).to_vec(), ..options };
    let pair = Pair::with(nowhere, Wire::default());
    let outcome = pair.there("$RUN true", LIMIT);
    assert_eq!(outcome.code(), 255, "{outcome}");
    let said = outcome.errors();
    assert!(["/home/dev/.cache/remotely", "/var/tmp", "/tmp", "/dev/shm"].iter().all(|p| said.contains(p)), "{said}");
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn login_noise() {
    for shell in ["/bin/bash", "/bin/csh", "/usr/bin/fish"] {
        let options = HostOptions { login_shell: shell.into(), noise: 1 << 20, ..HostOptions::default() };
        works(&format!("{shell} that prints a megabyte"), options);
    }
}

#[test]
fn twenty_first_uses_at_once() {
    let pair = Pair::start();
    let script =
        "for i in $(seq 20); do (echo $i | $RUN sh -c 'read x; echo got $x') & done | sort -V | tr '\\n' ' '; wait";
    let outcome = pair.there(script, Duration::from_secs(90)).success();
    let expected: String = (1..=20).map(|i| format!("got {i} ")).collect();
    assert_eq!(outcome.text(), expected, "{outcome}");
    let agents = agents(&pair);
    assert_eq!(agents.len(), 1, "{agents:?}");
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn a_cut_upload_repairs_itself() {
    let pair = Pair::start();
    let mut client = pair.client;
    let cut = Relay::start(pair.host.address(), Wire { cut_after: 700_000, ..Wire::default() });
    client.reach("cut", cut.address());
    let outcome = Process::start(&mut client.remotely(["dev@cut", "--", "true"]), b"").wait(LIMIT);
    assert_eq!(outcome.code(), 255, "{outcome}");
    let half = pair.host.sh("find /home /tmp /var/tmp -path '*remotely*/agent-*'");
    assert!(half.is_empty(), "under its final name: {half}");
    let outcome = Process::start(&mut client.remotely(["dev@far", "--", "echo", "fine"]), b"").wait(LIMIT).success();
    assert_eq!(outcome.text(), "fine\n");
    let left = pair.host.sh("find /home/dev/.cache -type f");
    assert_eq!(left.lines().count(), 1, "{left}");
}

#[test]
fn a_damaged_agent_is_replaced() {
    let pair = Pair::start();
    pair.there("$RUN true", LIMIT).success();
    let path = agents(&pair).remove(0);
    // Not ours, not executable, or gone: each is a miss.
    for damage in [format!("chmod 600 {path}"), format!("rm {path}"), format!("rm {path}; ln -s /bin/true {path}")] {
        pair.host.sh(&damage);
        let outcome = pair.there("$RUN echo fine", LIMIT);
        assert_eq!(outcome.text(), "fine\n", "{damage}: {outcome}");
    }
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn another_architecture_is_told() {
    let script = "#!/bin/sh\ncase $1 in -m) echo riscv64 ;; -s) echo Linux ;; *) exec /bin/uname \"$@\" ;; esac\n";
    let uname = ("/usr/local/bin/uname".to_owned(), 0o755, 0, script.as_bytes().to_vec());
    let pair = Pair::with(HostOptions { files: vec![uname], ..HostOptions::default() }, Wire::default());
    let outcome = pair.there("$RUN true", LIMIT);
    assert_eq!(outcome.code(), 255, "{outcome}");
    assert!(outcome.errors().contains("riscv64") && outcome.errors().contains("x86_64"), "{outcome}");
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn remotely_host_in_the_path_is_used() {
    let executable = testbed::executable::Executables::get().remotely();
    let bytes = std::fs::read(executable).expect("read the executable");
    let link = ("/usr/local/bin/remotely-host".to_owned(), 0o755, 0, bytes);
    let pair = Pair::with(HostOptions { files: vec![link], ..HostOptions::default() }, Wire::default());
    let outcome = pair.there("$RUN echo fine", LIMIT);
    assert_eq!(outcome.text(), "fine\n", "{outcome}");
    assert_eq!(agents(&pair), [""; 0], "nothing was uploaded");
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn a_warm_start_costs_no_round_trips_of_its_own() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(100));
    pair.there("$RUN true", LIMIT).success();
    let median = |command: &dyn Fn() -> std::process::Command| {
        let mut times: Vec<_> =
            (0..5).map(|_| Process::start(&mut command(), b"").wait(LIMIT).success().took).collect();
        times.sort();
        times[2]
    };
    let plain = median(&|| {
        let mut ssh = pair.client.command("ssh");
        ssh.args(["dev@far", "true"]);
        ssh
    });
    let ours = median(&|| pair.client.remotely(["dev@far", "--", "true"]));
    println!("ssh {plain:?}, remotely {ours:?} at 100 ms");
    // Five round trips, of which it needs one or two, and time for work on a busy machine.
    assert!(ours < plain + Duration::from_millis(500), "ssh {plain:?}, remotely {ours:?}");
}
