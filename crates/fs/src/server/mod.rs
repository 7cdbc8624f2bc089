//! The fs server: gives the files of this machine, beneath a root, to a mount on the host. Runs on the client as the local
//! user, started by `run`. It speaks [`remotely_proto::fs`] over three streams and knows nothing of FUSE.
//!
//! A message's way: `lanes` reads it; a question goes through `gate` (which keeps it back while a change before it is not
//! applied) to `pool` and is answered by `query`, `list`, `read` or `lock`; a change goes to the one thread of `change` and is
//! done by `make`, `rename` or `alter`. All of them find inodes by `node` and `open`, describe them by `entry` and `attr`, and
//! answer by `out`; `hide`, by `way`, says what is kept from them. What others change here comes in by `watch` and goes out by
//! `tell` and `notice`; `known` keeps our own changes out of that. `record`, `profile` and `push` save a later run the asking;
//! `stats` and `latest` are for whoever wants to know what goes on.

mod alter;
mod attr;
mod change;
mod descriptor;
mod entry;
mod failure;
mod file;
mod gate;
mod hide;
mod known;
mod lanes;
mod latest;
mod list;
mod lock;
mod make;
mod mount_kind;
mod name;
mod node;
mod notice;
mod open;
mod out;
mod pool;
mod profile;
mod push;
mod query;
mod read;
mod record;
mod rename;
mod service;
mod stats;
mod tell;
mod thread;
mod watch;
mod way;

use std::{io, path::PathBuf, sync::Arc};

use remotely_proto::fs::Tag;
use remotely_session::Stream;
use thiserror::Error;
use tokio::sync::{mpsc, watch as signal};

pub use self::{
    failure::Failure,
    profile::{BLOCK, Blocks, Item, Profile, Wanted},
    stats::Stats,
};
use self::{pool::Pool, service::Service};

/// What to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the mount sees as its root; an absolute path.
    pub root: PathBuf,
    /// Absolute paths that the mount does not see, as bytes. They need not exist.
    pub hide: Vec<Vec<u8>>,
    /// Refuses every change with EROFS.
    pub read_only: bool,
    /// Threads that answer questions; at least one.
    pub threads: usize,
}

/// The streams of the service, opened by the client.
pub struct Lanes {
    /// [`remotely_proto::fs::Lane::Query`].
    pub query: Stream,
    /// [`remotely_proto::fs::Lane::Change`].
    pub change: Stream,
    /// [`remotely_proto::fs::Lane::Bulk`].
    pub bulk: Stream,
}

/// The server could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The root is not there, or is no directory.
    #[error("opening {path:?} to serve it")]
    OpenRoot {
        /// It.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No thread.
    #[error("starting thread {name}")]
    Thread {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A server at work. Dropping it stops it.
pub struct Server {
    service: Arc<Service>,
    stop: signal::Sender<bool>,
    ended: signal::Receiver<bool>,
}

impl Server {
    /// Starts serving. Must be called inside a tokio runtime; starts tasks in it, and threads of its own. Raises the soft
    /// limit of descriptors (RLIMIT_NOFILE) to the hard one: whoever passes limits on notes them before.
    pub fn start(config: Config, lanes: Lanes) -> Result<Self, StartError> {
        let (out, queues) = out::Out::new();
        let service = Arc::new(Service::new(&config, out)?);
        let (changes, queue) = mpsc::channel(lanes::CHANGES_MAX);
        let (stop, stopped) = signal::channel(false);
        let (ended_sender, ended) = signal::channel(false);
        let server = Self { service, stop, ended };
        let started = Pool::start(&server.service, config.threads)
            .and_then(|()| tell::start(&server.service))
            .and_then(|()| change::start(&server.service, queue));
        if let Err(error) = started {
            server.service.end();
            return Err(error);
        }
        server.service.tell_root();
        lanes::start(&server.service, lanes, queues, changes, stopped, ended_sender);
        Ok(server)
    }

    /// Waits until the first `tag` messages of [`remotely_proto::fs::Lane::Change`] have been applied here; failed ones
    /// count. False if the lanes ended before. Cancel safe.
    pub async fn applied(&self, tag: Tag) -> bool {
        self.service.gate.applied(tag).await
    }

    /// Changes that failed after the command had gone on: one-way ones, and writes. The different ones, up to a limit;
    /// [`Stats::failures`] counts all.
    pub fn failures(&self) -> Vec<Failure> {
        self.service.failures.list()
    }

    /// Counts so far.
    pub fn stats(&self) -> Stats {
        self.service.counters.snapshot(self.service.notices.last(), self.service.failures.count())
    }

    /// The name of the file whose content was last taken to be sent, for whoever shows what is going on; `None` before the
    /// first, and if it has no name any more.
    pub fn latest(&self) -> Option<Vec<u8>> {
        self.service.latest_name().map(|name| name.to_vec())
    }

    /// What was asked for, and what was pushed, in order of first use.
    pub fn profile(&self) -> Profile {
        self.service.record.profile()
    }

    /// Gives the mount what an earlier run asked for, before it asks. [`introduced`](Self::introduced) waits for the names and
    /// the first `first` bytes of content. To be called once, right after the start.
    pub fn push(&self, profile: Profile, first: u64) {
        if let Err(error) = push::start(&self.service, profile, first) {
            tracing::debug!(error = &error as &dyn std::error::Error, "nothing pushed");
        }
    }

    /// Waits until all names that [`push`](Self::push) gives, what content it will give, and as much of that as was asked for,
    /// are on their lanes. Cancel safe.
    pub async fn introduced(&self) {
        // The sender lives as long as `self`.
        let _ = self.service.introduced.subscribe().wait_for(|introduced| *introduced).await;
    }

    /// Waits until the lanes have ended, all changes that came in are applied, and locks and files are freed. Cancel safe.
    pub async fn ended(&self) {
        // An error means that the runtime has ended, and everything in it.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Stops taking messages. Changes that have come in are still applied; [`Server::ended`] waits for that.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}
