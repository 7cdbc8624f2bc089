//! Init: the first process of the pid namespace. Mounts what names are looked up by, runs the command, reaps whatever ends, and tells
//! the owner of the command. When it ends, everything in the namespace does. Has one thread.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount};
use rustix::process::{Pid, Signal, set_parent_process_death_signal};

use super::sys::{self, Fork};
use super::{CONTINUE, ENDED, FAILED, SIGNAL, START, STOPPED, Settings, Start, inside};

/// Longest text that it is told.
const TEXT_MAX: usize = 8 << 20;
/// Where files lie until they are in their places. Nobody sees that: it is gone before the command starts.
const STAGE: &CStr = c"/tmp";

/// Does not return.
pub(super) fn run(control: &OwnedFd, command: &[CString], settings: &Settings) -> ! {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let _ = mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC);
    // Where a container lets nobody mount it, that of outside stays: it shows what runs by other numbers.
    let _ = mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None);
    let mut socket = std::fs::File::from(match control.try_clone() {
        Ok(control) => control,
        Err(_) => sys::exit_now(1),
    });
    let Ok(start) = started(&mut socket) else { sys::exit_now(0) };
    if start.no_v6 {
        inside::without_v6();
    }
    if let Err(error) = place(&start) {
        let _ = writeln!(io::stderr(), "remotely: names are looked up as outside: {error}");
    }
    sys::set_blocked(sys::bit(libc::SIGCHLD));
    let children = sys::signal_fd(libc::SIGCHLD);
    let (Ok(children), Ok(child)) = (children, spawn(command, settings)) else { sys::exit_now(1) };
    match child {
        Ok(child) => serve(&mut socket, &children, child, settings.foreground),
        Err(errno) => {
            tell(&mut socket, FAILED, errno);
            sys::exit_now(0)
        }
    }
}

fn started(socket: &mut std::fs::File) -> io::Result<Start> {
    let mut head = [0; 2];
    socket.read_exact(&mut head)?;
    let [START, no_v6] = head else { return Err(io::ErrorKind::InvalidData.into()) };
    let mut text = || {
        let mut length = [0; 4];
        socket.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > TEXT_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut text = vec![0; length];
        socket.read_exact(&mut text)?;
        Ok(text)
    };
    Ok(Start { resolv: text()?, hosts: text()?, no_v6: no_v6 == 1 })
}

/// Puts the files over those of the machine.
fn place(start: &Start) -> io::Result<()> {
    let modules = nsswitch();
    mount("remotely", STAGE, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, Some(c"mode=755"))?;
    let files =
        [("resolv.conf", Some(&start.resolv)), ("hosts", Some(&start.hosts)), ("nsswitch.conf", modules.as_ref())];
    let placed = files.into_iter().try_for_each(|(name, text)| {
        let Some(text) = text else { return Ok(()) };
        let from = Path::new("/tmp").join(name);
        fs::write(&from, text)?;
        match mount_bind(&from, Path::new("/etc").join(name)) {
            // A machine that has no such file has nothing to be covered.
            Err(Errno::NOENT) => Ok(()),
            done => done.map_err(io::Error::from),
        }
    });
    // It answers from what it knows of outside.
    let _ = fs::create_dir("/tmp/empty").and_then(|()| mount_bind("/tmp/empty", "/run/nscd").map_err(io::Error::from));
    unmount(STAGE, UnmountFlags::DETACH)?;
    placed
}

/// The machine's, with names looked for in files and DNS only, if it knows other ways: those ask somebody outside.
fn nsswitch() -> Option<Vec<u8>> {
    let text = fs::read_to_string("/etc/nsswitch.conf").ok()?;
    let is_hosts = |line: &&str| line.trim_start().starts_with("hosts:");
    let hosts = text.lines().find(is_hosts)?;
    let plain = hosts.split_ascii_whitespace().skip(1).all(|word| matches!(word, "files" | "dns"));
    (!plain).then(|| text.replace(hosts, "hosts: files dns").into_bytes())
}

/// The command, or the errno of why not.
fn spawn(command: &[CString], settings: &Settings) -> io::Result<Result<Pid, i32>> {
    let (mut failure, report) = io::pipe()?;
    let child = match sys::fork()? {
        Fork::Parent(child) => child,
        Fork::Child => {
            if settings.foreground {
                to_foreground(None);
            }
            sys::set_dispositions(settings.ignored);
            let errno = sys::execute(command).raw_os_error().unwrap_or(libc::EIO);
            let _ = { report }.write_all(&errno.to_le_bytes());
            sys::exit_now(127)
        }
    };
    drop(report);
    let mut errno = [0; 4];
    match failure.read_exact(&mut errno) {
        Ok(()) => {
            let _ = sys::wait_end(child);
            Ok(Err(i32::from_le_bytes(errno)))
        }
        Err(_) => Ok(Ok(child)),
    }
}

/// Gives a process group the terminal; that of this process, made for it, if none is named.
fn to_foreground(group: Option<Pid>) {
    // From the background this would stop who does it.
    sys::set_blocked(sys::bit(libc::SIGTTOU) | sys::bit(libc::SIGCHLD));
    if group.is_none() {
        let _ = rustix::process::setpgid(None, None);
    }
    let group = group.unwrap_or_else(rustix::process::getpid);
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), group);
    sys::set_blocked(sys::bit(libc::SIGCHLD));
}

fn serve(socket: &mut std::fs::File, children: &OwnedFd, child: Pid, foreground: bool) -> ! {
    let number = child.as_raw_nonzero().get();
    // In the group of the owner, others are not ours to signal.
    let target = if foreground { -number } else { number };
    loop {
        let mut ready = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN), PollFd::new(children, PollFlags::IN)];
        if poll(&mut ready, None).is_err() {
            continue;
        }
        let [told, ended] = ready.map(|fd| !fd.revents().is_empty());
        if ended {
            let mut signals = [0; 1024];
            let _ = rustix::io::read(children, &mut signals);
            while let Ok(Some((pid, status))) = sys::wait_any() {
                match pid == child {
                    true if libc::WIFSTOPPED(status) => tell(socket, STOPPED, libc::WSTOPSIG(status)),
                    true => {
                        tell(socket, ENDED, status);
                        sys::exit_now(0)
                    }
                    // A stray.
                    false => {}
                }
            }
        }
        if told {
            let mut message = [0; 2];
            match socket.read_exact(&mut message).map(|()| message) {
                Ok([SIGNAL, signal]) => sys::kill(target, signal.into()),
                Ok([CONTINUE, terminal]) => {
                    if terminal == 1 {
                        to_foreground(Some(child));
                    }
                    sys::kill(target, libc::SIGCONT);
                }
                // The owner is gone.
                _ => sys::exit_now(0),
            }
        }
    }
}

fn tell(socket: &mut std::fs::File, kind: u8, number: i32) {
    let mut message = [kind; 5];
    message[1..].copy_from_slice(&number.to_le_bytes());
    // Without an owner there is nobody to tell, and the next look at the socket shows that.
    let _ = socket.write_all(&message);
}
