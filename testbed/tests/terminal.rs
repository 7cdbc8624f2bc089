//! The terminal: what a command there does with it is what it would do here (table F of docs/semantics.md).

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use testbed::{HostOptions, Pair, Process, Terminal, Wire};

const LIMIT: Duration = Duration::from_secs(60);

fn remotely(pair: &Pair, words: &[&str]) -> Command {
    let target = pair.target();
    pair.client.remotely([target.as_str(), "--"].into_iter().chain(words.iter().copied()))
}

/// A shell on a terminal, with `$RUN` set, job control on and the prompt `$ `.
fn shell(pair: &Pair) -> Terminal {
    let mut command = pair.client.command("bash");
    command.args(["--norc", "--noprofile", "-i"]).env("PS1", "$ ").env("RUN", pair.run()).env("HISTFILE", "");
    let mut terminal = Terminal::start(&mut command, "012");
    terminal.expect("$ ", LIMIT);
    terminal
}

/// Waits until a run has taken the terminal from the shell that started it.
#[track_caller]
fn taken(terminal: &Terminal) {
    let deadline = std::time::Instant::now() + LIMIT;
    while terminal.cooked() {
        assert!(std::time::Instant::now() < deadline, "nobody took the terminal: {:?}", terminal.output());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn which_streams_are_terminals() {
    let pair = Pair::start();
    let mut failures = Vec::new();
    let script = "i=; for f in 0 1 2; do [ -t $f ] && i=$i$f; done; echo \"<$i>\" >&$1; cat >/dev/null 2>&1 </dev/null";
    for streams in ["012", "01", "02", "12", "0", "1", "2", ""] {
        // The answer goes to a stream that is there in any case.
        let answer = if streams.contains('1') { "1" } else { "2" };
        let mut command = remotely(&pair, &["bash", "-c", script, "x", answer]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut terminal = Terminal::start(&mut command, streams);
        let errors = terminal.child().stderr.take();
        let status = terminal.wait(LIMIT);
        std::thread::sleep(Duration::from_millis(20));
        let mut said = terminal.output();
        if let Some(mut errors) = errors {
            let _ = std::io::Read::read_to_string(&mut errors, &mut said);
        }
        if !said.contains(&format!("<{streams}>")) || !status.success() {
            failures.push(format!("{streams:?}: {status}, {said:?}"));
        }
    }
    assert!(failures.is_empty(), "F1\n{}", failures.join("\n"));
    // F10: what does not go through the pty gets no carriage returns.
    let mut command = remotely(&pair, &["sh", "-c", "echo a; echo b"]);
    command.stdout(Stdio::piped());
    let mut terminal = Terminal::start(&mut command, "02");
    let mut out = terminal.child().stdout.take().expect("a pipe");
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut out, &mut said).expect("read");
    assert_eq!(said, b"a\nb\n", "F10");
    terminal.wait(LIMIT);
    pair.clean_within(Duration::from_secs(5));
}

#[test]
fn size_and_modes() {
    let pair = Pair::start();
    // A bash whose child ends by itself as SIGINT comes goes on, so nothing but the sleep may be running by then.
    let script =
        "stty size; trap 'stty size; echo sized; exec sleep 100' WINCH; echo ready; while :; do sleep 0.02; done";
    let mut terminal = Terminal::start(&mut remotely(&pair, &["bash", "-c", script]), "012");
    terminal.expect("24 80\r\nready", LIMIT);
    terminal.resize(33, 101);
    let took = terminal.expect("33 101", LIMIT);
    println!("F2: {took:?}");
    assert!(took < Duration::from_secs(1), "F2: {took:?}");
    terminal.expect("sized", LIMIT);
    terminal.send([3]);
    assert_eq!(terminal.wait(LIMIT).signal(), Some(2), "{}", terminal.output());
    drop(terminal);

    // F4: the modes of here are found there.
    let mut terminal = shell(&pair);
    terminal.send(
        "stty erase ^X iutf8 -ixon intr ^B; stty -a >here; $RUN stty -a >there; cmp here there && echo equal-''modes\r",
    );
    terminal.expect("equal-modes", LIMIT);
    terminal.expect("$ ", LIMIT);
    terminal.send("$RUN sh -c 'stty -echo raw; stty sane'; stty -a >after; cmp here after && echo same-''after\r");
    terminal.expect("same-after", LIMIT);
    terminal.expect("$ ", LIMIT);
    terminal.send("exit\r");
    terminal.wait(LIMIT);
    pair.clean_within(Duration::from_secs(5));
}

#[test]
fn the_terminal_is_restored_whatever_happens() {
    let pair = Pair::start();
    let sleeper = ["sh", "-c", "echo ready; sleep 100"];
    let end = |what: &str, words: &[&str], how: &dyn Fn(&mut Terminal)| {
        let mut terminal = Terminal::start(&mut remotely(&pair, words), "012");
        let before = terminal.modes_text();
        if words == sleeper {
            terminal.expect("ready", LIMIT);
            assert!(!terminal.cooked(), "{what}: raw while it runs");
        }
        how(&mut terminal);
        let status = terminal.wait(Duration::from_secs(30));
        assert_eq!(terminal.modes_text(), before, "F5 after {what}: {status}");
        status
    };
    assert!(end("a normal end", &["true"], &|_| ()).success());
    assert_eq!(end("an exit code", &["sh", "-c", "stty raw -echo; exit 3"], &|_| ()).code(), Some(3));
    assert_eq!(end("a signal", &["sh", "-c", "stty raw; kill -9 $$"], &|_| ()).signal(), Some(9));
    assert_eq!(end("Ctrl-C", &sleeper, &|t| t.send([3])).signal(), Some(2));
    assert_eq!(end("Ctrl-\\", &sleeper, &|t| t.send([28])).signal(), Some(3));
    assert_eq!(end("SIGTERM", &sleeper, &|t| t.signal(15)).signal(), Some(15));
    assert_eq!(end("a lost link", &sleeper, &|_| pair.relay.reset()).code(), Some(255));
    assert_eq!(end("a missing command", &["no-such-command"], &|_| ()).code(), Some(127));
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn keys() {
    let pair = Pair::start();
    let mut terminal = Terminal::start(&mut remotely(&pair, &["sh", "-c", "echo ready; cat; echo end-$?"]), "012");
    terminal.expect("ready\r\n", LIMIT);
    terminal.send("line\r");
    terminal.expect("line\r\nline\r\n", LIMIT);
    terminal.send("abc\x7fd\r");
    terminal.expect("abd\r\n", LIMIT);
    terminal.send(b"\x16\x03\r");
    terminal.expect("^C\r\n\x03\r\n", LIMIT);
    terminal.send(b"\x04");
    terminal.expect("end-0", LIMIT);
    assert!(terminal.wait(LIMIT).success());

    // F14: a long paste into a canonical reader, in lines below the limit of 4,095 bytes.
    let mut terminal = Terminal::start(&mut remotely(&pair, &["sh", "-c", "stty -echo; echo ready; md5sum"]), "012");
    terminal.expect("ready\r\n", LIMIT);
    let text: String = (0..10_000).map(|i| format!("{i:099}\n")).collect();
    terminal.send(&text);
    terminal.send(b"\x04");
    let expected = Process::start(&mut testbed::spawn::command("md5sum"), text.as_bytes()).wait(LIMIT).text();
    terminal.expect(&expected[..32], LIMIT);
    terminal.wait(LIMIT);

    // F7: a prompt on /dev/tty while standard input is a pipe; F8: the session is one of its own, in the foreground.
    let mut terminal = shell(&pair);
    terminal.send("echo data | $RUN sh -c 'printf \"Pass''word: \" >/dev/tty; read x </dev/tty; echo \"<$x>\"; cat'\r");
    terminal.expect("Password: ", LIMIT);
    terminal.send("secret\r");
    terminal.expect("<secret>\r\n", LIMIT);
    terminal.expect("data\r\n", LIMIT);
    // What is typed while a command ends belongs to it, there as here.
    terminal.expect("$ ", LIMIT);
    terminal.send("$RUN bash -c 'set -- $(cut -d\" \" -f5,6,7,8 /proc/$$/stat); [ $1 = $4 ] && [ $3 != 0 ] && echo fore''ground; tty; [ -c $(tty) ] && echo tty-''ok'\r");
    terminal.expect("foreground", LIMIT);
    terminal.expect("/dev/pts/", LIMIT);
    terminal.expect("tty-ok", LIMIT);
    terminal.expect("$ ", LIMIT);
    terminal.send("$RUN sh -c 'echo $TERM; tput cols; infocmp >/dev/null && echo terminfo-''ok'\r");
    terminal.expect("xterm\r\n80\r\nterminfo-ok", LIMIT);
    terminal.expect("$ ", LIMIT);
    terminal.send("exit\r");
    terminal.wait(LIMIT);
    pair.clean_within(Duration::from_secs(5));
}

#[test]
fn jobs() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(10));
    let mut terminal = shell(&pair);
    // E3: Ctrl-C ends the foreground job; the shell stays.
    terminal.send("$RUN sh -c 'echo rea''dy; sleep 100' | cat\r");
    terminal.expect("ready\r\n", LIMIT);
    // The shell needs a moment to have all of the pipeline in the foreground.
    std::thread::sleep(Duration::from_millis(300));
    terminal.send([3]);
    terminal.expect("$ ", LIMIT);
    terminal.send("echo status-$?-${PIPESTATUS[0]}\r");
    terminal.expect("status-", LIMIT);
    pair.host_clean_within(Duration::from_secs(10));
    // E4: Ctrl-Z stops it there, the shell has its terminal back; fg goes on.
    terminal.send("$RUN bash -c 'echo u''p-now; for i in {1..1000}; do sleep 0.01; echo $i; done >ticks; read x; echo \"got <$x>\"'\r");
    terminal.expect("up-now", LIMIT);
    std::thread::sleep(Duration::from_millis(300));
    terminal.send([26]);
    terminal.expect("Stopped", LIMIT);
    terminal.expect("$ ", LIMIT);
    assert!(terminal.output().contains("Stopped"));
    let ticks = pair.client.work().join("ticks");
    let size = |wait| {
        std::thread::sleep(Duration::from_millis(wait));
        std::fs::metadata(&ticks).map(|m| m.len()).unwrap_or(0)
    };
    let (first, second) = (size(300), size(500));
    assert_eq!(first, second, "E4: it is stopped there");
    terminal.send("stty -a | grep -o -- '-*icanon' | sed s/^/mode:/\r");
    terminal.expect("mode:icanon", LIMIT);
    terminal.send("bg\r");
    std::thread::sleep(Duration::from_millis(500));
    assert!(size(0) > second, "E4: bg lets it go on");
    terminal.send("fg\r");
    std::thread::sleep(Duration::from_millis(200));
    terminal.send("\u{1}typed\r");
    // `bg` and `fg` print the command, with its "got <", too.
    terminal.expect("typed>", Duration::from_secs(40));
    terminal.expect("$ ", LIMIT);
    // F15: what wants to read in the background takes nothing from the shell, stopped or not.
    terminal.send("$RUN sh -c 'read x; echo \"was $x\"' &\r");
    terminal.expect("$ ", LIMIT);
    std::thread::sleep(Duration::from_secs(2));
    terminal.send("echo for-the-''shell\r");
    terminal.expect("for-the-shell", LIMIT);
    terminal.expect("$ ", LIMIT);
    terminal.send("fg\r");
    std::thread::sleep(Duration::from_millis(1000));
    terminal.send("now\r");
    terminal.expect("was now", LIMIT);
    terminal.expect("$ ", LIMIT);
    terminal.send("exit\r");
    terminal.wait(LIMIT);
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn keys_of_a_command_whose_output_is_piped() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(10));
    let mut terminal = shell(&pair);
    let cases = [
        ("sh -c 'printf rea\\dy >&2; read x; echo \"<$x>\"; echo next'", "<typed>\r\nnext\r\n", "typed\r"),
        (
            "bash -c 'printf rea\\dy >&2; IFS= read -rsp : x; echo \"<$x>\"; echo next'",
            "<typed>\r\nnext\r\n",
            "typed\r",
        ),
        ("sh -c 'printf rea\\dy >&2; cat | sed s/.*/[\\&]/'", "[typed]\r\n[next]\r\n", "typed\rnext\r\x04"),
        ("python3 -c \"$P; select.select([0], [], []); $L\"", "<typed>\r\nnext\r\n", "typed\r"),
        ("python3 -c \"$P; p = select.poll(); p.register(0, 1); p.poll(); $L\"", "<typed>\r\nnext\r\n", "typed\r"),
        (
            "python3 -c \"$P; s = selectors.DefaultSelector(); s.register(0, 1); s.select(); $L\"",
            "<typed>\r\nnext\r\n",
            "typed\r",
        ),
    ];
    terminal.send("P=\"import os, select, selectors; os.write(2, b'rea' b'dy')\"\r");
    terminal.expect("$ ", LIMIT);
    terminal.send("L=\"print('<' + input() + '>'); print('next')\"\r");
    terminal.expect("$ ", LIMIT);
    for (command, output, keys) in cases {
        terminal.send(format!("$RUN {command} | cat\r"));
        terminal.expect("ready", LIMIT);
        taken(&terminal);
        terminal.send(keys);
        // What the local `cat` writes has its carriage returns.
        terminal.expect(output, LIMIT);
        terminal.expect("$ ", LIMIT);
    }
    // A password is not shown.
    terminal
        .send("$RUN sh -c 'stty -echo; printf Pass\\word: >&2; read x; stty echo; echo \"${#x} char\"acters' | cat\r");
    terminal.expect("Password:", LIMIT);
    taken(&terminal);
    terminal.send("not-shown\r");
    terminal.expect("9 characters", LIMIT);
    terminal.expect("$ ", LIMIT);
    assert!(!terminal.output().contains("not-shown"), "{}", terminal.output());
    terminal.send("stty -a | grep -o -- '-*icanon' | sed s/^/mode:/\r");
    terminal.expect("mode:icanon", LIMIT);
    terminal.expect("$ ", LIMIT);
    terminal.send("exit\r");
    terminal.wait(LIMIT);
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn keys_of_others_in_a_pipeline() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(10));
    let mut terminal = shell(&pair);
    // A pager reads the terminal while the command does not.
    terminal.send("$RUN sh -c 'echo rea\"\"dy; sleep 5' | sh -c 'head -1; read y </dev/tty; echo \"here <$y>\"'\r");
    terminal.expect("ready\r\n", LIMIT);
    for _ in 0..20 {
        assert!(terminal.cooked(), "the terminal is left to who reads it");
        std::thread::sleep(Duration::from_millis(50));
    }
    terminal.send("typed\r");
    terminal.expect("typed\r\nhere <typed>\r\n", Duration::from_secs(2));
    terminal.expect("$ ", LIMIT);
    // Until it reads, Ctrl-Z is that of the terminal here, and so is Ctrl-C.
    terminal.send("$RUN sh -c 'echo rea\"\"dy >&2; sleep 2; read x; echo \"got <$x>\"; sleep 100' | cat\r");
    terminal.expect("ready", LIMIT);
    std::thread::sleep(Duration::from_millis(300));
    terminal.send([26]);
    terminal.expect("Stopped", LIMIT);
    terminal.expect("$ ", LIMIT);
    terminal.send("fg\r");
    terminal.expect("| cat\r\n", LIMIT);
    taken(&terminal);
    terminal.send("typed\r");
    terminal.expect("got <typed>\r\n", LIMIT);
    terminal.send([3]);
    terminal.expect("$ ", LIMIT);
    // Pid 1 and the command; while the terminal is left to others, also who looks whether it reads.
    for (pipe, count) in [("", 2), ("| cat", 3)] {
        terminal.send(format!("$RUN bash -c 'set -- /proc/[0-9]*; echo $# processes' {pipe}\r"));
        terminal.expect(&format!("{count} processes"), LIMIT);
        terminal.expect("$ ", LIMIT);
    }
    terminal.send("exit\r");
    terminal.wait(LIMIT);
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn who_reads_in_the_background_is_stopped() {
    let pair = Pair::with(HostOptions::default(), Wire::rtt(10));
    let mut terminal = shell(&pair);
    let stopped = |terminal: &mut Terminal| {
        terminal.send("until jobs -l | grep 'tty in''put'; do sleep 0.1; done\r");
        terminal.expect("(tty input)", LIMIT);
        terminal.expect("$ ", LIMIT);
    };
    let foreground = |terminal: &mut Terminal, expected: &str| {
        terminal.send("fg\r");
        // It prints the command; then the run takes the terminal from the shell's cooked state.
        terminal.expect("fg\r\n", LIMIT);
        std::thread::sleep(Duration::from_millis(500));
        taken(terminal);
        terminal.send("typed\r");
        terminal.expect(expected, LIMIT);
        terminal.expect("$ ", LIMIT);
    };
    for pipe in ["", "| cat "] {
        terminal.send(format!("$RUN sh -c 'read x; echo \"was-$x\"' {pipe}&\r"));
        terminal.expect("$ ", LIMIT);
        stopped(&mut terminal);
        // It wants to read still.
        terminal.send("bg\r");
        terminal.expect("$ ", LIMIT);
        stopped(&mut terminal);
        foreground(&mut terminal, "was-typed\r\n");
    }
    // One that was put there.
    terminal.send("$RUN sh -c 'echo rea\"\"dy; sleep 1; read x; echo \"was-$x\"'\r");
    terminal.expect("ready\r\n", LIMIT);
    terminal.send([26]);
    terminal.expect("Stopped", LIMIT);
    terminal.expect("$ ", LIMIT);
    terminal.send("bg\r");
    terminal.expect("$ ", LIMIT);
    stopped(&mut terminal);
    foreground(&mut terminal, "was-typed\r\n");
    // To wait until there is something to read stops nobody.
    for pipe in ["", "| cat "] {
        terminal.send(format!(
            "$RUN python3 -c 'import select; select.select([0], [], []); print(\"was-\" + input())' {pipe}&\r"
        ));
        terminal.expect("$ ", LIMIT);
        std::thread::sleep(Duration::from_millis(1500));
        terminal.send("jobs\r");
        terminal.expect("Running", LIMIT);
        terminal.expect("$ ", LIMIT);
        foreground(&mut terminal, "was-typed\r\n");
    }
    terminal.send("exit\r");
    terminal.wait(LIMIT);
    pair.clean_within(Duration::from_secs(10));
}

