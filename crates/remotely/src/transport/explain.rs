//! Which hop of a way has failed, and what to do about it, by what its programs said. Used by
//! [`bootstrap`](crate::bootstrap) for its messages; nothing else may depend on it.

use std::ffi::OsStr;

use super::{command, container, kubectl, nsenter, srun, ssh, su, sudo, systemd};
use crate::target::{Hop, Target};

/// A way for a hop to fail.
pub(super) struct Failure {
    /// Any of these in what was said means it.
    pub(super) says: &'static [&'static str],
    /// What it means. Empty: what the program wrote is clear.
    pub(super) what: &'static str,
    /// What the user can do.
    pub(super) mend: &'static str,
}

/// Why a hop failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The hop, as it is written in the target.
    pub hop: String,
    /// What is wrong with it; empty where its program has said that itself.
    pub what: String,
    /// What the user can do, in one line.
    pub mend: String,
}

/// The first hop of `target` of whose failing `stderr`, or what was printed instead of an answer, tells.
pub fn explain(target: &Target, stderr: &str) -> Option<Explanation> {
    target.hops().iter().enumerate().find_map(|(n, hop)| {
        let own = |what: String, mend: &str| Some(Explanation { hop: hop.to_string(), what, mend: mend.to_owned() });
        let known = failures(hop).iter().find(|failure| failure.says.iter().any(|text| stderr.contains(text)));
        if let Some(Failure { what, mend, .. }) = known {
            return own((*what).to_owned(), mend);
        }
        let program = program(hop).filter(|program| n > 0 && is_missing(program, stderr))?;
        let mend = package(program.as_ref()).unwrap_or_else(|| format!("install {program} there"));
        own(format!("there is no {program} at that place of the way"), &mend)
    })
}

/// The program of a hop.
pub fn program(hop: &Hop) -> Option<&str> {
    Some(match hop {
        Hop::Ssh(_) => "ssh",
        Hop::Local => return None,
        Hop::Sudo { .. } => "sudo",
        Hop::Su { .. } => "su",
        Hop::Docker { .. } | Hop::DockerRun { .. } => "docker",
        Hop::Podman { .. } | Hop::PodmanRun { .. } => "podman",
        Hop::Nsenter { .. } => "nsenter",
        Hop::Netns { .. } => "ip",
        Hop::Srun { .. } => "srun",
        Hop::Kubectl { .. } => "kubectl",
        Hop::Machine { .. } | Hop::Systemd { .. } => "systemd-run",
        Hop::Command { words } => words.first()?,
    })
}

/// How to get a program that is missing here.
pub fn package(program: &OsStr) -> Option<String> {
    let known = [
        ("ssh", "install the OpenSSH client (Debian: apt-get install openssh-client)"),
        ("sudo", "install sudo (Debian: apt-get install sudo)"),
        ("docker", "install the docker client (Debian: apt-get install docker.io)"),
        ("podman", "install podman (Debian: apt-get install podman)"),
        ("nsenter", "install nsenter (Debian: apt-get install util-linux)"),
        ("ip", "install ip (Debian: apt-get install iproute2)"),
        ("srun", "install Slurm's client (Debian: apt-get install slurm-client)"),
        ("kubectl", "install kubectl (https://kubernetes.io/docs/tasks/tools)"),
        ("systemd-run", "install systemd-run (Debian: apt-get install systemd)"),
    ];
    known.iter().find(|(name, _)| program == *name).map(|(_, mend)| (*mend).to_owned())
}

fn failures(hop: &Hop) -> &'static [Failure] {
    match hop {
        Hop::Ssh(_) => ssh::FAILURES,
        Hop::Local => &[],
        Hop::Sudo { .. } => sudo::FAILURES,
        Hop::Su { .. } => su::FAILURES,
        Hop::Docker { .. } | Hop::Podman { .. } | Hop::DockerRun { .. } | Hop::PodmanRun { .. } => container::FAILURES,
        Hop::Nsenter { .. } | Hop::Netns { .. } => nsenter::FAILURES,
        Hop::Srun { .. } => srun::FAILURES,
        Hop::Kubectl { .. } => kubectl::FAILURES,
        Hop::Machine { .. } | Hop::Systemd { .. } => systemd::FAILURES,
        Hop::Command { .. } => command::FAILURES,
    }
}

/// As sh, bash, csh, fish and env say it.
fn is_missing(program: &str, stderr: &str) -> bool {
    let said =
        ["{}: not found", "{}: command not found", "{}: Command not found", "nknown command: {}", "‘{}’: No such file"];
    said.iter().any(|text| stderr.contains(&text.replace("{}", program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(target: &str, stderr: &str) -> Option<(String, String)> {
        explain(&target.parse().unwrap(), stderr).map(|why| (why.hop, why.what))
    }

    #[test]
    fn the_hop_that_failed_is_named() {
        let some = |hop: &str, what: &str| Some((hop.to_owned(), what.to_owned()));
        let table = [
            ("gw+docker:db", "Error: No such container: db", some("docker:db", "there is no container of that name")),
            (
                "gw+docker:db",
                "sh: 1: exec: docker: not found",
                some("docker:db", "there is no docker at that place of the way"),
            ),
            ("gw+sudo+docker:db", "sudo: a password is required", some("sudo", "sudo asks for a password")),
            ("gw+sudo", "u@gw: Permission denied (publickey).", some("gw", "")),
            ("docker:db", "something else", None),
        ];
        for (target, stderr, expected) in table {
            assert_eq!(explained(target, stderr), expected, "{target}: {stderr}");
        }
    }
}
