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
use crate::options::{AgentKind, ConnectOptions, Errors, Width};
use crate::tunnel::chain;
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
    /// The gateway is not what it should be. Nothing was sent to the host.
    Gateway(Error),
    /// There is no way from the gateway to the host. Nothing was sent to it.
    Host(String),
    /// What there was to be called may have been called.
    Begun(String),
}

/// A way could not be opened, or has ended.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
#[error("{text}")]
struct Refused {
    text: String,
    /// An agent may have been started, and have run what the first flight asks for.
    begun: bool,
}

impl Refused {
    fn before(error: &dyn std::error::Error) -> Self {
        Self { text: chain(error), begun: false }
    }

    fn connect(error: &ConnectError) -> Self {
        let Self { mut text, .. } = Self::before(error);
        let mut begun = true;
        if let ConnectError::Ended { status, stderr, .. } = error {
            // ssh tells its own failures so, and then nothing was started behind it.
            begun = status.code() != Some(255) || stderr.trim().is_empty();
            if let Some(last) = stderr.trim_end().lines().next_back() {
                text = format!("{text}: {last}");
            }
        }
        Self { text, begun }
    }
}

/// Opens the way to a host, and passes on what a link says until it is over.
#[remote]
async fn relay(
    order: Order,
    lent: Held,
    from_client: Receiver<Bytes>,
    to_client: Sender<Bytes>,
) -> Result<(), Refused> {
    let target = order.target.parse().map_err(|error: crate::target::TargetError| Refused::before(&error))?;
    let known = KnownFile::write(&lent.directory, &order.known_hosts).map_err(|error| Refused::before(&error))?;
    let mut ssh_opts = order.ssh_opts;
    let mut option = |name: &str, path: &PathBuf| {
        ssh_opts.extend(["-o".into(), [OsString::from(name), path.into()].join("=".as_ref())]);
    };
    option("UserKnownHostsFile", &known.0);
    option("IdentityAgent", &lent.socket());
    let options = ConnectOptions {
        ssh_opts,
        timeout: Some(order.limit),
        progress: false,
        agent: AgentKind::Tunnel,
        errors: Errors::Keep,
        // Its bytes are passed on as they are.
        width: Width::Exactly(1),
        ..ConnectOptions::new(target)
    };
    let reached = bootstrap::reach(&options, std::future::ready(order.flight)).await;
    let Ready { pipe, received, unsent, process, .. } = reached.map_err(|error| Refused::connect(&error))?;
    drop(known);
    let lost = |error: std::io::Error| Refused { text: error.to_string(), begun: true };
    let (reader, mut writer) = pipe.split().map_err(lost)?;
    if to_client.send(received).await.is_ok() && writer.write_all(unsent).await.is_ok() {
        pass(reader, &mut writer, from_client, to_client).await;
    }
    drop(writer);
    let text = process.last_words().await;
    process.close().await;
    if text.is_empty() { Ok(()) } else { Err(Refused { text, begun: true }) }
}

/// Passes bytes on both ways until nothing comes any more on one of them. Who takes no more may still have said something, so that
/// ends nothing by itself.
async fn pass(mut reader: PipeReader, writer: &mut PipeWriter, mut into: Receiver<Bytes>, out: Sender<Bytes>) {
    let to_pipe = async {
        while let Ok(Some(bytes)) = into.recv().await {
            if writer.write_all(bytes).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let from_pipe = async move {
        while let Ok(bytes) = reader.read().await {
            if bytes.is_empty() {
                break;
            }
            if out.send(bytes).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = to_pipe => {}
        () = from_pipe => {}
    }
}

/// Has the gateway reach the host. The last words of the way there go where `errors` says.
pub(super) async fn reach(gateway: &Tunnel, lent: &Lent, order: Order, errors: &Errors) -> Result<Relayed, Failed> {
    let (to_host, from_here) = channel();
    let (to_here, mut from_host) = channel();
    let mut relaying = gateway.call(relay, (order, lent.held().clone(), from_here, to_here));
    let first = tokio::select! {
        biased;
        Ok(Some(first)) = from_host.recv() => first,
        ended = &mut relaying => return Err(match ended.map_err(|error| (error.downcast::<Refused>(), error)) {
            Ok(()) => Failed::Begun("it ended at once".to_owned()),
            Err((Some(Refused { text, begun: false }), _)) => Failed::Host(text),
            Err((Some(Refused { text, begun: true }), _)) => Failed::Begun(text),
            Err((None, error)) => Failed::Begun(error.to_string()),
        }),
    };
    let (pipe, reader, mut writer) = match pipe() {
        Ok(made) => made,
        Err(error) => return Err(Failed::Begun(format!("no pipe can be had here: {error}"))),
    };
    let errors = errors.clone();
    tokio::spawn(async move {
        pass(reader, &mut writer, from_host, to_host).await;
        if let (Ok(Err(error)), Errors::Hand(take)) = (tokio::time::timeout(END, relaying).await, errors)
            && let Some(Refused { text, .. }) = error.downcast()
        {
            take(format!("{}\n", text.trim_end()).as_bytes());
        }
        // Whoever looks why it ended finds that.
        writer.finish();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn last_words_of_who_takes_no_more_are_passed_on() {
        for _ in 0..20 {
            let (link, reader, mut writer) = pipe().unwrap();
            let (from_host, into) = channel();
            let (out, mut to_host) = channel();
            rustix::io::write(&link.writer, b"goodbye").unwrap();
            drop(link);
            from_host.send(Bytes::from_static(b"an ack")).await.unwrap();
            pass(reader, &mut writer, into, out).await;
            assert_eq!(to_host.recv().await, Ok(Some(Bytes::from_static(b"goodbye"))));
            assert_eq!(to_host.recv().await, Ok(None));
        }
    }

    #[tokio::test]
    async fn last_words_for_who_speaks_to_nobody_any_more_are_passed_on() {
        let (agent, reader, mut writer) = pipe().unwrap();
        let (from_client, into) = channel();
        let (out, to_client) = channel();
        drop(to_client);
        rustix::io::write(&agent.writer, b"an ack").unwrap();
        let passing = tokio::spawn(async move { pass(reader, &mut writer, into, out).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        from_client.send(Bytes::from_static(b"goodbye")).await.unwrap();
        drop(from_client);
        passing.await.unwrap();
        let mut said = [0; 16];
        assert_eq!(rustix::io::read(&agent.reader, &mut said), Ok(7));
    }
}
