//! `sudo[:user]`: another user of the same machine, without asking for a password. Used by [`super::command_line`].

use std::ffi::OsString;

pub(super) fn wrap(user: Option<&str>, inner: Vec<OsString>) -> Vec<OsString> {
    // -H: the agent is kept in the home of that user, not in one that the other user could write to.
    let mut argv: Vec<OsString> = ["sudo", "-n", "-H"].map(Into::into).into();
    if let Some(user) = user {
        argv.extend(["-u", user].map(Into::into));
    }
    argv.push("--".into());
    argv.extend(inner);
    argv
}
