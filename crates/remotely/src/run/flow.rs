//! One attempt to run the command over one link, from the first flight to the end of the command. Called by `run`, which
//! owns what outlives an attempt: the local ends of the descriptors, the terminal, the caught signals.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use remotely_fs::server::{Config, Lanes, Profile, Server};
use remotely_proto::exec::{Control, FdOpen, Request, Step};
use remotely_proto::fs::{Counts, Lane};
use remotely_session::{
    Class, Link, LinkBuilder, MessageReceiver, MessageSender, Role, SendStream, Service, Settings, Stream,
};
use tokio::sync::{mpsc, watch};

use super::course::Course;
use super::fetching::Fetching;
use super::outcome::{Ended, RunError};
use super::output::Applied;
use super::signal::{self, Signals};
use super::stats::Times;
use super::streams::Locals;
use super::terminal::{self, Terminal};
use super::way::{FLIGHT_MAX, Way};
use crate::bootstrap::{self, Connected};
use crate::options::ConnectOptions;
use crate::stderr;

/// Signals and sizes that wait for a link that does not take them.
const CONTROLS: usize = 64;
/// Turns that other tasks get to queue the first flight.
const QUEUEING: usize = 16;
/// Turns that other tasks get to write the goodbye.
const GOODBYE: usize = 4;

/// What outlives an attempt.
pub(super) struct Flow<'a> {
    /// What is asked for.
    pub(super) request: &'a Request,
    /// The descriptors that are carried.
    pub(super) locals: &'a Locals,
    /// Files whose position is to be what it is there at the end.
    pub(super) files: &'a [(u32, OwnedFd)],
    /// The terminal, if the command has one.
    pub(super) terminal: Option<&'a Terminal>,
    /// Go to the terminal at once, not only when the command asks for it.
    pub(super) eager: bool,
    /// What is caught.
    pub(super) signals: &'a mut Signals,
    /// What is served.
    pub(super) config: &'a Config,
    /// What was touched last time.
    pub(super) profile: Option<Profile>,
    /// What is known of the way, and since when.
    pub(super) way: Option<(Way, SystemTime)>,
    /// When what happened.
    pub(super) times: &'a mut Times,
}

/// A command that has ended, and what is left of its run.
pub(super) struct Finished {
    /// How it ended.
    pub(super) ended: Ended,
    /// The fs server, to be asked what it did.
    pub(super) server: Arc<Server>,
    /// The link, closed.
    pub(super) link: Link,
    /// What the mount on the host counted, if it told.
    pub(super) counts: Option<Counts>,
    /// How long its agent took to answer, if it was there already.
    pub(super) answered: Option<Duration>,
}

