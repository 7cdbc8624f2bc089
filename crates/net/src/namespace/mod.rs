//! A network for one command, made without privilege: whatever the command and its children send arrives at sockets that the process
//! outside holds. Nothing of the machine is touched, and all of it goes when any of its processes does.
//!
//! | process | has | does |
//! |---|---|---|
//! | owner | the machine's namespaces | capture and the link; forks the holder before it has a second thread |
//! | holder | user, network, mount namespace | makes the network, its rules and sockets, hands those out (`inside`); waits |
//! | init | pid namespace too | mounts what names are looked up by, runs the command, reaps (`init`) |
//!
//! The kernel ends the holder with the owner, init with the holder, and everything in the pid namespace with init.

mod init;
mod inside;
mod join;
mod probe;
mod rtnetlink;
mod rules;
mod sys;

use std::ffi::{CString, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};
use rustix::process::{Pid, getpid};
use tokio::io::unix::AsyncFd;

pub use self::join::{Door, JoinError, join};
pub use self::probe::NamespaceError;
use self::sys::Fork;
use crate::capture::{Original, Packets, Sockets};
use crate::socket;

/// Where names are asked for inside, and what connections come from there: of a network that exists on no wire (RFC 7335).
pub const ADDRESS_V4: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 0, 0, 2);
/// The same of IPv6: a local one, so that what has both prefers IPv4, which the other side has for certain.
pub const ADDRESS_V6: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd72, 0x656d, 0x6f74, 0x656c, 0x7900, 0, 0, 2);

/// What runs inside.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The command and its arguments, looked up in PATH.
    pub command: Vec<OsString>,
    /// It gets a process group of its own and the terminal at 0, as from a shell.
    pub foreground: bool,
    /// The signals that are to be ignored by it (bit n-1 is signal n).
    pub ignored: u64,
}

/// What has to be known before the command can start.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Its /etc/resolv.conf.
    pub resolv: Vec<u8>,
    /// Its /etc/hosts.
    pub hosts: Vec<u8>,
    /// IPv6 leads nowhere: connecting fails at once.
    pub no_v6: bool,
}

/// What became of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It could not be executed: errno.
    Failed(i32),
    /// It was stopped by this signal.
    Stopped(i32),
    /// It has ended, with this wait status.
    Ended(i32),
    /// The namespace is gone, and it with that.
    Gone,
}

/// A namespace, from outside. When dropped, it goes.
#[derive(Debug)]
pub struct Namespace {
    control: OwnedFd,
    watched: Option<AsyncFd<OwnedFd>>,
    holder: Pid,
    received: Vec<u8>,
}

/// What init and the holder say.
pub(crate) const SOCKETS: u8 = b'S';
pub(crate) const ERROR: u8 = b'E';
pub(crate) const FAILED: u8 = b'F';
pub(crate) const STOPPED: u8 = b'T';
pub(crate) const ENDED: u8 = b'X';
/// What init is told.
pub(crate) const START: u8 = b'G';
pub(crate) const SIGNAL: u8 = b'K';
pub(crate) const CONTINUE: u8 = b'C';

/// Most descriptors that are handed out.
const DESCRIPTORS_MAX: usize = 16;

impl Namespace {
    /// Begins to make one. Must be called while this process has one thread; the holder ends with that.
    pub fn make(settings: &Settings) -> io::Result<Self> {
        let words = settings.command.iter().map(|word| CString::new(word.as_bytes()));
        let command = words.collect::<Result<Vec<_>, _>>().map_err(|_| io::ErrorKind::InvalidInput)?;
        let (control, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let owner = getpid();
        match sys::fork()? {
            Fork::Child => {
                drop(control);
                inside::hold(&theirs, owner, &command, settings)
            }
            Fork::Parent(holder) => Ok(Self { control, watched: None, holder, received: Vec::new() }),
        }
    }

    /// Waits until the network is there. To be called once, first of all.
    pub async fn sockets(&mut self) -> Result<Sockets, NamespaceError> {
        self.made().await.map_err(|error| error.unwrap_or_else(|| probe::lost(self.holder)))
    }

    async fn made(&mut self) -> Result<Sockets, Option<NamespaceError>> {
        let control = self.control.try_clone().map_err(|_| None)?;
        rustix::io::ioctl_fionbio(&control, true).map_err(|_| None)?;
        let watched = self.watched.insert(socket::register(control).map_err(|_| None)?);
        let mut descriptors = Vec::new();
        loop {
            let mut ready = watched.readable().await.map_err(|_| None)?;
            let mut buffer = [0; 4096];
            let taken = ready.try_io(|control| receive(control.get_ref(), &mut buffer, &mut descriptors));
            match taken {
                Ok(Ok(0) | Err(_)) => return Err(None),
                Ok(Ok(n)) => self.received.extend_from_slice(&buffer[..n]),
                Err(_) => continue,
            }
            match self.received.as_slice() {
                [ERROR, error @ ..] => match probe::decode(error) {
                    Some(error) => return Err(Some(error)),
                    None => continue,
                },
                [SOCKETS, count, kinds @ ..] if kinds.len() >= usize::from(*count) => {
                    let (kinds, rest) = kinds.split_at((*count).into());
                    let sockets = sort(kinds, &mut descriptors);
                    self.received = rest.to_vec();
                    return sockets.ok_or(None);
                }
                _ => {}
            }
        }
    }

    /// Starts the command.
    pub fn start(&self, start: &Start) -> io::Result<()> {
        let mut message = vec![START, start.no_v6.into()];
        for text in [&start.resolv, &start.hosts] {
            message.extend((text.len() as u32).to_le_bytes());
            message.extend(text);
        }
        self.tell(&message)
    }

    /// Sends the command a signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        self.tell(&[SIGNAL, signal as u8])
    }

