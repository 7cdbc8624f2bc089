//! Init as the agent's tasks use it: orders go out in turn, news are kept by command until somebody looks. Nothing here
//! waits for a task, so pid 1 is never kept waiting by a slow link.

use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use remotely_proto::exec::Step;
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use crate::run::channel::{Incoming, Outgoing};
use crate::run::init::Init;
use crate::run::order::{Exit, Failure, Mounted, News, Order};
use crate::sys;

/// What is known of a command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// It executes.
    pub(crate) started: bool,
    /// It never will.
    pub(crate) failure: Option<Failure>,
    /// How often it was stopped or continued, and the signal if it is stopped now.
    pub(crate) stops: (u64, Option<u32>),
    /// How often it was found to wait for input of its terminal, and whether the last time in poll(2) or the like.
    pub(crate) reads: (u64, bool),
    /// It ended.
    pub(crate) exit: Option<Exit>,
}

/// What init says about the root.
#[derive(Debug)]
pub(crate) enum Stage {
    /// The mount is there, to be answered through this descriptor.
    Mounted(Mounted, Option<OwnedFd>),
    /// Commands can run.
    Ready,
    /// They never will.
    Failed(Failure),
}

/// Init.
#[derive(Debug)]
pub(crate) struct Handle {
    sending: tokio::sync::Mutex<()>,
    shared: Arc<Shared>,
    stages: tokio::sync::Mutex<mpsc::Receiver<Stage>>,
    ended: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Shared {
    socket: AsyncFd<OwnedFd>,
    commands: Mutex<HashMap<u32, watch::Sender<Progress>>>,
}

impl Handle {
    /// Takes over the socket of init. Must be called in a runtime.
    pub(crate) fn new(init: Init) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            socket: sys::register(init.socket, Interest::READABLE | Interest::WRITABLE)?,
            commands: Mutex::default(),
        });
        // Three at most: mounted, ready, failed.
        let (stages_in, stages) = mpsc::channel(4);
        let (ended_in, ended) = watch::channel(false);
        let reading = shared.clone();
        tokio::spawn(async move {
            if let Err(error) = reading.read(stages_in).await {
                tracing::warn!(%error, "cannot read what init says");
            }
            reading.commands.lock().unwrap_or_else(PoisonError::into_inner).clear();
            let _ = ended_in.send(true);
        });
        Ok(Self { sending: tokio::sync::Mutex::default(), shared, stages: tokio::sync::Mutex::new(stages), ended })
    }

    /// Gives an order. Not cancel safe: a future that is dropped may leave half a message.
    pub(crate) async fn order(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut outgoing = Outgoing::new(order, fds)?;
        let _turn = self.sending.lock().await;
        let flags = SendFlags::DONTWAIT;
        while !self.shared.socket.async_io(Interest::WRITABLE, |socket| outgoing.send_some(socket, flags)).await? {}
        Ok(())
    }

    /// The next step of the root. An end of init is a failure.
    pub(crate) async fn stage(&self) -> Stage {
        let next = self.stages.lock().await.recv().await;
        next.unwrap_or_else(|| Stage::Failed(Failure::plain(Step::Setup, "the init process on the host ended")))
    }

    /// What becomes of a command; to be asked for before it is run. The other end is dropped when it has ended, or init.
    pub(crate) fn watch(&self, id: u32) -> watch::Receiver<Progress> {
        let (sender, receiver) = watch::channel(Progress::default());
        self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        receiver
    }

    /// Returns when init and all that it started are gone.
    pub(crate) async fn ended(&self) {
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

impl Shared {
    async fn read(&self, stages: mpsc::Sender<Stage>) -> io::Result<()> {
        let mut incoming = Incoming::default();
        let flags = RecvFlags::DONTWAIT;
        while self.socket.async_io(Interest::READABLE, |socket| incoming.receive_some(socket, flags)).await? {
            while let Some((news, fds)) = incoming.next::<News>()? {
                match news {
                    News::Mounted(mounted) => drop(stages.try_send(Stage::Mounted(mounted, fds.into_iter().next()))),
                    News::Ready => drop(stages.try_send(Stage::Ready)),
                    News::Failed(failure) => drop(stages.try_send(Stage::Failed(failure))),
                    News::Started { id } => self.note(id, |progress| progress.started = true),
                    News::Stopped { id, signal } => {
                        self.note(id, |progress| progress.stops = (progress.stops.0 + 1, signal));
                    }
                    News::Reads { id, polls } => {
                        self.note(id, |progress| progress.reads = (progress.reads.0 + 1, polls));
                    }
                    News::NotStarted { id, failure } => {
                        self.note(id, |progress| progress.failure = Some(failure));
                        self.forget(id);
                    }
                    News::Exited { id, exit } => {
                        self.note(id, |progress| progress.exit = Some(exit));
                        self.forget(id);
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&self, id: u32, change: impl FnOnce(&mut Progress)) {
        if let Some(command) = self.commands.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            command.send_modify(change);
        }
    }

    fn forget(&self, id: u32) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}
