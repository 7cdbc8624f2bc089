//! What the user is told at the end: an error as one chain, a hint, and the exit code. The one place where both are made.

use std::error::Error;
use std::fmt::Write;
use std::process::ExitCode;

use crate::stderr;

/// What kind of failure kept a command from running, or ended it from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The link could not be had, or was lost for good.
    Link,
    /// Our own part failed: usage, set-up.
    Setup,
    /// The command was found and could not be executed.
    NotExecutable,
    /// The command was not found.
    NotFound,
}

/// The exit code for it, as a shell, env(1) and ssh(1) use them.
pub fn exit_code(failure: Failure) -> ExitCode {
    ExitCode::from(match failure {
        Failure::Link => 255,
        Failure::Setup => 125,
        Failure::NotExecutable => 126,
        Failure::NotFound => 127,
    })
}

/// Prints `remotely: what: why: why that` and, on a line of its own, the hint.
pub fn error(error: &dyn Error, hint: Option<&str>) {
    stderr::write(message(error, hint).as_bytes());
}

/// Prints one line that is not an error, under our name.
pub fn note(text: &str) {
    stderr::write(format!("remotely: {text}\n").as_bytes());
}

/// The same for a thread that must not be kept: lost if it is not taken soon.
pub fn note_now(text: &str) {
    stderr::write_now(format!("remotely: {text}\n").as_bytes());
}

pub use crate::tunnel::chain;

fn message(error: &dyn Error, hint: Option<&str>) -> String {
    let mut text = format!("remotely: {}\n", chain(error));
    if let Some(hint) = hint {
        let _ = writeln!(text, "hint: {hint}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::spawn::StartError;

    #[test]
    fn an_error_is_one_line_with_its_causes_and_a_hint() {
        let source = std::io::Error::from_raw_os_error(libc::EMFILE);
        let error = StartError::Prepare { step: "make a pipe", source };
        let expected = "remotely: could not make a pipe: Too many open files (os error 24)\nhint: close some\n";
        assert_eq!(message(&error, Some("close some")), expected);
    }
}
