//! The exec service: one command from its request to its end. Called by [`crate::run::serve`] for each exec stream.
//!
//! The end of a command is known at once, even if others still hold its output open: [`Report::Exited`] then says, beside
//! the positions of files, how many bytes each carried descriptor had yielded, and the rest follows on the streams; and how
//! many bytes were read from each pipe that it was given.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use remotely_fs::mount::Mount;
use remotely_proto::ByteVec;
use remotely_proto::exec::{Control, Program, Report, Request, Step};
use remotely_proto::message::MessageError;
use remotely_session::{MessageReceiver, MessageSender, RecvError, RecvMessageError, SendError, Stream};
use tokio::sync::watch;

use crate::run::carried::{self, Carried, Carry};
use crate::run::environment;
use crate::run::handle::{Handle, Progress};
use crate::run::input::Input;
use crate::run::order::{Exit, Failure, Order, Run};
use crate::run::relay::{self, Output, Screen};
use crate::run::rendezvous::Rendezvous;
use crate::run::shell;
use crate::run::stage::{Ready, STREAMS_WITHIN, Scene};
use crate::run::terminal;
use crate::sys::SIGNAL_MAX;

/// The code of a reset that says: the agent's own process failed, and what became of the command is not known.
pub(crate) const RESET_LOST: u32 = remotely_session::reset::FIRST_FREE;

/// How long a command that the client gave up may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// What commands of one link share.
pub(crate) struct Host {
    /// Starts processes.
    pub(crate) init: Handle,
    /// Streams that wait for their command.
    pub(crate) streams: Rendezvous,
    /// Where they run.
    pub(crate) scene: Scene,
}

/// Serves an exec stream to its end.
pub(crate) async fn serve(host: Arc<Host>, stream: Stream) {
    let id = stream.id;
    let (mut reports, mut controls) = (MessageSender::new(stream.send), MessageReceiver::new(stream.recv));
    let request = match controls.recv::<Request>().await {
        Ok(Some((request, _))) => request,
        Ok(None) => return,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            let report = Failure::plain(Step::Setup, format!("read the request: {error}{cause}")).report();
            let _ = reports.send(&report, Bytes::new()).await;
            return reports.finish();
        }
    };
    let started = start(&host, id, request).await;
    host.streams.forget(id);
    match started {
        Ok(running) => running.follow(&host.init, reports, controls).await,
        Err(failure) => {
            let _ = reports.send(&failure.report(), Bytes::new()).await;
            reports.finish();
        }
    }
}

/// A command that init was told to run.
struct Running {
    id: u32,
    progress: watch::Receiver<Progress>,
    outputs: Vec<(u32, Weak<Output>, Arc<AtomicU64>)>,
    inputs: Vec<(u32, Arc<Input>)>,
    changes: Arc<AtomicU64>,
    mount: Option<Mount>,
    /// Our end of the pty, as long as it is used.
    master: Weak<relay::End>,
    /// The command's end.
    slave: Option<OwnedFd>,
}

async fn start(host: &Host, id: u32, request: Request) -> Result<Running, Failure> {
    let of_host = environment::of_host(&request.host_env);
    let ready = host.scene.ready(&host.init, &host.streams, &request, of_host.shared.clone()).await?;
    let mut carried = carried::make(&request, ready.owner)?;
    let mut streams = Vec::with_capacity(carried.ends.len());
    for Carry { fd, .. } in &carried.ends {
        let claimed = tokio::time::timeout(STREAMS_WITHIN, host.streams.claim_fd(id, *fd)).await;
        streams.push(
            claimed
                .map_err(|_| Failure::plain(Step::Descriptor, format!("descriptor {fd}: its stream did not come")))?,
        );
    }
    let progress = host.init.watch(id);
    let run = run(id, request, of_host, ready, &mut carried);
    let ordered = host.init.order(&Order::Run(run), &carried.passed()).await;
    ordered.map_err(|error| Failure::new(Step::Setup, error, "speak to the init process on the host"))?;
    let slave = carried.close_passed();
    let master =
        carried.tty.and_then(|_| carried.ends.iter().find(|carry| carry.feeds && carry.yields && carry.end.is_pty()));
    let master = master.map_or_else(Weak::new, |carry| Arc::downgrade(&carry.end));
    let (mut outputs, mut inputs) = (Vec::new(), Vec::new());
    let (mut both, pipes) = carried.ends.into_iter().zip(streams).partition::<Vec<_>, _>(|(carry, _)| carry.yields);
    for (Carry { fd, end, .. }, Stream { send, recv, .. }) in pipes {
        let input = Input::new(&end, send);
        inputs.push((fd, input.clone()));
        tokio::spawn(input.feed(end, recv));
    }
    let before: Arc<[_]> = inputs.iter().map(|(_, input)| input.clone()).collect();
    both.sort_by_key(|(carry, _)| !carry.end.is_pty());
    let mut screen = Screen::default();
    for (Carry { fd, end, feeds, .. }, Stream { send, mut recv, .. }) in both {
        let output = Output::new(end.clone(), ready.changes.clone(), before.clone(), screen.clone());
        if end.is_pty() {
            screen = Screen::of(&output);
        }
        outputs.push((fd, Arc::downgrade(&output), output.count()));
        tokio::spawn(output.run(send));
        if feeds {
            tokio::spawn(relay::feed(end, recv));
        } else {
            recv.stop();
        }
    }
    Ok(Running {
        id,
        progress,
        outputs,
        inputs,
        changes: ready.changes.clone(),
        mount: ready.mount.clone(),
        master,
        slave,
    })
}

