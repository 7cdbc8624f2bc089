//! Passwords that sudo and su want on the way: asked here, on the terminal and without echo, and given through the pipe. They
//! are in no argument, no environment, no message; the terminal is as it was afterwards.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::termios::LocalModes;
use testbed::{Client, HostOptions, Pair, Process, Terminal, Wire};

const LIMIT: Duration = Duration::from_secs(60);
const SECRET: &str = "c'est \"l'été\" $HOME \\n";
const ROOT: &str = "of root";

/// A host where `dev` may use sudo with a password, and root has another one.
fn pair(sudoers: &str) -> Pair {
    let rule = ("etc/sudoers.d/testbed".into(), 0o440, 0, format!("{sudoers}\n").into_bytes());
    let options = HostOptions { files: vec![rule], ..HostOptions::default() };
    let pair = Pair::of(Client::start(), options, Wire::default());
    for (user, password) in [("dev", SECRET), ("root", ROOT)] {
        let mut set = pair.host.command("chpasswd");
        Process::start(&mut set, format!("{user}:{password}\n").as_bytes()).wait(LIMIT).success();
    }
    pair
}

const RULE: &str = "Defaults !lecture\ndev ALL=(ALL:ALL) ALL";

fn on_terminal(pair: &Pair, words: &[&str]) -> Terminal {
    Terminal::start(&mut pair.client.remotely(words), "012")
}

#[test]
fn sudo_asks_here_and_once_more() {
    let pair = pair(RULE);
    let mut terminal = on_terminal(&pair, &["dev@far+sudo", "--", "sh", "-c", "head -c 3; stat -c %U /etc/shadow"]);
    let before = terminal.modes_text();
    terminal.expect("password for dev@far+sudo: ", LIMIT);
    assert_ne!(terminal.modes_text(), before, "the echo is on");
    terminal.send("wrong\n");
    terminal.expect("wrong; once more: password for dev@far+sudo: ", LIMIT);
    secret_is_nowhere(&pair, "wrong");
    terminal.send(format!("x\x15{SECRET}y\x7f\n"));
    // What is typed after it is the command's.
    terminal.expect("\r\n", LIMIT);
    std::thread::sleep(Duration::from_millis(300));
    terminal.send("abc\n");
    terminal.expect("root", LIMIT);
    assert!(terminal.wait(LIMIT).success(), "{}", terminal.output());
    assert_eq!(terminal.modes_text(), before);
    let output = terminal.output();
    assert!(!output.contains("été") && !output.contains("wrong\r\n"), "echoed: {output}");
    pair.clean_within(Duration::from_secs(10));
}

/// While the program on the host waits, and what was typed is on its way.
fn secret_is_nowhere(pair: &Pair, secret: &str) {
    let all = pair.client.processes().into_iter().map(|p| (Path::new("/proc").to_owned(), p));
    let there = pair.host.processes().into_iter().map(|p| (pair.host.root().join("proc"), p));
    for (proc, process) in all.chain(there) {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(proc.join(process.pid.to_string()).join(file)).unwrap_or_default();
            // The message of the program itself has the word, not those of the processes.
            let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found, "{file} of {process}");
        }
    }
}

