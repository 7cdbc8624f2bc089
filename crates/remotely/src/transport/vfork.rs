//! Starts a process without a copy of this one's page tables, which for a program that holds hundreds of tunnels costs
//! milliseconds each: as posix_spawn(3) does, which cannot do all that is wanted here. Used by `spawn`, and in part by `unnamed`.

use std::ffi::{CString, OsStr, OsString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use rustix::process::Pid;

/// What execvp(3) and a signal handler of the kernel need at most (glibc's posix_spawn takes 32 KiB).
const STACK: usize = 64 << 10;
/// They are asked for by the keys of the terminal, or sent to a whole process group.
const IGNORED: [c_int; 5] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGTERM, libc::SIGHUP];

/// What the new process needs, made before it is there: it must not allocate, nor take any lock.
struct Plan {
    words: Vec<*const c_char>,
    stdio: [RawFd; 3],
    own_group: bool,
    parent: c_int,
    /// Why it could not become the program; it writes to our memory.
    failed: c_int,
}

/// Starts `argv`, looked up in `PATH`, with these descriptors as standard input, output and error. It ignores the signals
/// that a whole process group gets, and is killed when the calling thread ends.
pub(super) fn start(argv: &[OsString], stdio: [&OwnedFd; 3], own_group: bool) -> io::Result<Pid> {
    let word = |word: &OsString| CString::new(OsStr::as_bytes(word)).map_err(io::Error::from);
    let words = argv.iter().map(word).collect::<io::Result<Vec<_>>>()?;
    let pointers = words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect();
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    // A program that was started without standard input may have any of these at a number that is to be taken.
    let mut moved = Vec::new();
    let mut numbers = stdio.map(AsRawFd::as_raw_fd);
    for (number, fd) in numbers.iter_mut().zip(stdio).filter(|(number, _)| **number < 3) {
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, 3)?;
        *number = fd.as_raw_fd();
        moved.push(fd);
    }
    let mut plan = Plan { words: pointers, stdio: numbers, own_group, parent, failed: 0 };
    // A script without `#!` is given to sh with all words once more.
    let mut stack = vec![0_u128; (STACK + plan.words.len() * size_of::<usize>()) / size_of::<u128>()];
    // SAFETY: `become_it` makes async-signal-safe calls only; it gets the plan that it expects.
    let pid = unsafe { in_our_memory(become_it, (&raw mut plan).cast(), &mut stack, 0)? };
    drop((words, moved));
    // SAFETY: the child has written it, if at all, before this thread went on; behind the compiler's back.
    let failed = unsafe { (&raw const plan.failed).read_volatile() };
    if failed != 0 {
        let wait = || rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        let _ = rustix::io::retry_on_intr(wait);
        return Err(io::Error::from_raw_os_error(failed));
    }
    Ok(pid)
}

/// Has a new process run `life` in our memory, on a stack of its own, and returns when that has ended or has become another program.
/// `flags` are further ones of clone(2). It is to be waited for.
///
/// # Safety
/// `life` may only make async-signal-safe calls, with `what` and what that leads to, and must not return.
pub(super) unsafe fn in_our_memory(
    life: extern "C" fn(*mut c_void) -> c_int,
    what: *mut c_void,
    stack: &mut [u128],
    flags: c_int,
) -> io::Result<Pid> {
    let top = stack.as_mut_ptr_range().end;
    let flags = flags | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child has a stack of its own, aligned as a u128 is; this thread stands still until it has become another
    // program or has ended, so that what it uses of our memory stays and is used by nobody else. No handler of a signal runs
    // in it: signals are blocked from before it is there until it has none.
    unsafe {
        let before = block_signals();
        let pid = libc::clone(life, top.cast(), flags, what);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        Pid::from_raw(pid.max(0)).ok_or(error)
    }
}

/// Blocks all signals of this thread, and says which were before.
///
/// # Safety
/// Whoever calls this must put them back.
unsafe fn block_signals() -> libc::sigset_t {
    // SAFETY: both sets are plain memory that the calls fill in.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

/// The life of the child in our memory.
extern "C" fn become_it(plan: *mut c_void) -> c_int {
    // SAFETY: it is the plan that `start` has given to clone, and `start` waits for us.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    // SAFETY: only async-signal-safe calls are made, with pointers into memory that stays; execvp(3) of glibc and musl takes
    // no lock and allocates nothing, as their posix_spawnp(3) needs it, too.
    unsafe {
        if let Err(()) = prepare(plan) {
            libc::_exit(127)
        }
        libc::execvp(plan.words[0], plan.words.as_ptr());
        (&raw mut plan.failed).write_volatile(*libc::__errno_location());
        libc::_exit(127)
    }
}

/// # Safety
/// To be called by the child alone.
unsafe fn prepare(plan: &mut Plan) -> Result<(), ()> {
    // SAFETY: calls into the kernel with numbers, and with sets and actions that live on the stack.
    unsafe {
        let mut ok = libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0;
        // Too late for the signal.
        if libc::getppid() != plan.parent {
            plan.failed = libc::ESRCH;
            return Err(());
        }
        if plan.own_group {
            ok &= libc::setpgid(0, 0) == 0;
        }
        for (fd, number) in plan.stdio.iter().zip(0..) {
            ok &= libc::dup2(*fd, number) == number;
        }
        if !ok {
            (&raw mut plan.failed).write_volatile(*libc::__errno_location());
            return Err(());
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        for signal in 1..=libc::SIGRTMAX() {
            let known = libc::sigaction(signal, ptr::null(), &raw mut action) == 0;
            let handled = known && action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN;
            // Rust programs ignore SIGPIPE, which no other expects.
            if handled || signal == libc::SIGPIPE {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        for signal in IGNORED {
            libc::signal(signal, libc::SIG_IGN);
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
    Ok(())
}
