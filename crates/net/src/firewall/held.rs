//! An `nft -i` that is kept: tables with `flags owner` live as long as its netlink socket. It dies with us (its standard input ends,
//! and the kernel kills it), so that kill -9 leaves no rule.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStdin, Stdio};

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags};

use super::spawn;

/// What nft prints when it is asked about this; comes behind what it has to say about the transaction before.
const ASK: &str = "describe tcp dport\n";
const ANSWER: &str = "payload expression";

/// Lines of an error that are kept; nft repeats the whole line in question, which may have a thousand addresses.
const KEPT: usize = 300;

/// A running nft.
#[derive(Debug)]
pub(crate) struct Held {
    child: Child,
    process: Option<OwnedFd>,
    input: Option<ChildStdin>,
    output: BufReader<io::PipeReader>,
}

impl Held {
    pub(crate) fn start() -> io::Result<Self> {
        // One pipe for both, so that errors come before the answer to what was asked later.
        let (output, writer) = io::pipe()?;
        let mut command = spawn::command("nft");
        command.arg("-i").stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
        spawn::dies_with_us(&mut command);
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        let process = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok();
        Ok(Self { child, process, input, output: BufReader::new(output) })
    }

    /// Becomes readable when it has ended.
    pub(crate) fn process(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(|process| process.as_fd())
    }

    /// One transaction. The inner error is what nft says against it.
    pub(crate) fn transact(&mut self, text: &str) -> io::Result<Result<(), String>> {
        // nft takes each line as a transaction of its own, but a file as one.
        let file = File::from(rustix::fs::memfd_create("rules", MemfdFlags::CLOEXEC)?);
        (&file).write_all(text.as_bytes())?;
        let Some(input) = &mut self.input else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        input.write_all(format!("include \"{path}\"\n{ASK}").as_bytes())?;
        let mut said = String::new();
        loop {
            let mut line = Vec::new();
            if self.output.read_until(b'\n', &mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, said));
            }
            let line = String::from_utf8_lossy(&line);
            if line.starts_with(ANSWER) {
                return Ok(if said.is_empty() { Ok(()) } else { Err(said.trim_end().to_owned()) });
            }
            if !line.starts_with("In file included") && said.len() < KEPT {
                said.extend(line.chars().take(KEPT));
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It ends at the end of its input; with it go its tables.
        self.input.take();
        let _ = self.child.wait();
    }
}