impl Flow<'_> {
    /// Runs it by way of `connect`.
    pub(super) async fn attempt(&mut self, connect: &ConnectOptions) -> Result<Finished, RunError> {
        let mut settings = Settings { role: Role::Client, ..Settings::default() };
        if let Some((way, used)) = self.way {
            settings.initial_window = way.window(used, settings.initial_window);
        }
        let first_content = settings.initial_window.min(FLIGHT_MAX);
        let mut builder = LinkBuilder::new(settings);
        let lanes = Lanes {
            query: lane(&mut builder, Lane::Query, Class::Normal),
            change: lane(&mut builder, Lane::Change, Class::Bulk),
            bulk: lane(&mut builder, Lane::Bulk, Class::Bulk),
        };
        let exec = builder.open(Service::EXEC, Class::Control, Bytes::new());
        let streams = self
            .locals
            .fds()
            .map(|fd| builder.open(Service::FD, Class::Normal, encode(&FdOpen { exec: exec.id, fd })))
            .collect();
        let files = [lanes.query.id, lanes.bulk.id];
        let (serving, applied) = watch::channel(None);
        let relays = self.locals.relay(streams, applied);
        let (controls, queued) = mpsc::channel(CONTROLS);
        tokio::spawn(speak(exec.send, self.request.clone(), queued));
        let server = Server::start(self.config.clone(), lanes).map_err(|error| RunError::Serve(error.into()))?;
        let server = Arc::new(server);
        serving.send_replace(Some(Arc::clone(&server)));
        let mut profile = self.profile.take();
        let mut head_start = Duration::ZERO;
        // A host that has no agent yet throws the first flight away.
        if let Some((way, _)) = self.way
            && let Some(profile) = profile.take()
        {
            head_start = way.head_start();
            server.push(profile, first_content);
        }
        let introduced = Arc::clone(&server);
        let queued = async move {
            // What goes with the first flight is there a round trip earlier; what takes longer to look at follows.
            let _ = tokio::time::timeout(head_start, introduced.introduced()).await;
            // Lets what was spawned queue its part.
            for _ in 0..QUEUEING {
                tokio::task::yield_now().await;
            }
        };

        self.times.connecting();
        tracing::info!(target = %connect.target, "connecting");
        let Connected { link, process, time, uploaded, .. } = self.connect(connect, builder, queued).await?;
        self.times.connected();
        tracing::info!(ms = time.as_millis(), "the agent has answered");
        if let Some(profile) = profile {
            server.push(profile, 0);
        }
        let answered = uploaded.is_none().then_some(time);

        let reports = MessageReceiver::new(exec.recv);
        // Where others of the job may write to the terminal, there is no telling whose line it is.
        let fetching = Fetching::new(connect.progress && self.eager, &link, files);
        let mut course = Course::new(self, link, server, controls, reports, relays, fetching);
        let result = course.run().await;
        stderr::clear();
        terminal::restore();
        let (server, link, counts) = course.leave();
        link.close();
        // Lets the goodbye be written; nobody waits for an answer to it.
        for _ in 0..GOODBYE {
            tokio::task::yield_now().await;
        }
        if result.is_ok() {
            // Ends with this process, which has no reason to wait for it.
            std::mem::forget(process);
        }
        let ended = result?;
        Ok(Finished { ended, server, link, counts, answered })
    }

    async fn connect(
        &mut self,
        options: &ConnectOptions,
        builder: LinkBuilder,
        queued: impl Future<Output = ()>,
    ) -> Result<Connected, RunError> {
        let connecting = bootstrap::connect(options, builder, queued);
        tokio::pin!(connecting);
        loop {
            tokio::select! {
                connected = &mut connecting => return connected.map_err(RunError::Connect),
                signal = self.signals.next() => match signal {
                    Ok(signal) if signal::kills(signal) => return Err(RunError::Interrupted(signal)),
                    Ok(signal) if signal::stops(signal) => self.signals.stop(signal, false),
                    Ok(_) => {}
                    Err(source) => return Err(RunError::Prepare { step: "receive signals", source }),
                },
            }
        }
    }
}

fn lane(builder: &mut LinkBuilder, lane: Lane, class: Class) -> Stream {
    builder.open(Service::FS, class, encode(&lane))
}

fn encode(value: &impl minicbor::Encode<()>) -> Bytes {
    // Writing into a Vec cannot fail.
    minicbor::to_vec(value).unwrap_or_default().into()
}

/// Sends the request, then controls as they come.
async fn speak(stream: SendStream, request: Request, mut controls: mpsc::Receiver<Control>) {
    let mut sender = MessageSender::new(stream);
    if sender.send(&request, Bytes::new()).await.is_err() {
        return;
    }
    while let Some(control) = controls.recv().await {
        if sender.send(&control, Bytes::new()).await.is_err() {
            return;
        }
    }
}

impl Applied for Arc<Server> {
    async fn applied(&self, tag: u64) {
        if !Server::applied(self, tag).await {
            // It will not happen: the link is over, and with it everything that waits here.
            std::future::pending().await
        }
    }
}

/// Whether a failure may go away with root's rights, and what it was.
pub(super) fn wants_privilege(error: &RunError) -> Option<String> {
    match error {
        RunError::Failed { step: Step::Privilege, what, .. } => Some(what.clone()),
        _ => None,
    }
}
