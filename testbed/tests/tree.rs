//! Hosts that are reached from other hosts. The gateway is the one host of a pair; behind it are the further addresses of that
//! host's own loopback, where from here nobody listens.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use testbed::{HostOptions, Outcome, Pair, Process, Wire};

const LIMIT: Duration = Duration::from_secs(60);

/// A gateway `far`, hosts `m1` to `m8` behind it, and a configuration of ssh in which their keys are known but for those of `m7` and
/// `m8`.
struct Fleet {
    pair: Pair,
    config: PathBuf,
}

impl Fleet {
    fn start(options: HostOptions) -> Self {
        let pair = Pair::with(options, Wire::rtt(10));
        let public = fs::read_to_string(pair.host.root().join("etc/ssh/ssh_host_ed25519_key.pub"));
        let public = public.expect("the host has a key");
        let known: String = (1..=6).map(|n| format!("127.0.1.{n} {public}")).collect();
        let known = pair.client.write("known_hosts", known);
        let ssh = fs::read_to_string(pair.client.ssh_config()).expect("the client has a configuration");
        let hosts: String = (1..=8).map(|n| format!("Host m{n}\n  HostName 127.0.1.{n}\n")).collect();
        let strict = format!("Host m*\n  StrictHostKeyChecking yes\n  UserKnownHostsFile {}\n", known.display());
        let config =
            pair.client.write("fleet", format!("{hosts}Host dead\n  HostName 127.0.0.1\n  Port 9\n{strict}{ssh}"));
        Self { pair, config }
    }

    fn command(&self, words: &[&str]) -> Command {
        self.pair.client.fleet(&self.config, words)
    }

    fn run(&self, words: &[&str]) -> Outcome {
        Process::start(&mut self.command(words), b"").wait(LIMIT)
    }
}

fn sorted(outcome: &Outcome) -> Vec<String> {
    let mut lines: Vec<_> = outcome.text().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn commands_and_files_go_through_a_gateway() {
    let fleet = Fleet::start(HostOptions::default());
    let outcome = fleet
        .run(&["exec", "--through", "dev@far", "dev@m[1-6]", "--", "sh", "-c", "echo ${SSH_CONNECTION##* 1}"])
        .success();
    let expected: Vec<_> = (1..=6).map(|n| format!("dev@m{n}: 27.0.1.{n} 22")).collect();
    let lines: Vec<_> = sorted(&outcome);
    assert_eq!(lines, expected);
    fleet.pair.client.write("sent", "content");
    fleet.run(&["put", "--through", "dev@far", "dev@m[1-3]", "sent", "/tmp/of-{host}"]).success();
    for n in 1..=3 {
        assert_eq!(fs::read(fleet.pair.host.root().join(format!("tmp/of-dev@m{n}"))).unwrap(), b"content");
        fs::remove_file(fleet.pair.host.root().join(format!("tmp/of-dev@m{n}"))).unwrap();
    }
    fleet.pair.clean_within(Duration::from_secs(10));
}

#[test]
fn nothing_is_started_here_for_a_host_behind_a_gateway() {
    let fleet = Fleet::start(HostOptions::default());
    let words = ["exec", "--through", "dev@far", "dev@m[1-6]", "--", "sh", "-c", "echo up; sleep 4; echo done"];
    let process = Process::start(&mut fleet.command(&words), b"");
    while process.stdout().windows(2).filter(|w| w == b"up").count() < 6 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let of_ssh = |processes: Vec<testbed::leftover::Running>| {
        let is_ssh = |process: &testbed::leftover::Running| process.name == "ssh";
        processes.iter().filter(|process| is_ssh(process)).count()
    };
    assert_eq!((of_ssh(fleet.pair.client.processes()), of_ssh(fleet.pair.host.processes())), (1, 6));
    // What was lent is for the user of the gateway alone, and has no key in it.
    let lent: Vec<_> =
        fs::read_dir(fleet.pair.host.root().join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [directory] = &lent[..] else { panic!("{lent:?}") };
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
    let inside: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(inside.len() == 1 && inside[0].file_type().unwrap().is_socket(), "{inside:?}");
    process.wait(LIMIT).success();
    fleet.pair.clean_within(Duration::from_secs(10));
}

#[test]
fn a_host_whose_key_is_not_known_is_not_logged_in_on() {
    let fleet = Fleet::start(HostOptions::default());
    let outcome = fleet.run(&["exec", "--through", "dev@far", "dev@m[5-8]", "--", "echo", "hi"]);
    assert_eq!(sorted(&outcome), ["dev@m5: hi", "dev@m6: hi"]);
    assert_eq!(outcome.status.code(), Some(255));
    let said = outcome.errors();
    assert!(
        said.contains("dev@m7: dev@far could not reach it") && said.contains("Host key verification failed"),
        "{said}"
    );
}

#[test]
fn hosts_of_a_dead_gateway_fall_to_another() {
    let fleet = Fleet::start(HostOptions::default());
    let outcome = fleet.run(&["exec", "--through", "dead,dev@far", "dev@m[1-6]", "--", "echo", "hi"]).success();
    assert_eq!(sorted(&outcome).len(), 6);
    // Without another there is none.
    let outcome = fleet.run(&["exec", "--through", "dead", "dev@m[1-2]", "--", "echo", "hi"]);
    assert_eq!(outcome.status.code(), Some(255));
    assert!(outcome.errors().contains("dead, the gateway of dev@m1, could not be reached: "), "{}", outcome.errors());
}

#[test]
fn keys_sign_for_hosts_of_the_group_only() {
    let fleet = Fleet::start(HostOptions::default());
    // A command on the gateway that uses the socket while it is there, as somebody might who owns that host.
    let words = ["exec", "--through", "dev@far", "dev@m1", "--", "sleep", "3"];
    let process = Process::start(&mut fleet.command(&words), b"");
    let socket = |fleet: &Fleet| {
        let entries = fs::read_dir(fleet.pair.host.root().join("tmp")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).find(|name| name.contains("gateway"))
    };
    let directory = loop {
        match socket(&fleet) {
            Some(name) => break name,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    std::thread::sleep(Duration::from_secs(1));
    let script = format!(
        "export SSH_AUTH_SOCK=/tmp/{directory}/keys; ssh-add -l >/dev/null && echo listed; \
         ssh-add -D 2>/dev/null && echo removed; ssh-add -L >/tmp/key.pub; echo x >/tmp/x; \
         ssh-keygen -Y sign -f /tmp/key.pub -n file /tmp/x 2>/dev/null && echo signed; rm -f /tmp/x* /tmp/key.pub"
    );
    let said = fleet.pair.host.sh(&script);
    assert!(said.contains("listed") && !said.contains("removed") && !said.contains("signed"), "{said}");
    process.wait(LIMIT).success();
}

#[test]
fn the_end_of_a_host_is_told_at_once() {
    let fleet = Fleet::start(HostOptions::default());
    fleet.run(&["exec", "--through", "dev@far", "dev@m1", "--", "true"]).success();
    let outcome = fleet.run(&["exec", "--through", "dev@far", "dev@m1", "--", "sh", "-c", "kill -9 $PPID"]);
    assert_eq!(outcome.status.code(), Some(255));
    assert!(outcome.errors().contains("dev@m1: "), "{}", outcome.errors());
    // Sooner than the link would notice by itself.
    assert!(outcome.took < Duration::from_secs(4), "{:?}", outcome.took);
}
