//! The one place of this crate that starts processes: the transport's local process, its pipe, and its end.
//!
//! Whatever is started here ends with its [`Process`], and with this program however that ends. A thread per process
//! starts it, waits for it and reaps it; another passes its standard error on.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
#[cfg(feature = "cli")]
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
#[cfg(feature = "cli")]
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use super::password::Marks;
use super::vfork;
use crate::options::Errors;
use crate::stderr;

/// A process that was started, with its standard input and output.
#[derive(Debug)]
pub struct Started {
    /// Reads its standard output.
    pub reader: OwnedFd,
    /// Writes its standard input.
    pub writer: OwnedFd,
    /// The process.
    pub process: Process,
}

/// Starts `argv` (at least one word, looked up in `PATH`) with a pipe to it.
///
/// The last of its standard error is kept for messages. It ignores the signals that ask a whole process
/// group to stop or to end: at a password prompt it must be in the foreground with us, and later they are for the command,
/// not for the way there. (`ssh` installs handlers only for what it does not find ignored.)
pub fn start(argv: &[OsString], errors: &Errors) -> Result<Started, StartError> {
    start_with(argv, Manner { errors, own_group: false })
}

/// How a process is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner<'a> {
    /// Where its standard error goes.
    pub(crate) errors: &'a Errors,
    /// In a process group of its own, out of reach of the keys of the terminal. It must not ask for anything on it.
    pub(crate) own_group: bool,
}

/// Starts it in some other manner than [`start`] does.
pub(crate) fn start_with(argv: &[OsString], manner: Manner<'_>) -> Result<Started, StartError> {
    let failed = |step| move |source: rustix::io::Errno| StartError::Prepare { step, source: source.into() };
    let (stdin, writer) = large_pipe().map_err(failed("make a pipe"))?;
    let (reader, stdout) = large_pipe().map_err(failed("make a pipe"))?;
    let (errors, stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
    let tail = Tail::default();
    // More are not asked at once: who asks waits for the answer.
    let (asks, asked) = mpsc::channel(4);
    let passing = pass_on(errors, tail.clone(), manner.errors.clone(), asks)?;

    let program = argv.first().cloned().unwrap_or_default();
    let (pidfd, status) =
        keep(argv.to_vec(), [stdin, stdout, stderr], manner.own_group).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StartError::NotFound { program },
            _ => StartError::Spawn { program, source },
        })?;
    Ok(Started { reader, writer, process: Process { pidfd, status, tail, asked, passing: Some(passing) } })
}

/// A process that ends when its standard input does, and with this program in any case. Standard error is ours.
#[cfg(feature = "cli")]
#[derive(Debug)]
pub(crate) struct Attached {
    child: Child,
}

/// Starts one, on the thread that lives as long as it is needed; with what its standard output is read from.
#[cfg(feature = "cli")]
pub(crate) fn attached(argv: &[OsString]) -> Result<(Attached, std::process::ChildStdout), StartError> {
    let program = argv.first().cloned().unwrap_or_default();
    let mut command = command(argv);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl.
    unsafe {
        // What it holds for us it gives back at TERM, and not at KILL.
        command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?));
    }
    let mut child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => StartError::NotFound { program: program.clone() },
        _ => StartError::Spawn { program: program.clone(), source },
    })?;
    let Some(output) = child.stdout.take() else { unreachable!("it was piped") };
    Ok((Attached { child }, output))
}

#[cfg(feature = "cli")]
impl Attached {
    /// Ends it, and waits for that.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        self.child.wait().unwrap_or_default()
    }
}

#[cfg(feature = "cli")]
impl Drop for Attached {
    fn drop(&mut self) {
        self.wait();
    }
}

/// Runs `argv` to its end with nothing on standard input, and returns its standard output. Its standard error is not
/// shown. Cancel safe: dropping the future ends the process.
pub async fn output(argv: &[OsString]) -> Result<Vec<u8>, StartError> {
    let (output, process) = collect(argv).await?;
    process.close().await;
    Ok(output)
}

/// What a process left that ran to its end.
#[derive(Debug)]
pub struct Finished {
    /// All of its standard output.
    pub output: Vec<u8>,
    /// The last lines of its standard error.
    pub said: String,
    /// How it ended.
    pub status: ExitStatus,
}

/// The same as [`output`], with how it ended, however long that takes. Cancel safe in the same way.
pub async fn finished(argv: &[OsString]) -> Result<Finished, StartError> {
    let (output, process) = collect(argv).await?;
    let status = process.ended().await;
    Ok(Finished { output, said: process.last_words().await, status })
}

async fn collect(argv: &[OsString]) -> Result<(Vec<u8>, Process), StartError> {
    let Started { reader, writer, process } = start(argv, &Errors::Keep)?;
    drop(writer);
    let failed = |source| StartError::Prepare { step: "read what it says", source };
    let mut receiver = pipe::Receiver::from_owned_fd(reader).map_err(failed)?;
    let mut output = Vec::new();
    receiver.read_to_end(&mut output).await.map_err(failed)?;
    Ok((output, process))
}

