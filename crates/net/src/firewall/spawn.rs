//! Where the elevated helper starts processes: nft, iptables, ip. Each is waited for, or dies with the helper.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where programs are looked for. What the user has in PATH is nothing that root should run.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A program with a clean environment and messages in English.
#[expect(clippy::disallowed_methods, reason = "this is the place where the helper starts processes")]
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| PathBuf::from(program)));
    command.env_clear().env("PATH", PLACES.join(":")).env("LC_ALL", "C").stdin(Stdio::null()).current_dir("/");
    command
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join(program)).find(|path| path.exists())
}

/// Any program at all, for the client, which starts the helper.
#[expect(clippy::disallowed_methods, reason = "this is the place where the helper is started")]
pub(crate) fn any(argv: &[std::ffi::OsString]) -> Option<Command> {
    let (program, arguments) = argv.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments);
    Some(command)
}

/// The process is killed when the thread ends that starts it.
pub(crate) fn dies_with_us(command: &mut Command) {
    let ask = || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(io::Error::from)
    };
    // SAFETY: between fork and exec nothing is done but one system call.
    unsafe { command.pre_exec(ask) };
}
