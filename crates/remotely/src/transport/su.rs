//! `su[:user]`: another user of the same machine by su(1), from root, or by a password where somebody can be asked for it.
//! Used by [`super::command_line`].

use std::ffi::OsString;

use super::explain::Failure;
use super::password;
use super::shell;

/// `su` has no option that keeps it from asking, and would take what comes on the pipe for a password: so a shell in front
/// of it looks who it is, and becomes su if that is root.
pub(super) fn wrap(user: Option<&str>, inner: Vec<OsString>, asks: Option<usize>) -> Vec<OsString> {
    let user = user.unwrap_or("root");
    let quoted = shell::quote(user.as_ref()).to_string_lossy().into_owned();
    // A shell that is sure to be POSIX's, also where the user's own is none or /usr/sbin/nologin.
    let su = |script: &str| format!("su -s /bin/sh -c {script} -- {quoted}");
    let plain = su("'exec \"$0\" \"$@\"'");
    let otherwise = match asks {
        None => "echo \"su: only root needs no password, and nobody can be asked for one here\" >&2; exit 1".to_owned(),
        Some(hop) => {
            let gate = shell::quote_whole(password::gate("\"$0\" \"$@\"").as_ref()).to_string_lossy().into_owned();
            password::repeated(hop, &su(&gate))
        }
    };
    let script = format!("if [ \"$(id -u)\" = 0 ]; then exec {plain} \"$@\"; fi; {otherwise}");
    password::stage(script, inner)
}

pub(super) const FAILURES: &[Failure] = &[
    Failure {
        says: &["only root needs no password"],
        what: "su asks for a password, and nobody can be asked for one here",
        mend: "on a terminal it is asked for; root needs none: sudo+su:USER, or root@host+su:USER",
    },
    Failure {
        says: &["does not exist", "unknown login"],
        what: "there is no such user",
        mend: "`getent passwd` lists the users",
    },
    Failure {
        says: &["must be run from a terminal"],
        what: "su wants a terminal there",
        mend: "use sudo, which takes a password from a pipe",
    },
];
