//! The commands that go to many hosts, as a user calls them; the hosts are names for this machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A directory with an inventory: `a`, `b` and `c` are this machine, nothing listens where `dead` is.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let here = |name| format!("[hosts.{name}]\ntarget = \"local:\"\n");
        let dead = "[hosts.dead]\ntarget = \"nobody@127.0.0.1:1\"\n";
        let hosts = format!("{}{}{}{dead}[groups]\nall = \"a,b,c\"\n", here("a"), here("b"), here("c"));
        fs::write(dir.path().join("hosts.toml"), hosts).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    #[expect(clippy::disallowed_methods, reason = "the place where these tests start the program under test")]
    fn command(&self, verb: &str, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_remotely"));
        command.arg(verb).arg("--inventory").arg(self.path("hosts.toml")).args(words);
        command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
        command.env("XDG_CONFIG_HOME", self.0.path()).current_dir(self.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, verb: &str, words: &[&str]) -> Output {
        self.command(verb, words).output().unwrap()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_command_runs_on_all_hosts_and_its_lines_have_their_names() {
    let desk = Desk::new();
    let output = desk.run("exec", &["@all", "-x", "b", "--", "echo one; printf two; echo oops >&2"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(sorted(&out(&output)), ["a: one", "a: two", "c: one", "c: two"]);
    assert_eq!(sorted(&err(&output)), ["a: oops", "c: oops"]);
    // Several words are no text for a shell.
    let output = desk.run("exec", &["-N", "a", "--", "printf", "%s|", "a b", "$HOME", "*"]);
    assert_eq!(out(&output), "a b|$HOME|*|\n");
}

#[test]
fn the_worst_end_counts_and_a_dead_host_keeps_nobody() {
    let desk = Desk::new();
    let output = desk.run("exec", &["@all", "--", "exit 3"]);
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(3), "remotely: exit status: 3: a,b,c (3)\n"));
    let output = desk.run("exec", &["a", "--", "kill -9 $$"]);
    assert_eq!(output.status.code(), Some(137), "{}", err(&output));
    let output = desk.run("exec", &["a", "--", "/no/such", "x"]);
    assert_eq!(
        (output.status.code(), err(&output).as_str()),
        (Some(127), "remotely: a: /no/such: command not found\n")
    );
    let output = desk.run("exec", &["a,dead", "--", "echo on"]);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(255), "a: on\n"));
    assert!(err(&output).contains("dead: ssh: connect to host 127.0.0.1 port 1"), "{}", err(&output));
    assert!(err(&output).contains("remotely: dead: no link to nobody@127.0.0.1:1"), "{}", err(&output));
    let output = desk.run("exec", &["-t", "0.5", "a,b", "--", "[ -e hosts.toml ]; sleep 60"]);
    assert_eq!(output.status.code(), Some(124));
    assert_eq!(sorted(&err(&output)), ["remotely: a: not done within 0.5 s", "remotely: b: not done within 0.5 s"]);
}

#[test]
fn hosts_of_a_gateway_that_fails_at_once_hear_why() {
    let desk = Desk::new();
    let output = desk.run("exec", &["--through", "dead", "x[1-4]", "--", "true"]);
    assert_eq!(output.status.code(), Some(255), "{}", err(&output));
    for n in 1..=4 {
        let why = format!(
            "remotely: dead, the gateway of x{n}, could not be reached: no link to nobody@127.0.0.1:1: ssh ended"
        );
        assert!(err(&output).contains(&why), "{}", err(&output));
    }
    assert!(!err(&output).contains("within"), "{}", err(&output));
}

#[test]
fn equal_outputs_are_shown_once_and_others_by_their_difference() {
    let desk = Desk::new();
    let differ = "echo same; [ -z \"$X\" ] || echo \"$X\"; mkdir one 2>/dev/null && echo odd; true";
    let script = format!("cd {}; {differ}", desk.path("").display());
    let output = desk.run("exec", &["-b", "-f", "1", "@all", "--", "echo same"]);
    assert_eq!(out(&output), "---------------\na,b,c (3)\n---------------\nsame\n");
    // The first in turn makes the directory.
    let output = desk.run("exec", &["--diff", "-f", "1", "@all", "--", &script]);
    let shown = out(&output);
    let rest = shown.strip_prefix("---------------\n").unwrap();
    let (hosts, rest) = rest.split_once('\n').unwrap();
    assert!(hosts.ends_with("(2)"), "{shown}");
    assert!(rest.starts_with("---------------\nsame\n--- "), "{shown}");
    assert!(rest.ends_with("@@ -1 +1,2 @@\n same\n+odd\n"), "{shown}");
}

