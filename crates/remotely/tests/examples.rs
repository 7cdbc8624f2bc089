//! Every example, as it is built for users, on hosts that are names for this machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A directory with an inventory: `n1` to `n6` are this machine, nothing listens where `dead` is.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hosts = "[hosts.\"n[1-6]\"]\ntarget = \"local:\"\n[hosts.dead]\ntarget = \"nobody@127.0.0.1:1\"\n";
        fs::create_dir(dir.path().join("remotely")).unwrap();
        fs::write(dir.path().join("remotely/hosts.toml"), hosts).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    #[expect(clippy::disallowed_methods, reason = "the place where these tests start the examples")]
    fn command(&self, example: &str, words: &[&str]) -> Command {
        // Beside the directory of the tests.
        let tests = std::env::current_exe().unwrap();
        let program = tests.ancestors().nth(2).unwrap().join("examples").join(example);
        assert!(program.exists(), "{} is not there: cargo build --examples", program.display());
        let mut command = Command::new(program);
        command.args(words).current_dir(self.0.path());
        command.env("XDG_CONFIG_HOME", self.0.path());
        command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, example: &str, words: &[&str]) -> Output {
        self.command(example, words).output().unwrap()
    }

    /// Processes that have been started here, the agents among them.
    fn processes(&self) -> usize {
        let mark = self.0.path().to_str().unwrap().as_bytes().to_owned();
        let all = fs::read_dir("/proc").unwrap().flatten();
        let environments = all.filter_map(|entry| fs::read(entry.path().join("environ")).ok());
        environments.filter(|environment| environment.windows(mark.len()).any(|window| window == mark)).count()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn fleet_facts_shows_equal_hosts_once() {
    let desk = Desk::new();
    let output = desk.run("fleet-facts", &["n[1-3]", "dead"]);
    let shown = out(&output);
    assert!(output.status.success(), "{}", err(&output));
    let release = rustix::system::uname();
    let [kinds, busiest] = shown.lines().collect::<Vec<_>>()[..] else { panic!("{shown}") };
    assert!(kinds.starts_with("n[1-3] (3): ") && kinds.contains(release.release().to_str().unwrap()), "{shown}");
    assert!(busiest.starts_with("busiest: n"), "{shown}");
    assert!(err(&output).contains("dead: no link to nobody@127.0.0.1:1"), "{}", err(&output));
}

#[test]
fn rolling_restart_stops_at_the_first_failure() {
    let desk = Desk::new();
    let log = desk.path("restarted");
    let restart = format!("[ \"$HOST\" != n3 ] && echo \"$HOST\" >>{}", log.display());
    let check = format!("grep -q \"$HOST\" {}", log.display());
    let output = desk.run("rolling-restart", &["2", "n[1-6]", &restart, &check]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let shown = out(&output);
    let hosts: Vec<_> = shown.lines().filter_map(|line| line.split_once(": healthy after ")).collect();
    assert_eq!(hosts.iter().map(|(host, _)| *host).collect::<Vec<_>>(), ["n1", "n2", "n4"], "{shown}");
    let told = err(&output);
    assert!(told.contains("n3: `") && told.contains("ended with exit status: 1"), "{told}");
    assert!(told.ends_with("1 of 2 failed: the others are left as they are\n"), "{told}");
    let restarted = fs::read_to_string(&log).unwrap();
    assert!(!restarted.contains("n5") && !restarted.contains("n6"), "{restarted}");

    fs::remove_file(&log).unwrap();
    let output = desk.run("rolling-restart", &["2", "n[1-6],dead", &restart, &check]);
    assert!(!output.status.success() && !log.exists(), "nothing is done where not all can be reached");
    let output = desk.run("rolling-restart", &["4", "n1,n2,n4,n5,n6", &restart, &check]);
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(out(&output).lines().count(), 5);
}

#[test]
fn container_pool_does_all_the_work_whoever_fails() {
    let desk = Desk::new();
    let output = desk.run("container-pool", &["2", "local:", "command:env", "command:/no/such"]);
    assert!(output.status.success(), "{}", err(&output));
    assert!(out(&output).starts_with("25997 primes below 300000, found by "), "{}", out(&output));
    assert!(err(&output).contains("command:/no/such#1: "), "{}", err(&output));
    let output = desk.run("container-pool", &["1", "command:/no/such"]);
    assert_eq!(out(&output), "25997 primes below 300000, found by 0 workers\n");
}

#[test]
fn nested_tunnel_shows_the_path_as_far_as_it_may_go() {
    let desk = Desk::new();
    let output = desk.run("nested-tunnel", &["local:", "command:env"]);
    assert_eq!(out(&output), "0 links from where it began\nlocalhost -> local: -> command:env\n", "{}", err(&output));
    assert!(err(&output).contains("[local:] [command:env] 2 links from where it began"), "{}", err(&output));
    let deeper = ["local:", "command:env", "local:"];
    let output = desk.run("nested-tunnel", &deeper);
    assert_eq!(output.status.code(), Some(1));
    let path = "localhost -> local: -> command:env -> local:";
    assert!(err(&output).contains(&format!("depth limit of 2 exceeded at {path}")), "{}", err(&output));
    let output = desk.command("nested-tunnel", &deeper).env("REMOTELY_DEPTH_LIMIT", "3").output().unwrap();
    assert!(out(&output).ends_with(&format!("{path}\n")), "{}{}", out(&output), err(&output));
}

#[test]
fn tail_logs_merges_lines_until_it_is_interrupted() {
    let desk = Desk::new();
    for host in ["n1", "n2"] {
        fs::write(desk.path(&format!("{host}.log")), "old\n").unwrap();
    }
    let path = desk.path("{host}.log");
    let mut tail = desk.command("tail-logs", &[path.to_str().unwrap(), "n[1-3]"]).spawn().unwrap();
    let (sender, lines) = mpsc::channel();
    let stdout = BufReader::new(tail.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut shown: Vec<String> = Vec::new();
    let began = Instant::now();
    // It follows from some moment on: until then nobody reads what is written.
    for (n, host) in ["n1", "n2"].into_iter().cycle().enumerate() {
        assert!(began.elapsed() < Duration::from_secs(60), "{shown:?}");
        let mut log = fs::OpenOptions::new().append(true).open(desk.path(&format!("{host}.log"))).unwrap();
        // A line that is written in two pieces is one line.
        log.write_all(b"new ").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        log.write_all(format!("{n}\n").as_bytes()).unwrap();
        shown.extend(lines.try_iter());
        if ["n1: new ", "n2: new "].iter().all(|begin| shown.iter().any(|line| line.starts_with(begin))) {
            break;
        }
    }
    assert!(!shown.iter().any(|line| line.contains("old") || line.ends_with("new")), "{shown:?}");
    assert!(desk.processes() > 2);
    let pid = Pid::from_raw(tail.id().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = tail.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?} {}", output.status, err(&output));
    assert!(err(&output).contains("n3: No such file or directory"), "{}", err(&output));
    let began = Instant::now();
    while desk.processes() > 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "agents are left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn write_your_own_goes_by_a_script() {
    let desk = Desk::new();
    let script = desk.path("own");
    fs::write(&script, "#!/bin/sh\necho noise\nexec nice -n 3 \"$@\"\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let output = desk.run("write-your-own", &[script.to_str().unwrap()]);
    assert!(output.status.success(), "{}", err(&output));
    let shown = out(&output);
    let Some((here, there)) = shown.trim().strip_prefix("nice value: ").and_then(|rest| rest.split_once(" here, "))
    else {
        panic!("{shown}")
    };
    let there = there.strip_suffix(" there").unwrap();
    let (here, there): (i32, i32) = (here.parse().unwrap(), there.parse().unwrap());
    assert_eq!(there, (here + 3).min(19));
}
