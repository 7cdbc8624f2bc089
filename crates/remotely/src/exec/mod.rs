//! Commands of a host: started there by an ordinary call, with their streams carried by channels. Used by `remotely exec`, and by
//! programs through [`Tunnel::start`] and [`Tunnel::output`].
//!
//! The host's own programs, files and environment are used, as by ssh. For a command of *this* machine see `remotely HOST -- COMMAND`.

mod process;
mod shell;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::ExitStatus;

use bytes::{Bytes, BytesMut};
use remotely_call::{Receiver, channel};
use serde::{Deserialize, Serialize};

use crate::{Error, Tunnel};

/// A command to be started on a host.
///
/// Words travel as they are: no shell reads them, unless one is asked for by [`shell`](Self::shell).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    argv: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    directory: Option<OsString>,
    /// The only word is a text for the user's shell.
    login_shell: bool,
}

impl Command {
    /// This program, looked up in the `PATH` of the host.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { argv: vec![program.into()], env: Vec::new(), directory: None, login_shell: false }
    }

    /// A text for the POSIX shell of the host, `sh -c`.
    pub fn shell(text: impl Into<OsString>) -> Self {
        Self::new("sh").arg("-c").arg(shell::text(text.into()))
    }

    /// A text for the login shell of the user there, as ssh gives it one: that of /etc/passwd, or of `SHELL` for who is not in it;
    /// sh where that is none. Words that are added are not its arguments.
    pub fn login_shell(text: impl Into<OsString>) -> Self {
        Self { login_shell: true, ..Self::new(text) }
    }

    /// With another word.
    #[must_use]
    pub fn arg(mut self, word: impl Into<OsString>) -> Self {
        self.argv.push(word.into());
        self
    }

    /// With more words.
    #[must_use]
    pub fn args<W: Into<OsString>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.argv.extend(words.into_iter().map(Into::into));
        self
    }

    /// With a variable in its environment, which is otherwise that of a login on the host.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// In this directory of the host, rather than in the home of the user.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<OsString>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Its program; of a text for a shell that is chosen there, the text.
    pub fn program(&self) -> &OsStr {
        &self.argv[0]
    }
}

/// How a command ended on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status(i32);

impl Status {
    /// As the standard library has it.
    pub fn exit_status(self) -> ExitStatus {
        ExitStatus::from_raw(self.0)
    }

    /// The code it exited with.
    pub fn code(self) -> Option<i32> {
        self.exit_status().code()
    }

    /// The signal that ended it.
    pub fn signal(self) -> Option<i32> {
        self.exit_status().signal()
    }

    /// Whether it exited with 0.
    pub fn success(self) -> bool {
        self.exit_status().success()
    }

    /// The code as a shell tells it: 128 and the number of the signal, if one has ended it.
    pub fn shell_code(self) -> i32 {
        self.code().unwrap_or_else(|| 128 + self.signal().unwrap_or(0))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exit_status().fmt(out)
    }
}

/// A command could not be started on its host. Found in the [`Error`] by [`Error::downcast`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum StartError {
    /// There is no such program.
    #[error("{0}: command not found")]
    NotFound(String),
    /// It is there and cannot be executed.
    #[error("{0}: it cannot be executed: {1}")]
    NotExecutable(String, String),
    /// The directory to run it in cannot be used.
    #[error("{0}: no such directory")]
    Directory(String),
    /// Something that a process needs could not be had.
    #[error("{0}: {1}")]
    Process(String, String),
}

/// What a command writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chunk {
    /// To its standard output.
    Output(Bytes),
    /// To its standard error.
    Error(Bytes),
}

/// All that a command has written, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: Status,
    /// What it wrote to its standard output.
    pub stdout: Bytes,
    /// What it wrote to its standard error.
    pub stderr: Bytes,
}

/// A command that runs on a host. Dropped, it is ended: its process group gets SIGTERM, and SIGKILL two seconds later.
#[must_use = "dropped, the command is ended"]
pub struct Running {
    chunks: Receiver<Chunk>,
    status: Pin<Box<dyn Future<Output = Result<Status, Error>> + Send>>,
    ended: Option<Result<Status, Error>>,
}

impl Running {
    /// What it writes next; `None` when it has closed its output. Cancel safe.
    pub async fn next(&mut self) -> Option<Chunk> {
        loop {
            if self.ended.is_some() {
                return self.chunks.recv().await.ok().flatten();
            }
            tokio::select! {
                chunk = self.chunks.recv() => return chunk.ok().flatten(),
                // The call has to be polled to get on; what was written before may still be on its way.
                status = &mut self.status => self.ended = Some(status),
            }
        }
    }

    /// How it ended, when it has; what it still writes is dropped. An error if it could not be started, or the link was lost.
    pub async fn status(mut self) -> Result<Status, Error> {
        while self.next().await.is_some() {}
        match self.ended {
            Some(status) => status,
            None => self.status.await,
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Running").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Starts a command of the host. It reads what comes out of `input`, or nothing.
    pub fn start(&self, command: Command, input: Option<Receiver<Bytes>>) -> Running {
        let (sender, chunks) = channel();
        let status = Box::pin(self.call(process::run, (command, input, sender)));
        Running { chunks, status, ended: None }
    }

    /// Runs a command of the host to its end. Like [`std::process::Command::output`], it is an error only if the command could not
    /// be run at all.
    ///
    /// ```no_run
    /// # use remotely::{Tunnel, exec::Command};
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let kernel = Tunnel::to("web1")?.output(Command::new("uname").arg("-r")).await?;
    /// println!("{}", String::from_utf8_lossy(&kernel.stdout));
    /// # Ok(()) }
    /// ```
    pub async fn output(&self, command: Command) -> Result<Output, Error> {
        let mut running = self.start(command, None);
        let (mut stdout, mut stderr) = (BytesMut::new(), BytesMut::new());
        while let Some(chunk) = running.next().await {
            match chunk {
                Chunk::Output(bytes) => stdout.extend_from_slice(&bytes),
                Chunk::Error(bytes) => stderr.extend_from_slice(&bytes),
            }
        }
        Ok(Output { status: running.status().await?, stdout: stdout.freeze(), stderr: stderr.freeze() })
    }
}
