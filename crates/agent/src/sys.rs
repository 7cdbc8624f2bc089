//! The calls to the kernel for which there is no safe function elsewhere, each behind a safe one. Used by all of this
//! crate; nothing here decides anything.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;
use rustix::thread::UnshareFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Highest signal number of Linux.
pub(crate) const SIGNAL_MAX: u32 = 64;

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

/// fork(2). Callers are processes with one thread.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: fork itself has no precondition; the child is a copy with this thread only, and the C library makes its
    // allocator usable there.
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

/// A change in a child process, see wait4(2).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited {
    /// Whose.
    pub(crate) pid: Pid,
    /// Wait status.
    pub(crate) status: i32,
    /// CPU time of it and of the children that it has waited for, in microseconds: user, system.
    pub(crate) cpu: (u64, u64),
}

impl Waited {
    /// It ended, rather than stopped or continued.
    pub(crate) fn ended(&self) -> bool {
        !libc::WIFSTOPPED(self.status) && !libc::WIFCONTINUED(self.status)
    }
}

/// The next child that stopped, continued or ended; `None` if there is none for now.
///
/// # Errors
/// ECHILD: there are no children.
pub(crate) fn wait_any() -> io::Result<Option<Waited>> {
    wait4(-1, libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED)
}

/// Waits for the end of any child.
///
/// # Errors
/// ECHILD: there are no children.
pub(crate) fn wait_child() -> io::Result<Waited> {
    wait4(-1, 0)?.ok_or_else(|| io::ErrorKind::Interrupted.into())
}

