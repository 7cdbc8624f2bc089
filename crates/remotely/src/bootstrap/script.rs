//! A shell script at the end of a way, where no agent is wanted: the same way, through the same doors. Called by doctor.

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::conversation::{Conversation, Failure, Greeted};
use super::door::Doors;
use super::{ConnectError, Flight};
use crate::options::{ConnectOptions, Errors};
use crate::transport;
use crate::transport::spawn::{self, Manner};

/// Runs `script`, POSIX shell on one line, with nothing on standard input, and returns its standard output, behind whatever
/// a login shell prints. Its standard error is not shown. Cancel safe: dropping the future ends it.
pub async fn output(options: &ConnectOptions, script: &str) -> Result<Vec<u8>, ConnectError> {
    let line = format!("exec 3<&0 </dev/null; printf \"\\000remotely\\001 ready\\n\"; {script}");
    let argv = transport::asking_command_line(&options.target, &options.ssh_opts, &line, options.may_ask());
    let own_group = !transport::uses_terminal(&options.target);
    let started = spawn::start_with(&argv, Manner { errors: &Errors::Keep, own_group })?;
    let mut process = started.process;
    let mut conversation = Conversation::new(started.reader, started.writer).map_err(ConnectError::pipe)?;
    let mut flight = Flight::<std::future::Ready<Bytes>> { coming: None, bytes: Bytes::new() };
    match Doors::new(options).pass(&mut conversation, &mut flight, &mut process).await {
        Ok(Greeted::Ready { .. }) => {}
        Ok(_) => return Err(ConnectError::Strange { what: "a script asked for an agent".into() }),
        Err(Failure::Error(error)) => return Err(error),
        // It has printed nothing.
        Err(Failure::Ended) => return Ok(Vec::new()),
    }
    let (reader, writer, received) = conversation.into_pipe().map_err(ConnectError::pipe)?;
    // Before its output is read: a shell in front of a hop may wait for it.
    drop(writer);
    let mut output = received.to_vec();
    let mut receiver = pipe::Receiver::from_owned_fd(reader).map_err(ConnectError::pipe)?;
    receiver.read_to_end(&mut output).await.map_err(ConnectError::pipe)?;
    process.close().await;
    Ok(output)
}