#[test]
fn a_right_password_is_asked_for_once() {
    let pair = pair(RULE);
    // Doctor goes the way twice.
    let mut terminal = on_terminal(&pair, &["-vv", "doctor", "dev@far+sudo"]);
    terminal.expect("password for dev@far+sudo: ", LIMIT);
    terminal.send(format!("{SECRET}\n"));
    terminal.expect("user 0 root", LIMIT);
    assert!(terminal.wait(LIMIT).success(), "{}", terminal.output());
    let output = terminal.output();
    assert_eq!(output.matches("password for dev@far+sudo: ").count(), 1, "{output}");
    assert!(output.contains("the agent answered") && !output.contains("été"), "{output}");
    // Warm, and by other ways: two doors in one chain, and su with the password of the other user.
    let ways: [(&str, &[(&str, &str)]); 3] = [
        ("dev@far+su", &[("dev@far+su", ROOT)]),
        ("dev@far+su:dev+sudo:root", &[("dev@far+su:dev", SECRET), ("dev@far+su:dev+sudo:root", SECRET)]),
        ("dev@far+sudo+su:dev", &[("dev@far+sudo", SECRET)]),
    ];
    for (way, doors) in ways {
        let mut terminal = on_terminal(&pair, &["doctor", way]);
        for (door, secret) in doors {
            terminal.expect(&format!("password for {door}: "), LIMIT);
            terminal.send(format!("{secret}\n"));
        }
        let status = terminal.wait(LIMIT);
        assert!(status.success(), "{way}: {}", terminal.output());
        assert!(terminal.output().contains("the agent answered"), "{way}: {}", terminal.output());
    }
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn wrong_passwords_end_with_the_name_of_the_hop() {
    let pair = pair(RULE);
    for way in ["dev@far+sudo", "dev@far+su"] {
        let mut terminal = on_terminal(&pair, &[way, "--", "true"]);
        let before = terminal.modes_text();
        for _ in 0..3 {
            terminal.expect(&format!("password for {way}: "), LIMIT);
            terminal.send("no\n");
        }
        terminal.expect(&format!("remotely: no link to {way}: {way} did not accept the password (3 tries)"), LIMIT);
        assert_eq!(terminal.wait(LIMIT).code(), Some(255));
        assert_eq!(terminal.modes_text(), before, "{way}");
        // What su says to itself is said by the next question.
        assert!(!terminal.output().contains("Authentication failure"), "{}", terminal.output());
    }
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn who_gives_it_up_has_his_terminal_back() {
    let pair = pair(RULE);
    // Ctrl-C, Ctrl-D, and somebody who ends it from outside.
    let table: [(&[u8], i32, i32); 4] = [(b"ab\x03", 0, 130), (b"\x04", 0, 255), (b"", 15, 143), (b"", 1, 129)];
    for (keys, signal, code) in table {
        for words in [&["dev@far+sudo", "--", "true"][..], &["doctor", "dev@far+sudo"]] {
            let mut terminal = on_terminal(&pair, words);
            let before = terminal.modes_text();
            terminal.expect("password for dev@far+sudo: ", LIMIT);
            terminal.send(keys);
            if signal != 0 {
                terminal.signal(signal);
            }
            let status = terminal.wait(LIMIT);
            let found = status
                .code()
                .unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0));
            assert_eq!(found, code, "{words:?} {keys:?} {signal}: {}", terminal.output());
            assert_eq!(terminal.modes_text(), before, "{words:?} {keys:?} {signal}");
        }
    }
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn who_is_killed_leaves_the_terminal_as_it_was() {
    let pair = pair(RULE);
    let mut terminal = on_terminal(&pair, &["dev@far+sudo", "--", "true"]);
    let before = terminal.modes_text();
    terminal.expect("password for dev@far+sudo: ", LIMIT);
    assert!(!terminal.cooked());
    terminal.signal(9);
    terminal.wait(LIMIT);
    let deadline = Instant::now() + LIMIT;
    while terminal.modes_text() != before {
        assert!(Instant::now() < deadline, "the echo is still off: {}", terminal.modes_text());
        std::thread::sleep(Duration::from_millis(5));
    }
    // A shell that has made something else of it before keeps that.
    let mut terminal = on_terminal(&pair, &["dev@far+sudo", "--", "true"]);
    terminal.expect("password for dev@far+sudo: ", LIMIT);
    let kept = terminal.change_modes(|modes| modes.local_modes.insert(LocalModes::ISIG));
    terminal.signal(9);
    terminal.wait(LIMIT);
    pair.clean_within(Duration::from_secs(10));
    assert_eq!(terminal.modes_text(), kept);
}

#[test]
fn many_hosts_with_one_password_ask_for_it_once() {
    let mut pair = pair(RULE);
    let address = pair.relay.address();
    pair.client.reach("near", address);
    pair.client.reach("next", address);
    let words = ["exec", "dev@far+sudo,dev@near+sudo,dev@next+sudo", "--", "stat", "-c", "%U", "/etc/shadow"];
    let mut terminal = on_terminal(&pair, &words);
    let before = terminal.modes_text();
    terminal.expect("remotely: password for dev@", LIMIT);
    // Long enough for the bar of progress to appear, which it must not.
    std::thread::sleep(Duration::from_millis(1500));
    terminal.send("wrong\n");
    terminal.expect("wrong; once more: password for dev@", LIMIT);
    terminal.send(format!("{SECRET}\n"));
    for _ in 0..3 {
        terminal.expect("root", LIMIT);
    }
    assert!(terminal.wait(LIMIT).success(), "{}", terminal.output());
    let output = terminal.output();
    assert_eq!(output.matches("password for").count(), 2, "{output}");
    let question = output.lines().find(|line| line.contains("remotely: password for")).unwrap_or_default();
    assert!(question.trim_end().ends_with("+sudo:"), "something was drawn over it: {question:?}");
    assert_eq!(terminal.modes_text(), before);
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn nobody_is_asked_who_need_not_be() {
    // Without a terminal, as ever.
    let pair = pair(RULE);
    let outcome = Process::start(&mut pair.client.remotely(["dev@far+sudo", "--", "true"]), b"").wait(LIMIT);
    assert_eq!(outcome.code(), 255, "{outcome}");
    assert!(outcome.errors().contains("sudo: a password is required"), "{outcome}");
    assert!(outcome.errors().contains("NOPASSWD"), "{outcome}");
    // Where sudo needs none, on a terminal: not a word, and nothing of the first flight is lost or sent again.
    pair.host.sh("echo 'dev ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/zz");
    for _ in ["cold", "warm"] {
        let mut terminal = on_terminal(&pair, &["dev@far+sudo", "--", "stat", "-c", "%U", "/etc/shadow"]);
        terminal.expect("root", LIMIT);
        assert!(terminal.wait(LIMIT).success(), "{}", terminal.output());
        assert!(!terminal.output().contains("password"), "{}", terminal.output());
    }
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn a_user_who_may_not_use_sudo_is_told_so() {
    let pair = pair("Defaults !lecture");
    let mut terminal = on_terminal(&pair, &["dev@far+sudo", "--", "true"]);
    terminal.expect("password for dev@far+sudo: ", LIMIT);
    terminal.send(format!("{SECRET}\n"));
    terminal.expect("sudo: sudo does not allow it to this user", LIMIT);
    terminal.wait(LIMIT);
    pair.clean_within(Duration::from_secs(10));
}
