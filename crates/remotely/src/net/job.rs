//! The command as a job of the user's shell: its terminal, its signals, its stops, its end.

use std::ffi::OsString;
use std::io;

use remotely_net::namespace::{Event, Namespace};
use remotely_session::Link;
use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process};
use rustix::termios::{isatty, tcgetpgrp, tcsetpgrp};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::{NetError, not_executed};
use crate::run::{block_terminal_output, die};

/// What is passed on to the command.
const PASSED_ON: [i32; 6] = [libc::SIGHUP, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGALRM, libc::SIGPWR];
/// What a terminal sends to a whole process group, the command's too if that is the same.
const KEYS: [i32; 3] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP];

/// Whether the command can have a process group of its own, and the terminal: this one has it, and shares it with no pipeline. What is
/// typed then reaches nothing of ours.
pub(super) fn is_alone() -> bool {
    let terminals = [isatty(rustix::stdio::stdin()), isatty(rustix::stdio::stdout()), isatty(rustix::stdio::stderr())];
    terminals == [true; 3] && in_foreground()
}

fn in_foreground() -> bool {
    tcgetpgrp(rustix::stdio::stdin()).is_ok_and(|group| group == getpgrp())
}

/// The signals that this process was started to ignore.
pub(super) fn ignored() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // That is Rust's own doing.
    ignored & !(1 << (libc::SIGPIPE - 1))
}

/// The wait status becomes this process's own.
pub(super) fn leave(status: i32) -> std::process::ExitCode {
    take_terminal();
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        die(signal, false);
        return std::process::ExitCode::from(128_u8.saturating_add(signal as u8));
    }
    std::process::ExitCode::from(libc::WEXITSTATUS(status) as u8)
}

/// Gets the terminal back from a command that had it.
fn take_terminal() {
    if isatty(rustix::stdio::stdin()) && !in_foreground() && was_ours() {
        let _ = tcsetpgrp(rustix::stdio::stdin(), getpgrp());
    }
}

/// Whether the process group that has the terminal is nobody's any more: that of a command that has ended.
fn was_ours() -> bool {
    match tcgetpgrp(rustix::stdio::stdin()) {
        Ok(group) => rustix::process::test_kill_process_group(group).is_err(),
        Err(_) => false,
    }
}

pub(super) struct Job {
    foreground: bool,
    signals: mpsc::UnboundedReceiver<i32>,
}

impl Job {
    /// Catches signals from here on. Must be called inside a runtime.
    pub(super) fn new(foreground: bool) -> io::Result<Self> {
        block_terminal_output();
        let (caught, signals) = mpsc::unbounded_channel();
        let ignored = ignored();
        let wanted = PASSED_ON.into_iter().chain(KEYS).chain([libc::SIGCONT]);
        for number in wanted.filter(|number| ignored >> (number - 1) & 1 == 0) {
            let mut coming = signal(SignalKind::from_raw(number))?;
            let caught = caught.clone();
            tokio::spawn(async move {
                while coming.recv().await.is_some() {
                    if caught.send(number).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { foreground, signals })
    }

    /// Waits for a signal that ends this process while there is no command to have it; the wait status as if it had had it.
    pub(super) async fn interrupted(&mut self) -> i32 {
        loop {
            match self.signals.recv().await {
                Some(libc::SIGCONT) | None => std::future::pending().await,
                Some(libc::SIGTSTP) => stop(),
                Some(signal) => return signal,
            }
        }
    }

    /// Follows the command to its end.
    pub(super) async fn run(
        mut self,
        namespace: &mut Namespace,
        there: &watch::Sender<Option<Link>>,
        command: &[OsString],
    ) -> Result<i32, NetError> {
        loop {
            tokio::select! {
                event = namespace.event() => match event {
                    Event::Ended(status) => return Ok(status),
                    Event::Failed(errno) => return Err(not_executed(command, errno)),
                    Event::Gone => return Err(NetError::Gone),
                    // In one group with this process, this one has had the same signal.
                    Event::Stopped(signal) if !self.foreground && signal != libc::SIGSTOP => {}
                    Event::Stopped(_) => self.pause(there).await,
                },
                Some(signal) = self.signals.recv() => match signal {
                    // Whether in the foreground shows now: a shell gives the terminal before it sends this.
                    libc::SIGCONT => drop(namespace.resume(self.foreground && in_foreground())),
                    libc::SIGTSTP if !self.foreground => self.pause(there).await,
                    libc::SIGINT | libc::SIGQUIT if !self.foreground => {}
                    signal => drop(namespace.signal(signal)),
                },
            }
        }
    }

    /// Stops as the command has. The other side is told, so that it does not take this for the end.
    async fn pause(&mut self, there: &watch::Sender<Option<Link>>) {
        let link = there.borrow().clone();
        let held = match &link {
            Some(link) => Some(link.hold().await),
            None => None,
        };
        if self.foreground {
            let _ = tcsetpgrp(rustix::stdio::stdin(), getpgrp());
        }
        stop();
        drop(held);
    }
}

fn stop() {
    let own: Pid = getpid();
    let _ = kill_process(own, Signal::STOP);
}
