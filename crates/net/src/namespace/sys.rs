//! The calls to the kernel for which there is no safe function elsewhere, each behind a safe one. Used by processes that have one
//! thread; nothing here decides anything.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Highest signal number of Linux.
const SIGNAL_MAX: u32 = 64;

/// Which side of a fork(2) this is.
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The old one, with the id of the new one.
    Parent(Pid),
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// fork(2), in a process with one thread.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: the child is a copy with this thread only, and the C library makes its allocator usable there.
    let pid = check(unsafe { libc::fork() })?;
    Ok(Pid::from_raw(pid).map_or(Fork::Child, Fork::Parent))
}

/// _exit(2): ends the process at once, without destructors or exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: it does not return, and needs nothing.
    unsafe { libc::_exit(code) }
}

/// unshare(2) in a process with one thread.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: descriptors stay shared with nobody else: the process has one thread and `flags` never holds FILES.
    unsafe { rustix::thread::unshare_unsafe(flags - UnshareFlags::FILES) }.map_err(io::Error::from)
}

/// A child that stopped or ended: which, and its wait status; `None` if there is none for now. ECHILD without children.
pub(crate) fn wait_any() -> io::Result<Option<(Pid, i32)>> {
    wait(-1, libc::WNOHANG | libc::WUNTRACED)
}

/// Waits until this child ends; its wait status.
pub(crate) fn wait_end(pid: Pid) -> io::Result<i32> {
    loop {
        match wait(pid.as_raw_nonzero().get(), 0) {
            Ok(Some((_, status))) => return Ok(status),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(None) | Err(_) => {}
        }
    }
}

fn wait(pid: libc::pid_t, options: libc::c_int) -> io::Result<Option<(Pid, i32)>> {
    let mut status = 0;
    // SAFETY: the pointer is valid for the call.
    let pid = check(unsafe { libc::waitpid(pid, &mut status, options) })?;
    Ok(Pid::from_raw(pid).map(|pid| (pid, status)))
}

/// Every signal is ignored if in `ignored` (bit n-1 is signal n), else as by default; none is blocked.
pub(crate) fn set_dispositions(ignored: u64) {
    for signal in 1..=SIGNAL_MAX {
        let handler = if ignored >> (signal - 1) & 1 == 1 { libc::SIG_IGN } else { libc::SIG_DFL };
        // The kernel's own call: the C library's would not touch the two signals it keeps for itself. Handler, flags, restorer, mask.
        let action = [handler, 0, 0, 0];
        // SAFETY: the pointer is valid, and neither value is a function. KILL and STOP are refused, which changes nothing.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), std::ptr::null_mut::<usize>(), 8_usize)
        };
    }
    set_blocked(0);
}

/// Blocks exactly these signals (bit n-1 is signal n).
pub(crate) fn set_blocked(signals: u64) {
    // SAFETY: the pointer is valid, and the kernel's set is of 8 bytes.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &signals, std::ptr::null_mut::<u64>(), 8_usize)
    };
}

/// The bit of a signal.
pub(crate) fn bit(signal: libc::c_int) -> u64 {
    1 << (signal - 1)
}

/// A descriptor that reads this signal, which must be blocked (signalfd(2)). Close-on-exec.
pub(crate) fn signal_fd(signal: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain data, filled in before its use; the pointers are valid for each call.
    let fd = check(unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    })?;
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// kill(2); a negative id is that of a process group.
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: it takes numbers, which the kernel checks.
    unsafe { libc::kill(pid, signal) };
}

/// Sets an option that is a number.
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer is valid for the call, with its length.
    check(unsafe {
        let length = size_of::<i32>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length)
    })
    .map(drop)
}

/// execvp(3). Returns only on failure.
pub(crate) fn execute(argv: &[CString]) -> io::Error {
    let mut pointers: Vec<*const libc::c_char> = argv.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    if argv.is_empty() {
        return io::ErrorKind::InvalidInput.into();
    }
    // SAFETY: an array that ends in a null, of pointers to strings that live until then.
    unsafe { libc::execvp(pointers[0], pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// setns(2) into the namespaces of these kinds of a process (a pidfd), or into one that is open.
pub(crate) fn enter(what: BorrowedFd<'_>, kinds: rustix::thread::ThreadNameSpaceType) -> io::Result<()> {
    // SAFETY: it takes numbers, which the kernel checks.
    check(unsafe { libc::setns(what.as_raw_fd(), kinds.bits().cast_signed()) }).map(drop)
}
