//! `machine:name`, a machine of systemd-machined, and `systemd:[user]`, a transient unit, both by systemd-run with pipes
//! (`machinectl shell` has a terminal, which changes bytes). Used by [`super::command_line`].

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::explain::Failure;

pub(super) fn machine(name: &str, inner: Vec<OsString>) -> Vec<OsString> {
    wrap(&["--machine", name], inner)
}

pub(super) fn unit(user: bool, inner: Vec<OsString>) -> Vec<OsString> {
    wrap(if user { &["--user"] } else { &[] }, inner)
}

fn wrap(place: &[&str], inner: Vec<OsString>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect"].map(Into::into).into();
    argv.extend(place.iter().map(OsString::from));
    // The service manager has a PATH of its own making and wants an absolute path; sh looks the program up.
    argv.extend(["--", "/bin/sh", "-c", "exec \"$$@\"", "sh"].map(Into::into));
    argv.extend(inner.iter().map(|word| literal(word)));
    argv
}

/// The service manager replaces `$NAME` and `${NAME}` in arguments; `$$` is how it writes one `$` (systemd.service(5)).
fn literal(word: &OsStr) -> OsString {
    let bytes = word.as_bytes().iter();
    OsString::from_vec(bytes.flat_map(|&byte| std::iter::repeat_n(byte, if byte == b'$' { 2 } else { 1 })).collect())
}

pub(super) const FAILURES: &[Failure] = &[
    Failure {
        says: &["No machine", "Could not get machine", "Failed to connect to bus: No such", "Host is down"],
        what: "there is no such machine, or no service manager to ask",
        mend: "`machinectl list` names the machines; a user's own manager needs a login session (loginctl enable-linger)",
    },
    Failure {
        says: &["Interactive authentication required", "Access denied", "Permission denied", "Operation not permitted"],
        what: "this user may not start units there",
        mend: "it needs root: sudo+machine:NAME; systemd:user needs no root",
    },
    Failure {
        says: &["System has not been booted with systemd"],
        what: "systemd does not run there",
        mend: "systemd: and machine: need it; docker:, podman: and nsenter: do not",
    },
];
