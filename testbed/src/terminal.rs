//! A terminal for tests: a pty whose other end is the controlling terminal of a started command, with what comes out of it
//! collected. Like expect(1), in the test's own process.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use crate::spawn::send_signal;

/// A command on a terminal. Dropped while it runs, it is killed.
pub struct Terminal {
    keyboard: File,
    peer: File,
    screen: Arc<(Mutex<Vec<u8>>, Condvar)>,
    read_to: usize,
    child: Child,
}

impl Terminal {
    /// Starts `command` as leader of a session on a new terminal of 24 rows and 80 columns. Those of its streams that
    /// `streams` names ("012") are the terminal; the others stay as they are in `command`.
    ///
    /// # Panics
    /// When that fails.
    pub fn start(command: &mut Command, streams: &str) -> Self {
        let pty = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("testbed: open a pty");
        grantpt(&pty).and_then(|()| unlockpt(&pty)).expect("testbed: unlock a pty");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let peer = File::from(ioctl_tiocgptpeer(&pty, flags).expect("testbed: other end of a pty"));
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&pty, size).expect("testbed: size of a pty");
        let duplicate = || Stdio::from(peer.try_clone().expect("testbed: duplicate a descriptor"));
        for stream in streams.chars() {
            match stream {
                '0' => command.stdin(duplicate()),
                '1' => command.stdout(duplicate()),
                _ => command.stderr(duplicate()),
            };
        }
        command.env("TERM", "xterm");
        let controlling = peer.try_clone().expect("testbed: duplicate a descriptor");
        let lead = move || {
            // A command of a client leads a session already.
            let _ = rustix::process::setsid();
            rustix::process::ioctl_tiocsctty(controlling.as_fd())?;
            Ok(())
        };
        // SAFETY: two plain system calls on a descriptor made before the fork.
        unsafe { command.pre_exec(lead) };
        let child = command.spawn().unwrap_or_else(|e| panic!("testbed: cannot start {command:?}: {e}"));
        let keyboard = File::from(pty);
        let screen = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let (mut from, into) = (keyboard.try_clone().expect("testbed: duplicate a descriptor"), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut block = vec![0; 64 << 10];
            // EIO means that nobody has the other end open any more.
            while let Ok(got @ 1..) = from.read(&mut block) {
                into.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&block[..got]);
                into.1.notify_all();
            }
        });
        Self { keyboard, peer, screen, read_to: 0, child }
    }

    /// Types bytes.
    ///
    /// # Panics
    /// When the terminal takes none.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.keyboard.write_all(bytes.as_ref()).expect("testbed: type on a terminal");
    }

    /// Waits until `text` comes, after what earlier calls have found (an empty one has come already), and returns how long that took.
    ///
    /// # Panics
    /// When it does not within `limit`.
    #[track_caller]
    pub fn expect(&mut self, text: &str, limit: Duration) -> Duration {
        let started = Instant::now();
        let mut screen = self.screen.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let new = &screen[self.read_to..];
            let found =
                if text.is_empty() { Some(0) } else { new.windows(text.len()).position(|w| w == text.as_bytes()) };
            if let Some(at) = found {
                self.read_to += at + text.len();
                return started.elapsed();
            }
            let left = limit.saturating_sub(started.elapsed());
            assert!(!left.is_zero(), "{text:?} did not come within {limit:?}, but {:?}", String::from_utf8_lossy(new));
            screen = self.screen.1.wait_timeout(screen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Everything that came so far.
    pub fn output(&self) -> String {
        let screen = self.screen.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&screen).into_owned()
    }

    /// Gives it a new size; the kernel tells the foreground processes.
    ///
    /// # Panics
    /// When that fails.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).expect("testbed: size of a pty");
    }

    /// Its modes.
    ///
    /// # Panics
    /// When they can't be read.
    pub fn modes(&self) -> Termios {
        tcgetattr(&self.peer).expect("testbed: modes of a pty")
    }

    /// Modes as text, for comparing.
    pub fn modes_text(&self) -> String {
        let modes = self.modes();
        format!(
            "{:?} {:?} {:?} {:?} {:?}",
            modes.input_modes, modes.output_modes, modes.control_modes, modes.local_modes, modes.special_codes
        )
    }

    /// Changes its modes, as another program on it does, and returns what they are then, as text.
    ///
    /// # Panics
    /// When they can't be changed.
    pub fn change_modes(&self, change: impl FnOnce(&mut Termios)) -> String {
        let mut modes = self.modes();
        change(&mut modes);
        tcsetattr(&self.keyboard, OptionalActions::Now, &modes).expect("testbed: modes of a pty");
        self.modes_text()
    }

    /// Whether the terminal is in canonical mode with echo, as a shell has it for its commands.
    pub fn cooked(&self) -> bool {
        use rustix::termios::LocalModes;
        self.modes().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Process id of the command.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the command a signal (Linux number).
    pub fn signal(&self, signal: i32) {
        send_signal(self.pid(), signal);
    }

    /// The end of a standard stream that is a pipe in the command; taken once.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the command.
    ///
    /// # Panics
    /// When it has not ended after `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("testbed: wait for a child") {
                self.catch_up();
                return status;
            }
            assert!(Instant::now() < deadline, "no end within {limit:?}; the screen has {:?}", self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Terminal {
    /// Waits until all is collected that has been written to the terminal so far: it comes out in order, so what is written now
    /// comes behind it.
    fn catch_up(&mut self) {
        const MARK: &[u8] = b"\x00caught up\x00";
        // Nobody holds the other end of a terminal that was hung up, and nothing more comes out of it.
        if self.peer.write_all(MARK).is_err() {
            return;
        }
        let mut screen = self.screen.0.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(at) = screen.windows(MARK.len()).position(|window| window == MARK) {
                screen.drain(at..at + MARK.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "what is written to the terminal does not come out");
            screen = self.screen.1.wait_timeout(screen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