#[test]
fn scripts_get_objects() {
    let desk = Desk::new();
    let output = desk.run("exec", &["--json", "a,dead", "--", "echo out; echo err >&2; exit 4"]);
    let objects: Vec<serde_json::Value> =
        out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |host: &str| objects.iter().find(|object| object["host"] == host).unwrap();
    assert_eq!(
        (&of("a")["status"], &of("a")["stdout"], &of("a")["stderr"]),
        (&4.into(), &"out\n".into(), &"err\n".into())
    );
    assert!(of("dead")["status"].is_null() && of("dead")["error"].as_str().unwrap().contains("127.0.0.1"));
    let output = desk.run("facts", &["--json", "a"]);
    let facts: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert!(facts["host"] == "a" && facts["cpus"].as_u64().unwrap() > 0, "{facts}");
    let output = desk.run("facts", &["a"]);
    assert!(out(&output).starts_with("a: ") && out(&output).contains(" of memory "), "{}", out(&output));
}

#[test]
fn standard_input_goes_to_every_host_when_asked_for() {
    let desk = Desk::new();
    let mut child = desk.command("exec", &["-i", "@all", "--", "cat; cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let text = "x".repeat(1 << 20) + "\n";
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(out(&output).len(), 3 * (text.len() + 3), "{}", err(&output));
    assert_eq!(out(&desk.run("exec", &["a", "--", "cat; echo end"])), "a: end\n");
}

#[test]
fn ctrl_c_ends_the_commands_everywhere() {
    let desk = Desk::new();
    let mark = desk.path("mark");
    let script = format!("echo started; sleep 1000; : {}", mark.display());
    let mut child = desk.command("exec", &["@all", "--", &script]).spawn().unwrap();
    let mut started = 0;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    while started < 3 {
        started += usize::from(lines.next().unwrap().unwrap().ends_with("started"));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(said, "remotely: interrupted while running: a,b,c (3)\n");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let began = Instant::now();
    while running(mark.to_str().unwrap()) > 0 {
        assert!(began.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn ctrl_c_shows_what_was_gathered_and_who_was_not_done() {
    let desk = Desk::new();
    let script = format!(
        "echo same; cd {} || exit; mkdir done 2>/dev/null && exit; touch second; sleep 1000",
        desk.path("").display()
    );
    let child = desk.command("exec", &["-b", "-f", "1", "@all", "--", &script]).spawn().unwrap();
    let began = Instant::now();
    while !desk.path("second").exists() {
        assert!(began.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(20));
    }
    // What the second has written before is under way.
    std::thread::sleep(Duration::from_millis(300));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(out(&output), "---------------\na,b (2)\n---------------\nsame\n");
    assert_eq!(err(&output), "remotely: interrupted while running: b (1)\nremotely: not begun: c (1)\n");
}

#[test]
fn one_word_is_for_a_shell_and_never_an_option_of_it() {
    let desk = Desk::new();
    let output = desk.run("exec", &["-N", "a", "--", "-c"]);
    assert_eq!(output.status.code(), Some(127), "{} {}", out(&output), err(&output));
    let output = desk.run("exec", &["-N", "a", "--", "+x; echo on"]);
    assert_eq!(out(&output), "on\n", "{}", err(&output));
    // Which shell it is, it says itself.
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let own = format!(":{}:", rustix::process::geteuid().as_raw());
    let shell = passwd.lines().find(|line| line.contains(&format!(":x{own}"))).and_then(|line| line.rsplit(':').next());
    let output = desk.run("exec", &["-N", "a", "--", "readlink /proc/$$/exe; true"]);
    let expected = fs::canonicalize(shell.unwrap_or("/bin/sh")).unwrap();
    assert_eq!(Path::new(out(&output).trim_end()), expected);
}

#[test]
fn a_host_that_does_not_answer_is_one_that_cannot_be_reached() {
    let desk = Desk::new();
    let output = desk.run("exec", &["--connect-timeout", "0.5", "\"command:sh -c 'exec sleep 1000'\"", "--", "true"]);
    assert_eq!(output.status.code(), Some(255), "{}", err(&output));
    assert!(
        err(&output).contains("no link to command:sh -c 'exec sleep 1000': no answer within 0.5 s"),
        "{}",
        err(&output)
    );
}

/// Processes with this in their words.
fn running(mark: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let has = |entry: &fs::DirEntry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        words.windows(mark.len()).any(|window| window == mark.as_bytes())
    };
    all.filter(has).count()
}

#[test]
fn failed_transfers_are_objects_too() {
    let desk = Desk::new();
    fs::create_dir(desk.path("tree")).unwrap();
    fs::write(desk.path("tree/file"), "text\n").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(desk.path("tree/socket")).unwrap();
    // A directory stands where the file is to go.
    fs::create_dir_all(desk.path("there-a/tree/file")).unwrap();
    fs::create_dir_all(desk.path("there-b")).unwrap();
    let there = desk.path("there-{host}/");
    let output = desk.run("put", &["--json", "a,b,dead", "tree", there.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(255), "{}", err(&output));
    let objects: Vec<serde_json::Value> =
        out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |host: &str| objects.iter().find(|object| object["host"] == host).unwrap();
    assert!(of("dead")["error"].as_str().unwrap().contains("no link to") && of("dead")["files"].is_null());
    assert!(of("b")["error"].is_null() && of("b")["files"] == 1 && of("b")["failed"] == 0);
    assert_eq!((&of("a")["files"], &of("a")["failed"]), (&0.into(), &1.into()), "{}", of("a"));
    assert!(of("a")["error"].is_string() && of("a")["failures"][0].as_str().unwrap().contains("file"));
    for host in ["a", "b"] {
        assert!(of(host)["skipped"][0].as_str().unwrap().contains("a socket"), "{}", of(host));
    }
}

#[test]
fn files_go_to_all_hosts_and_come_back() {
    let desk = Desk::new();
    fs::create_dir_all(desk.path("conf/sub")).unwrap();
    fs::write(desk.path("conf/sub/file"), "text\n").unwrap();
    let there = desk.path("there-{host}");
    let output = desk.run("put", &["@all", "conf", there.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output).lines().count(), 3);
    assert!(out(&output).contains(&format!("b: {}: 1 file, 5 B", desk.path("there-b").display())), "{}", out(&output));
    assert_eq!(fs::read_to_string(desk.path("there-c/sub/file")).unwrap(), "text\n");

    let file = desk.path("there-{host}/sub/file");
    let output = desk.run("fetch", &["a,b", file.to_str().unwrap(), "got-{host}", "--json"]);
    assert_eq!(out(&output).matches("\"bytes\":5").count(), 2, "{}", err(&output));
    assert_eq!(fs::read_to_string(desk.path("got-b")).unwrap(), "text\n");
    let output = desk.run("fetch", &["a,b", "/etc/hostname", "same"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(err(&output).contains("say {host} in the destination"), "{}", err(&output));
    let output = desk.run("fetch", &["a", "/no/such", "x"]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(!desk.path("x").exists());
}

#[test]
fn what_cannot_be_meant_is_said_before_anything_is_done() {
    let desk = Desk::new();
    for (words, expected) in [
        (&["web[1-", "--", "true"][..], "web[1-"),
        (&["@nobody", "--", "true"], "nobody"),
        (&["a", "-x", "a", "--", "true"], "stands for no host"),
        (&["a"], "required"),
        (&["warp:x", "--", "true"], "warp"),
        (&["command:lxc exec web", "--", "rm"], "\"'command:lxc exec web'\""),
        (&["--through", "", "a", "--", "true"], "names no gateway"),
        (&["-f", "0", "a", "--", "true"], "above 0"),
        (&["--sudo=", "a", "--", "true"], "--sudo"),
    ] {
        let output = desk.run("exec", words);
        assert_eq!(output.status.code(), Some(125), "{words:?}: {}", err(&output));
        assert!(err(&output).contains(expected), "{words:?}: {}", err(&output));
    }
}