/// A transport's process. Dropping it kills it: of TERM it takes no notice. Whatever it has started ends by its closed pipe.
#[derive(Debug)]
pub struct Process {
    pidfd: OwnedFd,
    status: watch::Receiver<Option<ExitStatus>>,
    tail: Tail,
    asked: mpsc::Receiver<usize>,
    passing: Option<thread::JoinHandle<()>>,
}

/// How long a process may take to end by itself once its pipe is closed, and to be gone after KILL.
const GRACE: Duration = Duration::from_secs(2);
const KILL_GRACE: Duration = Duration::from_millis(500);
/// What is kept of standard error, in bytes.
const TAIL: usize = 4096;

impl Process {
    /// Waits for the end of the process. Cancel safe.
    pub async fn ended(&self) -> ExitStatus {
        let mut status = self.status.clone();
        match status.wait_for(Option::is_some).await.map(|status| *status) {
            Ok(Some(status)) => status,
            // The thread that waits never ends without a status.
            Ok(None) | Err(_) => ExitStatus::default(),
        }
    }

    /// Waits until a hop of the way asks for a password, and says which one it is: whoever is at its place could say any
    /// number. Cancel safe.
    pub(crate) async fn asked(&mut self) -> usize {
        match self.asked.recv().await {
            Some(hop) => hop,
            None => std::future::pending().await,
        }
    }

    /// The last lines of standard error, as text. Complete once the process has [`ended`](Self::ended), unless it left
    /// children that still hold it.
    pub async fn last_words(&self) -> String {
        let deadline = Instant::now() + Duration::from_millis(200);
        while self.passing.as_ref().is_some_and(|passing| !passing.is_finished()) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        String::from_utf8_lossy(&self.tail.lock()).trim().to_owned()
    }

    /// Ends the process in order: lets it end by itself for two seconds (its pipe must have been closed before), then
    /// as a drop does. Not cancel safe in that a cancelled call has the effect of a drop.
    pub async fn close(self) {
        let _ = tokio::time::timeout(GRACE, self.ended()).await;
    }

    /// Whether the process has ended, after waiting for it.
    fn wait(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.wait(Duration::ZERO) {
            return;
        }
        // It fails when the process is another user's (`sudo`), which ends by its closed pipe.
        if rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL).is_ok() {
            self.wait(KILL_GRACE);
        }
    }
}

/// A pipe as large as the kernel gives one without asking.
pub(super) fn large_pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // Beyond the user's share of pipe pages this is refused; a smaller pipe works too.
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20);
    Ok((reader, writer))
}

#[cfg(feature = "cli")]
#[expect(clippy::disallowed_methods, reason = "this is the place where this crate starts processes")]
fn command(argv: &[OsString]) -> Command {
    let mut command = Command::new(argv.first().map_or(OsString::new(), Clone::clone));
    command.args(argv.iter().skip(1));
    command
}

/// Starts the process on a thread that lives as long as it does: the kernel sends the parent-death signal when the
/// thread that forked ends, not the program.
fn keep(
    argv: Vec<OsString>,
    stdio: [OwnedFd; 3],
    own_group: bool,
) -> io::Result<(OwnedFd, watch::Receiver<Option<ExitStatus>>)> {
    let (done, status) = watch::channel(None);
    let (answer, started) = std::sync::mpsc::sync_channel(1);
    let keeper = thread::Builder::new().name("transport".into()).stack_size(128 << 10);
    keeper.spawn(move || {
        let pid = match spawn_held(&argv, &stdio, own_group) {
            Ok((pid, pidfd)) => {
                let _ = answer.send(Ok(pidfd));
                pid
            }
            Err(error) => return drop(answer.send(Err(error))),
        };
        // Closes our ends of its descriptors, so that their other ends see its end.
        drop((argv, stdio));
        done.send_replace(Some(reap(pid)));
    })?;
    let pidfd = started.recv().map_err(|_| io::Error::other("the thread that starts processes has ended"))??;
    Ok((pidfd, status))
}

fn spawn_held(
    argv: &[OsString],
    [stdin, stdout, stderr]: &[OwnedFd; 3],
    own_group: bool,
) -> io::Result<(Pid, OwnedFd)> {
    let pid = vfork::start(argv, [stdin, stdout, stderr], own_group)?;
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok((pid, pidfd)),
        Err(error) => {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            reap(pid);
            Err(error.into())
        }
    }
}

fn reap(pid: Pid) -> ExitStatus {
    match rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty())) {
        Ok(Some((_, status))) => ExitStatus::from_raw(status.as_raw()),
        Ok(None) | Err(_) => ExitStatus::default(),
    }
}

