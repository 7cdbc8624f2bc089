//! The line that says which files are on their way to the host: there for who waits, gone before anything else is to be seen.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use testbed::{HostOptions, Pair, Terminal, Wire};

const LIMIT: Duration = Duration::from_secs(60);
const SHOWN: &str = "remotely: fetching ";
const RATE: u64 = 2 << 20;

/// A slow wire, an agent that is there already, and a file that takes three seconds.
fn slow_pair() -> Pair {
    let pair = Pair::with(HostOptions::default(), Wire { rate: RATE, ..Wire::rtt(10) });
    let random: Vec<u8> = (0..3 * RATE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
    pair.client.write("blob", random);
    let outcome = pair.there("$RUN sh -c 'cat /dev/null'", LIMIT);
    assert_eq!((outcome.code(), outcome.errors().as_str()), (0, ""), "{outcome}");
    pair
}

fn remotely(pair: &Pair, words: &[&str]) -> Command {
    let target = pair.target();
    pair.client.remotely([target.as_str(), "--"].into_iter().chain(words.iter().copied()))
}

/// What a terminal shows after these bytes: as much of one as is needed here.
fn screen(bytes: &str) -> String {
    let (mut lines, mut row, mut column, mut saved) = (vec![Vec::new()], 0_usize, 0_usize, (0, 0));
    let mut chars = bytes.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 0,
            '\n' => row += 1,
            '\x08' => column = column.saturating_sub(1),
            '\x1b' => match chars.next() {
                Some('7') => saved = (row, column),
                Some('8') => (row, column) = saved,
                Some('[') => {
                    let sequence: String = chars.by_ref().take_while(|c| !c.is_ascii_alphabetic()).collect();
                    // The only one that ends a sequence with no parameter here is EL; DECAWM has one.
                    if sequence.is_empty() {
                        lines[row].truncate(column);
                    }
                }
                other => panic!("{other:?} in {bytes:?}"),
            },
            c if !c.is_control() => {
                if lines[row].len() <= column {
                    lines[row].resize(column + 1, ' ');
                }
                lines[row][column] = c;
                column += 1;
            }
            _ => {}
        }
        if lines.len() <= row {
            lines.resize(row + 1, Vec::new());
        }
    }
    lines.into_iter().map(|line| line.into_iter().collect::<String>() + "\n").collect()
}

const READS: &str = "cat blob >/dev/null; printf 'out''put\\nmore\\n'; cat blob >/dev/null; cat copy >/dev/null";

#[test]
fn it_is_shown_while_the_user_waits_and_gone_before_the_output() {
    let pair = slow_pair();
    pair.client.write("copy", vec![7; 2 * RATE as usize]);
    // First what is asked for; then what is pushed, because the first run has asked for it.
    for round in ["asked for", "pushed"] {
        let mut terminal = Terminal::start(&mut remotely(&pair, &["sh", "-c", READS]), "012");
        terminal.expect(SHOWN, LIMIT);
        terminal.expect("iB/s", LIMIT);
        assert!(screen(&terminal.output()).contains(SHOWN), "{round}: {:?}", terminal.output());
        terminal.expect("output\r\nmore\r\n", LIMIT);
        assert!(terminal.wait(LIMIT).success(), "{round}");
        let all = terminal.output();
        let (before, after) = all.split_once("output").expect("it came");
        assert!(before.contains("fetching blob"), "{round}: {before:?}");
        assert!(before.ends_with("\x1b[K"), "{round}: {before:?}");
        // What is fetched later is no reason to write into the output.
        assert_eq!(after, "\r\nmore\r\n", "{round}");
        assert_eq!(screen(&all), "output\nmore\n\n", "{round}: {all:?}");
    }
    pair.clean_within(Duration::from_secs(5));
}

