//! What runs on the host: takes commands of the client over a link, runs them in a root made of the client's files, and
//! ends them all when the link ends. Called by the executable for its hidden `agent` subcommand.
//!
//! | process | has | does |
//! |---|---|---|
//! | agent | many threads, the host's namespaces | the link, the mount's answers, ptys and pipes ([`serve`], [`exec`], [`relay`]) |
//! | init | one thread | enters the namespaces, forks pid 1, watches it and the agent ([`init`]) |
//! | pid 1 | one thread, the command's root | mounts, forks commands, reaps |
//!
//! The agent never touches the mount that it answers: it would wait for itself.

mod carried;
mod channel;
mod environment;
mod exec;
mod files;
mod handle;
mod init;
mod input;
mod order;
mod passwd;
mod relay;
mod rendezvous;
mod serve;
mod shell;
mod stage;
mod sys;
mod terminal;
#[cfg(test)]
mod tests;
mod watchdog;

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use remotely_proto::handshake::MAGIC;
use remotely_session::{End, Pipe};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;

use crate::order::Root;

/// A number of 64 bits in decimal, and the end of the line.
const SIZE_LINE: usize = 21;
/// How long each byte of it may take, in seconds: from here on a link is given up after so long.
const SIZE_WITHIN: i64 = 15;

/// Runs the agent over stdin and stdout until the link ends. To be called first thing in `main`, while the process has one
/// thread: it forks the process that will make the namespaces.
///
/// Does not return: what may still hang must not keep it.
pub fn main() -> ExitCode {
    sys::ignore_sigpipe();
    match run() {
        Ok(End::Closed) => sys::exit_now(0),
        Ok(end) => {
            let _ = writeln!(io::stderr(), "remotely agent: the link ended: {end:?}");
            sys::exit_now(1)
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "remotely agent: {error}");
            sys::exit_now(1)
        }
    }
}

fn run() -> io::Result<End> {
    let pipe = take_stdio()?;
    let init = init::start(pipe.reader.as_fd())?;
    // Memory of the agent holds files of the client; the limit of commands is the client's own.
    let _ = sys::set_limit(libc::RLIMIT_CORE, 0, 0);
    let mut ready = std::fs::File::from(pipe.writer.try_clone()?);
    ready.write_all(&[MAGIC, b" ready\n"].concat())?;
    drop(ready);
    skip_line(pipe.reader.as_fd())?;
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        watchdog::start();
        serve::serve(pipe, init, Root::Client).await
    })
}

/// Reads the size of the first flight, which is for a shell that has to throw it away, and nothing behind it.
fn skip_line(from: BorrowedFd<'_>) -> io::Result<()> {
    let (mut byte, limit) = ([0], Timespec { tv_sec: SIZE_WITHIN, tv_nsec: 0 });
    for _ in 0..SIZE_LINE {
        if retry_on_intr(|| poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&limit)))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if retry_on_intr(|| rustix::io::read(from, &mut byte))? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match byte[0] {
            b'\n' => return Ok(()),
            b'0'..=b'9' => {}
            _ => break,
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "what came first is not the size of a first flight"))
}

/// stdin and stdout are the protocol: they get numbers of their own, and whoever prints prints into nothing.
fn take_stdio() -> io::Result<Pipe> {
    sys::close_on_exec_from(3);
    let reader = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let writer = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    let null: OwnedFd = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(null.as_fd())?;
    rustix::stdio::dup2_stdout(null.as_fd())?;
    Ok(Pipe { reader, writer })
}
