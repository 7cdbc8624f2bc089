//! The init process: forked from the agent while that has one thread, so that it may fork in turn at any time. It enters
//! the namespaces and forks pid 1 of the new pid namespace ([`first`]), which does all the rest; then it only waits.
//!
//! Whoever of agent, init and pid 1 dies first, the others follow: each asks for SIGKILL when its parent dies, pid 1 also
//! ends when the agent's socket does, and with pid 1 the kernel kills everything in the namespace.

mod command;
mod descriptor;
mod first;
mod namespace;
mod program;
mod root;
mod shared;
mod subordinate;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use remotely_proto::exec::Step;
use rustix::process::{Pid, Signal, getegid, geteuid, getpid, getppid, set_parent_process_death_signal};

use crate::channel::{self, Incoming, Outgoing};
use crate::order::{Failure, News, Order, Root};
use crate::sys::{self, Fork};

/// Init, as the agent has it.
#[derive(Debug)]
pub(crate) struct Init {
    /// Its process.
    pub(crate) pid: Pid,
    /// Carries [`Order`]s there and [`News`] back. When one end closes, the other side ends.
    pub(crate) socket: OwnedFd,
}

/// Forks init. To be called before any other thread exists, by the thread that lives as long as the agent.
pub(crate) fn start() -> io::Result<Init> {
    let (ours, theirs) = channel::pair()?;
    let agent = getpid();
    match sys::fork()? {
        Fork::Parent(pid) => Ok(Init { pid, socket: ours }),
        Fork::Child => {
            // The pipes of the link among them: they must end with the agent.
            sys::close_inherited(&[theirs.as_fd()]);
            std::mem::forget(ours);
            run(theirs, agent)
        }
    }
}

fn run(socket: OwnedFd, agent: Pid) -> ! {
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
            drop(held);
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            first::run(first::Start { socket, incoming, lifeline, setup, identity, entered })
        }
        Ok(Fork::Parent(first)) => {
            drop((socket, lifeline));
            // Pid 1 is told what the host calls it.
            let _ = rustix::io::write(&held, &first.as_raw_nonzero().get().to_ne_bytes());
            let _ = sys::wait_end(first);
            sys::exit_now(0)
        }
        Err(error) => fail(&socket, Failure::new(Step::Setup, error, "fork pid 1 of the namespace")),
    }
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
