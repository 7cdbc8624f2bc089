//! What goes wrong with some of many hosts, with a real sshd: it is said of which, the others go on, and files that were there stay
//! whole.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use testbed::{HostOptions, Outcome, Pair, Process, Wire};

const LIMIT: Duration = Duration::from_secs(60);
/// Room of the small file system of the host.
const SMALL: u64 = 4 << 20;

/// A host under names of `web[1-9]`; `bad` is the same with a key that it does not know, `strict` with a key of its own that is not
/// known here, and of `nobody` there is no address.
struct Fleet {
    pair: Pair,
    config: PathBuf,
}

impl Fleet {
    fn start() -> Self {
        let small = ("/home/dev/small".to_owned(), format!("size={SMALL}"));
        let keep = ("home/dev/small/.keep".into(), 0o644, 3007, Vec::new());
        let options = HostOptions { restricted: vec![small], files: vec![keep], ..HostOptions::default() };
        let pair = Pair::with(options, Wire::default());
        let key = pair.client.work().join("other");
        Process::start(pair.client.command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key), b"")
            .wait(LIMIT)
            .success();
        let ssh = fs::read_to_string(pair.client.ssh_config()).expect("the client has a configuration");
        let address = pair.relay.address();
        let place = format!("  HostName {}\n  Port {}\n", address.ip(), address.port());
        let bad = format!("Host bad\n{place}  IdentityFile {}\n  IdentityAgent none\n", key.display());
        // The first file that is named counts first, and ssh would go on to the next.
        let ssh = ssh.replace("Host *\n", "Host * !bad\n");
        let rest = "Host bad\n  User dev\n  IdentitiesOnly yes\n  BatchMode yes\n  StrictHostKeyChecking no\n  \
                    UserKnownHostsFile /dev/null\n  LogLevel ERROR\n";
        let strict = format!("Host strict\n{place}  StrictHostKeyChecking yes\n");
        let config = pair.client.write("fleet", format!("Host web*\n{place}{bad}{strict}{ssh}{rest}"));
        Self { pair, config }
    }

    fn command(&self, words: &[&str]) -> Command {
        self.pair.client.fleet(&self.config, words)
    }

    fn run(&self, words: &[&str]) -> Outcome {
        Process::start(&mut self.command(words), b"").wait(LIMIT)
    }

    fn there(&self, path: &str) -> PathBuf {
        self.pair.host.root().join(path)
    }
}

#[test]
fn each_failure_is_told_with_its_host_and_keeps_nobody() {
    let fleet = Fleet::start();
    let outcome = fleet.run(&["exec", "dev@web[1-4],dev@bad,dev@strict,dev@nobody.invalid", "--", "echo", "up"]);
    assert_eq!(outcome.status.code(), Some(255));
    let mut lines: Vec<_> = outcome.text().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, (1..=4).map(|n| format!("dev@web{n}: up")).collect::<Vec<_>>());
    let said = outcome.errors();
    for (host, why) in [
        ("dev@bad", "Permission denied"),
        ("dev@strict", "Host key verification failed"),
        ("dev@nobody.invalid", "Could not resolve hostname"),
    ] {
        assert!(said.lines().any(|line| line.contains(host) && line.contains(why)), "{host}: {why} is not in {said}");
    }
    assert!(!said.contains("web"), "{said}");
    fleet.pair.clean_within(Duration::from_secs(10));
}

#[test]
fn a_disk_that_is_full_keeps_what_was_there() {
    let fleet = Fleet::start();
    fs::write(fleet.there("home/dev/small/file"), "before").expect("write a file there");
    std::os::unix::fs::chown(fleet.there("home/dev/small/file"), Some(3007), Some(3007)).expect("give it to the user");
    fleet.pair.client.write("large", vec![7; SMALL as usize + 1]);
    fleet.pair.client.write("little", "after");
    // Two hosts with the same disk, too small for both and for each.
    let outcome = fleet.run(&["put", "dev@web[1-2]", "large", "small/file"]);
    assert_ne!(outcome.status.code(), Some(0));
    let said = outcome.errors();
    for host in ["dev@web1", "dev@web2"] {
        let told = said.lines().any(|line| line.contains(host) && line.contains("No space left on device"));
        assert!(told, "{host} is not in {said}");
    }
    assert_eq!(fs::read(fleet.there("home/dev/small/file")).expect("read it"), b"before");
    // Nothing is left of it that would take the room: it cannot be continued either.
    fleet.run(&["put", "dev@web1", "little", "small/file"]).success();
    assert_eq!(fs::read(fleet.there("home/dev/small/file")).expect("read it"), b"after");
}

#[test]
fn whoever_is_killed_a_file_is_old_or_new() {
    let fleet = Fleet::start();
    let new = vec![9; 64 << 20];
    fleet.pair.client.write("new", &new);
    for victim in ["the client", "the agent", "the ssh there"] {
        fs::write(fleet.there("home/dev/file"), "before").expect("write a file there");
        let mut process = Process::start(&mut fleet.command(&["put", "dev@web1", "new", "file"]), b"");
        std::thread::sleep(Duration::from_millis(400));
        match victim {
            "the client" => process.signal(9),
            "the agent" => {
                let agent = fleet.pair.host.wait_process("remotely-agent tunnel", LIMIT);
                fleet.pair.host.signal(agent.pid, 9);
            }
            _ => {
                let sshd = fleet.pair.host.wait_process("sshd: dev", LIMIT);
                fleet.pair.host.signal(sshd.pid, 9);
            }
        }
        let status = process.ended(LIMIT).expect("the client ends");
        let there = fs::read(fleet.there("home/dev/file")).expect("read it");
        let whole = there == b"before" || there == new;
        assert!(whole, "{victim}: {} bytes", there.len());
        assert!(!status.success() || there == new, "{victim}: it was said to be done");
        // The next one completes it.
        fleet.run(&["put", "dev@web1", "new", "file"]).success();
        assert!(fs::read(fleet.there("home/dev/file")).expect("read it") == new, "{victim}");
    }
    fs::remove_file(fleet.there("home/dev/file")).expect("remove it");
    fleet.pair.clean_within(Duration::from_secs(10));
}

#[test]
fn ctrl_c_ends_everything_everywhere() {
    let fleet = Fleet::start();
    let script = "echo begun; trap '' INT; sleep 1000 & wait";
    let mut process = Process::start(&mut fleet.command(&["exec", "dev@web[1-5]", "--", "sh", "-c", script]), b"");
    while process.stdout().windows(5).filter(|window| window == b"begun").count() < 5 {
        std::thread::sleep(Duration::from_millis(20));
    }
    process.signal(2);
    let status = process.ended(LIMIT).expect("it ends");
    assert!(!status.success());
    fleet.pair.clean_within(Duration::from_secs(10));
}

#[test]
fn one_word_is_read_by_the_login_shell_of_the_user() {
    let options = HostOptions { login_shell: "/usr/bin/fish".into(), ..HostOptions::default() };
    let pair = Pair::with(options, Wire::default());
    let run =
        |text: &str| Process::start(&mut pair.client.remotely(["exec", "-N", "dev@far", "--", text]), b"").wait(LIMIT);
    assert_eq!(run("set x one; echo $x (echo two); string upper three").success().text(), "one two\nTHREE\n");
    assert_eq!(run("--version; echo $status").success().text(), "127\n");
}
