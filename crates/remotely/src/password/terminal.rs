//! A password from the user of the controlling terminal: no echo, and the terminal is as it was afterwards, also when the
//! asking is given up. Used by [`super::Passwords`].

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::mender::Mender;
use super::{Password, Question};
use crate::stderr::{self, in_foreground};

/// The longest password, in bytes: what PAM takes.
const LONGEST: usize = 511;

/// How long this process may take to notice a signal that it sends itself.
const SIGNAL_TAKES: Duration = Duration::from_secs(1);

/// A question stands on the terminal.
static ASKING: AtomicBool = AtomicBool::new(false);

/// Whether a question stands on the terminal, which nothing else is to be drawn over.
#[cfg(feature = "cli")]
pub(crate) fn is_asking() -> bool {
    ASKING.load(Ordering::Relaxed)
}

/// Whether there is somebody who could be asked.
pub(super) fn is_at_hand() -> bool {
    open().is_some_and(|tty| in_foreground(&tty) == Some(true))
}

/// A description of its own: that it does not block is nobody else's business.
fn open() -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()
}

/// Asks. `None`: the user gave it up (Ctrl-C, which is then sent to this process, or Ctrl-D), or the terminal is gone.
/// Cancel safe.
pub(super) async fn ask(question: &Question) -> Option<Password> {
    let tty = open()?;
    // SAFETY: an `OwnedFd` stands for the same descriptor, open, for as long as it lives.
    let tty = unsafe { AsyncFd::register_with_interest(tty, Interest::READABLE) }.ok()?;
    let typed = {
        let quiet = Quiet::begin(tty.get_ref())?;
        stderr::clear();
        let line = if stderr::has_bar() { "\r\x1b[K" } else { "" };
        let again = match (question.unlike, question.failed) {
            (true, _) => "not that of the others; ",
            (false, 1..) => "wrong; once more: ",
            (false, 0) => "",
        };
        put(tty.get_ref(), format!("{line}remotely: {again}{question}: ").as_bytes());
        let typed = read(&tty).await;
        put(tty.get_ref(), b"\n");
        drop(quiet);
        typed
    };
    match typed {
        Typed::Line(password) => Some(password),
        Typed::Nothing => None,
        Typed::Signal(signal) => {
            let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
            // Whoever waits for it drops this future; otherwise it was of no account.
            tokio::time::sleep(SIGNAL_TAKES).await;
            None
        }
    }
}

enum Typed {
    Line(Password),
    Nothing,
    Signal(Signal),
}

async fn read(tty: &AsyncFd<OwnedFd>) -> Typed {
    let mut line = Line::default();
    loop {
        let Ok(mut ready) = tty.readable().await else { return Typed::Nothing };
        let mut byte = [0; 1];
        match rustix::io::read(tty.get_ref(), &mut byte) {
            Ok(1) => {
                if let Some(typed) = line.key(byte[0]) {
                    return typed;
                }
            }
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => return Typed::Nothing,
        }
    }
}

/// What has been typed, with the keys that a terminal's own line has. Its room is taken at once, so that no copy is left
/// behind where it grew.
struct Line(Vec<u8>);

impl Default for Line {
    fn default() -> Self {
        Self(Vec::with_capacity(LONGEST))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

impl Line {
    fn key(&mut self, key: u8) -> Option<Typed> {
        match key {
            b'\r' | b'\n' => return Some(Typed::Line(Password::new(std::mem::take(&mut self.0)))),
            0x03 => return Some(Typed::Signal(Signal::INT)),
            0x1c => return Some(Typed::Signal(Signal::QUIT)),
            0x04 if self.0.is_empty() => return Some(Typed::Nothing),
            0x08 | 0x7f => {
                // A whole character of UTF-8.
                while self.0.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            0x15 => {
                self.0.fill(0);
                self.0.clear();
            }
            0 | 0x04 => {}
            _ if self.0.len() < LONGEST => self.0.push(key),
            _ => {}
        }
        None
    }
}

fn put(tty: &OwnedFd, bytes: &[u8]) {
    // A terminal that takes nothing shows nothing.
    let _ = rustix::io::retry_on_intr(|| rustix::io::write(tty, bytes));
}

/// The terminal without echo, keys one by one, and without those that send signals: they would end or stop us with the
/// echo off. Put back when dropped.
struct Quiet {
    tty: OwnedFd,
    before: Termios,
    /// Puts it back if nobody comes to drop this. Without it, a kill leaves the echo off, as with other programs.
    _mender: Option<Mender>,
}

impl Quiet {
    fn begin(tty: &OwnedFd) -> Option<Self> {
        // In the background a change would stop us.
        if in_foreground(tty) != Some(true) {
            return None;
        }
        let tty = tty.try_clone().ok()?;
        let before = rustix::termios::tcgetattr(&tty).ok()?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        let mender = Mender::start(&tty, &modes, &before);
        let quiet = Self { tty, before, _mender: mender.ok() };
        // What was typed before the question is no answer to it.
        rustix::termios::tcsetattr(&quiet.tty, OptionalActions::Flush, &modes).ok()?;
        ASKING.store(true, Ordering::Relaxed);
        Some(quiet)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        ASKING.store(false, Ordering::Relaxed);
        if in_foreground(&self.tty) == Some(true) {
            let _ = rustix::termios::tcsetattr(&self.tty, OptionalActions::Now, &self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> Option<Vec<u8>> {
        let mut line = Line::default();
        match keys.iter().find_map(|key| line.key(*key))? {
            Typed::Line(password) => Some(password.bytes().to_vec()),
            Typed::Nothing => Some(b"(nothing)".to_vec()),
            Typed::Signal(signal) => Some(format!("({signal:?})").into_bytes()),
        }
    }

    #[test]
    fn a_line_is_edited_as_on_a_terminal() {
        let table: &[(&[u8], Option<&[u8]>)] = &[
            (b"secret\r", Some(b"secret")),
            (b"\n", Some(b"")),
            (b"ab\x7fc\r", Some(b"ac")),
            ("\u{e9}\x7fx\r".as_bytes(), Some(b"x")),
            (b"\x7f\x7fx\r", Some(b"x")),
            (b"wrong\x15right\r", Some(b"right")),
            (b"a\x04b\r", Some(b"ab")),
            (b"\x04", Some(b"(nothing)")),
            (b"no end", None),
        ];
        for (keys, expected) in table {
            assert_eq!(typed(keys).as_deref(), *expected, "{keys:?}");
        }
        assert!(matches!(Line::default().key(3), Some(Typed::Signal(Signal::INT))));
        let long = [vec![b'x'; 2000], b"\r".to_vec()].concat();
        assert_eq!(typed(&long).map(|line| line.len()), Some(LONGEST));
    }
}
