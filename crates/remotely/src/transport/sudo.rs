//! `sudo[:user]`: another user of the same machine, by a password only where somebody can be asked for it. Used by
//! [`super::command_line`].

use std::ffi::OsString;

use super::explain::Failure;
use super::{password, shell};

pub(super) fn wrap(user: Option<&str>, inner: Vec<OsString>, asks: Option<usize>) -> Vec<OsString> {
    // -H: the agent is kept in the home of that user, not in one that the other user could write to.
    let mut options: Vec<OsString> = vec!["-H".into()];
    if let Some(user) = user {
        options.extend(["-u", user].map(Into::into));
    }
    options.push("--".into());
    let Some(hop) = asks else {
        let mut argv: Vec<OsString> = ["sudo", "-n"].map(Into::into).into();
        argv.extend(options);
        argv.extend(inner);
        return argv;
    };
    let options: Vec<_> = options.iter().map(|word| shell::quote(word).to_string_lossy().into_owned()).collect();
    let options = options.join(" ");
    let gate = shell::quote_whole(password::gate("\"$@\"").as_ref());
    // The first one costs no round trip: where it does, nobody is asked, and nothing of the pipe has been read. -S reads a
    // line of the pipe for each prompt, byte by byte, and asks again by itself when it was wrong.
    let script = format!(
        "if sudo -n {options} sh -c : </dev/null >/dev/null 2>&1; then exec sudo -n {options} \"$@\"; fi; \
         {skip}; exec sudo -S -p \"$(printf {mark})\" {options} sh -c {gate} sh \"$@\"",
        skip = password::SKIP,
        mark = password::mark(hop),
        gate = gate.to_string_lossy(),
    );
    password::stage(script, inner)
}

pub(super) const FAILURES: &[Failure] = &[
    Failure {
        says: &["is not in the sudoers file", "is not allowed to execute", "may not run sudo"],
        what: "sudo does not allow it to this user",
        mend: "sudo must work without a password there: a line 'USER ALL=(ALL) NOPASSWD: ALL' in /etc/sudoers.d allows it",
    },
    Failure {
        says: &["a password is required", "a terminal is required"],
        what: "sudo asks for a password",
        mend: "sudo must work without a password there: a line 'USER ALL=(ALL) NOPASSWD: ALL' in /etc/sudoers.d allows it; on a terminal it is asked for",
    },
    Failure { says: &["sudo: unknown user"], what: "there is no such user", mend: "`getent passwd` lists the users" },
    Failure {
        says: &["sudo: sh: command not found"],
        what: "there is no sh in sudo's PATH",
        mend: "the agent needs a POSIX sh there (secure_path of sudoers)",
    },
];
