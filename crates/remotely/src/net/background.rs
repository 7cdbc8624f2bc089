//! The life of a process that nobody watches: its fork, its file with the process id, its log, and the word to systemd that it is ready.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Pid;

/// Facility daemon, severity notice (RFC 3164).
const PRIORITY: u8 = 3 << 3 | 5;
/// The last words of this process are passed on for so long, if somebody else may have some, too.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// What a process does when it is ready.
#[derive(Debug)]
pub(crate) struct Background {
    /// Goes to the background then.
    pub(crate) daemon: bool,
    /// With its process id in here.
    pub(crate) pidfile: PathBuf,
    /// Its log goes to syslog.
    pub(crate) syslog: bool,
}

/// It runs already.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackgroundError {
    #[error("it runs already: {path:?} has process {pid}")]
    Running { path: PathBuf, pid: i32 },
    #[error("could not start a process")]
    Fork(#[source] io::Error),
}

/// A process that goes on while the one that was started has ended.
pub(crate) enum Fork {
    /// This is the one that goes on. The log is to be dropped last.
    Child(Ready, Option<Log>),
    /// This is the one that was started: it ends so.
    Parent(ExitCode),
}

/// To be said once.
pub(crate) struct Ready {
    background: Background,
    parent: Option<OwnedFd>,
    log: Option<Arc<Mutex<Way>>>,
}

/// The file is this process's own, and goes with it.
pub(crate) struct Held(Option<PathBuf>);

/// Takes what this process and all that it starts say, so that none of them keeps the user's terminal or pipe: line by line it goes
/// to where standard error went, and later to syslog or nowhere.
pub(crate) struct Log {
    way: Arc<Mutex<Way>>,
    reader: JoinHandle<()>,
}

enum Way {
    Stderr(File),
    Syslog(UnixDatagram),
    Nowhere,
}

impl Background {
    /// Forks, if that is wanted; the parent waits until the child is ready, or has failed. Must be called while this process has one
    /// thread.
    pub(crate) fn fork(self) -> Result<Fork, BackgroundError> {
        if !self.daemon {
            let log = self.syslog.then(Log::begin).transpose().map_err(BackgroundError::Fork)?;
            return Ok(self.child(None, log));
        }
        refuse_second(&self.pidfile)?;
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (reader, writer) = pipe.map_err(|error| BackgroundError::Fork(error.into()))?;
        // SAFETY: there is one thread, so the child finds everything in order.
        match unsafe { libc::fork() } {
            -1 => Err(BackgroundError::Fork(io::Error::last_os_error())),
            0 => {
                drop(reader);
                let log = Log::begin().map_err(BackgroundError::Fork)?;
                Ok(self.child(Some(writer), Some(log)))
            }
            child => {
                drop(writer);
                Ok(Fork::Parent(wait(reader, child)))
            }
        }
    }
}

impl Background {
    fn child(self, parent: Option<OwnedFd>, log: Option<Log>) -> Fork {
        let way = log.as_ref().map(|log| log.way.clone());
        Fork::Child(Ready { background: self, parent, log: way }, log)
    }
}

/// Success when the child is ready; else what it ends with.
fn wait(reader: OwnedFd, child: i32) -> ExitCode {
    let ready = File::from(reader).read_exact(&mut [0]);
    let child = Pid::from_raw(child);
    match ready {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => {
            let ended = rustix::process::waitpid(child, rustix::process::WaitOptions::empty()).ok().flatten();
            let code = ended.and_then(|(_, status)| status.exit_status()).and_then(|code| u8::try_from(code).ok());
            code.map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn refuse_second(path: &Path) -> Result<(), BackgroundError> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return Ok(()) };
    let gone = rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH);
    if gone { Ok(()) } else { Err(BackgroundError::Running { path: path.to_owned(), pid: pid.as_raw_nonzero().get() }) }
}

