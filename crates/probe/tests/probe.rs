//! The probe tells what it was given, and behaves as it says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

#[expect(clippy::disallowed_methods, reason = "the one place of this test that starts processes; each is waited for")]
fn probe(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
    command.args(words);
    command
}

fn output(words: &[&str]) -> Output {
    probe(words).stdin(Stdio::null()).output().unwrap()
}

fn text(words: &[&str]) -> String {
    String::from_utf8(output(words).stdout).unwrap()
}

/// The numbers that follow each occurrence of `key`.
fn numbers(shown: &str, key: &str) -> Vec<u64> {
    let number = |at: usize| {
        let digits = shown[at + key.len()..].split(|c: char| !c.is_ascii_digit()).next();
        digits.unwrap().parse().unwrap()
    };
    shown.match_indices(key).map(|(at, _)| number(at)).collect()
}

#[test]
fn shows_argv_environment_and_attributes_as_they_are() {
    let changes = ["with", "ignore=10", "block=12", "umask=027", "limit=7:64", "name=x y"];
    let env = ["env=ff3d41", "env=4e6f", "env=ff3d41", "--", env!("CARGO_BIN_EXE_probe")];
    let shown = text(&[&changes[..], &env[..]].concat());
    for part in [
        "\"argv\":[\"782079\"]",
        "\"env\":[\"ff3d41\",\"4e6f\",\"ff3d41\"]",
        "\"umask\":23",
        "[64,",
        "\"isatty\":[false,false,false]",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    // Whoever runs this test may have more of them ignored or blocked.
    assert_ne!(numbers(&shown, "\"blocked\":")[0] & 1 << 11, 0);
    assert_ne!(numbers(&shown, "\"ignored\":")[0] & 1 << 9, 0);
}

#[test]
fn lists_the_descriptors_it_was_given() {
    let shown = text(&["with", "close=0", "--", env!("CARGO_BIN_EXE_probe")]);
    let given: Vec<u64> = numbers(&shown, "\"fd\":").into_iter().filter(|&fd| fd <= 2).collect();
    assert_eq!(given, [1, 2]);
}

#[test]
fn ends_as_told() {
    assert_eq!(output(&["exit", "7"]).status.code(), Some(7));
    assert_eq!(output(&["kill", "15"]).status.signal(), Some(15));
    assert_eq!(output(&["nonsense"]).status.code(), Some(125));
    assert_eq!(
        output(&["with", "hex=on", "--", "2f62696e2f7368", "2d63", "65786974203300".trim_end_matches("00")])
            .status
            .code(),
        Some(3)
    );
}

#[test]
fn reads_and_writes_counted_bytes() {
    let mut child = probe(&["read", "5"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"123").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"3\n");
    let written = output(&["write", "300"]).stdout;
    assert_eq!(written.len(), 300);
    assert!(written.iter().zip(0u32..).all(|(&byte, position)| byte == position as u8));
}
