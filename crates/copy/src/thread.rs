//! Threads that touch files: no signals reach them. Started for each transfer; they end when their channels do.

use std::{io, thread::Builder};

/// Starts a thread. It is not joined: it may hang in a system call, and must not keep anybody.
pub(crate) fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let spawned = Builder::new().name(name.into()).spawn(move || {
        block_signals();
        run();
    });
    spawned.map(drop)
}

/// Signals are for the rest of the program. A blocked SIGXFSZ, too, turns a limit of file sizes into EFBIG, where it would end
/// the whole process otherwise.
fn block_signals() {
    // SAFETY: the set is initialised by sigfillset before it is used; only this thread's mask changes.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
    }
}