impl Ready {
    /// Everything is in force: tells systemd, and goes to the background where that is wanted.
    pub(crate) fn say(self) -> io::Result<Held> {
        notify("READY=1\nSTATUS=Connected");
        let Self { background: Background { daemon, pidfile, syslog }, parent, log } = self;
        if let Some(log) = log {
            turn(&log, syslog)?;
        }
        let Some(parent) = parent.filter(|_| daemon) else { return Ok(Held(None)) };
        let held = write_pidfile(&pidfile)?;
        // A fork leads no process group, so this cannot fail.
        let _ = rustix::process::setsid();
        rustix::stdio::dup2_stdin(OpenOptions::new().read(true).open("/dev/null")?)?;
        // It stays where it is: what ssh was told may stand on that, and it is started again for each link.
        File::from(parent).write_all(&[0])?;
        Ok(held)
    }
}

fn write_pidfile(path: &Path) -> io::Result<Held> {
    let path = std::path::absolute(path)?;
    // One that somebody has left behind: it was looked at before.
    let _ = fs::remove_file(&path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Held(Some(path)))
}

impl Drop for Held {
    fn drop(&mut self) {
        notify("STOPPING=1");
        if let Some(path) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}

/// sd_notify(3), where systemd has started this process.
fn notify(state: &str) {
    let Some(at) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    let _ = match at.as_bytes().strip_prefix(b"@") {
        Some(name) => std::os::unix::net::SocketAddr::from_abstract_name(name)
            .and_then(|at| socket.send_to_addr(state.as_bytes(), &at)),
        None => socket.send_to(state.as_bytes(), &at),
    };
}

impl Log {
    /// Takes standard output and error of this process.
    fn begin() -> io::Result<Self> {
        let stderr = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)?;
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::stdio::dup2_stdout(&writer)?;
        rustix::stdio::dup2_stderr(&writer)?;
        let way = Arc::new(Mutex::new(Way::Stderr(stderr.into())));
        let taken = way.clone();
        let reader = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            for line in BufReader::new(File::from(reader)).split(b'\n').map_while(Result::ok) {
                taken.lock().unwrap_or_else(PoisonError::into_inner).say(&line);
            }
        })?;
        Ok(Self { way, reader })
    }
}

/// From here on to syslog; without one, only where that was not asked for, nowhere.
fn turn(log: &Mutex<Way>, asked: bool) -> io::Result<()> {
    let socket = UnixDatagram::unbound().and_then(|socket| socket.connect("/dev/log").map(|()| socket));
    let way = match socket {
        Ok(socket) => Way::Syslog(socket),
        Err(_) if !asked => Way::Nowhere,
        Err(error) => return Err(error),
    };
    *log.lock().unwrap_or_else(PoisonError::into_inner) = way;
    Ok(())
}

impl Drop for Log {
    fn drop(&mut self) {
        // What was said last is still to be passed on. Those whom this process has started may hold on to it for longer.
        if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdout(&null).and_then(|()| rustix::stdio::dup2_stderr(&null));
        }
        let until = Instant::now() + LAST_WORDS;
        while !self.reader.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Way {
    fn say(&mut self, line: &[u8]) {
        let _ = match self {
            Self::Stderr(file) => file.write_all(&[line, b"\n"].concat()),
            Self::Syslog(log) => {
                let text = String::from_utf8_lossy(line);
                let text = text.strip_prefix("remotely: ").unwrap_or(&text);
                log.send(format!("<{PRIORITY}>remotely[{}]: {text}", std::process::id()).as_bytes()).map(drop)
            }
            Self::Nowhere => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_is_not_started_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        assert!(refuse_second(&path).is_ok());
        fs::write(&path, "garbage").unwrap();
        assert!(refuse_second(&path).is_ok());
        // No process can have this number: pid_max is at most 2^22.
        fs::write(&path, "2147483647\n").unwrap();
        assert!(refuse_second(&path).is_ok());
        let held = write_pidfile(&path).unwrap();
        assert!(matches!(refuse_second(&path), Err(BackgroundError::Running { .. })));
        drop(held);
        assert!(!path.exists());
    }
}
