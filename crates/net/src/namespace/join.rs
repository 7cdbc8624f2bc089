//! A namespace that has a name can be entered by further commands of the same user. The name is a socket that is no file, so that nothing
//! of it is left; who connects is told the process whose namespaces he is to enter.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with, sockopt,
};
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, set_parent_process_death_signal};
use rustix::thread::ThreadNameSpaceType;
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use super::sys::{self, Fork};
use crate::socket;

/// Longest name.
const NAME_MAX: usize = 64;

/// Nobody can enter.
#[derive(Debug, Error)]
pub enum JoinError {
    /// It is none.
    #[error("'{0}' is no name: letters, digits, '.', '_' and '-' make one, at most 64")]
    Name(String),
    /// Another one is called so.
    #[error("there is a network named '{0}' already")]
    Taken(String),
    /// There is none of this name.
    #[error("there is no network named '{0}' of this user")]
    Missing(String),
    /// It is another user's.
    #[error("the network named '{0}' is another user's")]
    Foreign(String),
    /// A system call failed.
    #[error("could not {step}")]
    Enter {
        /// What was tried.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
}

fn failed(step: &'static str) -> impl Fn(rustix::io::Errno) -> JoinError {
    move |source| JoinError::Enter { step, source: source.into() }
}

fn address(name: &str) -> Result<SocketAddrUnix, JoinError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(fits) {
        return Err(JoinError::Name(name.to_owned()));
    }
    let name = format!("remotely-net/{}/{name}", geteuid().as_raw());
    SocketAddrUnix::new_abstract_name(name.as_bytes()).map_err(failed("name a socket"))
}

fn socket() -> Result<OwnedFd, JoinError> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(failed("make a socket"))
}

/// Tells those who ask for a name whose namespaces they are to enter.
#[derive(Debug)]
pub struct Door {
    listener: OwnedFd,
}

impl Door {
    /// Takes a name.
    pub fn open(name: &str) -> Result<Self, JoinError> {
        let listener = socket()?;
        bind(&listener, &address(name)?).map_err(|_| JoinError::Taken(name.to_owned()))?;
        listen(&listener, 64).map_err(failed("listen"))?;
        Ok(Self { listener })
    }

    /// Answers for as long as it is polled: `holder` is whose namespaces they are.
    pub async fn answer(self, holder: Pid) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&self.listener, true)?;
        let listener: AsyncFd<OwnedFd> = socket::register(self.listener)?;
        loop {
            let mut ready = listener.readable().await?;
            let accepted = ready.try_io(|listener| Ok(accept_with(listener.get_ref(), SocketFlags::CLOEXEC)?));
            let Ok(Ok(asker)) = accepted else { continue };
            if is_own(asker.as_fd()) {
                let number = holder.as_raw_nonzero().get().to_le_bytes();
                let _ = rustix::net::send(&asker, &number, rustix::net::SendFlags::NOSIGNAL);
            }
        }
    }
}

/// Whether the other end is this user's.
fn is_own(other: BorrowedFd<'_>) -> bool {
    sockopt::socket_peercred(other).is_ok_and(|other| other.uid == geteuid())
}

/// Runs a command in the namespace of this name, and returns its wait status, or the errno with which it could not be executed. Must be
/// called while this process has one thread. Signals that a terminal sends to a whole process group are the command's.
pub fn join(name: &str, command: &[OsString]) -> Result<Result<i32, i32>, JoinError> {
    use std::os::unix::ffi::OsStrExt;
    let asking = socket()?;
    connect(&asking, &address(name)?).map_err(|_| JoinError::Missing(name.to_owned()))?;
    if !is_own(asking.as_fd()) {
        return Err(JoinError::Foreign(name.to_owned()));
    }
    let mut number = [0; 4];
    let told = rustix::io::read(&asking, &mut number).map_err(failed("ask for a namespace"))?;
    let holder = Pid::from_raw(i32::from_le_bytes(number)).filter(|_| told == 4);
    let holder = holder.ok_or_else(|| JoinError::Missing(name.to_owned()))?;
    let words = command.iter().map(|word| std::ffi::CString::new(word.as_bytes()));
    let command = words.collect::<Result<Vec<_>, _>>();
    let command = command
        .map_err(|_| JoinError::Enter { step: "read the command", source: io::ErrorKind::InvalidInput.into() })?;
    let directory = std::env::current_dir();
    enter(holder)?;
    if let Ok(directory) = directory {
        // The same place, or as near to it as there is.
        let _ = std::env::set_current_dir(directory);
    }
    run(&command).map_err(|source| JoinError::Enter { step: "start a process", source })
}

/// The namespaces of the holder, and those that it makes its children in.
fn enter(holder: Pid) -> Result<(), JoinError> {
    let process = pidfd_open(holder, PidfdFlags::empty()).map_err(failed("find the process of the network"))?;
    let mut kinds = ThreadNameSpaceType::NETWORK | ThreadNameSpaceType::MOUNT;
    if geteuid().as_raw() != 0 {
        kinds |= ThreadNameSpaceType::USER;
    }
    // Its own pid namespace is that of outside; its children's is the one that is meant.
    let path = format!("/proc/{}/ns/pid_for_children", holder.as_raw_nonzero());
    // Before its mounts are entered, in which this has another number.
    let children = std::fs::File::open(path);
    sys::enter(process.as_fd(), kinds).map_err(|source| JoinError::Enter { step: "enter the network", source })?;
    let entered = children.and_then(|children| sys::enter(children.as_fd(), ThreadNameSpaceType::PROCESS_ID));
    entered.map_err(|source| JoinError::Enter { step: "enter the processes of the network", source })
}

fn run(command: &[std::ffi::CString]) -> io::Result<Result<i32, i32>> {
    use std::io::{Read as _, Write as _};
    let (mut failure, report) = io::pipe()?;
    let child = match sys::fork()? {
        Fork::Parent(child) => child,
        Fork::Child => {
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            sys::set_dispositions(0);
            let errno = sys::execute(command).raw_os_error().unwrap_or(libc::EIO);
            let _ = { report }.write_all(&errno.to_le_bytes());
            sys::exit_now(127)
        }
    };
    drop(report);
    let mut errno = [0; 4];
    if failure.read_exact(&mut errno).is_ok() {
        let _ = sys::wait_end(child);
        return Ok(Err(i32::from_le_bytes(errno)));
    }
    let keys = [libc::SIGINT, libc::SIGQUIT];
    sys::set_dispositions(keys.into_iter().fold(0, |all, key| all | sys::bit(key)));
    sys::wait_end(child).map(Ok)
}
