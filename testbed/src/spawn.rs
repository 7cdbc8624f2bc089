//! The one place where this crate starts processes: a command with a time limit, its output collected, ended when dropped.
//! Called by everything here and by the tests. Must not leave a process behind.

use std::ffi::OsStr;
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

/// A command that is still to be started.
#[expect(clippy::disallowed_methods, reason = "the one spawner of this crate")]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Runs a command of the rig itself and returns its standard output.
///
/// # Panics
/// When it can't be started, fails, or takes longer than a minute: the rig is broken, no test can go on.
pub fn must(command: &mut Command) -> Vec<u8> {
    let shown = format!("{command:?}");
    let outcome = Process::start(command, b"").wait(Duration::from_secs(60));
    assert!(outcome.status.success(), "testbed: {shown} failed\n{outcome}");
    outcome.stdout
}

/// What came of a command.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// From start to end.
    pub took: Duration,
}

impl Outcome {
    /// Standard output as text, invalid bytes replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text, invalid bytes replaced.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// What a shell would show in `$?`: the exit code, or 128 + the signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Itself, if it ended with status 0.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "should have succeeded\n{self}");
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} after {:?}", self.status, self.took)?;
        for (name, bytes) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let shown = &bytes[..bytes.len().min(4000)];
            writeln!(f, "--- {name}, {} bytes: {}", bytes.len(), String::from_utf8_lossy(shown).escape_debug())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A started command. Dropped while it runs, it is killed.
pub struct Process {
    child: Child,
    started: Instant,
    stdout: Collected,
    stderr: Collected,
    shown: String,
}

