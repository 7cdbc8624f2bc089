//! The grammar of the command line as a table.

use clap::CommandFactory;

use super::*;

fn normal(words: &[&str]) -> Result<Vec<OsString>, WordsError> {
    normalize(&crate::cli::Cli::command(), words.iter().map(OsString::from).collect())
}

#[test]
fn words_mean_the_same_with_and_without_dashes_before_and_after_the_target() {
    let same: &[(&[&[&str]], &[&str])] = &[
        (&[&["help"], &["-help"], &["--help"]], &["--help"]),
        (&[&["u@h", "--", "ls", "-l"], &["run", "u@h", "--", "ls", "-l"]], &["u@h", "--", "ls", "-l"]),
        (
            &[&["no-sudo", "u@h", "--", "ls"], &["-no-sudo", "u@h", "--", "ls"], &["u@h", "--no-sudo", "--", "ls"]],
            &["--no-sudo", "u@h", "--", "ls"],
        ),
        (
            &[
                &["ssh-opts", "-p 22", "u@h", "--", "ls"],
                &["ssh-opts=-p 22", "u@h", "--", "ls"],
                &["u@h", "-ssh-opts", "-p 22", "--", "ls"],
                &["u@h", "--ssh-opts=-p 22", "--", "ls"],
            ],
            &["--ssh-opts=-p 22", "u@h", "--", "ls"],
        ),
        (
            &[
                &["u@h", "nfs-afterwards", "on", "--", "ls"],
                &["nfs-afterwards=on", "u@h", "--", "ls"],
                &["u@h", "-nfs-afterwards=on", "--", "ls"],
            ],
            &["--nfs-afterwards=on", "u@h", "--", "ls"],
        ),
        (
            &[&["feign", "u@h"], &["u@h", "feign"], &["u@h", "--feign"], &["-feign", "u@h"], &["run", "u@h", "feign"]],
            &["feign", "u@h"],
        ),
        (&[&["feign", "u@h", "help"], &["help", "feign", "u@h"]], &["feign", "--help", "u@h"]),
        (&[&["doctor", "u@h", "-vv"], &["-vv", "doctor", "u@h"]], &["doctor", "-vv", "u@h"]),
        (&[&["man", "dir"]], &["man", "dir"]),
        (
            &[
                &["hosts", "-x", "b", "a", "-fS", ","],
                &["hosts", "a", "-x", "b", "-fS", ","],
                &["-x", "b", "hosts", "-fS", ",", "a"],
            ],
            &["hosts", "-x", "b", "-fS", ",", "a"],
        ),
        (&[&["hosts", "-S,", "a"], &["hosts", "a", "-S,"]], &["hosts", "-S,", "a"]),
        (&[&["hosts", "count", "a"], &["hosts", "a", "--count"]], &["hosts", "--count", "a"]),
        (&[&["hosts", "-", "a"]], &["hosts", "-", "a"]),
        // A value that may be left out stands behind '=' only.
        (
            &[&["exec", "--sudo", "far", "--", "id"], &["exec", "far", "--sudo", "--", "id"]],
            &["exec", "--sudo", "far", "--", "id"],
        ),
        (&[&["put", "--sudo=www", "@web", "a", "b"]], &["put", "--sudo=www", "@web", "a", "b"]),
        (&[&["put", "--sudo", "@web", "a", "b"]], &["put", "--sudo", "@web", "a", "b"]),
        // Without dashes, an option of one command is a word like any other for the others.
        (&[&["hosts", "stats", "tty"]], &["hosts", "stats", "tty"]),
        (&[&["count", "--", "ls"]], &["count", "--", "ls"]),
        // Behind the first `--` nothing is ours.
        (&[&["u@h", "--", "help", "--", "no-sudo"]], &["u@h", "--", "help", "--", "no-sudo"]),
        // A host may be named as a command is, if it says so; and what follows a target is no subcommand.
        (&[&["ssh:doctor", "--", "ls"]], &["ssh:doctor", "--", "ls"]),
        // clap says what is wrong with these.
        (&[&["u@h", "--nonsense", "--", "ls"]], &["--nonsense", "u@h", "--", "ls"]),
        (&[&["u@h", "stats=yes", "--", "ls"]], &["--stats=yes", "u@h", "--", "ls"]),
        (&[&["--", "ls"]], &["--", "ls"]),
        (&[&[]], &[]),
    ];
    for (lines, expected) in same {
        for line in *lines {
            let words = normal(line).unwrap();
            assert_eq!(words[1..], expected.iter().map(OsString::from).collect::<Vec<_>>(), "{line:?}");
        }
    }
}

#[test]
fn what_means_nothing_is_refused_and_a_missing_separator_shown_where_it_belongs() {
    let error = normal(&["--stats", "u@h", "gcc", "-o", "a b", "x.c"]).unwrap_err();
    assert_eq!(error.hint().unwrap(), "remotely --stats u@h -- gcc -o 'a b' x.c");
    let error = WordsError::NoValue { option: "--ssh-opts".into() };
    assert_eq!(normal(&["u@h", "ssh-opts", "--", "ls"]), Err(error));
    assert_eq!(normal(&["hosts", "a", "-x"]), Err(WordsError::NoValue { option: "-x".into() }));
    assert_eq!(normal(&["feign", "u@h", "ls"]), Err(WordsError::FeignRunsNothing));
    assert_eq!(normal(&["feign", "u@h", "--", "ls"]), Err(WordsError::FeignRunsNothing));
}

#[test]
fn words_are_bytes() {
    let value = OsString::from_vec(b"hide=/\xff".to_vec());
    let words = normalize(&crate::cli::Cli::command(), vec![value, "u@h".into()]).unwrap();
    assert_eq!(words[1].as_bytes(), b"--hide=/\xff");
}
