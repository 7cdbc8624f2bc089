//! What a gateway is lent while it opens ways: a directory for what ssh reads, and in it a socket that speaks as ssh-agent does,
//! behind which are the keys of here. Both are gone with the link.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use remotely_call::{Sender, channel};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::keys::{self, FAILURE, Keys};
use crate::{Error, Tunnel, remote};

/// Requests of a gateway that are answered at once.
const AT_ONCE: usize = 16;
/// The beginning of the name of such a directory; the process that uses it follows: its namespace and its number.
const PREFIX: &str = "remotely-gateway-";

/// What a gateway has been lent, as it knows it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Held {
    /// For its user alone.
    pub(super) directory: PathBuf,
}

impl Held {
    /// The socket in it.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("keys")
    }
}

/// The same, as this machine knows it. Dropped, it is taken back.
pub(super) struct Lent {
    held: Held,
    running: JoinHandle<()>,
}

impl Lent {
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Whether the gateway still has it.
    pub(super) fn lasts(&self) -> bool {
        !self.running.is_finished()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A request to an agent, and where the answer goes.
type Ask = (Bytes, Sender<Bytes>);

/// Holds what is lent until it is cancelled.
#[remote]
async fn hold(asks: Sender<Ask>, ready: Sender<Held>) -> io::Result<()> {
    let directory = Directory::new(&std::env::temp_dir())?;
    let held = Held { directory: directory.0.clone() };
    let listener = UnixListener::bind(held.socket())?;
    let _ = ready.send(held).await;
    loop {
        let (stream, _) = listener.accept().await?;
        // Ends with its connection, and that with the process that we have started.
        tokio::spawn(serve(stream, asks.clone()));
    }
}

async fn serve(mut stream: UnixStream, asks: Sender<Ask>) -> io::Result<()> {
    loop {
        let request = keys::read(&mut stream).await?;
        let (answer, mut answered) = channel();
        let _ = asks.send((request.into(), answer)).await;
        let answer = answered.recv().await.ok().flatten().unwrap_or(Bytes::from_static(&[FAILURE]));
        stream.write_u32(answer.len() as u32).await?;
        stream.write_all(&answer).await?;
    }
}

/// Lends the keys to a gateway.
pub(super) async fn to(gateway: &Tunnel, keys: Arc<Keys>) -> Result<Lent, Error> {
    let (asks, mut asked) = channel::<Ask>();
    let (ready, mut is_ready) = channel();
    let mut holding = gateway.call(hold, (asks, ready));
    let held = tokio::select! {
        biased;
        Ok(Some(held)) = is_ready.recv() => held,
        ended = &mut holding => return Err(ended.err().unwrap_or_else(|| Error::new(gateway.host(), crate::tunnel::ErrorKind::Closed))),
    };
    let running = tokio::spawn(async move {
        let answering = async {
            let room = Arc::new(Semaphore::new(AT_ONCE));
            while let (Ok(Some((request, answer))), Ok(room)) = (asked.recv().await, room.clone().acquire_owned().await)
            {
                let keys = keys.clone();
                tokio::spawn(async move {
                    let answered = answer.send(keys.answer(&request).await).await;
                    drop(room);
                    answered
                });
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = holding => {}
            () = answering => {}
        }
    });
    Ok(Lent { held, running })
}

/// A directory of our own, removed when dropped.
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Somebody else removes it.
    pub(super) fn leave(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }

    /// Made beneath `parent`.
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        remove_stale(parent);
        let mut chance = [0; 8];
        rustix::rand::getrandom(&mut chance, rustix::rand::GetRandomFlags::empty())?;
        let name = format!("{PREFIX}{}-{}-{:016x}", space()?, std::process::id(), u64::from_ne_bytes(chance));
        let path = parent.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Removes what processes left that were killed.
fn remove_stale(parent: &Path) {
    let Ok(space) = space() else { return };
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| {
            let mut parts = name.strip_prefix(PREFIX)?.split('-');
            (parts.next()?.parse() == Ok(space)).then(|| parts.next()?.parse::<u32>().ok())?
        });
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The namespace in which numbers of processes mean something here. An error without /proc.
fn space() -> io::Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/self/ns/pid")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_with_its_owner_or_with_the_next_one() {
        let parent = tempfile::tempdir().unwrap();
        let space = space().unwrap();
        let [stale, elsewhere, other] = [format!("{space}-4194305-0"), format!("{}-4194305-0", space + 1), "x".into()]
            .map(|name| parent.path().join(format!("{PREFIX}{name}")));
        for directory in [&stale, &elsewhere, &other] {
            std::fs::create_dir(directory).unwrap();
        }
        let directory = Directory::new(parent.path()).unwrap();
        assert!(directory.0.is_dir() && !stale.exists() && elsewhere.exists() && other.exists());
        let path = directory.0.clone();
        drop(directory);
        assert!(!path.exists());
    }
}
