//! Signals to the helper: those that end go to the client, whose end is the helper's. Where no client is known, they end the helper's
//! input. Called by the elevated helper; undoes nothing itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicI32, Ordering};

/// The client's process, once it is known.
static CLIENT: AtomicI32 = AtomicI32::new(0);
/// Where the handler writes, once there is such a place.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// The signals of this process, caught as long as it lives.
#[derive(Debug)]
pub(crate) struct Signals {
    caught: io::PipeReader,
}

impl Signals {
    /// Catches them. To be called once.
    pub(crate) fn catch() -> io::Result<Self> {
        let (caught, handler) = io::pipe()?;
        rustix::io::ioctl_fionbio(&handler, true)?;
        // The handler may run until the process ends.
        PIPE.store(handler.into_raw_fd(), Ordering::Relaxed);
        let relay = relay as extern "C" fn(libc::c_int) as libc::sighandler_t;
        for (signal, handler) in [
            (libc::SIGHUP, libc::SIG_IGN),
            (libc::SIGPIPE, libc::SIG_IGN),
            (libc::SIGINT, relay),
            (libc::SIGTERM, relay),
        ] {
            set(signal, handler);
        }
        Ok(Self { caught })
    }

    /// Sends them to the client from now on, which may only be a process of who has started us.
    pub(crate) fn relay_to(&self, client: u32, input: BorrowedFd<'_>) {
        let owner = std::fs::metadata(format!("/proc/{client}")).map(|process| process.uid());
        let peer = rustix::net::sockopt::socket_peercred(input);
        if let (Ok(owner), Ok(peer), Ok(client)) = (owner, peer, i32::try_from(client))
            && peer.uid.as_raw() == owner
        {
            CLIENT.store(client, Ordering::Relaxed);
        }
    }
}

/// Readable once there was a signal that nobody else could be told of.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.caught.as_fd()
    }
}

/// Nothing but the kernel's own way ends the caller.
pub(crate) fn ignore() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        set(signal, libc::SIG_IGN);
    }
}

extern "C" fn relay(_signal: libc::c_int) {
    let client = CLIENT.load(Ordering::Relaxed);
    // SAFETY: both may be called in a signal handler; the descriptor is never closed, and the byte lives during the call.
    unsafe {
        // What the interrupted code would read of it is left as it was.
        let error = *libc::__errno_location();
        if client == 0 || libc::kill(client, libc::SIGINT) != 0 {
            libc::write(PIPE.load(Ordering::Relaxed), c"".as_ptr().cast(), 1);
        }
        *libc::__errno_location() = error;
    }
}

fn set(signal: libc::c_int, handler: libc::sighandler_t) {
    // SAFETY: all zero is a valid value of this plain structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    // What waits for nft or iptables goes on.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handlers do only what may be done in one.
    unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
}
