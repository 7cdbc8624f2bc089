//! The bytes of a link on their way through a gateway: the function that opens the way there and passes them on, and this side
//! of it. What they mean is between this machine and the host.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use remotely_call::{Receiver, Sender, channel};
use remotely_session::{Pipe, PipeReader, PipeWriter};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::lend::{Held, Lent};
use crate::bootstrap::{self, ConnectError, Ready};
use crate::options::{AgentKind, ConnectOptions, Errors};
use crate::tunnel::ErrorKind;
use crate::{Error, Tunnel, remote};

/// How long a gateway may take to end what it did for a link that is over.
const END: Duration = Duration::from_secs(5);

/// What a gateway needs to know to reach a host.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Order {
    /// As text.
    pub(super) target: String,
    /// What this machine's configuration of ssh makes of it.
    pub(super) ssh_opts: Vec<OsString>,
    /// For ssh's UserKnownHostsFile.
    pub(super) known_hosts: String,
    /// For the host to answer.
    pub(super) limit: Duration,
    /// What the link begins with.
    pub(super) flight: Bytes,
}

/// A pipe to the agent of a host, by way of a gateway.
pub(super) struct Relayed {
    /// The pipe.
    pub(super) pipe: Pipe,
    /// What has come from it already.
    pub(super) received: Bytes,
}

/// Why a host was not reached.
pub(super) enum Failed {
    /// The gateway is not what it should be.
    Gateway(Error),
    /// What it says of the host.
    Host(String),
}

/// A way could not be opened.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
struct Refused(String);

/// Opens the way to a host, and passes on what a link says until it is over.
#[remote]
async fn relay(
    order: Order,
    lent: Held,
    from_client: Receiver<Bytes>,
    to_client: Sender<Bytes>,
) -> Result<(), Refused> {
    let refused = |error: &dyn std::error::Error| {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        Refused(text)
    };
    let target = order.target.parse().map_err(|error: crate::target::TargetError| refused(&error))?;
    let known = KnownFile::write(&lent.directory, &order.known_hosts).map_err(|error| refused(&error))?;
    let mut ssh_opts = order.ssh_opts;
    let mut option = |name: &str, path: &PathBuf| {
        ssh_opts.extend(["-o".into(), [OsString::from(name), path.into()].join("=".as_ref())]);
    };
    option("UserKnownHostsFile", &known.0);
    if lent.keys {
        option("IdentityAgent", &lent.directory.join(Held::SOCKET));
    }
    let options = ConnectOptions {
        ssh_opts,
        timeout: Some(order.limit),
        progress: false,
        agent: AgentKind::Tunnel,
        errors: Errors::Keep,
        ..ConnectOptions::new(target)
    };
    let reached = bootstrap::reach(&options, std::future::ready(order.flight)).await;
    let Ready { pipe, received, unsent, process, .. } = reached.map_err(|error| {
        let Refused(text) = refused(&error);
        let said = if let ConnectError::Ended { stderr, .. } = &error { stderr.trim_end() } else { "" };
        Refused(said.lines().next_back().map_or_else(|| text.clone(), |last| format!("{text}: {last}")))
    })?;
    drop(known);
    let (reader, mut writer) = pipe.split().map_err(|error| refused(&error))?;
    if to_client.send(received).await.is_ok() && writer.write_all(unsent).await.is_ok() {
        pass(reader, writer, from_client, to_client).await;
    }
    process.close().await;
    Ok(())
}

/// Passes bytes on both ways until none come out of the pipe any more.
async fn pass(mut reader: PipeReader, mut writer: PipeWriter, mut into: Receiver<Bytes>, out: Sender<Bytes>) {
    let to_pipe = async move {
        while let Ok(Some(bytes)) = into.recv().await {
            if writer.write_all(bytes).await.is_err() {
                break;
            }
        }
        drop(writer);
        std::future::pending::<()>().await;
    };
    let from_pipe = async move {
        while let Ok(bytes) = reader.read().await {
            if bytes.is_empty() || out.send(bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = to_pipe => {}
        () = from_pipe => {}
    }
}

/// Has the gateway reach the host.
pub(super) async fn reach(gateway: &Tunnel, lent: &Lent, order: Order) -> Result<Relayed, Failed> {
    let (to_host, from_here) = channel();
    let (to_here, mut from_host) = channel();
    let mut relaying = gateway.call(relay, (order, lent.held().clone(), from_here, to_here));
    let first = tokio::select! {
        biased;
        Ok(Some(first)) = from_host.recv() => first,
        ended = &mut relaying => return Err(match ended {
            Ok(()) => Failed::Host("it ended at once".to_owned()),
            Err(error) => match error.kind() {
                ErrorKind::Failed(told) => Failed::Host(told.message.clone()),
                _ => Failed::Gateway(error),
            },
        }),
    };
    let (pipe, reader, writer) = match pipe() {
        Ok(made) => made,
        Err(error) => return Err(Failed::Host(format!("no pipe can be had here: {error}"))),
    };
    tokio::spawn(async move {
        pass(reader, writer, from_host, to_host).await;
        // Its last words are on their way.
        let _ = tokio::time::timeout(END, relaying).await;
    });
    Ok(Relayed { pipe, received: first })
}

/// Both ends of a pipe: for a link, and for who passes on what it says.
fn pipe() -> std::io::Result<(Pipe, PipeReader, PipeWriter)> {
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let pipe = |end: std::os::fd::OwnedFd| Ok::<_, std::io::Error>(Pipe { reader: end.try_clone()?, writer: end });
    let (reader, writer) = pipe(ours)?.split()?;
    Ok((pipe(theirs)?, reader, writer))
}

/// What is known of a host, where ssh reads it.
struct KnownFile(PathBuf);

impl KnownFile {
    fn write(directory: &std::path::Path, text: &str) -> std::io::Result<Self> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = directory.join(format!("known_hosts.{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&path, text)?;
        Ok(Self(path))
    }
}

impl Drop for KnownFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
