//! Signals that reach this process while a command runs there: caught by a handler that writes their numbers into a
//! pipe. Used by `flow`, which forwards them. Signals that were ignored at the start stay ignored.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{IntoRawFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::pipe::PipeFlags;
use tokio::net::unix::pipe::Receiver;

use super::inherited::bit;

/// Signals that are caught, besides the real-time ones. Not among them: what only a fault of this process or the kernel
/// sends (SEGV, BUS, FPE, ILL, TRAP, SYS, ABRT), what cannot be caught (KILL, STOP), and CHLD and PIPE, which tell of
/// children and pipes of this process.
const CAUGHT: [i32; 20] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGWINCH,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGURG,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGSTKFLT,
];

/// First real-time signal that programs may use: glibc keeps 32 and 33.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Writing end of the pipe, for the handler; -1 before there is one.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// The signals, in the order in which they came.
#[derive(Debug)]
pub(super) struct Signals {
    pipe: Receiver,
    caught: u64,
}

impl Signals {
    /// Catches all but those in `ignored`, and unblocks them in this thread (and in those it starts): a signal that is
    /// blocked for the command waits over there. Must be called inside a runtime, once.
    pub(super) fn catch(ignored: u64) -> io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Open for as long as the process lives: a handler may run at any time.
        let writer: RawFd = writer.into_raw_fd();
        PIPE.store(writer, Ordering::SeqCst);
        let mut caught = 0;
        for signal in CAUGHT.into_iter().chain(REAL_TIME).filter(|&signal| ignored & bit(signal) == 0) {
            install(signal, Disposition::Caught)?;
            caught |= bit(signal);
        }
        // Children of this process are waited for, whatever was inherited.
        install(libc::SIGCHLD, Disposition::Default)?;
        // But for SIGTTOU, so that the terminal can be put back, and a message be written, from the background.
        mask(libc::SIG_SETMASK, bit(libc::SIGTTOU));
        Ok(Self { pipe: Receiver::from_owned_fd(reader)?, caught })
    }

    /// The next signal. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<i32> {
        loop {
            self.pipe.readable().await?;
            let mut number = [0; 1];
            match self.pipe.try_read(&mut number) {
                Ok(1) => return Ok(i32::from(number[0])),
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Stops this process as the command was stopped by `signal`, the whole process group if `group`, and returns
    /// when it has been continued. A stop signal that the kernel would discard (nobody does job control for this process
    /// group) does nothing, as for a command of here.
    pub(super) fn stop(&self, signal: i32, group: bool) {
        if signal != libc::SIGSTOP && self.caught & bit(signal) == 0 {
            return;
        }
        if signal != libc::SIGSTOP {
            let _ = install(signal, Disposition::Default);
        }
        mask(libc::SIG_UNBLOCK, bit(libc::SIGTTOU));
        let pid = if group { 0 } else { std::process::id() as i32 };
        // SAFETY: kill(2) takes two integers. The process stops before it returns, because the signal is not blocked in
        // this thread and a process sends itself at least one signal before kill returns.
        unsafe { libc::kill(pid, signal) };
        mask(libc::SIG_BLOCK, bit(libc::SIGTTOU));
        if signal != libc::SIGSTOP {
            let _ = install(signal, Disposition::Caught);
        }
    }
}

/// Whether its default action stops a process.
pub(super) fn stops(signal: i32) -> bool {
    matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
}

/// Whether its default action ends a process.
pub(super) fn kills(signal: i32) -> bool {
    !stops(signal) && !matches!(signal, libc::SIGCONT | libc::SIGWINCH | libc::SIGURG)
}

/// Whether a process can end by it.
pub(super) fn can_kill(signal: i32) -> bool {
    matches!(signal, 1..=64) && signal != libc::SIGSTOP && signal != libc::SIGCHLD && kills(signal)
}

/// Whether whoever sends it usually wants the command to end.
pub(super) fn asks_for_end(signal: i32) -> bool {
    matches!(signal, libc::SIGHUP | libc::SIGINT | libc::SIGQUIT | libc::SIGTERM)
}

enum Disposition {
    Default,
    Caught,
}

fn install(signal: i32, disposition: Disposition) -> io::Result<()> {
    // SAFETY: an all-zero sigaction is valid: empty mask, no flags.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    match disposition {
        Disposition::Default => action.sa_sigaction = libc::SIG_DFL,
        Disposition::Caught => {
            action.sa_sigaction = note as *const () as usize;
            action.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO;
        }
    }
    // SAFETY: `note` has the signature that SA_SIGINFO asks for and does only what a handler may.
    if unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn note(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo with SA_SIGINFO.
    let code = unsafe { (*info).si_code };
    // The kernel sends these for what this process does: a file that grew beyond RLIMIT_FSIZE (over there it is checked
    // before it comes here), an urgent byte or readiness on a descriptor. From a process (`kill`) they are for the command.
    if code > 0 && matches!(signal, libc::SIGXFSZ | libc::SIGURG | libc::SIGIO) {
        return;
    }
    // SAFETY: write(2) is async-signal-safe; errno is put back for the code that was interrupted.
    unsafe {
        let errno = *libc::__errno_location();
        let number = signal as u8;
        libc::write(PIPE.load(Ordering::SeqCst), (&raw const number).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// Blocks all signals in this thread: the handlers run in the thread that waits for them, and a background read of the
/// terminal gives EIO instead of SIGTTIN, a background write goes through (as without `stty tostop`).
pub(super) fn block_all() {
    mask(libc::SIG_SETMASK, u64::MAX);
}

/// Lets this thread, and those that it starts, write to the terminal and give it to others, from the background too.
#[cfg(feature = "cli")]
pub(crate) fn block_terminal_output() {
    mask(libc::SIG_BLOCK, bit(libc::SIGTTOU));
}

fn mask(how: i32, signals: u64) {
    // SAFETY: the set is initialised by sigemptyset; the call changes the mask of this thread only.
    unsafe {
        let mut set: libc::sigset_t = MaybeUninit::zeroed().assume_init();
        libc::sigemptyset(&mut set);
        for signal in 1..=64 {
            if signals & bit(signal) != 0 {
                libc::sigaddset(&mut set, signal);
            }
        }
        libc::pthread_sigmask(how, &set, std::ptr::null_mut());
    }
}

/// Dies of `signal`, as the command did, and its process group too if `group`. Returns only if the signal does not kill.
pub(crate) fn die(signal: i32, group: bool) {
    // SAFETY: plain system calls on this process. No core file: the memory of this process is not that of the command.
    unsafe {
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &no_core);
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
    }
    let _ = install(signal, Disposition::Default);
    mask(libc::SIG_SETMASK, 0);
    // SAFETY: kill(2) takes two integers.
    unsafe {
        if group {
            libc::kill(0, signal);
        }
        libc::kill(std::process::id() as i32, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn signals_come_in_order_and_ignored_ones_do_not() {
        let mut signals = Signals::catch(bit(libc::SIGUSR2)).unwrap();
        for signal in [libc::SIGUSR1, libc::SIGTERM, libc::SIGURG, 40] {
            // SAFETY: a signal to this very process, which catches it.
            unsafe { libc::raise(signal) };
            assert_eq!(signals.next().await.unwrap(), signal);
        }
        assert_eq!(signals.caught & bit(libc::SIGUSR2), 0);
    }
}