#[test]
fn it_is_never_where_it_would_be_in_the_way() {
    let pair = slow_pair();
    let reads = ["sh", "-c", "cat blob >/dev/null"];
    // Standard error is a pipe.
    let mut command = remotely(&pair, &reads);
    command.stderr(Stdio::piped());
    let mut terminal = Terminal::start(&mut command, "01");
    let mut errors = terminal.child().stderr.take().expect("a pipe");
    assert!(terminal.wait(LIMIT).success());
    let mut said = String::new();
    errors.read_to_string(&mut said).expect("read");
    assert_eq!((said.as_str(), terminal.output().as_str()), ("", ""), "standard error is a pipe");
    // Somebody else of the job may write to the terminal.
    let mut command = remotely(&pair, &reads);
    command.stdout(Stdio::piped());
    let mut terminal = Terminal::start(&mut command, "02");
    assert!(terminal.wait(LIMIT).success());
    assert_eq!(terminal.output(), "", "standard output is a pipe");
    // A terminal that can only print.
    let mut command = pair.client.command("env");
    command.args(["TERM=dumb", "remotely", &pair.target(), "--"]).args(reads);
    let mut terminal = Terminal::start(&mut command, "012");
    assert!(terminal.wait(LIMIT).success());
    assert_eq!(terminal.output(), "", "a dumb terminal");
    // The terminal belongs to the shell.
    let mut command = pair.client.command("bash");
    command.args(["--norc", "--noprofile", "-i"]).env("PS1", "$ ").env("RUN", pair.run()).env("HISTFILE", "");
    let mut terminal = Terminal::start(&mut command, "012");
    terminal.expect("$ ", LIMIT);
    terminal.send("$RUN sh -c 'cat blob >/dev/null' & wait; echo wai''ted\r");
    terminal.expect("waited", LIMIT);
    assert!(!terminal.output().contains(SHOWN), "{}", terminal.output());
    terminal.send("exit\r");
    terminal.wait(LIMIT);
    pair.clean_within(Duration::from_secs(5));
}

#[test]
fn it_goes_with_signals_and_at_the_end() {
    let pair = slow_pair();
    let reads = ["sh", "-c", "cat blob >/dev/null"];
    let mut terminal = Terminal::start(&mut remotely(&pair, &reads), "012");
    let before = terminal.modes_text();
    terminal.expect(SHOWN, LIMIT);
    assert!(terminal.wait(LIMIT).success());
    assert_eq!(screen(&terminal.output()), "\n", "at the end: {:?}", terminal.output());
    assert_eq!(terminal.modes_text(), before);

    type Ends<'a> = (&'a str, &'a dyn Fn(&mut Terminal), &'a str);
    let ends: [Ends; 3] = [
        ("Ctrl-C", &|terminal| terminal.send([3]), "^C"),
        ("SIGTERM", &|terminal| terminal.signal(15), ""),
        ("a lost link", &|_| pair.relay.reset(), "remotely: "),
    ];
    for (what, end, left) in ends {
        let mut terminal = Terminal::start(&mut remotely(&pair, &reads), "012");
        terminal.expect(SHOWN, LIMIT);
        end(&mut terminal);
        let status = terminal.wait(LIMIT);
        assert!(status.signal().is_some() || status.code() == Some(255), "{what}: {status}");
        let shown = screen(&terminal.output());
        assert!(shown.contains(left) && !shown.contains("fetching"), "{what}: {shown:?} {:?}", terminal.output());
        assert_eq!(terminal.modes_text(), before, "{what}");
    }

    // Ctrl-Z: the shell finds an empty line; fg brings it back.
    let mut command = pair.client.command("bash");
    command.args(["--norc", "--noprofile", "-i"]).env("PS1", "$ ").env("RUN", pair.run()).env("HISTFILE", "");
    let mut terminal = Terminal::start(&mut command, "012");
    terminal.expect("$ ", LIMIT);
    terminal.send("bind 'set enable-bracketed-paste off'\r");
    terminal.expect("$ ", LIMIT);
    terminal.send("$RUN sh -c 'cat blob blob blob >/dev/null; echo do''ne'\r");
    terminal.expect(SHOWN, LIMIT);
    terminal.send([26]);
    terminal.expect("Stopped", LIMIT);
    terminal.expect("$ ", LIMIT);
    let stopped = terminal.output();
    let last = stopped.rfind(SHOWN).expect("shown");
    assert!(stopped[last..].contains("\x1b[K"), "{stopped:?}");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(terminal.output(), stopped, "nothing is drawn while it is stopped");
    terminal.send("fg\r");
    terminal.expect("done\r\n", LIMIT);
    terminal.expect("$ ", LIMIT);
    terminal.send("exit\r");
    terminal.wait(LIMIT);
    pair.clean_within(Duration::from_secs(10));
}