/// The last bytes of what a process wrote to its standard error.
#[derive(Debug, Clone, Default)]
struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, bytes: &[u8]) {
        let mut kept = self.lock();
        kept.extend_from_slice(bytes);
        let excess = kept.len().saturating_sub(TAIL);
        kept.drain(..excess);
    }
}

fn pass_on(
    errors: OwnedFd,
    tail: Tail,
    to: Errors,
    asks: mpsc::Sender<usize>,
) -> Result<thread::JoinHandle<()>, StartError> {
    let passer = thread::Builder::new().name("transport-errors".into()).stack_size(128 << 10);
    let pass = move || {
        let mut buffer = [0; 4096];
        let mut marks = Marks::default();
        let say = |bytes: &[u8]| {
            tail.push(bytes);
            match &to {
                _ if bytes.is_empty() => {}
                Errors::Show => stderr::write(bytes),
                Errors::Keep => {}
                Errors::Hand(take) => take(bytes),
            }
        };
        loop {
            match rustix::io::read(&errors, &mut buffer) {
                Ok(n @ 1..) => {
                    let (bytes, hops) = marks.pass(&buffer[..n]);
                    say(&bytes);
                    for hop in hops {
                        let _ = asks.try_send(hop);
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) | Err(_) => return say(&marks.rest()),
            }
        }
    };
    passer.spawn(pass).map_err(|source| StartError::Prepare { step: "start a thread", source })
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not in `PATH`.
    #[error("there is no {} in PATH here", program.to_string_lossy())]
    NotFound {
        /// What was looked for.
        program: OsString,
    },
    /// fork(2) or execve(2) failed.
    #[error("could not start {}", program.to_string_lossy())]
    Spawn {
        /// What was to be started.
        program: OsString,
        /// Why not.
        source: io::Error,
    },
    /// Something that a process needs could not be had.
    #[error("could not {step}")]
    Prepare {
        /// What was tried.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Started {
        start(&["sh".into(), "-c".into(), script.into()], &Errors::Show).unwrap()
    }

    fn line(reader: &OwnedFd) -> String {
        let mut buffer = [0; 64];
        let read = rustix::io::read(reader, &mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }

    #[test]
    fn what_a_whole_process_group_hears_does_not_end_it_and_a_drop_does_at_once() {
        let started = sh("for s in INT QUIT TSTP TERM HUP; do kill -$s $$; done; echo on; exec sleep 60");
        assert_eq!(line(&started.reader), "on\n");
        let begun = Instant::now();
        drop(started.process);
        assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
        assert_eq!(line(&started.reader), "");
    }

    #[test]
    fn it_begins_with_signals_as_no_program_of_rust_has_them() {
        let started = sh("grep -E '^Sig(Blk|Ign):' /proc/self/status; cut -d' ' -f5 /proc/self/stat");
        let mut said = String::new();
        std::io::Read::read_to_string(&mut std::fs::File::from(started.reader), &mut said).unwrap();
        let words: Vec<&str> = said.split_ascii_whitespace().collect();
        let [_, blocked, _, ignored, group] = words[..] else { panic!("{said}") };
        let (blocked, ignored) = (u64::from_str_radix(blocked, 16).unwrap(), u64::from_str_radix(ignored, 16).unwrap());
        assert_eq!(blocked, 0);
        let bits = |signals: &[i32]| signals.iter().map(|signal| 1_u64 << (signal - 1)).sum::<u64>();
        let all = bits(&[libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGTSTP]);
        assert_eq!(ignored & (all | bits(&[libc::SIGPIPE])), all);
        assert_eq!(group, rustix::process::getpgrp().as_raw_nonzero().to_string());

        let manner = Manner { errors: &Errors::Show, own_group: true };
        let apart = start_with(&["cut", "-d ", "-f1,5", "/proc/self/stat"].map(OsString::from), manner).unwrap();
        let said = line(&apart.reader);
        let (pid, group) = said.trim().split_once(' ').unwrap();
        assert_eq!(pid, group);
    }

    #[test]
    fn what_cannot_be_started_says_why() {
        let start = |program: &str| start(&[program.into()], &Errors::Show).unwrap_err();
        assert!(matches!(start("no-such-program-anywhere"), StartError::NotFound { .. }));
        assert!(matches!(start("/no/such/program"), StartError::NotFound { .. }));
        let StartError::Spawn { source, .. } = start("/etc/passwd") else { panic!() };
        assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
        let StartError::Spawn { source, .. } = start("two\0words") else { panic!() };
        assert_eq!(source.kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn what_has_ended_by_itself_says_how() {
        let started = sh("read word; echo $word >&2; exit 3");
        drop(started.writer);
        assert_eq!(started.process.ended().await.code(), Some(3));
        assert_eq!(started.process.last_words().await, "");
        started.process.close().await;
    }
}
