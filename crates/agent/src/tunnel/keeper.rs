//! The keeper: the process that the transport has started. It forks the agent and stays its parent, so that whatever the
//! agent's functions have started, and whoever has left his parent, comes to it when the agent is gone; and ends it.
//!
//! It has one thread, touches no file, and reads nothing that comes from another machine.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use rustix::io::{fcntl_dupfd_cloexec, read};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, set_child_subreaper, set_parent_process_death_signal,
};

use crate::sys::{self, Fork, Waited};

/// A process with this in its environment, and `1` as value, outlives the link, and so does what it starts.
const KEEP: &[u8] = b"REMOTELY_KEEP=1";
/// How long it may take until everything is gone.
const END_WITHIN: Duration = Duration::from_secs(3);

/// The agent, once it exists.
static AGENT: AtomicI32 = AtomicI32::new(0);

/// The other ends of the agent's standard output and standard error.
pub(super) struct Printed {
    pub(super) output: OwnedFd,
    pub(super) errors: OwnedFd,
}

/// Forks the agent. Returns in the agent; the process that was there before keeps it, and ends when it does.
pub(super) fn fork() -> io::Result<Printed> {
    // Non-blocking for who reads; the functions that write share nothing with that.
    let (output, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (errors, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    for reader in [&output, &errors] {
        rustix::io::ioctl_fionbio(reader, true)?;
    }
    let last_words = fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)?;
    set_child_subreaper(Some(getpid()))?;
    sys::handle(libc::SIGTERM, Some(pass_on));
    let keeper = getpid();
    match sys::fork()? {
        Fork::Parent(agent) => {
            AGENT.store(agent.as_raw_nonzero().get(), Ordering::Relaxed);
            // The link ends with the agent, and so does what it may print.
            let kept = [output.as_fd(), errors.as_fd(), last_words.as_fd()];
            sys::close_inherited(&kept);
            keep(agent, &[output, errors], &last_words)
        }
        Fork::Child => {
            set_parent_process_death_signal(Some(Signal::TERM))?;
            if getppid() != Some(keeper) {
                sys::exit_now(1);
            }
            // No terminal: Ctrl-C there is not meant for what runs here.
            let _ = rustix::process::setsid();
            for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGTSTP] {
                // Taken notice of, not ignored: what the functions start would inherit that.
                sys::handle(signal, Some(pass_over));
            }
            sys::handle(libc::SIGTERM, None);
            rustix::stdio::dup2_stdout(stdout)?;
            rustix::stdio::dup2_stderr(stderr)?;
            Ok(Printed { output, errors })
        }
    }
}

extern "C" fn pass_on(signal: libc::c_int) {
    if let Some(agent) = Pid::from_raw(AGENT.load(Ordering::Relaxed)) {
        let _ = sys::kill(agent, false, signal as u32);
    }
}

extern "C" fn pass_over(_: libc::c_int) {}

fn keep(agent: Pid, printed: &[OwnedFd], last_words: &OwnedFd) -> ! {
    let status = loop {
        match sys::wait_child() {
            Ok(Waited { pid, status, .. }) if pid == agent => break status,
            // A stray that has ended by itself.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => sys::exit_now(1),
        }
    };
    // What it could not send any more: why it died, perhaps.
    let mut buffer = [0; 4096];
    for reader in printed {
        while let Ok(1..) = read(reader, &mut buffer).inspect(|&n| {
            let _ = rustix::io::write(last_words, &buffer[..n]);
        }) {}
    }
    if libc::WIFSIGNALED(status) {
        let words = format!("remotely agent: killed by signal {}\n", libc::WTERMSIG(status));
        let _ = rustix::io::write(last_words, words.as_bytes());
    }
    end_strays();
    sys::exit_now(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) })
}

/// Kills what has come to this process, and what comes when that is dead, but for what is to be kept.
fn end_strays() {
    let began = Instant::now();
    while began.elapsed() < END_WITHIN {
        while let Ok(Some(_)) = sys::wait_any() {}
        let strays: Vec<Pid> = children().into_iter().filter(|pid| !is_kept(*pid)).collect();
        if strays.is_empty() {
            return;
        }
        for stray in strays {
            let _ = kill_process(stray, Signal::KILL);
        }
        // The next look finds those who have come meanwhile.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The processes whose parent this is; none where there is no /proc. Kernels without CONFIG_PROC_CHILDREN know only of each process
/// whose child it is.
fn children() -> Vec<Pid> {
    if let Ok(list) = fs::read_to_string("/proc/thread-self/children") {
        return list.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect();
    }
    let own = getpid().as_raw_nonzero().get();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent(*pid) == Some(own)).filter_map(Pid::from_raw).collect()
}

/// The fourth field of /proc/PID/stat, behind a name that may hold anything; that of a zombie, too, who is only to be waited for.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let behind = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = String::from_utf8_lossy(&stat[behind + 1..]).into_owned();
    let mut fields = fields.split_ascii_whitespace();
    let (state, parent) = (fields.next()?, fields.next()?);
    if state == "Z" { None } else { parent.parse().ok() }
}

fn is_kept(pid: Pid) -> bool {
    let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == KEEP)
}
