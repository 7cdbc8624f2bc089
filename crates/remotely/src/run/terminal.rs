//! The terminal of the user: raw while a command over there has its own, and put back in every case. Used by `flow`; the
//! panic hook puts it back, too. Touches it only while this process group is in its foreground.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use remotely_proto::exec::{Modes, Tty, Winsize};

/// Control characters that the kernel keeps (`NCCS` of asm-generic; that of glibc is larger).
const SPECIAL: usize = 19;

/// What to put back, while it is changed. One per process: the panic hook has to find it.
static CHANGED: Mutex<Option<(RawFd, libc::termios)>> = Mutex::new(None);

/// The terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    fd: Arc<OwnedFd>,
    /// Leave output processing on: somebody else of this job writes to the terminal, too.
    shared: bool,
}

impl Terminal {
    /// Takes charge of `fd`, and of putting it back if this process panics. `shared`: the command's output does not all
    /// go through it, so that others of the job may write to it.
    pub(super) fn new(fd: Arc<OwnedFd>, shared: bool) -> Self {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            crate::stderr::clear();
            restore();
            hook(info);
        }));
        Self { fd, shared }
    }

    /// Whether another process group has it.
    pub(super) fn in_background(&self) -> bool {
        in_background(&self.fd)
    }

    /// Whether it is raw.
    pub(super) fn is_raw(&self) -> bool {
        CHANGED.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Makes it raw: each key goes over there as it is typed. What has been typed before stays to be read. Once more
    /// does no harm, and undoes what a shell did to the terminal while this process was stopped.
    pub(super) fn enter(&self) -> io::Result<()> {
        let mut changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match *changed {
            Some((_, before)) => before,
            None => attributes(self.fd.as_raw_fd())?,
        };
        let mut raw = before;
        // SAFETY: changes the structure only.
        unsafe { libc::cfmakeraw(&mut raw) };
        if self.shared {
            raw.c_oflag = before.c_oflag;
        }
        // First what to put back: a signal or a panic may come between the two.
        *changed = Some((self.fd.as_raw_fd(), before));
        set(self.fd.as_raw_fd(), &raw).inspect_err(|_| *changed = None)
    }

    /// Its size.
    pub(super) fn size(&self) -> Winsize {
        size(&self.fd)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back as it was, unless somebody else has it by now. Does nothing if it is not changed.
pub(super) fn restore() {
    let mut changed = CHANGED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((fd, before)) = changed.take() {
        // SAFETY: the terminal's descriptor is open for as long as it is changed: `Terminal` holds it and comes here when
        // it is dropped.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        if !in_background(fd) {
            // A terminal that is gone needs no mending.
            let _ = set(fd.as_raw_fd(), &before);
        }
    }
}

/// Leaves the terminal as it is: it belongs to somebody else, who has set it.
pub(super) fn forget() {
    *CHANGED.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Size and modes for the pty over there. In the background the modes are those of whoever has the terminal now, a shell
/// that edits its line perhaps: what a command expects is laid over them.
pub(super) fn describe(fd: impl AsFd) -> Tty {
    let background = in_background(&fd);
    let modes = attributes(fd.as_fd().as_raw_fd()).ok().map(|attributes| {
        let mut modes = Modes {
            input: attributes.c_iflag,
            output: attributes.c_oflag,
            control: attributes.c_cflag,
            local: attributes.c_lflag,
            special: attributes.c_cc[..SPECIAL].to_vec().into(),
        };
        if background {
            modes.input |= libc::ICRNL | libc::IXON;
            modes.output |= libc::OPOST | libc::ONLCR;
            modes.local |= libc::ICANON | libc::ECHO | libc::ECHOE | libc::ECHOK | libc::ISIG | libc::IEXTEN;
        }
        modes
    });
    Tty { size: size(fd), modes, announce: false }
}

/// The size of `fd`, or the usual one if it is no terminal.
fn size(fd: impl AsFd) -> Winsize {
    match rustix::termios::tcgetwinsize(fd) {
        Ok(size) => Winsize { rows: size.ws_row, cols: size.ws_col, xpixel: size.ws_xpixel, ypixel: size.ws_ypixel },
        Err(_) => Winsize { rows: 24, cols: 80, xpixel: 0, ypixel: 0 },
    }
}

fn attributes(fd: RawFd) -> io::Result<libc::termios> {
    let mut attributes = std::mem::MaybeUninit::uninit();
    // SAFETY: tcgetattr fills the structure in if it succeeds.
    unsafe {
        if libc::tcgetattr(fd, attributes.as_mut_ptr()) == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(attributes.assume_init())
    }
}

/// From the background, too: SIGTTOU is blocked in all threads of a run.
fn set(fd: RawFd, attributes: &libc::termios) -> io::Result<()> {
    loop {
        // Not TCSADRAIN: a terminal whose reader has stopped would hold the end up. Not TCSAFLUSH: it loses what was
        // typed ahead.
        // SAFETY: the structure is complete; a bad descriptor is an error.
        if unsafe { libc::tcsetattr(fd, libc::TCSANOW, attributes) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The characters that send a signal, as the modes of the user have them, with the signals.
pub(super) fn signal_keys(modes: Option<&Modes>) -> Vec<(u8, i32)> {
    let keys = [(libc::VINTR, libc::SIGINT), (libc::VQUIT, libc::SIGQUIT), (libc::VSUSP, libc::SIGTSTP)];
    let character = |index: usize| modes.and_then(|modes| modes.special.get(index)).copied().filter(|&byte| byte != 0);
    keys.into_iter().filter_map(|(index, signal)| Some((character(index)?, signal))).collect()
}

/// Whether `fd` is the controlling terminal of this process and another process group is in its foreground.
pub(super) fn in_background(fd: impl AsFd) -> bool {
    crate::stderr::in_foreground(fd) == Some(false)
}

#[cfg(test)]
mod tests {
    use rustix::pty::OpenptFlags;

    use super::*;

    fn pair() -> (OwnedFd, Arc<OwnedFd>) {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        (master, Arc::new(terminal))
    }

    fn local_flags(fd: &OwnedFd) -> u32 {
        attributes(fd.as_raw_fd()).unwrap().c_lflag
    }

    // One test: there is one terminal per process.
    #[test]
    fn raw_and_back() {
        let (_master, fd) = pair();
        let before = describe(&fd);
        assert!(before.modes.as_ref().is_some_and(|modes| modes.special.len() == SPECIAL));
        assert_eq!(signal_keys(before.modes.as_ref()), [(3, libc::SIGINT), (28, libc::SIGQUIT), (26, libc::SIGTSTP)]);

        let terminal = Terminal::new(Arc::clone(&fd), false);
        terminal.enter().unwrap();
        terminal.enter().unwrap();
        assert!(terminal.is_raw());
        assert_eq!(local_flags(&fd) & (libc::ICANON | libc::ECHO | libc::ISIG), 0);
        assert_eq!(attributes(fd.as_raw_fd()).unwrap().c_oflag & libc::OPOST, 0);
        restore();
        restore();
        assert_eq!(describe(&fd), before);
        terminal.enter().unwrap();
        drop(terminal);
        assert_eq!(describe(&fd), before);

        let shared = Terminal::new(Arc::clone(&fd), true);
        shared.enter().unwrap();
        assert_ne!(attributes(fd.as_raw_fd()).unwrap().c_oflag & libc::OPOST, 0);
        let paniced = std::thread::spawn(|| panic!("on purpose: the hook puts the terminal back")).join();
        assert!(paniced.is_err());
        assert_eq!(describe(&fd), before);
    }

    #[test]
    fn what_is_no_terminal_has_the_usual_size() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(
            describe(&reader),
            Tty { size: Winsize { rows: 24, cols: 80, xpixel: 0, ypixel: 0 }, modes: None, announce: false }
        );
    }
}
