//! A process that puts the terminal back if this one is killed while the echo is off. Started for the time of a question by
//! [`super::terminal`]; it does nothing while this process lives, and nothing that needs memory.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{OptionalActions, Termios};

/// Where its two descriptors are.
const TTY: i32 = 0;
const ALIVE: i32 = 1;
/// Descriptors are closed one by one up to this where the kernel does not know close_range(2), before 5.9.
const CLOSED: i32 = 4096;

/// The process. It ends when this is dropped.
pub(super) struct Mender {
    pid: libc::pid_t,
    /// Who reads the other end learns how we ended: with a byte, or without.
    alive: OwnedFd,
}

impl Mender {
    /// Starts it: it will make `before` of `quiet`, and of nothing else, so that whoever has the terminal by then keeps what he has
    /// made of it.
    pub(super) fn start(tty: &OwnedFd, quiet: &Termios, before: &Termios) -> io::Result<Self> {
        let (dies, alive) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut all = MaybeUninit::uninit();
        let mut ours = MaybeUninit::uninit();
        // SAFETY: sigfillset(3) initialises the set; pthread_sigmask(3) reads it, and initialises the other.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            // A handler of ours would run in the child, too, on what it shares with us.
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ours.as_mut_ptr());
        }
        // SAFETY: the child only makes system calls, and never returns.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            watch(tty, &dies, quiet, before);
        }
        let error = io::Error::last_os_error();
        // SAFETY: the set was initialised above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ours.as_ptr(), std::ptr::null_mut()) };
        if pid < 0 { Err(error) } else { Ok(Self { pid, alive }) }
    }
}

impl Drop for Mender {
    fn drop(&mut self) {
        // If it is gone, nobody is left to be told.
        let _ = rustix::io::write(&self.alive, b".");
        let mut status = 0;
        // SAFETY: waitpid(2) writes to the number that it is given.
        while unsafe { libc::waitpid(self.pid, &mut status, 0) } < 0
            && Errno::from_io_error(&io::Error::last_os_error()) == Some(Errno::INTR)
        {}
    }
}

/// The child. All signals but KILL are blocked, SIGTTOU among them, which would stop who changes a terminal from the background.
fn watch(tty: &OwnedFd, dies: &OwnedFd, quiet: &Termios, before: &Termios) -> ! {
    // SAFETY: system calls on numbers; what held the descriptors that are closed is not used any more, and is never dropped.
    let (tty, dies) = unsafe {
        // Out of the reach of whoever ends the process group or hangs up the session.
        libc::setsid();
        // Out of each other's way first: either may be at the other's place.
        let (high_tty, high_dies) = (
            libc::fcntl(tty.as_raw_fd(), libc::F_DUPFD, ALIVE + 1),
            libc::fcntl(dies.as_raw_fd(), libc::F_DUPFD, ALIVE + 1),
        );
        if libc::dup2(high_tty, TTY) < 0 || libc::dup2(high_dies, ALIVE) < 0 {
            libc::_exit(1);
        }
        // A pipe of ours that it held would have no end.
        if libc::syscall(libc::SYS_close_range, ALIVE + 1, u32::MAX, 0) < 0 {
            for fd in ALIVE + 1..CLOSED {
                libc::close(fd);
            }
        }
        (BorrowedFd::borrow_raw(TTY), BorrowedFd::borrow_raw(ALIVE))
    };
    let read = rustix::io::retry_on_intr(|| rustix::io::read(dies.as_fd(), &mut [0; 1]));
    if read == Ok(0) && rustix::termios::tcgetattr(tty).is_ok_and(|now| is_same(&now, quiet)) {
        let _ = rustix::termios::tcsetattr(tty, OptionalActions::Now, before);
    }
    // SAFETY: it does not return, and needs nothing.
    unsafe { libc::_exit(0) }
}

/// As far as shells and editors of lines differ from it.
fn is_same(now: &Termios, quiet: &Termios) -> bool {
    (now.local_modes, now.input_modes, now.output_modes) == (quiet.local_modes, quiet.input_modes, quiet.output_modes)
}
