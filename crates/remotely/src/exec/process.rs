//! The host's side: starts the command, carries its streams, ends it when nobody wants it any more.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use remotely_call::{Receiver, Sender};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;

use super::{Chunk, Command, StartError, Status, shell};

/// Most bytes in one chunk.
const CHUNK: usize = 64 << 10;
/// Between SIGTERM and SIGKILL for a command that is not wanted any more.
const GRACE: Duration = Duration::from_secs(2);

/// Runs a command to its end.
#[remotely_macros::remote]
pub(crate) async fn run(
    command: Command,
    input: Option<Receiver<Bytes>>,
    to: Sender<Chunk>,
) -> Result<Status, StartError> {
    let mut command = command;
    if command.login_shell {
        command.argv = vec![shell::of_user(), "-c".into(), shell::text(std::mem::take(&mut command.argv[0]))];
    }
    let mut child = prepared(&command, input.is_some()).spawn().map_err(|error| named(&command, &error))?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let feeding = match (child.stdin.take(), input) {
        (Some(stdin), Some(input)) => Some(tokio::spawn(feed(stdin, input))),
        _ => None,
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ((), (), status) =
        tokio::join!(carry(stdout, &to, Chunk::Output), carry(stderr, &to, Chunk::Error), child.wait());
    if let Some(feeding) = feeding {
        feeding.abort();
    }
    group.forget();
    match status {
        Ok(status) => Ok(Status(status.into_raw())),
        Err(error) => Err(named(&command, &error)),
    }
}

/// The place where commands of a host are started.
fn prepared(command: &Command, has_input: bool) -> tokio::process::Command {
    let Command { argv, env, directory, .. } = command;
    let mut prepared = tokio::process::Command::new(&argv[0]);
    prepared.args(&argv[1..]).envs(env.iter().map(|(name, value)| (name, value)));
    match (directory, std::env::var_os("HOME")) {
        (Some(directory), _) => drop(prepared.current_dir(directory)),
        (None, Some(home)) if Path::new(&home).is_dir() => drop(prepared.current_dir(home)),
        (None, _) => {}
    }
    prepared.stdin(if has_input { Stdio::piped() } else { Stdio::null() });
    prepared.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    prepared
}

fn named(command: &Command, error: &io::Error) -> StartError {
    let program = command.argv[0].to_string_lossy().into_owned();
    match (error.kind(), &command.directory) {
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, Some(directory)) if !Path::new(directory).is_dir() => {
            StartError::Directory(directory.to_string_lossy().into_owned())
        }
        (io::ErrorKind::NotFound, _) => StartError::NotFound(program),
        (io::ErrorKind::PermissionDenied, _) => StartError::NotExecutable(program, error.to_string()),
        _ => StartError::Process(program, error.to_string()),
    }
}

async fn feed(mut stdin: ChildStdin, mut input: Receiver<Bytes>) {
    while let Ok(Some(bytes)) = input.recv().await {
        if stdin.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn carry(from: Option<impl AsyncRead + Unpin>, to: &Sender<Chunk>, chunk: fn(Bytes) -> Chunk) {
    let Some(mut from) = from else { return };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            // A writer hears of it by SIGPIPE, as in any pipeline.
            Ok(1..) if to.send(chunk(buffer.split().freeze())).await.is_ok() => {}
            _ => return,
        }
    }
}

/// The processes of a command, ended when dropped.
struct Group(Option<Pid>);

impl Group {
    /// The command has ended by itself. What it left running is for the link's end.
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(group) = self.0 else { return };
        let _ = kill_process_group(group, Signal::TERM);
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            let _ = kill_process_group(group, Signal::KILL);
        });
    }
}