impl Process {
    /// Starts it with `input` and then end of file as standard input; output is collected as it comes.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(command: &mut Command, input: &[u8]) -> Self {
        let mut process = Self::start_open(command);
        let mut stdin = process.stdin();
        let input = input.to_vec();
        // A command that reads nothing closes the pipe: not an error of the test.
        thread::spawn(move || drop(stdin.write_all(&input)));
        process
    }

    /// Starts it with a standard input that stays open until [`stdin`](Self::stdin) is taken and dropped.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start_open(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start_plain(command)
    }

    /// Starts it with the standard streams that `command` has; those that are pipes are collected.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start_plain(command: &mut Command) -> Self {
        let shown = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|e| panic!("testbed: cannot start {shown}: {e}"));
        let stdout = Collected::of(child.stdout.take());
        let stderr = Collected::of(child.stderr.take());
        Self { child, started: Instant::now(), stdout, stderr, shown }
    }

    /// The writing end of its standard input.
    ///
    /// # Panics
    /// When it was taken before.
    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("stdin is taken once")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal (Linux number). A process that has ended gets none.
    pub fn signal(&self, signal: i32) {
        send_signal(self.pid(), signal);
    }

    /// What came on its standard output so far.
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.bytes()
    }

    /// What came on its standard error so far.
    pub fn stderr(&self) -> Vec<u8> {
        self.stderr.bytes()
    }

    /// Its whole standard error, once it has ended and nobody else has it open; what came until then after `limit`.
    pub fn last_words(&self, limit: Duration) -> String {
        self.stderr.wait_end(limit);
        String::from_utf8_lossy(&self.stderr.bytes()).into_owned()
    }

    /// Waits until standard output contains `text` and returns how long that took.
    ///
    /// # Panics
    /// When it does not within `limit`.
    #[track_caller]
    pub fn expect(&self, text: &str, limit: Duration) -> Duration {
        let started = Instant::now();
        if self.stdout.wait_for(text.as_bytes(), limit) {
            return started.elapsed();
        }
        panic!("{text:?} did not come within {limit:?} from {}\n{}", self.shown, self.so_far());
    }

    /// The same for standard error.
    ///
    /// # Panics
    /// When it does not within `limit`.
    #[track_caller]
    pub fn expect_error(&self, text: &str, limit: Duration) {
        if !self.stderr.wait_for(text.as_bytes(), limit) {
            panic!("{text:?} was not said within {limit:?} by {}\n{}", self.shown, self.so_far());
        }
    }

    /// Waits for the process alone, whoever may still hold its output. `None` after `limit`.
    pub fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        if let Some(status) = self.child.try_wait().expect("testbed: wait for a child") {
            return Some(status);
        }
        wait_readable(self.pid(), limit);
        self.child.try_wait().expect("testbed: wait for a child")
    }

    /// Waits for its end and the end of its output.
    ///
    /// # Panics
    /// When that takes longer than `limit` after the start; the process is killed then.
    #[track_caller]
    pub fn wait(self, limit: Duration) -> Outcome {
        self.finish(limit).unwrap_or_else(|what| panic!("{what}"))
    }

    /// The same without a panic: what was seen until `limit`, as text.
    pub fn finish(mut self, limit: Duration) -> Result<Outcome, String> {
        let deadline = self.started + limit;
        let Some(status) = self.ended(deadline.saturating_duration_since(Instant::now())) else {
            return Err(format!("no end within {limit:?}: {}\n{}", self.shown, self.so_far()));
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if !(self.stdout.wait_end(left) && self.stderr.wait_end(left)) {
            let held = "but its output is held open";
            return Err(format!("{status}, {held} after {limit:?}: {}\n{}", self.shown, self.so_far()));
        }
        let took = self.started.elapsed();
        Ok(Outcome { status, stdout: self.stdout.bytes(), stderr: self.stderr.bytes(), took })
    }

    fn so_far(&self) -> String {
        format!(
            "--- stdout so far: {}\n--- stderr so far: {}",
            String::from_utf8_lossy(&self.stdout.bytes()).escape_debug(),
            String::from_utf8_lossy(&self.stderr.bytes()).escape_debug()
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Errors mean that it has ended just now.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal (Linux number) to a process that may have ended.
///
/// # Panics
/// When there is no such signal.
pub fn send_signal(pid: u32, signal: i32) {
    let (Some(pid), Some(signal)) = (Pid::from_raw(pid.cast_signed()), Signal::from_named_raw(signal)) else {
        panic!("testbed: no process {pid} or no signal {signal}");
    };
    let _ = rustix::process::kill_process(pid, signal);
}

/// Waits until the process has ended, at most `limit`.
fn wait_readable(pid: u32, limit: Duration) {
    let Some(raw) = Pid::from_raw(pid.cast_signed()) else { return };
    let Ok(pidfd) = rustix::process::pidfd_open(raw, PidfdFlags::empty()) else { return };
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            rustix::event::Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// Bytes that a thread reads from a pipe until its end.
#[derive(Clone)]
struct Collected(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    bytes: Vec<u8>,
    ended: bool,
}

impl Collected {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let state = Mutex::new(State { bytes: Vec::new(), ended: pipe.is_none() });
        let collected = Self(Arc::new(Shared { state, changed: Condvar::new() }));
        if let Some(mut pipe) = pipe {
            let into = collected.clone();
            thread::spawn(move || {
                let mut block = vec![0; 256 << 10];
                loop {
                    let got = pipe.read(&mut block).unwrap_or(0);
                    let mut state = into.lock();
                    state.bytes.extend_from_slice(&block[..got]);
                    state.ended = got == 0;
                    into.0.changed.notify_all();
                    if got == 0 {
                        return;
                    }
                }
            });
        }
        collected
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    fn wait_for(&self, text: &[u8], limit: Duration) -> bool {
        self.wait(limit, |state| state.bytes.windows(text.len()).any(|w| w == text))
    }

    fn wait_end(&self, limit: Duration) -> bool {
        self.wait(limit, |state| state.ended)
    }

    fn wait(&self, limit: Duration, done: impl Fn(&State) -> bool) -> bool {
        let waited = self.0.changed.wait_timeout_while(self.lock(), limit, |state| !done(state));
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        done(&state)
    }
}