    /// Lets the command go on after it was stopped, with the terminal again or without.
    pub fn resume(&self, foreground: bool) -> io::Result<()> {
        self.tell(&[CONTINUE, foreground.into()])
    }

    fn tell(&self, message: &[u8]) -> io::Result<()> {
        // So much goes into the socket at once, or is taken out by init while it waits for nothing else.
        let mut rest = message;
        while !rest.is_empty() {
            match rustix::net::send(&self.control, rest, rustix::net::SendFlags::NOSIGNAL) {
                Ok(n) => rest = &rest[n..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let mut room = [rustix::event::PollFd::new(&self.control, rustix::event::PollFlags::OUT)];
                    rustix::event::poll(&mut room, None)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What became of the command next. Cancel safe. To be called after [`sockets`](Self::sockets).
    pub async fn event(&mut self) -> Event {
        loop {
            if let [kind, a, b, c, d, ..] = *self.received {
                self.received.drain(..5);
                let number = i32::from_le_bytes([a, b, c, d]);
                match kind {
                    FAILED => return Event::Failed(number),
                    STOPPED => return Event::Stopped(number),
                    ENDED => return Event::Ended(number),
                    _ => return Event::Gone,
                }
            }
            let Some(watched) = &self.watched else { return Event::Gone };
            let Ok(mut ready) = watched.readable().await else { return Event::Gone };
            let mut buffer = [0; 256];
            match ready.try_io(|control| Ok(rustix::io::read(control.get_ref(), &mut buffer)?)) {
                Ok(Ok(0) | Err(_)) => return Event::Gone,
                Ok(Ok(n)) => self.received.extend_from_slice(&buffer[..n]),
                Err(_) => {}
            }
        }
    }

    /// The process id of the holder.
    pub fn holder(&self) -> Pid {
        self.holder
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.holder, rustix::process::Signal::KILL);
        let _ = sys::wait_end(self.holder);
    }
}

fn receive(from: &OwnedFd, into: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(from, &mut [io::IoSliceMut::new(into)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(found) = part {
            descriptors.extend(found);
        }
    }
    Ok(message.bytes)
}

/// What a descriptor is that is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Connections,
    Datagrams,
    NamesDatagram,
    NamesStream,
    Echo,
    RawV4,
    RawV6,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Connections,
        Self::Datagrams,
        Self::NamesDatagram,
        Self::NamesStream,
        Self::Echo,
        Self::RawV4,
        Self::RawV6,
    ];
}

fn sort(kinds: &[u8], descriptors: &mut Vec<OwnedFd>) -> Option<Sockets> {
    let (mut sockets, mut v4, mut v6) = (Sockets::default(), None, None);
    if kinds.len() != descriptors.len() {
        return None;
    }
    for (kind, fd) in kinds.iter().zip(descriptors.drain(..)) {
        match Kind::ALL.get(usize::from(*kind))? {
            Kind::Connections => sockets.connections.push((fd, Original::Redirected)),
            Kind::Datagrams => sockets.datagrams.push(fd),
            Kind::NamesDatagram => sockets.names.0.push(fd),
            Kind::NamesStream => sockets.names.1.push(fd),
            Kind::Echo => sockets.echo.push(fd),
            Kind::RawV4 => v4 = Some(fd),
            Kind::RawV6 => v6 = Some(fd),
        }
    }
    // Where there is no IPv6 nobody answers in its name.
    let v6 = v6.or_else(|| v4.as_ref().and_then(|v4: &OwnedFd| v4.as_fd().try_clone_to_owned().ok()));
    sockets.packets = v4.zip(v6).map(|(v4, v6)| Packets { v4, v6 });
    Some(sockets)
}