/// Has a signal call `handler`, or do what it does by default. System calls that it interrupts go on.
pub(crate) fn handle(signal: libc::c_int, handler: Option<extern "C" fn(libc::c_int)>) {
    // SAFETY: a struct sigaction of zeros has no flags and an empty mask; the handlers given here only make system calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_flags = libc::SA_RESTART;
        action.sa_sigaction = handler.map_or(libc::SIG_DFL, |handler| handler as libc::sighandler_t);
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

/// Waits until this child ends.
pub(crate) fn wait_end(pid: Pid) -> io::Result<Waited> {
    loop {
        match wait4(pid.as_raw_nonzero().get(), 0) {
            Ok(Some(waited)) => return Ok(waited),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn wait4(pid: libc::pid_t, options: libc::c_int) -> io::Result<Option<Waited>> {
    let mut status = 0;
    // SAFETY: rusage is plain data, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    let pid = check(unsafe { libc::wait4(pid, &mut status, options, &mut usage) })?;
    let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    let cpu = (micros(usage.ru_utime), micros(usage.ru_stime));
    Ok(Pid::from_raw(pid).map(|pid| Waited { pid, status, cpu }))
}

/// Blocks exactly these signals (bit n-1 is signal n).
pub(crate) fn set_blocked(signals: u64) {
    // The kernel's own call: the C library's would not touch the two signals it keeps for itself.
    // SAFETY: the pointer is valid, and the kernel's set is of 8 bytes.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &signals, std::ptr::null_mut::<u64>(), 8_usize)
    };
}

/// Every signal is ignored if in `ignored` (bit n-1 is signal n), else as by default.
pub(crate) fn set_dispositions(ignored: u64) {
    for signal in 1..=SIGNAL_MAX {
        let handler = if ignored >> (signal - 1) & 1 == 1 { libc::SIG_IGN } else { libc::SIG_DFL };
        // The kernel's own call, as above: a parent that used posix_spawn(3) may have left one of the two ignored.
        // Handler, flags, restorer, mask of 8 bytes.
        let action = [handler, 0, 0, 0];
        // SAFETY: the pointer is valid, and neither value is a function. KILL and STOP are refused, which changes nothing.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), std::ptr::null_mut::<usize>(), 8_usize)
        };
    }
}

/// Whether this process ignores the signal.
pub(crate) fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: sigaction is plain data, filled in by the call if it succeeds; nothing is changed.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// A write to a pipe without a reader fails with EPIPE instead of a signal.
pub(crate) fn ignore_sigpipe() {
    // SAFETY: SIG_IGN is no function.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// A descriptor that reads the signals given, which must be blocked (signalfd(2)). Non-blocking, close-on-exec.
pub(crate) fn signal_fd(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain data, filled in before its use; the pointer is valid for each call.
    let set = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        set
    };
    // SAFETY: as above.
    let fd = check(unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Marks every descriptor from `first` on close-on-exec.
pub(crate) fn close_on_exec_from(first: RawFd) {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: changes flags of descriptors only, by number.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return;
    }
    // Before Linux 5.11.
    for fd in open_descriptors().into_iter().filter(|fd| *fd >= first) {
        // SAFETY: as above; one that is closed meanwhile gives EBADF.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Closes every descriptor from 3 on but those of `keep`. Only for a process that has just been forked and will not use
/// what it inherited.
pub(crate) fn close_inherited(keep: &[BorrowedFd<'_>]) {
    for fd in open_descriptors() {
        if fd > 2 && keep.iter().all(|kept| kept.as_raw_fd() != fd) {
            // SAFETY: the owners in this copy of the process never run again.
            unsafe { libc::close(fd) };
        }
    }
}

/// The numbers of all open descriptors.
pub(crate) fn open_descriptors() -> Vec<RawFd> {
    let listed: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")
        .map(|entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
                .collect()
        })
        .unwrap_or_default();
    if listed.is_empty() { (0..1024).collect() } else { listed }
}

/// Makes `number` a copy of `source`, not close-on-exec; what was open there is closed (dup2(2)). Only for a process
/// about to exec, whose other descriptors have been moved out of the way.
pub(crate) fn place(source: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: see above; the numbers are checked by the kernel.
    check(unsafe { libc::dup2(source.as_raw_fd(), number) }).map(drop)
}

/// Has the runtime watch a descriptor. Must be called in one.
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and the same one, until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// execve(2). Returns only on failure.
pub(crate) fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with null and point to strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Soft and hard limit, `u64::MAX` meaning none.
pub(crate) fn limit(resource: u32) -> io::Result<(u64, u64)> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid; an unknown resource gives EINVAL.
    check(unsafe { libc::prlimit64(0, resource as _, std::ptr::null(), &mut old) })?;
    Ok((old.rlim_cur, old.rlim_max))
}

/// Sets soft and hard limit of this process.
pub(crate) fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let new = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: as above.
    check(unsafe { libc::prlimit64(0, resource as _, &new, std::ptr::null_mut()) }).map(drop)
}

/// struct termios as the kernel's TCSETS takes it (asm-generic), which is not the C library's.
#[repr(C)]
pub(crate) struct KernelTermios {
    pub(crate) input: u32,
    pub(crate) output: u32,
    pub(crate) control: u32,
    pub(crate) local: u32,
    pub(crate) line: u8,
    pub(crate) special: [u8; 19],
}

/// TCSETS, see ioctl_tty(2).
pub(crate) fn set_termios(tty: BorrowedFd<'_>, modes: &KernelTermios) -> io::Result<()> {
    // SAFETY: the kernel reads one struct termios of this layout from a valid pointer.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TCSETS, std::ptr::from_ref(modes)) }).map(drop)
}

/// TIOCNOTTY: gives up the controlling terminal of the session that this process leads.
pub(crate) fn leave_terminal(tty: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no argument.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCNOTTY) }).map(drop)
}

/// kill(2) with any signal number; `group` for all processes of the group that `pid` leads.
pub(crate) fn kill(pid: Pid, group: bool, signal: u32) -> io::Result<()> {
    let pid = pid.as_raw_nonzero().get();
    // SAFETY: sends a signal to another process; the number is checked by the kernel.
    check(unsafe { libc::kill(if group { -pid } else { pid }, signal as libc::c_int) }).map(drop)
}

/// kill(2) of every process that may be signalled, but this one (and pid 1).
pub(crate) fn kill_all(signal: libc::c_int) {
    // SAFETY: as above.
    unsafe { libc::kill(-1, signal) };
}

/// Has the kernel refuse these calls to this process and all that it starts.
#[cfg(test)]
pub(crate) fn refuse(calls: &[libc::c_long], errno: i32) -> io::Result<()> {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is the first word of seccomp_data.
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for call in calls {
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *call as u32));
        program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is valid for the call, which copies it.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: as above.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) }).map(drop)
}
