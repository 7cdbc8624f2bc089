//! Transports: how a target becomes one local process whose standard input and output lead to a shell on the host.
//!
//! Each hop wraps the command of the hops behind it, so a chain costs no process of ours on the way. Called by
//! [`bootstrap`](crate::bootstrap); a transport knows nothing of what flows through the pipe.

mod local;
pub mod shell;
pub mod spawn;
mod ssh;
mod sudo;

use std::ffi::OsString;

use crate::target::{Hop, Target};

/// The command line of the local process that runs `sh -c script` at the end of `target`.
///
/// `script` is POSIX shell on one line. `ssh_opts` go to the first `ssh` of the way: they are about the connection from
/// this machine, whose key and configuration files they may name.
pub fn command_line(target: &Target, ssh_opts: &[OsString], script: &str) -> Vec<OsString> {
    let first_ssh = target.hops().iter().position(|hop| matches!(hop, Hop::Ssh(_)));
    let innermost = vec!["sh".into(), "-c".into(), script.into()];
    target.hops().iter().enumerate().rev().fold(innermost, |inner, (n, hop)| match hop {
        Hop::Ssh(place) => ssh::wrap(place, if first_ssh == Some(n) { ssh_opts } else { &[] }, &inner),
        Hop::Local => local::wrap(inner),
        Hop::Sudo { user } => sudo::wrap(user.as_deref(), inner),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(target: &str, opts: &[&str]) -> Vec<String> {
        let opts: Vec<_> = opts.iter().map(OsString::from).collect();
        let argv = command_line(&target.parse().unwrap(), &opts, "echo it's");
        argv.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn each_hop_wraps_what_is_behind_it() {
        assert_eq!(line("local:", &[]), ["sh", "-c", "echo it's"]);
        assert_eq!(line("sudo:web", &[]), ["sudo", "-n", "-H", "-u", "web", "--", "sh", "-c", "echo it's"]);
        assert_eq!(
            line("u@[::1]:22+sudo", &["-A"]),
            [
                "ssh",
                "-o",
                "RemoteCommand=none",
                "-p",
                "22",
                "-A",
                "-T",
                "-e",
                "none",
                "--",
                "u@::1",
                r"exec sudo -n -H -- sh -c 'echo it'\''s'",
            ]
        );
    }

    #[test]
    fn a_chain_quotes_once_per_shell_and_gives_the_options_to_the_first_ssh() {
        let argv = line("gw+inner", &["-v"]);
        assert_eq!(argv[argv.len() - 2], "gw");
        assert!(argv.contains(&"-v".to_owned()));
        assert_eq!(
            argv[argv.len() - 1],
            r"exec ssh -o RemoteCommand=none -T -e none -- inner 'exec sh -c '\''echo it'\'\\\'\''s'\'"
        );
    }
}
