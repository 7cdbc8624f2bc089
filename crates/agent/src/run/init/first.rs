//! Pid 1 of the namespace: mounts the root, starts commands, tells what becomes of them, and reaps everything else. Has
//! one thread, one loop, and never waits for one command only; its end is the end of all that was started.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use remotely_proto::exec::{Identity, Step};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Pid, Signal, set_parent_process_death_signal};

use super::blocked::Device;
use super::command::{self, Terminal, Word};
use super::fail;
use super::namespace::Entered;
use super::root::{self, Prepared};
use super::shifted;
use super::waiting::{self, Found};
use crate::run::channel::{Incoming, Outgoing};
use crate::run::order::{Exit, Failure, Mounted, News, Order, Root, Run, Setup};
use crate::sys::{self, Fork, Waited};

/// How long what is hung up on may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// What pid 1 begins with.
pub(crate) struct Start {
    /// To the agent.
    pub(crate) socket: OwnedFd,
    /// What came over it.
    pub(crate) incoming: Incoming,
    /// Says what the host calls this process, and ends with init.
    pub(crate) lifeline: OwnedFd,
    /// What the root is made of.
    pub(crate) setup: Setup,
    /// Who commands are.
    pub(crate) identity: Identity,
    /// What the namespaces allow.
    pub(crate) entered: Entered,
}

struct First {
    socket: OwnedFd,
    incoming: Incoming,
    lifeline: OwnedFd,
    signals: OwnedFd,
    prepared: Option<Prepared>,
    commands: Vec<Command>,
    /// setgroups(2) is allowed.
    groups: bool,
    read_only: bool,
    /// The session of this process has a terminal: that of this command.
    terminal_of: Option<u32>,
    hung_up: Option<Instant>,
    /// /proc of this namespace.
    proc: Option<OwnedFd>,
}

struct Command {
    id: u32,
    pid: Pid,
    /// Open until it has executed.
    words: Option<(OwnedFd, Incoming)>,
    /// Copies of its files.
    files: Vec<(u32, OwnedFd)>,
    terminal: Option<Device>,
    /// Looks whether it waits for input of the terminal.
    looks: Option<Pid>,
    state: State,
}

enum State {
    Runs,
    /// It never ran and said why.
    NotStarted,
    /// It ended; this process hands what it wrote by mmap(2) to the mount.
    Syncs {
        end: Waited,
        by: Pid,
    },
}

/// Runs until everything ends.
pub(crate) fn run(start: Start) -> ! {
    let Start { socket, incoming, lifeline, setup, identity, entered } = start;
    let owner = (identity.uid, identity.gid);
    let owner = if entered.ids.is_some() { owner } else { (0, 0) };
    let begun = (|| {
        // Commands of one session can be stopped by their terminal: their parent is in it, in another group.
        rustix::process::setsid().map_err(|error| Failure::new(Step::Setup, error, "setsid"))?;
        let signals = sys::signal_fd(&[libc::SIGCHLD, libc::SIGHUP])
            .map_err(|error| Failure::new(Step::Setup, error, "signalfd"))?;
        if setup.root != Root::Host {
            // A name that Linux does not take is no reason not to run.
            let _ = rustix::system::sethostname(&identity.hostname);
        }
        let mut number = [0; 4];
        if !matches!(rustix::io::read(&lifeline, &mut number), Ok(4)) {
            sys::exit_now(0);
        }
        let (prepared, fuse) = root::prepare(&setup, owner)?;
        if entered.shifted {
            shifted::become_root()?;
            // Taken away by that. An init that is gone by now shows on the lifeline.
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
        }
        Ok((signals, u32::from_ne_bytes(number), prepared, fuse))
    })();
    let (signals, init_pid, prepared, fuse) = begun.unwrap_or_else(|failure| fail(&socket, failure));
    let mut first = First {
        socket,
        incoming,
        lifeline,
        signals,
        commands: Vec::new(),
        groups: entered.groups,
        read_only: setup.view.read_only,
        terminal_of: None,
        hung_up: None,
        proc: None,
        prepared: None,
    };
    let prefix = if setup.root == Root::Host { prepared.mount_point().to_vec().into() } else { Vec::new().into() };
    first.prepared = Some(prepared);
    let fuse_fds: Vec<_> = fuse.iter().map(AsFd::as_fd).collect();
    first.send(&News::Mounted(Mounted { init_pid, ids: entered.ids, owner: entered.owner, prefix }), &fuse_fds);
    // The agent's copy must be the last one: when the agent dies, whoever waits for the mount must be let go.
    drop(fuse_fds);
    drop(fuse);
    loop {
        if let Err(error) = first.turn() {
            eprintln!("remotely: pid 1 of the command: {error}");
            sys::exit_now(1);
        }
    }
}

