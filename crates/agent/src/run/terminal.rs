//! The pty that stands for the client's terminal. Made by the agent from the host's own devpts, so that its name exists in
//! the root of the command; the command's end is passed to it through init.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use remotely_proto::exec::{Modes, Step, Tty, Winsize};
use rustix::fs::Uid;
use rustix::pty::OpenptFlags;

use crate::run::order::Failure;
use crate::sys::{self, KernelTermios};

/// Both ends.
pub(crate) struct Pty {
    /// The agent's: what the command writes is read here.
    pub(crate) master: OwnedFd,
    /// The command's. A copy stays open here while it runs, so that it may close its own and open it again.
    pub(crate) slave: OwnedFd,
}

/// Makes one with the size and modes of the client's terminal. `owner`: who the command is, if not the agent's user.
pub(crate) fn open(tty: &Tty, owner: Option<u32>) -> Result<Pty, Failure> {
    make(tty, owner)
        .map_err(|error| Failure::new(Step::Descriptor, error, "open a pseudoterminal on the host (/dev/ptmx)"))
}

fn make(tty: &Tty, owner: Option<u32>) -> io::Result<Pty> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    resize(master.as_fd(), tty.size)?;
    if let Some(modes) = &tty.modes {
        set_modes(slave.as_fd(), modes)?;
    }
    if let Some(owner) = owner.filter(|owner| *owner != u32::MAX) {
        rustix::fs::fchown(&slave, Some(Uid::from_raw(owner)), None)?;
    }
    Ok(Pty { master, slave })
}

/// Sets the size; the kernel sends SIGWINCH to the foreground group if it is another one.
pub(crate) fn resize(master: BorrowedFd<'_>, size: Winsize) -> io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: size.xpixel,
        ws_ypixel: size.ypixel,
    };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}

fn set_modes(slave: BorrowedFd<'_>, modes: &Modes) -> io::Result<()> {
    let mut special = [0; 19];
    for (to, from) in special.iter_mut().zip(modes.special.iter()) {
        *to = *from;
    }
    let &Modes { input, output, control, local, .. } = modes;
    sys::set_termios(slave, &KernelTermios { input, output, control, local, line: 0, special })
}

/// Continues the group in the foreground, which need not be that of the command.
pub(crate) fn continue_foreground(master: BorrowedFd<'_>) {
    if let Ok(group) = rustix::termios::tcgetpgrp(master) {
        let _ = sys::kill(group, true, libc::SIGCONT as u32);
    }
}
