//! `command:WORDS`, whatever runs the command that is put behind these words: the way to write one's own transport
//! (docs/transports.md). Used by [`super::command_line`].

use std::ffi::OsString;

use super::explain::Failure;

pub(super) fn wrap(words: &[String], inner: Vec<OsString>) -> Vec<OsString> {
    words.iter().map(OsString::from).chain(inner).collect()
}

pub(super) const FAILURES: &[Failure] = &[Failure {
    says: &["exec: sh: not found", "‘sh’: No such file", "'sh': No such file", "sh: No such file or directory"],
    what: "there is no sh in that place",
    mend: "the agent needs a POSIX sh there",
}];