#[test]
fn full_screen_programs() {
    let pair = Pair::start();
    pair.client.write("text", "first line\nsecond line\n");
    // F6: the same keys give the same screen there and here, byte for byte where nothing depends on the time.
    let screens = |words: &[&str], keys: &[(&str, &str)]| {
        let played = |mut command: Command| {
            let mut terminal = Terminal::start(command.env("PS1", "$ ").env("HISTFILE", "").env("EXINIT", ""), "012");
            for (expected, keys) in keys {
                terminal.expect(expected, LIMIT);
                std::thread::sleep(Duration::from_millis(200));
                terminal.send(keys);
            }
            let status = terminal.wait(LIMIT);
            (status.code(), terminal.output())
        };
        let mut here = pair.client.command(words[0]);
        here.args(&words[1..]);
        (played(here), played(remotely(&pair, words)))
    };
    let (here, there) = screens(&["less", "text"], &[("second line", "/line\r"), ("", "q")]);
    assert_eq!(here, there, "F6: less");
    let keys = [
        ("$ ", "echo a''b\r"),
        ("ab", "\x1b[A\x1b[D\x1b[Dc\r"),
        ("$ ", "sleep 9\r"),
        ("sleep 9", "\x03"),
        ("$ ", "exit 4\r"),
    ];
    let (here, there) = screens(&["bash", "--norc", "--noprofile", "-i"], &keys);
    assert_eq!((here.0, there.0), (Some(4), Some(4)), "F6: bash -i\n{}\n{}", here.1, there.1);
    assert!(!there.1.contains("job control"), "{}", there.1);
    let keys = [("second line", "Gothird line\x1b"), ("third", ":wq\r")];
    let (here, there) = screens(&["vim", "-u", "NONE", "-n", "text"], &keys);
    assert_eq!((here.0, there.0), (Some(0), Some(0)), "F6: vim\n{}\n{}", here.1, there.1);
    let text = std::fs::read_to_string(pair.client.work().join("text")).expect("read");
    assert_eq!(text, "first line\nsecond line\nthird line\nthird line\n");
    let (here, there) = screens(&["top", "-b", "-n", "1"], &[]);
    assert_eq!((here.0, there.0, there.1.contains("PID")), (Some(0), Some(0), true), "{}", there.1);
    pair.clean_within(Duration::from_secs(5));
}
