//! Finding and executing a program as execvp(3) does. Called in the process that becomes the command.

use std::ffi::CString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use crate::sys;

/// Where a command without a slash is looked for when PATH is not set, as confstr(3) has it.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// Executes `argv`, looked up in PATH of `env`. Returns only on failure.
pub(crate) fn execute(argv: &[CString], env: &[CString]) -> Errno {
    let Some(command) = argv.first().map(|word| word.as_bytes()) else { return Errno::INVAL };
    if command.is_empty() {
        return Errno::NOENT;
    }
    if command.contains(&b'/') {
        return attempt(command, argv, env);
    }
    let path = env.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    let mut denied = false;
    for dir in path.split(|byte| *byte == b':') {
        let candidate = if dir.is_empty() { command.to_vec() } else { [dir, b"/", command].concat() };
        match attempt(&candidate, argv, env) {
            Errno::ACCESS => denied = true,
            Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::NODEV | Errno::TIMEDOUT | Errno::NAMETOOLONG => {}
            other => return other,
        }
    }
    if denied { Errno::ACCESS } else { Errno::NOENT }
}

fn attempt(path: &[u8], argv: &[CString], env: &[CString]) -> Errno {
    let Ok(path) = CString::new(path) else { return Errno::INVAL };
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
    let error = errno(sys::execve(&path, argv, env));
    if error != Errno::NOEXEC || is_binary(&path) {
        return error;
    }
    // A script without "#!" is one for sh.
    let words = [c"/bin/sh".to_owned(), path].into_iter().chain(argv.iter().skip(1).cloned()).collect::<Vec<_>>();
    errno(sys::execve(c"/bin/sh", &words, env))
}

/// As shells tell: a NUL byte in the first line of what the kernel does not run.
fn is_binary(path: &CString) -> bool {
    let mut head = [0; 256];
    let path = std::ffi::OsStr::from_bytes(path.as_bytes());
    let Ok(read) = std::fs::File::open(path).and_then(|mut file| file.read(&mut head)) else { return true };
    head[..read].split(|byte| *byte == b'\n').next().is_some_and(|line| line.contains(&0))
}
