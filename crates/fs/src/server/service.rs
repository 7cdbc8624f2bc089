//! What all threads of the fs server share. The parts are in their own files; this one holds them together and knows who
//! we are. The order in which locks are taken: `turn`, then `known`, then any other one, of which no two are held at once.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use tokio::sync::watch as signal;

use super::{
    Config, StartError, attr, attr::Identity, descriptor::DescriptorCache, failure::Failures, file::FileTable,
    gate::Gate, hide::Hidden, known::Known, latest::Latest, lock::LockTable, mount_kind::MountKinds, node::NodeTable,
    notice::NoticeQueue, out::Out, pool::Pool, push::Pushed, record::Record, stats::Counters, watch::Watches,
};

/// A mutex whose holder's panic does not matter: each of ours guards a table that is whole between any two statements.
pub(super) trait Hold<T> {
    fn hold(&self) -> MutexGuard<'_, T>;
}

impl<T> Hold<T> for Mutex<T> {
    fn hold(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fs server's state.
pub(super) struct Service {
    pub(super) root: Arc<OwnedFd>,
    pub(super) read_only: bool,
    pub(super) identity: Identity,
    pub(super) hidden: Hidden,
    pub(super) nodes: Mutex<NodeTable>,
    /// Directories, opened with O_PATH.
    pub(super) directories: DescriptorCache,
    /// Regular files, opened for reading.
    pub(super) readers: DescriptorCache,
    pub(super) files: FileTable,
    pub(super) locks: LockTable,
    pub(super) mount_kinds: MountKinds,
    pub(super) watches: Watches,
    /// Held around each own change, and by the watcher while it looks whether an event was ours.
    pub(super) turn: Mutex<()>,
    pub(super) known: Mutex<Known>,
    pub(super) notices: NoticeQueue,
    pub(super) gate: Gate,
    pub(super) pool: Pool,
    pub(super) out: Out,
    pub(super) failures: Failures,
    pub(super) counters: Counters,
    pub(super) latest: Latest,
    pub(super) record: Record,
    pub(super) pushed: Pushed,
    /// All names and plans of the push are on their way, and as much content as was asked for, or there is no push.
    pub(super) introduced: signal::Sender<bool>,
    ending: AtomicBool,
}

impl Service {
    pub(super) fn new(config: &Config, out: Out) -> Result<Self, StartError> {
        let descriptors = raise_descriptor_limit();
        let open_root =
            |source: rustix::io::Errno| StartError::OpenRoot { path: config.root.clone(), source: source.into() };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = Arc::new(openat(CWD, &config.root, flags, Mode::empty()).map_err(open_root)?);
        let stat = statx(&root, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map_err(open_root)?;
        Ok(Self {
            read_only: config.read_only,
            identity: Identity::of_this_process(),
            hidden: Hidden::new(&config.hide),
            nodes: Mutex::new(NodeTable::new(attr::key(&stat), Arc::clone(&root))),
            directories: DescriptorCache::new((descriptors / 4).min(512)),
            readers: DescriptorCache::new((descriptors / 8).min(256)),
            files: FileTable::default(),
            locks: LockTable::default(),
            mount_kinds: MountKinds::default(),
            watches: Watches::new(),
            turn: Mutex::default(),
            known: Mutex::default(),
            notices: NoticeQueue::default(),
            gate: Gate::default(),
            pool: Pool::default(),
            out,
            failures: Failures::default(),
            counters: Counters::default(),
            latest: Latest::default(),
            record: Record::default(),
            pushed: Pushed::default(),
            introduced: signal::Sender::new(true),
            ending: AtomicBool::new(false),
            root,
        })
    }

    /// Everything that waits is told to give up.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.locks.end();
        self.pool.end();
        self.watches.wake();
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }
}

/// The descriptors of an open tree are many; the soft limit is for programs that use select(2), which we do not.
fn raise_descriptor_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    usize::try_from(now.unwrap_or(1 << 20)).unwrap_or(1 << 20)
}
