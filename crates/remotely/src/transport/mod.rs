//! Transports: how a target becomes one local process whose standard input and output lead to a shell on the host.
//!
//! Each hop wraps the command of the hops behind it, so a chain costs no process of ours on the way. Called by
//! [`bootstrap`](crate::bootstrap); a transport knows nothing of what flows through the pipe.

#[cfg(feature = "cli")]
pub(crate) mod allocation;
mod command;
mod container;
mod control;
mod docker;
mod explain;
mod kubectl;
mod local;
mod nsenter;
pub(crate) mod password;
mod podman;
pub(crate) mod session;
pub mod shell;
pub mod spawn;
mod srun;
pub(crate) mod ssh;
mod ssh_config;
mod su;
mod sudo;
mod systemd;
mod unnamed;
mod vfork;

use std::ffi::OsString;

pub use self::explain::{Explanation, explain, package, program};
use crate::target::{Hop, Target};

/// The command line of the local process that runs `sh -c script` at the end of `target`.
///
/// `script` is POSIX shell on one line. `ssh_opts` go to the first `ssh` of the way: they are about the connection from
/// this machine, whose key and configuration files they may name. Hops that want a password fail.
pub fn command_line(target: &Target, ssh_opts: &[OsString], script: &str) -> Vec<OsString> {
    asking_command_line(target, ssh_opts, script, 0)
}

/// The same, where the first `may_ask` hops ask for a password if they want one, by marks that [`spawn::Process::asked`]
/// hears. What is written to the pipe first must be a block behind its size then, as a first flight is.
pub(crate) fn asking_command_line(
    target: &Target,
    ssh_opts: &[OsString],
    script: &str,
    may_ask: usize,
) -> Vec<OsString> {
    through(target.hops(), ssh_opts, script, may_ask)
}

/// The same for some hops of a way.
fn through(hops: &[Hop], ssh_opts: &[OsString], script: &str, may_ask: usize) -> Vec<OsString> {
    let first_ssh = hops.iter().position(|hop| matches!(hop, Hop::Ssh(_)));
    let innermost = vec!["sh".into(), "-c".into(), script.into()];
    hops.iter().enumerate().rev().fold(innermost, |inner, (n, hop)| {
        let asks = (n < may_ask).then_some(n);
        match hop {
            Hop::Ssh(place) => ssh::wrap(place, if first_ssh == Some(n) { ssh_opts } else { &[] }, &inner),
            Hop::Local => local::wrap(inner),
            Hop::Sudo { user } => sudo::wrap(user.as_deref(), inner, asks),
            Hop::Su { user } => su::wrap(user.as_deref(), inner, asks),
            Hop::Docker { container } => docker::exec(container, inner),
            Hop::Podman { container } => podman::exec(container, inner),
            Hop::DockerRun { image } => docker::run(image, inner),
            Hop::PodmanRun { image } => podman::run(image, inner),
            Hop::Nsenter { pid } => nsenter::process(*pid, inner),
            Hop::Netns { name } => nsenter::network(name, inner),
            Hop::Srun { job, node } => srun::wrap(job.as_deref(), node, inner),
            Hop::Kubectl { namespace, pod, container } => {
                kubectl::wrap(namespace.as_deref(), pod, container.as_deref(), inner)
            }
            Hop::Machine { name } => systemd::machine(name, inner),
            Hop::Systemd { user } => systemd::unit(*user, inner),
            Hop::Command { words } => command::wrap(words, inner),
        }
    })
}

/// Whether the local process may have to ask for something on the terminal itself, as ssh does: then it must be in the
/// foreground with us. The others are kept from the keys of the terminal (srun would end by Ctrl-C, which is the command's).
pub(crate) fn uses_terminal(target: &Target) -> bool {
    match target.hops().iter().find(|hop| !matches!(hop, Hop::Local)) {
        None | Some(Hop::Ssh(_) | Hop::Sudo { .. } | Hop::Su { .. } | Hop::Command { .. }) => true,
        Some(_) => false,
    }
}

/// Whether the whole way is on this machine, so that its pipe is as fast as memory.
pub(crate) fn is_of_here(target: &Target) -> bool {
    let elsewhere = |names: &[&str]| {
        let set = |name: &&str| std::env::var(name).is_ok_and(|value| !value.is_empty() && !value.starts_with("unix:"));
        names.iter().any(set)
    };
    target.hops().iter().all(|hop| match hop {
        Hop::Local | Hop::Sudo { .. } | Hop::Su { .. } | Hop::Nsenter { .. } | Hop::Netns { .. } => true,
        Hop::Machine { .. } | Hop::Systemd { .. } => true,
        Hop::Docker { .. } | Hop::DockerRun { .. } => !elsewhere(&["DOCKER_HOST", "DOCKER_CONTEXT"]),
        Hop::Podman { .. } | Hop::PodmanRun { .. } => !elsewhere(&["CONTAINER_HOST", "CONTAINER_CONNECTION"]),
        Hop::Ssh(_) | Hop::Srun { .. } | Hop::Kubectl { .. } | Hop::Command { .. } => false,
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
    fn a_way_that_leaves_this_machine_anywhere_is_not_of_here() {
        for (target, expected) in [
            ("local:", true),
            ("sudo:web+nsenter:7+netns:blue", true),
            ("machine:box+su", true),
            ("sudo+host", false),
            ("host+sudo", false),
            ("srun:n1", false),
            ("command:x", false),
        ] {
            assert_eq!(is_of_here(&target.parse().unwrap()), expected, "{target}");
        }
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

    #[test]
    fn a_colon_by_itself_is_no_word_of_srun() {
        let argv = line("srun:7/n1+command:: a", &[]);
        let at = argv.iter().position(|word| word == "--").unwrap();
        assert_eq!(argv[at - 3..at], ["--overlap", "--jobid", "7"]);
        assert_eq!(argv[at + 1..], ["sh", "-c", r"exec : a sh -c 'echo it'\''s'"]);
    }

    #[test]
    fn the_service_manager_replaces_nothing() {
        let argv = command_line(&"machine:box".parse().unwrap(), &[], "echo $HOME ${A-$$}");
        assert_eq!(argv.last().unwrap(), "echo $$HOME $${A-$$$$}");
    }

    #[test]
    fn only_hops_that_may_ask_have_a_shell_in_front() {
        let target = "gw+sudo:web+docker:db+sudo".parse().unwrap();
        let argv = |may_ask| shell::command(&asking_command_line(&target, &[], "true", may_ask)).into_string().unwrap();
        assert!(!argv(0).contains("sudo -S"));
        assert_eq!(argv(3).matches("sudo -S").count(), 1);
        assert_eq!(argv(4).matches("sudo -S").count(), 2);
        assert!(!argv(4).contains('\n') && !argv(4).contains('\x01'));
    }
}
