//! The client's side of the elevated helper: starts it, hands over what the rules shall be, and by its own end ends it. Blocks: call it
//! on a thread that may wait.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::line::{self, Go, Request};
use super::{socket, spawn};
use crate::hosts::is_name;
use crate::rules::Desired;

/// Lines that may come before READY: what an administrator's sudo has to say.
const NOISE: usize = 100;
/// The longest line that is looked at.
const LONGEST: usize = 8192;
/// How long the helper may take to undo.
const UNDOING: Duration = Duration::from_secs(20);

/// What went wrong with the helper.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing that gives root is there, or none has worked.
    #[error("rules of the whole machine need root: {}; without it, `remotely net TARGET -- COMMAND` does the same for one command", tried.join("; "))]
    Elevate {
        /// What was tried, and how it ended.
        tried: Vec<String>,
    },
    /// The helper has ended, and has said why on standard error.
    #[error("the firewall helper has ended while it should {doing}")]
    Ended {
        /// What it should do.
        doing: &'static str,
    },
    /// The helper cannot be talked to.
    #[error("the firewall helper can't be talked to")]
    Talk(#[source] io::Error),
    /// The helper says something else.
    #[error("the firewall helper said {line:?}")]
    Unexpected {
        /// Its line.
        line: String,
    },
    /// What the host calls a name is none.
    #[error("the host told a name that is none")]
    Name,
    /// No socket may speak in this name.
    #[error("no answer can be sent in the name of {source_address}")]
    Source {
        /// The name.
        source_address: SocketAddr,
    },
}

