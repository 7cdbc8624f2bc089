//! Threads of the fs server: no signals, and a working directory and umask of their own.

use std::{cell::Cell, thread::Builder};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::StartError;

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Starts a thread. It is not joined: it ends by itself when the server ends.
pub(super) fn start(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    let spawned = Builder::new().name(name.into()).spawn(move || {
        block_signals();
        // SAFETY: CLONE_FS only parts this thread's working directory, root and umask from the process's; no memory or
        // descriptor table is concerned.
        ALONE.set(unsafe { unshare_unsafe(UnshareFlags::FS) }.is_ok());
        run();
    });
    spawned.map(drop).map_err(|source| StartError::Thread { name, source })
}

/// True if this thread may change its working directory and umask without anybody else noticing.
pub(super) fn is_alone() -> bool {
    ALONE.get()
}

/// Signals are for the rest of the program. A blocked SIGXFSZ, too, turns a file size limit into EFBIG, which the command
/// gets, where it would end this whole process otherwise.
fn block_signals() {
    // SAFETY: the set is initialised by sigfillset before it is used; only this thread's mask changes.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
    }
}
