//! The mount: the client's files on the host. The agent hands over a mounted /dev/fuse and the lanes to the fs server; what
//! the kernel asks is answered from what is known, or asked of the server. Must never touch the mount itself, or it waits
//! for itself.

mod content;
mod count;
mod fs;
mod fuse;
mod handle;
mod interrupt;
mod invalidate;
mod late;
mod op;
mod owners;
mod partial;
mod receive;
mod serve;
mod show;
mod table;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use remotely_proto::exec::Identity;
use remotely_proto::fs::{Counts, UsedInode};
use remotely_session::Stream;
use thiserror::Error;

use self::fs::Fs;
use self::fuse::Device;
pub use self::fuse::{DeviceError, opcode_name};
pub use self::show::IdMaps;

/// Threads that read from /dev/fuse. Two keep a second core busy; answers that take time do not hold them.
const READERS: usize = 2;

/// Runs of one file in a report of what was used: the server keeps no more.
const USED_RUNS: usize = 256;
/// Files and runs in one report, together: each takes no more than twenty bytes or so.
const USED_ITEMS: usize = 64 << 10;

/// What the mount is made of.
pub struct MountConfig {
    /// /dev/fuse, mounted, INIT not answered yet.
    pub fuse: OwnedFd,
    /// Lanes to the fs server: query, change, bulk.
    pub lanes: (Stream, Stream, Stream),
    /// The user of the client.
    pub identity: Identity,
    /// Ids that exist in the user namespace of the mount.
    pub id_maps: IdMaps,
    /// Refuse every change with EROFS.
    pub read_only: bool,
    /// Wait for every write.
    pub strict: bool,
    /// The kernel checks permissions (mount option `default_permissions`): the mount does not.
    pub default_permissions: bool,
    /// Absolute paths over which something of the host is mounted: their names are never invalidated, because that would
    /// unmount it.
    pub covered: Vec<Vec<u8>>,
}

/// The mount cannot be served.
#[derive(Debug, Error)]
pub enum MountError {
    /// The kernel.
    #[error("starting the FUSE mount")]
    Device(#[source] DeviceError),
    /// The fs server did not say what the root is.
    #[error("asking the client for its root directory")]
    Root(#[source] std::io::Error),
    /// A thread could not be started.
    #[error("starting a thread of the mount")]
    Thread(#[source] std::io::Error),
}

/// A served mount. Ends when the kernel lets go of it or the lanes end; dropping this does not end it.
#[derive(Clone)]
pub struct Mount {
    fs: Arc<Fs>,
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount").finish_non_exhaustive()
    }
}

impl Mount {
    /// Answers INIT and starts to serve. Must be called inside a tokio runtime with threads; returns when the kernel may ask.
    /// Not cancel safe.
    pub async fn start(config: MountConfig) -> Result<Self, MountError> {
        let runtime = tokio::runtime::Handle::current();
        let device = Arc::new(Device::new(config.fuse));
        let handshake = {
            let device = device.clone();
            tokio::task::spawn_blocking(move || device.handshake())
        };
        let (fs, receivers) = Fs::new(
            device.clone(),
            config.lanes,
            &config.identity,
            config.id_maps,
            fs::Options {
                read_only: config.read_only,
                strict: config.strict,
                default_permissions: config.default_permissions,
                covered: config.covered,
            },
        )
        .await?;
        handshake
            .await
            .map_err(|error| MountError::Thread(std::io::Error::other(error)))?
            .map_err(MountError::Device)?;
        receivers.spawn(&fs);
        for index in 0..READERS {
            let (fs, device, runtime) = (fs.clone(), device.clone(), runtime.clone());
            spawn(format!("fuse-{index}"), move || serve::requests(&fs, &device, &runtime))?;
        }
        fs.look_after_unwatched();
        let (invalidator, told) = (fs.invalidator.clone(), device.clone());
        spawn("fuse-names".into(), move || invalidator.names.run(|item| item.tell(&told)))?;
        let invalidator = fs.invalidator.clone();
        spawn("fuse-inodes".into(), move || invalidator.inodes.run(|item| item.tell(&device)))?;
        Ok(Self { fs })
    }

    /// Counts what was sent on the change lane: see [`remotely_proto::fs::Tag`].
    pub fn changes(&self) -> Arc<AtomicU64> {
        self.fs.changes.clone()
    }

    /// Tells the server what was used in this session, for the profile. On the change lane: done when the changes sent before
    /// the command's end are. Not cancel safe.
    pub async fn report_used(&self) {
        let used = self.fs.with(|table| table.used_inodes());
        for inodes in reports(used) {
            let note = remotely_proto::fs::Request::Used { inodes };
            if self.fs.note(remotely_proto::fs::Lane::Change, &[], note).await.is_err() {
                return;
            }
        }
    }

    /// Resolves when the mount is served no more. Cancel safe.
    pub async fn ended(&self) {
        self.fs.ended().await;
    }

    /// What the kernel asked for so far.
    pub fn counts(&self) -> Counts {
        self.fs.counters.snapshot()
    }

    /// How often the client was asked, or told with an answer, so far.
    pub fn questions(&self) -> u64 {
        self.fs.counters.questions.load(Ordering::Relaxed)
    }
}

/// Parts the list so that each part fits into a message.
fn reports(inodes: Vec<UsedInode>) -> Vec<Vec<UsedInode>> {
    let mut reports: Vec<Vec<UsedInode>> = Vec::new();
    let mut room = 0;
    for mut inode in inodes {
        inode.runs.truncate(USED_RUNS);
        let items = 1 + inode.runs.len();
        match reports.last_mut() {
            Some(report) if items <= room => report.push(inode),
            _ => {
                reports.push(vec![inode]);
                room = USED_ITEMS;
            }
        }
        room -= items;
    }
    reports
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<(), MountError> {
    std::thread::Builder::new().name(name).spawn(run).map(drop).map_err(MountError::Thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_scattered_reads_fit_into_messages() {
        let runs: Vec<(u64, u64)> = (0..1000).map(|run| (u64::MAX - 2 * run - 1, u64::MAX - 2 * run)).collect();
        let used: Vec<_> = (0..3000).map(|ino| UsedInode { dev: u64::MAX, ino, runs: runs.clone() }).collect();
        let mut told = 0;
        for inodes in reports(used) {
            told += inodes.len();
            let request = remotely_proto::fs::Request::Used { inodes };
            remotely_proto::message::encode(&remotely_proto::fs::ToServer { id: 0, request }, bytes::Bytes::new());
        }
        assert_eq!(told, 3000);
    }
}