impl First {
    fn turn(&mut self) -> io::Result<()> {
        if let Some(since) = self.hung_up
            && (since.elapsed() >= GRACE || !self.reap()?)
        {
            sys::exit_now(0);
        }
        let timeout = self.hung_up.map(|since| GRACE.saturating_sub(since.elapsed()));
        let timeout = timeout.and_then(|timeout| rustix::event::Timespec::try_from(timeout).ok());
        let mut fds = vec![
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.lifeline, PollFlags::IN),
        ];
        let talking: Vec<u32> = self.commands.iter().filter(|command| command.words.is_some()).map(|c| c.id).collect();
        fds.extend(self.commands.iter().filter_map(|c| c.words.as_ref()).map(|(fd, _)| PollFd::new(fd, PollFlags::IN)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[2] {
            sys::exit_now(0);
        }
        for (id, _) in talking.into_iter().zip(&ready[3..]).filter(|(_, ready)| **ready) {
            self.listen(id)?;
        }
        if ready[1] {
            self.take_signals()?;
            self.reap()?;
        }
        if ready[0] {
            self.take_orders()?;
        }
        Ok(())
    }

    fn send(&self, news: &News, fds: &[std::os::fd::BorrowedFd<'_>]) {
        // A failure is the agent's end, which the socket shows when it is read.
        let _ = Outgoing::new(news, fds).and_then(|news| news.send(&self.socket));
    }

    fn take_orders(&mut self) -> io::Result<()> {
        match self.incoming.receive_some(&self.socket, RecvFlags::DONTWAIT) {
            Ok(true) => {}
            Ok(false) => sys::exit_now(0),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => sys::exit_now(0),
        }
        while let Some((order, fds)) = self.incoming.next()? {
            match order {
                Order::Setup(_) => return Err(io::Error::other("a second setup")),
                Order::Go => self.go(),
                Order::Run(run) => self.start(run, fds),
                Order::Signal { id, signal } => self.signal(id, signal),
                Order::Announce { id, polls } => self.announce(id, polls),
                Order::HangUp => {
                    self.commands.iter_mut().for_each(Command::look_no_more);
                    sys::kill_all(libc::SIGHUP);
                    sys::kill_all(libc::SIGCONT);
                    self.hung_up = Some(Instant::now());
                }
            }
        }
        Ok(())
    }

    fn go(&mut self) {
        if let Some(prepared) = self.prepared.take() {
            match root::enter(prepared) {
                Ok(proc) => {
                    self.proc = proc;
                    self.send(&News::Ready, &[]);
                }
                Err(failure) => fail(&self.socket, failure),
            }
        }
    }

    fn start(&mut self, run: Run, fds: Vec<OwnedFd>) {
        let (id, announce) = (run.id, run.announce);
        let tty = run.tty.and_then(|index| fds.get(index as usize));
        let terminal = match tty {
            None => Terminal::None,
            Some(tty) if self.take_terminal(id, tty) => Terminal::OfSession,
            Some(_) => Terminal::OfCommand,
        };
        let device = tty.and_then(|tty| waiting::device(tty.as_fd()));
        match command::begin(run, fds, terminal, self.groups) {
            Ok(begun) => {
                let words = Some((begun.words, Incoming::default()));
                self.commands.push(Command {
                    id,
                    pid: begun.pid,
                    words,
                    files: Vec::new(),
                    terminal: device,
                    looks: None,
                    state: State::Runs,
                });
                if announce {
                    self.announce(id, true);
                }
            }
            Err(error) => {
                let failure = Failure::new(Step::Setup, error, "fork the command");
                self.send(&News::NotStarted { id, failure }, &[]);
            }
        }
    }

    /// Makes `tty` the terminal of this session, unless a running command has it already.
    fn take_terminal(&mut self, id: u32, tty: &OwnedFd) -> bool {
        if let Some(other) = self.terminal_of {
            if self.commands.iter().any(|command| command.id == other) {
                return false;
            }
            let own = rustix::fs::open("/dev/tty", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
            let _ = own.map_err(io::Error::from).and_then(|own| sys::leave_terminal(own.as_fd()));
        }
        self.terminal_of = rustix::process::ioctl_tiocsctty(tty).is_ok().then_some(id);
        self.terminal_of.is_some()
    }

    fn signal(&self, id: u32, signal: u32) {
        let Some(command) = self.commands.iter().find(|command| command.id == id) else { return };
        if matches!(command.state, State::Runs) && sys::kill(command.pid, true, signal).is_err() {
            let _ = sys::kill(command.pid, false, signal);
        }
    }

    /// Has somebody look whether the command waits for input of its terminal.
    fn announce(&mut self, id: u32, polls: bool) {
        let Some(command) = self.commands.iter_mut().find(|command| command.id == id) else { return };
        command.look_no_more();
        if let (Some(proc), Some(terminal), State::Runs) = (&self.proc, command.terminal, &command.state) {
            // Who cannot look sees nobody wait.
            command.looks = waiting::start(proc.as_fd(), terminal, polls).ok();
        }
    }

    /// What a process says that is about to execute. `false` if there is nothing more for now.
    fn listen(&mut self, id: u32) -> io::Result<bool> {
        let Some(command) = self.commands.iter_mut().find(|command| command.id == id) else { return Ok(false) };
        let Some((socket, incoming)) = &mut command.words else { return Ok(false) };
        let more = match incoming.receive_some(&*socket, RecvFlags::DONTWAIT) {
            Ok(more) => more,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(_) => false,
        };
        let mut news = None;
        while let Some((word, fds)) = incoming.next()? {
            match word {
                Word::Files(numbers) => command.files = numbers.into_iter().zip(fds).collect(),
                Word::Failed(failure) => {
                    command.state = State::NotStarted;
                    news = Some(News::NotStarted { id, failure });
                }
            }
        }
        if !more {
            command.words = None;
            if matches!(command.state, State::Runs) {
                news = Some(News::Started { id });
            }
        }
        if let Some(news) = news {
            self.send(&news, &[]);
        }
        Ok(true)
    }

    fn take_signals(&mut self) -> io::Result<()> {
        let mut buffer = [0_u8; 16 * size_of::<libc::signalfd_siginfo>()];
        let read = match rustix::io::read(&self.signals, &mut buffer) {
            Ok(read) => read,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for info in buffer[..read].chunks_exact(size_of::<libc::signalfd_siginfo>()) {
            // ssi_signo is the first field.
            let signal = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
            // One that comes late is of the terminal before.
            let gone = || !self.proc.as_ref().is_some_and(|proc| waiting::has_terminal(proc.as_fd()));
            if signal == libc::SIGHUP as u32
                && let Some(id) = self.terminal_of
                && gone()
            {
                // The terminal is gone: as the leader of its session this process passes it on, as a shell does.
                self.signal(id, libc::SIGHUP as u32);
                self.signal(id, libc::SIGCONT as u32);
            }
        }
        Ok(())
    }

    /// Takes note of every change among the children. `false` when there are none left.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            match sys::wait_any() {
                Ok(Some(waited)) => self.note(waited)?,
                Ok(None) => return Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn note(&mut self, waited: Waited) -> io::Result<()> {
        if let Some(command) = self.commands.iter_mut().find(|command| command.looks == Some(waited.pid)) {
            if waited.ended() {
                command.looks = None;
                let id = command.id;
                if let Some(found) = Found::of(waited.status) {
                    self.send(&News::Reads { id, polls: found == Found::Poll }, &[]);
                }
            }
            return Ok(());
        }
        let Some(index) = self.commands.iter().position(|command| command.concerns(waited.pid)) else { return Ok(()) };
        let id = self.commands[index].id;
        if let State::Syncs { end, .. } = self.commands[index].state {
            self.finish(index, end);
            return Ok(());
        }
        let status = waited.status;
        if libc::WIFSTOPPED(status) {
            self.send(&News::Stopped { id, signal: Some(libc::WSTOPSIG(status).unsigned_abs()) }, &[]);
        } else if libc::WIFCONTINUED(status) {
            self.send(&News::Stopped { id, signal: None }, &[]);
        } else {
            self.commands[index].look_no_more();
            // Its last word may still be unread.
            while self.listen(id)? {}
            if matches!(self.commands[index].state, State::NotStarted) {
                self.commands.swap_remove(index);
            } else if self.read_only {
                self.finish(index, waited);
            } else {
                self.sync(index, waited);
            }
        }
        Ok(())
    }

    /// Has the kernel hand to the mount what is dirty. In a process of its own: it may take long, and others go on.
    fn sync(&mut self, index: usize, end: Waited) {
        match sys::fork() {
            Ok(Fork::Parent(by)) => self.commands[index].state = State::Syncs { end, by },
            Ok(Fork::Child) => {
                let root = rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
                let _ = root.and_then(|root| rustix::fs::syncfs(&root));
                sys::exit_now(0)
            }
            Err(_) => self.finish(index, end),
        }
    }

    fn finish(&mut self, index: usize, end: Waited) {
        let command = self.commands.swap_remove(index);
        let position = |(fd, file): &(u32, OwnedFd)| Some((*fd, rustix::fs::seek(file, SeekFrom::Current(0)).ok()?));
        let offsets = command.files.iter().filter_map(position).collect();
        let exit = Exit { status: end.status.cast_unsigned(), offsets, cpu: end.cpu };
        self.send(&News::Exited { id: command.id, exit }, &[]);
    }
}

impl Command {
    fn concerns(&self, pid: Pid) -> bool {
        match &self.state {
            State::Syncs { by, .. } => *by == pid,
            _ => self.pid == pid,
        }
    }

    fn look_no_more(&mut self) {
        if let Some(looks) = self.looks.take() {
            // Until its end is taken note of here, the number is nobody else's.
            let _ = sys::kill(looks, false, libc::SIGKILL as u32);
        }
    }
}
