//! Where the elevated helper starts processes: nft, iptables, ip. Each is waited for, or dies with the helper; but for the one that
//! is there to outlive it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Pid;

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

/// Has a copy of this process run this, with that descriptor and no other. Must be called before there are other threads of ours.
pub(crate) fn fork(descriptor: OwnedFd, run: impl FnOnce(OwnedFd)) -> io::Result<Pid> {
    // SAFETY: no other thread of ours holds anything that the copy needs; it never returns from here.
    match unsafe { libc::fork() } {
        0 => {
            let ran = catch_unwind(AssertUnwindSafe(|| {
                keep_only(&descriptor);
                run(descriptor);
            }));
            // SAFETY: what is registered to run at the end is of the process that was copied.
            unsafe { libc::_exit(i32::from(ran.is_err())) }
        }
        process => Pid::from_raw(process).filter(|_| process > 0).ok_or_else(io::Error::last_os_error),
    }
}

/// Closes all else; standard input, output and error lead nowhere.
fn keep_only(descriptor: &OwnedFd) {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for number in open.into_iter().filter(|number| *number > 2 && *number != descriptor.as_raw_fd()) {
        // SAFETY: in this copy of the process nobody uses them any more.
        unsafe { libc::close(number) };
    }
    if let Ok(nowhere) = fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&nowhere);
        let _ = rustix::stdio::dup2_stdout(&nowhere);
        let _ = rustix::stdio::dup2_stderr(&nowhere);
    }
}
