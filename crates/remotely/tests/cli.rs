//! The executable's command line: what it refuses, and with which words and exit status. No host is needed.

use std::process::{Command, Output};

#[expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "starts the program under test")]
fn remotely(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_remotely")).args(words).output().unwrap()
}

#[test]
fn what_is_refused_is_refused_with_a_reason_and_125() {
    let table: &[(&[&str], &str)] = &[
        (&[], "no target: say where to run it"),
        (&["--", "ls"], "no target: say where to run it"),
        (&["u@h"], "no command: remotely u@h -- COMMAND runs one"),
        (&["u@h", "--"], "no command: remotely u@h -- COMMAND runs one"),
        (&["u@h", "ls", "-l"], "hint: remotely u@h -- ls -l"),
        (&["pigeon:web", "--", "ls"], "unknown transport \"pigeon\": known are ssh: local: sudo:"),
        (&["h:99999", "--", "ls"], "the port \"99999\" is not a number from 1 to 65535"),
        (&["u@h", "--fs", "nfs", "--", "ls"], "--fs nfs is still to come"),
        (&["u@h", "nfs-afterwards=maybe", "--", "ls"], "[possible values: on, off, same]"),
        (&["u@h", "connect-timeout", "0", "--", "ls"], "a number of seconds above 0 is wanted"),
        (&["u@h", "host-path", "relative", "--", "ls"], "an absolute path on the host is wanted"),
        (&["u@h", "ssh-opts", "'a", "--", "ls"], "a ' is not closed"),
        (&["u@h", "ssh-opts", "--", "ls"], "--ssh-opts wants a value"),
        (&["u@h", "--nonsense", "--", "ls"], "unexpected argument '--nonsense'"),
        (&["u@h", "tty", "no-tty", "--", "ls"], "cannot be used with '--no-tty'"),
        (&["feign", "u@h", "--", "ls"], "feign runs no command"),
        (&["remotely-agent", "what"], "remotely-agent is for the other side"),
    ];
    for (words, reason) in table {
        let output = remotely(words);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{words:?}: {message}");
        assert!(message.starts_with("remotely: ") && message.contains(reason), "{words:?}: {message}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn help_is_given_to_standard_output_however_it_is_asked_for() {
    for word in ["help", "-help", "--help"] {
        let output = remotely(&[word]);
        assert!(output.status.success() && output.stderr.is_empty(), "{word}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage: remotely [OPTIONS] TARGET"), "{word}");
    }
    let version = String::from_utf8_lossy(&remotely(&["version"]).stdout).into_owned();
    assert_eq!(version, concat!("remotely ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn completions_and_man_pages_come_from_the_same_definitions() {
    for shell in ["bash", "fish", "zsh"] {
        let output = remotely(&["completions", shell]);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("ssh-opts"), "{shell}");
    }
    let Ok(directory) = tempfile::tempdir() else { panic!("no temporary directory") };
    let pages = directory.path().join("man1");
    assert!(remotely(&["man", &pages.to_string_lossy()]).status.success());
    for page in ["remotely.1", "remotely-feign.1", "remotely-doctor.1", "remotely-hosts.1"] {
        assert!(pages.join(page).exists(), "{page}");
    }
}

#[test]
fn without_ssh_the_user_is_told_what_to_install() {
    #[expect(clippy::disallowed_methods, reason = "starts the program under test")]
    let output = Command::new(env!("CARGO_BIN_EXE_remotely")).args(["doctor", "u@h"]).env("PATH", "/nowhere").output();
    let Ok(output) = output else { panic!("cannot start") };
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(255), "{text}");
    assert!(text.contains("there is no ssh in PATH here") && text.contains("install the OpenSSH client"), "{text}");
}
