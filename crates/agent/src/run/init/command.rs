//! Becoming a command: everything between fork and execve. Called by [`super::first`]; what goes wrong is told to it
//! over a socket that the exec closes.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use minicbor::{Decode, Encode};
use remotely_proto::exec::{Identity, Inherited, Step};
use rustix::io::Errno;
use rustix::process::{Pid, getpid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::descriptor::{self, From};
use super::namespace::{c_string, mapped};
use super::program;
use crate::run::channel::{self, Outgoing};
use crate::run::order::{Failure, Run, show};
use crate::sys::{self, Fork};

/// What the new process says before it executes, if it has something to say.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Word {
    /// Here are copies of its files, with their numbers, to read their positions at the end.
    #[n(0)]
    Files(#[n(0)] Vec<u32>),
    /// It cannot go on.
    #[n(1)]
    Failed(#[n(0)] Failure),
}

/// How the command has its terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// It has none.
    None,
    /// It is that of the session of pid 1: the command is its foreground group.
    OfSession,
    /// It is for the command to take, with a session of its own.
    OfCommand,
}

/// A process that is becoming a command.
pub(crate) struct Begun {
    /// It.
    pub(crate) pid: Pid,
    /// Carries [`Word`]s, then ends when it has executed, or has ended.
    pub(crate) words: OwnedFd,
}

/// Forks it.
pub(crate) fn begin(run: Run, passed: Vec<OwnedFd>, terminal: Terminal, groups: bool) -> io::Result<Begun> {
    let (ours, theirs) = channel::pair()?;
    match sys::fork()? {
        Fork::Parent(pid) => {
            // Both sides do it: neither knows who is first. A leader of a group could not make a session.
            if terminal != Terminal::OfCommand {
                let _ = rustix::process::setpgid(Some(pid), Some(pid));
            }
            Ok(Begun { pid, words: ours })
        }
        Fork::Child => {
            drop(ours);
            become_command(run, passed, terminal, groups, theirs)
        }
    }
}

fn become_command(run: Run, passed: Vec<OwnedFd>, terminal: Terminal, groups: bool, words: OwnedFd) -> ! {
    let tell = |words: &OwnedFd, failure| -> ! {
        let _ = Outgoing::new(&Word::Failed(failure), &[]).and_then(|word| word.send(words));
        sys::exit_now(125)
    };
    let prepared = (|| {
        let strings = |list: &[remotely_proto::ByteVec], what| -> Result<Vec<CString>, Failure> {
            list.iter().map(|bytes| c_string(bytes, Step::Exec, what)).collect()
        };
        let argv = strings(&run.argv, "an argument")?;
        let env = strings(&run.env, "a variable of the environment")?;
        join_session(terminal, run.tty.and_then(|index| passed.get(index as usize)).map(AsFd::as_fd))?;
        let opened = descriptor::open(&run.fds, passed, &run.prefix)?;
        hand_over_files(&words, &opened);
        Ok((argv, env, opened))
    })();
    let (argv, env, opened) = prepared.unwrap_or_else(|failure| tell(&words, failure));
    let nofile = libc::RLIMIT_NOFILE;
    let allowed = sys::limit(nofile);
    let words = match descriptor::place(opened, words) {
        Ok(words) => words,
        Err((failure, words)) => tell(&words, failure),
    };
    if let Ok((soft, hard)) = allowed {
        let _ = sys::set_limit(nofile, soft, hard);
    }
    if let Err(failure) = inherit(&run.inherited, run.identity.as_ref(), groups).and_then(|()| change_directory(&run)) {
        tell(&words, failure);
    }
    sys::set_dispositions(run.inherited.ignored);
    sys::set_blocked(run.inherited.blocked);
    let error = program::execute(&argv, &env);
    let what = argv.first().map_or_else(String::new, |word| show(word.as_bytes()));
    // Whoever kills it now gets what is asked; the word has been said by then or is not needed.
    tell(&words, Failure::new(Step::Exec, error, what))
}

fn join_session(terminal: Terminal, tty: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    let failed = |error: Errno, what: &str| Failure::new(Step::Descriptor, error, what);
    match (terminal, tty) {
        (Terminal::OfCommand, Some(tty)) => {
            rustix::process::setsid().map_err(|error| failed(error, "a session of its own"))?;
            rustix::process::ioctl_tiocsctty(tty).map_err(|error| failed(error, "take the terminal"))
        }
        (Terminal::OfSession, Some(tty)) => {
            let _ = rustix::process::setpgid(None, None);
            // All signals are blocked, SIGTTOU too, which a background process gets for this.
            rustix::termios::tcsetpgrp(tty, getpid())
                .map_err(|error| failed(error, "be in the foreground of the terminal"))
        }
        _ => {
            let _ = rustix::process::setpgid(None, None);
            Ok(())
        }
    }
}

fn hand_over_files(words: &OwnedFd, opened: &[descriptor::Opened]) {
    let (numbers, files): (Vec<u32>, Vec<BorrowedFd<'_>>) = opened
        .iter()
        .filter_map(|opened| match &opened.from {
            From::File(file) => Some((opened.fd, file.as_fd())),
            _ => None,
        })
        .unzip();
    if !files.is_empty() {
        let _ = Outgoing::new(&Word::Files(numbers), &files).and_then(|word| word.send(words));
    }
}

/// Takes over niceness, limits and the like, and the identity. Niceness comes first, by the limit that is in force here;
/// the identity last: with root's rights some more is had.
fn inherit(inherited: &Inherited, identity: Option<&Identity>, groups: bool) -> Result<(), Failure> {
    let _ = rustix::process::setpriority_process(None, i32::from(inherited.nice));
    for limit in &inherited.rlimits {
        // What cannot be had is had as far as it can.
        if sys::set_limit(limit.resource, limit.soft, limit.hard).is_err()
            && let Ok((_, allowed)) = sys::limit(limit.resource)
        {
            let hard = limit.hard.min(allowed);
            let _ = sys::set_limit(limit.resource, limit.soft.min(hard), hard);
        }
    }
    let _ = fs::write("/proc/self/oom_score_adj", inherited.oom_score_adj.to_string());
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(inherited.umask & 0o777));
    match identity {
        Some(identity) => take_identity(identity, groups),
        None => Ok(()),
    }
}

fn take_identity(identity: &Identity, groups: bool) -> Result<(), Failure> {
    use rustix::fs::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let failed = |error: Errno, what: String| Failure::new(Step::Privilege, error, what);
    if [identity.uid, identity.gid].contains(&u32::MAX) {
        return Err(failed(Errno::INVAL, format!("become user {} and group {}", identity.uid, identity.gid)));
    }
    // One thread, so that of the process.
    if groups {
        let known = |group: &&u32| **group != u32::MAX && mapped("/proc/self/gid_map", **group);
        let list: Vec<Gid> = identity.groups.iter().filter(known).map(|group| Gid::from_raw(*group)).collect();
        set_thread_groups(&list).map_err(|error| failed(error, format!("take the groups {:?}", identity.groups)))?;
    }
    let gid = Gid::from_raw(identity.gid);
    set_thread_res_gid(gid, gid, gid).map_err(|error| failed(error, format!("become group {}", identity.gid)))?;
    let uid = Uid::from_raw(identity.uid);
    set_thread_res_uid(uid, uid, uid).map_err(|error| failed(error, format!("become user {}", identity.uid)))?;
    if identity.uid != 0 {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).map_err(|error| failed(error, "give up capabilities".into()))?;
    }
    Ok(())
}

fn change_directory(run: &Run) -> Result<(), Failure> {
    let cwd = if run.cwd.is_empty() { b"/" } else { run.cwd.as_slice() };
    rustix::process::chdir(cwd).map_err(|error| Failure::new(Step::Cwd, error, show(cwd)))
}
