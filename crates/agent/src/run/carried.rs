//! The descriptors of a command as the agent makes them: pipes, sockets and the pty, with our ends of them. Called by
//! [`crate::run::exec`]; files are opened by the command itself, in its root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use remotely_proto::exec::{FdKind, FdSpec, Request, Step};
use rustix::fs::{Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use crate::run::channel::FDS_MAX;
use crate::run::order::{Descriptor, Failure, Source};
use crate::run::relay::{End, Kind};
use crate::run::terminal;

/// All of them.
#[derive(Default)]
pub(crate) struct Carried {
    /// What the command is told.
    pub(crate) wanted: Vec<Descriptor>,
    /// What is passed to it.
    passed: Vec<OwnedFd>,
    /// Which of the passed ones is the terminal.
    pub(crate) tty: Option<u32>,
    /// Our ends.
    pub(crate) ends: Vec<Carry>,
}

/// Our end of one, and which ways it goes.
pub(crate) struct Carry {
    /// Number of the descriptor, which its stream has too.
    pub(crate) fd: u32,
    /// It.
    pub(crate) end: Arc<End>,
    /// Bytes go to the command.
    pub(crate) feeds: bool,
    /// Bytes come from the command.
    pub(crate) yields: bool,
}

/// Makes what the request asks for; it belongs to `owner`, if not to the agent's user, and can be opened by name (/dev/stderr). Must be called in a runtime.
pub(crate) fn make(request: &Request, owner: Option<u32>) -> Result<Carried, Failure> {
    let numbers: Vec<u32> = request.fds.iter().map(|spec| spec.fd).collect();
    if numbers.len() > FDS_MAX || !numbers.is_sorted_by(|a, b| a < b) {
        return Err(Failure::new(Step::Descriptor, Errno::INVAL, "descriptors out of order, or too many"));
    }
    let mut carried = Carried::default();
    for spec in &request.fds {
        carried.add(spec, request, owner)?;
    }
    Ok(carried)
}

impl Carried {
    /// Those to be passed, in order.
    pub(crate) fn passed(&self) -> Vec<BorrowedFd<'_>> {
        self.passed.iter().map(AsFd::as_fd).collect()
    }

    /// Closes the command's ends here, but for its terminal, which is returned.
    pub(crate) fn close_passed(&mut self) -> Option<OwnedFd> {
        let tty = self.tty.map(|index| index as usize);
        self.passed.drain(..).enumerate().find(|(index, _)| Some(*index) == tty).map(|(_, fd)| fd)
    }

    fn add(&mut self, spec: &FdSpec, request: &Request, owner: Option<u32>) -> Result<(), Failure> {
        let fd = spec.fd;
        let failed =
            |error: io::Error, what: &str| Failure::new(Step::Descriptor, error, format!("descriptor {fd}: {what}"));
        let source = match &spec.kind {
            FdKind::Tty => match self.tty {
                Some(index) => Source::Same(self.number_of(index)),
                None => {
                    let tty =
                        request.tty.as_ref().ok_or_else(|| failed(Errno::NOTTY.into(), "no terminal is described"))?;
                    let pty = terminal::open(tty, owner)?;
                    let end = End::new(pty.master, Kind::Pty).map_err(|error| failed(error, "a pseudoterminal"))?;
                    self.ends.push(Carry { fd, end, feeds: true, yields: true });
                    self.tty = Some(self.passed.len() as u32);
                    self.pass(pty.slave)
                }
            },
            FdKind::PipeIn | FdKind::PipeOut => {
                let feeds = spec.kind == FdKind::PipeIn;
                let (reader, writer) =
                    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into(), "a pipe"))?;
                let (ours, theirs) = if feeds { (writer, reader) } else { (reader, writer) };
                let owner = owner.map(Uid::from_raw);
                rustix::fs::fchown(&theirs, owner, None).map_err(|error| failed(error.into(), "a pipe"))?;
                let end = End::new(ours, Kind::Pipe).map_err(|error| failed(error, "a pipe"))?;
                self.ends.push(Carry { fd, end, feeds, yields: !feeds });
                self.pass(theirs)
            }
            FdKind::Socket => {
                let (ours, theirs) =
                    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                        .map_err(|error| failed(error.into(), "a socket"))?;
                let end = End::new(ours, Kind::Socket).map_err(|error| failed(error, "a socket"))?;
                self.ends.push(Carry { fd, end, feeds: true, yields: true });
                self.pass(theirs)
            }
            FdKind::File { path, flags, offset, ino, .. } => {
                Source::File { path: path.clone(), flags: *flags, offset: *offset, ino: *ino }
            }
            FdKind::Null { flags } => {
                let flags = OFlags::from_bits_retain(*flags) & (OFlags::RWMODE | OFlags::APPEND | OFlags::NONBLOCK);
                let null = rustix::fs::open("/dev/null", flags | OFlags::CLOEXEC, Mode::empty());
                let null = null.map_err(|error| failed(error.into(), "open /dev/null of the host"))?;
                self.pass(null)
            }
            FdKind::Same { of } => Source::Same(*of),
        };
        self.wanted.push(Descriptor { fd, source });
        Ok(())
    }

    fn pass(&mut self, fd: OwnedFd) -> Source {
        self.passed.push(fd);
        Source::Passed(self.passed.len() as u32 - 1)
    }

    fn number_of(&self, index: u32) -> u32 {
        let is_it = |wanted: &&Descriptor| matches!(wanted.source, Source::Passed(of) if of == index);
        self.wanted.iter().find(is_it).map_or(0, |wanted| wanted.fd)
    }
}
