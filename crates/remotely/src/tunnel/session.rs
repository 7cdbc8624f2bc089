//! One link of a tunnel, from the moment when something is asked of it until it is lost or closed.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use remotely_call::{CallError, Caller, Doors, Line as Printed, Remote};
use remotely_proto::call::Open;
use remotely_session::{End, Incoming, Link, LinkBuilder, Offer, Service, Settings, Stream, reset};
use tokio::sync::{Notify, watch};

use super::error::ErrorKind;
use super::lines::{Lines, OnLine};
use crate::bootstrap::{self, Connected};
use crate::options::{ConnectOptions, Errors, Untimed};
use crate::tree::Branch;

pub(super) struct Session {
    link: Link,
    /// `None` if the link was over before it began.
    caller: Option<Caller>,
    lines: Arc<Lines>,
    /// What it takes to connect, until that begins.
    waiting: Mutex<Option<Waiting>>,
    launched: AtomicBool,
    untimed: Arc<Untimed>,
    /// The link is to be closed. Without a pipe it does not say so itself.
    hung_up: Notify,
    stage: watch::Sender<Stage>,
}

struct Waiting {
    builder: LinkBuilder,
    options: ConnectOptions,
    through: Option<Branch>,
    doors: Arc<Doors>,
    shown: watch::Sender<u64>,
}

#[derive(Debug, Clone)]
enum Stage {
    Coming,
    Up,
    /// And why.
    Over(ErrorKind),
}

impl Session {
    pub(super) fn new(
        host: String,
        mut options: ConnectOptions,
        through: Option<Branch>,
        path: Vec<String>,
        depth_limit: u8,
        on_line: OnLine,
    ) -> Arc<Self> {
        let depth = u8::try_from(path.len().saturating_sub(2)).unwrap_or(u8::MAX);
        let builder = LinkBuilder::new(Settings { depth, ..Settings::default() });
        let link = builder.link();
        let doors = Doors::new(link.clone());
        let (shown, has_shown) = watch::channel(0);
        let caller = Caller::new(doors.clone(), path, depth_limit, has_shown).ok();
        let lines = Lines::new(host, on_line);
        let taking = lines.clone();
        options.errors = Errors::Hand(Arc::new(move |piece| taking.take_raw(piece)));
        // Of this session alone: the options are those of all that follow one another.
        options.untimed = Arc::default();
        let untimed = options.untimed.clone();
        let waiting = Mutex::new(Some(Waiting { builder, options, through, doors, shown }));
        let stage = watch::Sender::new(Stage::Coming);
        Arc::new(Self {
            link,
            caller,
            lines,
            waiting,
            launched: AtomicBool::new(false),
            untimed,
            hung_up: Notify::new(),
            stage,
        })
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Up)
    }

    /// The link; it may have no pipe yet.
    #[cfg(any(feature = "copy", feature = "cli"))]
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Whether there was time lately that does not count.
    pub(super) fn was_untimed(&self) -> bool {
        self.untimed.take()
    }

    /// Whether the link is being lost or closed, or is over.
    #[cfg(feature = "copy")]
    pub(super) fn is_ending(&self) -> bool {
        self.link.is_over() || self.is_over()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Over(_))
    }

    /// The last lines that were printed on standard error there.
    pub(super) fn stderr(&self) -> String {
        self.lines.tail()
    }

    /// Begins to connect, once.
    pub(super) fn launch(self: &Arc<Self>) {
        if self.launched.swap(true, Ordering::Relaxed) {
            return;
        }
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiting) = waiting {
            tokio::spawn(self.clone().live(waiting));
        }
    }

    /// Waits until there is a link. Cancel safe.
    pub(super) async fn up(&self) -> Result<(), ErrorKind> {
        match self.reached(|stage| !matches!(stage, Stage::Coming)).await {
            Stage::Over(why) => Err(why),
            Stage::Up | Stage::Coming => Ok(()),
        }
    }

    /// Waits until the link is over, and says why. Cancel safe.
    pub(super) async fn end(&self) -> ErrorKind {
        match self.reached(|stage| matches!(stage, Stage::Over(_))).await {
            Stage::Over(why) => why,
            Stage::Up | Stage::Coming => ErrorKind::Closed,
        }
    }

    async fn reached(&self, there: impl FnMut(&Stage) -> bool) -> Stage {
        let mut stage = self.stage.subscribe();
        // The sender is in what this borrows.
        stage.wait_for(there).await.map_or(Stage::Over(ErrorKind::Closed), |stage| stage.clone())
    }

    /// Calls a function; the first one connects, and travels with the greeting.
    pub(super) async fn call<F: Remote>(self: &Arc<Self>, arguments: F::Args) -> Result<F::Output, CallError> {
        let Some(caller) = &self.caller else { return Err(CallError::Over) };
        let mut call = pin!(caller.call::<F>(arguments));
        poll_fn(|cx| {
            let answer = call.as_mut().poll(cx);
            // Behind the first poll, which has put the call into the first flight.
            self.launch();
            answer
        })
        .await
    }

    /// Closes the link; what is left to do is done without anybody waiting.
    pub(super) fn hang_up(&self) {
        self.link.close();
        self.hung_up.notify_one();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if !self.launched.swap(true, Ordering::Relaxed) {
            self.stage.send_replace(Stage::Over(ErrorKind::Closed));
        }
    }

    /// Closes the link in order.
    pub(super) async fn close(&self) {
        self.hang_up();
        self.reached(|stage| matches!(stage, Stage::Over(_))).await;
    }

    async fn live(self: Arc<Self>, Waiting { builder, options, through, doors, shown }: Waiting) {
        // Whoever else calls at the same moment is to travel with the first.
        let queued = tokio::task::yield_now();
        let connect = async {
            if let Some(branch) = through {
                return branch.connect(&options, builder, queued).await;
            }
            match bootstrap::connect(&options, builder, queued).await {
                Ok(Connected { link, incoming, process, .. }) => Ok((link, incoming, Some(process))),
                Err(error) => Err(ErrorKind::Connect(Arc::new(error))),
            }
        };
        let connected = tokio::select! {
            connected = connect => connected,
            () = self.hung_up.notified() => return self.over(ErrorKind::Closed),
        };
        let (link, incoming, process) = match connected {
            Ok(connected) => connected,
            Err(why) => return self.over(why),
        };
        let taking = Taking {
            doors,
            caller: self.caller.clone(),
            lines: self.lines.clone(),
            shown: Arc::new(shown),
            #[cfg(feature = "net")]
            exit: options.exit,
        };
        tokio::spawn(taking.take(incoming));
        if link.linked().await.is_ok() {
            self.stage.send_replace(Stage::Up);
        }
        let end = link.ended().await;
        let mut status = None;
        if let Some(process) = &process {
            status = tokio::time::timeout(std::time::Duration::from_secs(1), process.ended()).await.ok();
            if end != End::Closed {
                process.last_words().await;
            }
        }
        let why = match end {
            End::Closed => ErrorKind::Closed,
            end => ErrorKind::Lost { why: end.to_string(), status, stderr: self.lines.tail() },
        };
        if let Some(process) = process {
            process.close().await;
        }
        self.over(why);
    }

    fn over(&self, why: ErrorKind) {
        self.stage.send_replace(Stage::Over(why));
    }
}

