//! `nsenter:pid`, everything that a process sees, and `netns:name`, a network that ip-netns(8) knows. Used by
//! [`super::command_line`].

use std::ffi::OsString;

use super::explain::Failure;

/// `--wd` without a value is the directory of the process: ours would be one outside of its root.
pub(super) fn process(pid: u32, inner: Vec<OsString>) -> Vec<OsString> {
    let pid = pid.to_string();
    let mut argv: Vec<OsString> = ["nsenter", "--target", &pid, "--all", "--root", "--wd", "--"].map(Into::into).into();
    argv.extend(inner);
    argv
}

/// By ip, not by nsenter: it knows where the names are, and shows the namespace's own /sys and resolv.conf.
pub(super) fn network(name: &str, inner: Vec<OsString>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = ["ip", "netns", "exec", name].map(Into::into).into();
    argv.extend(inner);
    argv
}

pub(super) const FAILURES: &[Failure] = &[
    Failure {
        says: &["nsenter: cannot open /proc/", "nsenter: stat of /proc/"],
        what: "there is no such process, or it is not this user's",
        mend: "is the number right? the process of another user needs root: sudo+nsenter:PID",
    },
    Failure {
        says: &["nsenter: reassociate to namespace"],
        what: "this user may not enter the namespaces",
        mend: "it needs root: sudo+nsenter:PID",
    },
    Failure {
        says: &["Cannot open network namespace"],
        what: "there is no network namespace of that name",
        mend: "`ip netns` lists them; one without a name is entered by a process in it: nsenter:PID",
    },
    Failure {
        says: &["setting the network namespace", "Operation not permitted"],
        what: "this user may not enter the namespace",
        mend: "it needs root: sudo+netns:NAME",
    },
    Failure {
        says: &["failed to execute sh", "exec of \"sh\" failed"],
        what: "there is no sh in that place",
        mend: "the agent needs a POSIX sh there",
    },
];