/// A running helper. Dropping it undoes the rules (but for a kill switch) and waits for that.
#[derive(Debug)]
pub struct Firewall {
    socket: Option<UnixStream>,
    child: Child,
    method: String,
    read: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Firewall {
    /// Starts the helper, elevated by sudo or doas unless this is root already, and waits until it is ready. `argv` is our own executable
    /// and the words that make it a helper. May ask for a password on the terminal.
    ///
    /// # Errors
    ///
    /// None of the ways gives root, or the helper refuses to work.
    pub fn start(argv: &[OsString]) -> Result<Self, ClientError> {
        Self::start_with(&ways(argv))
    }

    /// Runs `argv`, elevated in the same way, to its end.
    ///
    /// # Errors
    ///
    /// None of the ways gives root, or it fails.
    pub fn run(argv: &[OsString]) -> Result<(), ClientError> {
        let mut tried = Vec::new();
        for way in ways(argv) {
            let name = way.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            match spawn::any(&way).map(|mut command| command.status()) {
                Some(Ok(status)) if status.success() => return Ok(()),
                Some(Ok(status)) => tried.push(format!("{name}: {status}")),
                Some(Err(error)) => tried.push(format!("{name}: {error}")),
                None => {}
            }
        }
        Err(ClientError::Elevate { tried })
    }

    /// Tries command lines in order, until one is a helper that is ready.
    ///
    /// # Errors
    ///
    /// None is.
    pub fn start_with(ways: &[Vec<OsString>]) -> Result<Self, ClientError> {
        let mut tried = Vec::new();
        for way in ways {
            let name = way.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            match Self::start_one(way) {
                Ok(started) => return Ok(started),
                Err(why) => tried.push(format!("{name}: {why}")),
            }
        }
        Err(ClientError::Elevate { tried })
    }

    fn start_one(way: &[OsString]) -> Result<Self, String> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        let mut command = spawn::any(way).ok_or("no command")?;
        // One socket for both, as a pipe can carry no descriptors.
        let output = theirs.try_clone().map_err(|error| error.to_string())?;
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::from(OwnedFd::from(output)));
        let child = command.spawn().map_err(|error| error.to_string())?;
        drop(command);
        let mut firewall =
            Self { socket: Some(ours), child, method: String::new(), read: Vec::new(), descriptors: Vec::new() };
        for _ in 0..=NOISE {
            match firewall.line() {
                Ok(Some(line)) => {
                    if let Some(method) = line.strip_prefix("READY ") {
                        firewall.method = method.to_owned();
                        return Ok(firewall);
                    }
                }
                Ok(None) => {
                    return Err(firewall
                        .child
                        .wait()
                        .map_or_else(|error| error.to_string(), |status| status.to_string()));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(format!("said {NOISE} lines, none of them READY"))
    }

    /// Which method the helper has chosen.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The process that was started: the helper, or the sudo that has started it.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Sets the rules; may be called again with others, but not with other ports. Gives, the first time, the transparent listeners: TCP
    /// (with method tproxy) and UDP (if there is any), IPv4 before IPv6. They don't block.
    /// UDP has the ports of TCP, whatever `desired.udp` says; the name of the instance is the port of TCP.
    ///
    /// # Errors
    ///
    /// The helper has refused; it has ended and undone everything.
    pub fn set(&mut self, desired: &Desired) -> Result<Vec<OwnedFd>, ClientError> {
        let go = Go { desired: desired.clone(), client: std::process::id() };
        self.say(&Request::Go(Box::new(go)))?;
        self.expect("STARTED", "set the rules")?;
        Ok(std::mem::take(&mut self.descriptors))
    }

    /// Puts a name of the host's network into the hosts file.
    ///
    /// # Errors
    ///
    /// It is none; the helper has ended.
    pub fn name(&mut self, name: &str, address: IpAddr) -> Result<(), ClientError> {
        // The host says what it likes: a line of its own to the helper would be worth something.
        if !is_name(name) {
            return Err(ClientError::Name);
        }
        self.say(&Request::Host { name: name.into(), address })
    }

    /// A socket that sends datagrams in the name of a captured destination. It doesn't block.
    ///
    /// # Errors
    ///
    /// This is not captured, or in use here.
    pub fn source(&mut self, source: SocketAddr) -> Result<OwnedFd, ClientError> {
        self.say(&Request::Source(source))?;
        self.expect(&format!("SOURCE {},{}", source.ip(), source.port()), "make a socket")?;
        self.descriptors.pop().ok_or(ClientError::Source { source_address: source })
    }

    /// A descriptor that becomes readable when the helper has ended, and not before.
    ///
    /// # Errors
    ///
    /// Too many open files.
    pub fn watch(&self) -> io::Result<UnixStream> {
        self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?.try_clone()
    }

    /// The user has ended it: also a kill switch is lifted.
    pub fn end(self) {
        // A helper that has ended has undone everything.
        let _ = self.say(&Request::Done);
    }

    fn say(&self, request: &Request) -> Result<(), ClientError> {
        let Some(socket) = &self.socket else { return Err(ClientError::Ended { doing: "listen" }) };
        socket::send(socket.as_fd(), line::say(request).as_bytes(), &[]).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::Ended { doing: "listen" },
            _ => ClientError::Talk(error),
        })
    }

    fn expect(&mut self, wanted: &str, doing: &'static str) -> Result<(), ClientError> {
        let line = self.line().map_err(ClientError::Talk)?.ok_or(ClientError::Ended { doing })?;
        if line == wanted { Ok(()) } else { Err(ClientError::Unexpected { line }) }
    }

    /// The next line; none at the end.
    fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).take(end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()));
            }
            if self.read.len() > LONGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end"));
            }
            let Some(socket) = &self.socket else { return Ok(None) };
            let mut buffer = [0; 4096];
            let (read, descriptors) = match socket::receive(socket.as_fd(), &mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => (0, Vec::new()),
                received => received?,
            };
            if read == 0 {
                return Ok(None);
            }
            self.read.extend_from_slice(&buffer[..read]);
            self.descriptors.extend(descriptors);
        }
    }
}

/// Command lines that run this one as root.
fn ways(argv: &[OsString]) -> Vec<Vec<OsString>> {
    if rustix::process::geteuid().is_root() {
        return vec![argv.to_vec()];
    }
    let sudo = ["sudo", "-p", "[local sudo] Password: "];
    let ways = [&sudo[..], &["doas"]].into_iter();
    ways.map(|way| way.iter().map(OsString::from).chain(argv.iter().cloned()).collect()).collect()
}

impl Drop for Firewall {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            // Also where a copy of it is watched.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        let until = Instant::now() + UNDOING;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