/// Takes the streams that the agent opens.
struct Taking {
    doors: Arc<Doors>,
    caller: Option<Caller>,
    lines: Arc<Lines>,
    shown: Arc<watch::Sender<u64>>,
    #[cfg(feature = "net")]
    exit: Option<remotely_net::forward::Exit>,
}

impl Taking {
    async fn take(self, mut incoming: Incoming) {
        while let Some(offer) = incoming.next().await {
            match offer.service {
                Service::CALL => self.called(offer),
                #[cfg(feature = "net")]
                Service::NET if self.exit.is_some() => {
                    self.exit.clone().map(|exit| tokio::spawn(exit.serve(offer)));
                }
                _ => offer.refuse(reset::REFUSED),
            }
        }
    }

    fn called(&self, offer: Offer) {
        match (minicbor::decode(&offer.body), &self.caller) {
            (Ok(Open::Answer { call }), Some(caller)) => caller.take_answer(call, offer.stream),
            (Ok(Open::Channel), _) => self.doors.offer_channel(offer),
            (Ok(Open::Output), _) => {
                tokio::spawn(print(offer.stream, self.lines.clone(), self.shown.clone()));
            }
            _ => offer.refuse(reset::REFUSED),
        }
    }
}

/// Hands out what is printed, and tells the caller how far that has come.
async fn print(stream: Stream, lines: Arc<Lines>, shown: Arc<watch::Sender<u64>>) {
    let Stream { mut send, mut recv, .. } = stream;
    send.finish();
    let (mut received, mut taken) = (BytesMut::new(), 0);
    while let Ok(Some(chunk)) = recv.recv().await {
        received.extend_from_slice(&chunk);
        taken += chunk.len() as u64;
        loop {
            match Printed::decode(&mut received) {
                Ok(Some(line)) => lines.take(line),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "what came is no printed line");
                    shown.send_replace(u64::MAX);
                    return;
                }
            }
        }
        shown.send_replace(taken - received.len() as u64);
    }
    shown.send_replace(u64::MAX);
}