fn run(id: u32, request: Request, of_host: environment::HostEnvironment, ready: &Ready, carried: &mut Carried) -> Run {
    let (argv, env, cwd, identity) = match request.program {
        Program::Command { argv } => (argv, of_host.apply(request.env), request.cwd, Some(request.identity)),
        Program::HostShell => {
            let env = shell::environment(&request.env, &ready.prefix);
            (shell::argv(), env, ready.prefix.clone(), None)
        }
    };
    let inherited = request.inherited;
    let announce = request.tty.is_some_and(|tty| tty.announce);
    let fds = std::mem::take(&mut carried.wanted);
    let prefix = ByteVec::clone(&ready.prefix);
    Run { id, argv, env, cwd, identity, inherited, fds, tty: carried.tty, prefix, announce }
}

impl Running {
    /// Tells the client what becomes of it, and does what the client says.
    async fn follow(mut self, init: &Handle, mut reports: MessageSender, mut controls: MessageReceiver) {
        let (mut started, mut stops, mut reads, mut listening) = (false, 0, 0, true);
        loop {
            tokio::select! {
                biased;
                changed = self.progress.changed() => {
                    let now = self.progress.borrow_and_update().clone();
                    let mut news = Vec::new();
                    if now.started && !started {
                        started = true;
                        news.push(Report::Started);
                    }
                    if now.stops.0 != stops {
                        stops = now.stops.0;
                        news.push(now.stops.1.map_or(Report::Continued, |signal| Report::Stopped { signal }));
                    }
                    if now.reads.0 != reads {
                        reads = now.reads.0;
                        news.push(Report::Reads { polls: now.reads.1 });
                    }
                    let over = now.failure.is_some() || now.exit.is_some();
                    news.extend(now.failure.map(Failure::report));
                    if let Some(exit) = now.exit {
                        if let Some(mount) = &self.mount {
                            mount.report_used().await;
                        }
                        news.push(self.exited(exit));
                    }
                    if changed.is_err() && !over {
                        // Init is gone, and everything in its namespace with it.
                        return reports.stream().reset(RESET_LOST);
                    }
                    for report in news {
                        match reports.send(&report, Bytes::new()).await {
                            Ok(()) => {}
                            // The end of the link is the end of all commands, in its own order.
                            Err(SendError::Ended) => return,
                            Err(_) => return self.abandon(init).await,
                        }
                    }
                    if over {
                        return reports.finish();
                    }
                }
                control = controls.recv::<Control>(), if listening => match control {
                    Ok(Some((control, _))) => self.obey(init, control).await,
                    Ok(None) => listening = false,
                    // A later version may say more.
                    Err(RecvMessageError::Message(MessageError::Head(_))) => {}
                    Err(RecvMessageError::Recv(RecvError::Ended)) => return,
                    Err(_) => return self.abandon(init).await,
                },
            }
        }
    }

    async fn obey(&self, init: &Handle, control: Control) {
        match control {
            Control::Signal { signal } if (1..=SIGNAL_MAX).contains(&signal) => self.signal(init, signal).await,
            Control::Signal { .. } => {}
            Control::Resize { size } => {
                if let Some(master) = self.master.upgrade() {
                    let _ = terminal::resize(master.fd(), size);
                }
            }
            Control::Continue => {
                self.signal(init, libc::SIGCONT as u32).await;
                if let Some(master) = self.master.upgrade() {
                    terminal::continue_foreground(master.fd());
                }
            }
            Control::Announce { polls } => {
                // As with a signal.
                let _ = init.order(&Order::Announce { id: self.id, polls }, &[]).await;
            }
        }
    }

    async fn signal(&self, init: &Handle, signal: u32) {
        // If init is gone, so is the command.
        let _ = init.order(&Order::Signal { id: self.id, signal }, &[]).await;
    }

    fn exited(&mut self, exit: Exit) -> Report {
        self.slave = None;
        let yielded = self.outputs.iter().map(|(fd, output, count)| {
            // One that is gone has yielded all it had, or is not wanted.
            if let Some(output) = output.upgrade() {
                output.drain();
            }
            (*fd, count.load(Ordering::SeqCst))
        });
        let consumed = self.inputs.iter().map(|(fd, input)| (*fd, input.consumed()));
        let offsets = exit.offsets.into_iter().chain(yielded).chain(consumed).collect();
        let tag = self.changes.load(Ordering::SeqCst);
        let mount = self.mount.as_ref().map(Mount::counts);
        Report::Exited { status: exit.status, tag, offsets, cpu: exit.cpu, mount }
    }

    /// The client does not want it any more.
    async fn abandon(mut self, init: &Handle) {
        self.signal(init, libc::SIGHUP as u32).await;
        self.signal(init, libc::SIGCONT as u32).await;
        let ended = self.progress.wait_for(|progress| progress.exit.is_some() || progress.failure.is_some());
        let ended = tokio::time::timeout(GRACE, ended).await.is_ok();
        if !ended {
            self.signal(init, libc::SIGKILL as u32).await;
        }
    }
}
