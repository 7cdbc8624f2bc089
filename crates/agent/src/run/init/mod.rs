//! The init process: forked from the agent while that has one thread, so that it may fork in turn at any time. It enters
//! the namespaces and forks pid 1 of the new pid namespace ([`first`]), which does all the rest; then it only watches.
//!
//! Whoever of agent, init and pid 1 dies first, the others follow: each asks for SIGKILL when its parent dies, pid 1 also
//! ends when the agent's socket does, and with pid 1 the kernel kills everything in the namespace.

mod blocked;
mod command;
mod descriptor;
mod first;
mod namespace;
mod program;
mod root;
mod shared;
mod shifted;
mod subordinate;
mod waiting;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use remotely_proto::exec::Step;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, getegid, geteuid, getpid, getppid, set_parent_process_death_signal};

use crate::run::channel::{self, Incoming, Outgoing};
use crate::run::order::{Failure, News, Order, Root};
use crate::sys::{self, Fork, Waited};

/// Init, as the agent has it.
#[derive(Debug)]
pub(crate) struct Init {
    /// Its process.
    pub(crate) pid: Pid,
    /// Carries [`Order`]s there and [`News`] back. When one end closes, the other side ends.
    pub(crate) socket: OwnedFd,
}

/// How long the agent may live on after the other side closed its pipe: it ends by itself in less, unless it cannot.
const OUTLIVES_PIPE: Duration = Duration::from_secs(15);

/// Forks init. To be called before any other thread exists, by the thread that lives as long as the agent. `pipe`: where the
/// link comes in.
pub(crate) fn start(pipe: BorrowedFd<'_>) -> io::Result<Init> {
    let (ours, theirs) = channel::pair()?;
    let pipe = rustix::io::fcntl_dupfd_cloexec(pipe, 3)?;
    let agent = getpid();
    match sys::fork()? {
        Fork::Parent(pid) => Ok(Init { pid, socket: ours }),
        Fork::Child => {
            // The way out of the link among them: it must end with the agent.
            sys::close_inherited(&[theirs.as_fd(), pipe.as_fd()]);
            std::mem::forget(ours);
            run(theirs, pipe, agent)
        }
    }
}

fn run(socket: OwnedFd, pipe: OwnedFd, agent: Pid) -> ! {
    follow(agent);
    sys::set_blocked(u64::MAX);
    let mut incoming = Incoming::default();
    let setup = match incoming.wait(&socket) {
        Ok(Some((Order::Setup(setup), _))) => setup,
        _ => sys::exit_now(0),
    };
    let mut identity = setup.identity.clone();
    if setup.root == Root::Host {
        // A shell of the host's own user.
        (identity.uid, identity.gid) = (geteuid().as_raw(), getegid().as_raw());
    }
    let entered = namespace::enter(&identity).unwrap_or_else(|failure| fail(&socket, failure));
    // Taken away by a change of credentials, which entering a user namespace may be.
    follow(agent);
    let lifeline = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (lifeline, held) = lifeline.unwrap_or_else(|error| fail(&socket, Failure::new(Step::Setup, error, "pipe(2)")));
    match sys::fork() {
        Ok(Fork::Child) => {
            drop((held, pipe));
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            first::run(first::Start { socket, incoming, lifeline, setup, identity, entered })
        }
        Ok(Fork::Parent(first)) => {
            drop((socket, lifeline));
            // Pid 1 is told what the host calls it.
            let _ = rustix::io::write(&held, &first.as_raw_nonzero().get().to_ne_bytes());
            watch(agent, &pipe)
        }
        Err(error) => fail(&socket, Failure::new(Step::Setup, error, "fork pid 1 of the namespace")),
    }
}

/// Waits for the end of pid 1. An agent that lives on without its pipe, because it is stopped or stuck, is killed.
fn watch(agent: Pid, pipe: &OwnedFd) -> ! {
    let Ok(signals) = sys::signal_fd(&[libc::SIGCHLD]) else { sys::exit_now(1) };
    let mut closed: Option<Instant> = None;
    while let Ok(None) = sys::wait_any().map(|waited| waited.filter(Waited::ended)) {
        let left = closed.map(|since| OUTLIVES_PIPE.saturating_sub(since.elapsed()));
        if left == Some(Duration::ZERO) {
            // It is still the parent, or this process would be dead.
            let _ = rustix::process::kill_process(agent, Signal::KILL);
            sys::exit_now(1);
        }
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = vec![PollFd::new(&signals, PollFlags::IN)];
        if closed.is_none() {
            fds.push(PollFd::new(pipe, PollFlags::RDHUP));
        }
        let _ = poll(&mut fds, timeout.as_ref());
        if fds.get(1).is_some_and(|pipe| !pipe.revents().is_empty()) {
            closed = Some(Instant::now());
        }
        let _ = rustix::io::read(&signals, &mut [0; 128]);
    }
    sys::exit_now(0)
}

/// Dies when the parent does, which may have happened already.
fn follow(parent: Pid) {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    if getppid() != Some(parent) {
        sys::exit_now(0);
    }
}

fn fail(socket: &OwnedFd, failure: Failure) -> ! {
    let _ = Outgoing::new(&News::Failed(failure), &[]).and_then(|news| news.send(socket));
    sys::exit_now(0)
}
