//! `[ssh:][user@]host[:port]` by the system's `ssh`, so that the user's configuration, agent, jumps and control masters
//! all count. Used by [`super::command_line`].

use std::ffi::OsString;

use super::explain::Failure;
use super::shell;
use crate::target::Ssh;

pub(super) fn wrap(place: &Ssh, opts: &[OsString], inner: &[OsString]) -> Vec<OsString> {
    // Of `-o` and `-p` ssh takes the first, of `-T` and `-e` the last: both must be ours. A RemoteCommand of the
    // configuration would make ssh refuse the command.
    let mut argv = to(place, opts, &["-T", "-e", "none"]);
    // One word for the login shell of the user there, whatever shell that is; `exec`, so that it costs no process.
    argv.push(shell::command(inner));
    argv
}

/// The command line that asks ssh what its configuration makes of `place`.
pub(crate) fn question(place: &Ssh, opts: &[OsString]) -> Vec<OsString> {
    to(place, opts, &["-G"])
}

/// The command line that asks a control master of the user's, if there is one for `place`, who it is.
#[cfg(feature = "cli")]
pub(crate) fn check(place: &Ssh, opts: &[OsString]) -> Vec<OsString> {
    to(place, opts, &["-O", "check"])
}

fn to(place: &Ssh, opts: &[OsString], last: &[&str]) -> Vec<OsString> {
    let mut argv: Vec<OsString> = ["ssh", "-o", "RemoteCommand=none"].map(Into::into).into();
    if let Some(port) = place.port {
        argv.extend(["-p".into(), port.to_string().into()]);
    }
    argv.extend(opts.iter().cloned());
    argv.extend(last.iter().map(Into::into));
    argv.push("--".into());
    argv.push(match &place.user {
        Some(user) => format!("{user}@{}", place.host).into(),
        None => place.host.clone().into(),
    });
    argv
}

pub(super) const FAILURES: &[Failure] = &[
    Failure {
        says: &["Permission denied (", "Too many authentication failures"],
        what: "",
        mend: "the host did not accept this user and key: the same ssh command must work by itself first; --ssh-opts passes options to it",
    },
    Failure {
        says: &["Host key verification failed"],
        what: "",
        mend: "log in once with ssh to accept the host's key, or mend known_hosts",
    },
    Failure {
        says: &["Could not resolve hostname"],
        what: "",
        mend: "is the name right? a host of ssh's configuration may be used too",
    },
    Failure {
        says: &["Connection refused", "Connection timed out", "No route to host"],
        what: "",
        mend: "is the host up, and its sshd on that port? host:port names another port",
    },
];
