//! How every agent begins: its standard input and output are the pipe of a link, and the client's first flight lies in it.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use remotely_proto::handshake::MAGIC;
use remotely_session::{End, Link, Pipe};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;

use crate::sys;

/// How long a link that is closed may take to say goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);
/// A number of 64 bits in decimal, and the end of the line.
const SIZE_LINE: usize = 21;
/// How long each byte of it may take, in seconds: from here on a link is given up after so long.
const SIZE_WITHIN: i64 = 15;

/// Says how it ended, and ends: what may still hang must not keep it.
pub(crate) fn exit(result: io::Result<End>) -> ExitCode {
    match result {
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

/// stdin and stdout are the protocol: they get numbers of their own, and whoever prints prints into nothing.
pub(crate) fn take_stdio() -> io::Result<Pipe> {
    sys::close_on_exec_from(3);
    let reader = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let writer = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    let null: OwnedFd = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(null.as_fd())?;
    rustix::stdio::dup2_stdout(null.as_fd())?;
    Ok(Pipe { reader, writer })
}

/// Tells the client that frames will be understood from here on, and takes the line before its first flight.
pub(crate) fn greet(pipe: &Pipe) -> io::Result<()> {
    let mut ready = std::fs::File::from(pipe.writer.try_clone()?);
    ready.write_all(&[MAGIC, b" ready\n"].concat())?;
    skip_line(pipe.reader.as_fd())
}

/// Reads the size of the first flight, which is for a shell that has to throw it away, and nothing behind it.
pub(crate) fn skip_line(from: BorrowedFd<'_>) -> io::Result<()> {
    let mut byte = [0];
    for _ in 0..SIZE_LINE {
        read_exact(from, &mut byte)?;
        match byte[0] {
            b'\n' => return Ok(()),
            b'0'..=b'9' => {}
            _ => break,
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "what came first is not the size of a first flight"))
}

/// Reads so many bytes, each of which may take as long as one of that line.
pub(crate) fn read_exact(from: BorrowedFd<'_>, mut bytes: &mut [u8]) -> io::Result<()> {
    let limit = Timespec { tv_sec: SIZE_WITHIN, tv_nsec: 0 };
    while !bytes.is_empty() {
        if retry_on_intr(|| poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&limit)))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match retry_on_intr(|| rustix::io::read(from, &mut *bytes))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes = &mut bytes[read..],
        }
    }
    Ok(())
}

/// Closes a link, which may take a while to say goodbye.
pub(crate) async fn close(link: &Link) -> End {
    link.close();
    let _ = tokio::time::timeout(GOODBYE_WITHIN, link.ended()).await;
    End::Closed
}

/// The runtime of an agent. To be made when nothing is forked any more.
pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8));
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

/// Waits for a signal that asks this process to end. What it was started to ignore it does ignore: on the client's own
/// machine it is in the client's process group, and such a signal for all of that is the command's.
pub(crate) async fn told_to_end() {
    use std::future::poll_fn;
    use std::task::Poll;
    use tokio::signal::unix::{SignalKind, signal};

    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let heeded = kinds.into_iter().filter(|kind| !sys::is_ignored(kind.as_raw_value()));
    let mut signals: Vec<_> = heeded.filter_map(|kind| signal(kind).ok()).collect();
    poll_fn(|cx| {
        let told = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
        if told { Poll::Ready(()) } else { Poll::Pending }
    })
    .await
}
