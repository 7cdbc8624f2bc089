//! The course of a command that was asked for: what the agent reports, what reaches this process, and what follows from
//! it, until the command has ended or the link has. Called by `flow`, which has set the link up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use remotely_fs::server::Server;
use remotely_proto::exec::{Control, Report};
use remotely_proto::fs::Counts;
use remotely_session::{End, Link, MessageReceiver, RecvError, RecvMessageError};
use rustix::fs::SeekFrom;
use tokio::sync::mpsc;

use super::fetching::Fetching;
use super::flow::Flow;
use super::outcome::{self, Ended, Ending, Known, RunError};
use super::signal;
use super::streams::Relays;
use super::terminal::{self, Terminal};
use crate::stderr;

/// How often is looked whether the terminal belongs to this process group again: nobody tells.
const FOREGROUND: Duration = Duration::from_millis(200);
/// After a signal that asks for the end: how long the host may say nothing at all before this process leaves. More than
/// the keepalive, so that a healthy link always says something in this time.
const GRACE: Duration = Duration::from_secs(8);
/// The same when it is asked a second time.
const SECOND: Duration = Duration::from_secs(1);
/// Most time from the end of the command until the terminal is put back, if somebody reads its output slowly.
const TIDY: Duration = Duration::from_millis(100);

/// How long the transport's process may take to read what is in its pipe.
const PASS_ON: Duration = Duration::from_millis(30);

/// How long a command may be stopped before that is said, where nobody does job control.
const STOPPED: Duration = Duration::from_secs(1);

/// A signal asked for the end, and nothing has come from the host since.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    signal: i32,
    since: Instant,
    heard: u64,
    /// It was asked for a second time.
    again: bool,
}

/// The course of a command over a link.
pub(super) struct Course<'f, 'a> {
    flow: &'f mut Flow<'a>,
    link: Link,
    server: Arc<Server>,
    controls: mpsc::Sender<Control>,
    reports: MessageReceiver,
    relays: Relays,
    fetching: Fetching,
    known: Known,
    /// What the mount had counted at the end.
    counts: Option<Counts>,
    trouble: Option<Trouble>,
    /// A stop that was asked for here was passed on: this process stops with the command.
    asked_to_stop: bool,
    /// The command was stopped there, by this signal, with nobody here who does job control, and nothing was said of it yet.
    stopped_alone: Option<(i32, Instant)>,
}

enum Event {
    Report(Result<Option<(Report, Bytes)>, RecvMessageError>),
    Signal(std::io::Result<i32>),
    Background,
    Look,
    End(End),
}

impl<'f, 'a> Course<'f, 'a> {
    /// The request is on its way over `link`; `controls` follow it, `reports` answer it.
    pub(super) fn new(
        flow: &'f mut Flow<'a>,
        link: Link,
        server: Arc<Server>,
        controls: mpsc::Sender<Control>,
        reports: MessageReceiver,
        relays: Relays,
        fetching: Fetching,
    ) -> Self {
        Self {
            flow,
            link,
            server,
            controls,
            reports,
            relays,
            fetching,
            known: Known::Requested,
            counts: None,
            trouble: None,
            asked_to_stop: false,
            stopped_alone: None,
        }
    }

    /// Stops what is still relayed.
    pub(super) fn leave(self) -> (Arc<Server>, Link, Option<Counts>) {
        (self.server, self.link, self.counts)
    }

    /// Until the end of the command. Not cancel safe.
    pub(super) async fn run(&mut self) -> Result<Ended, RunError> {
        if self.flow.terminal.is_none() || self.flow.eager {
            self.take_terminal();
        }
        loop {
            let waits = self.trouble.is_some() || self.wants_terminal() || self.stopped_alone.is_some();
            let pause = if waits { Some(FOREGROUND) } else { self.fetching.pause() };
            let event = tokio::select! {
                biased;
                report = self.reports.recv() => Event::Report(report),
                signal = self.flow.signals.next() => Event::Signal(signal),
                () = self.flow.locals.background() => Event::Background,
                () = tokio::time::sleep(pause.unwrap_or(FOREGROUND)), if pause.is_some() => Event::Look,
                end = self.link.ended() => Event::End(end),
            };
            match event {
                Event::Report(Ok(Some((report, _)))) => {
                    if let Some(ended) = self.report(report).await? {
                        return Ok(ended);
                    }
                }
                Event::Report(Err(RecvMessageError::Message(error))) => {
                    return Err(self.lost(End::Protocol { why: error.to_string() }));
                }
                // The stream ends before the link does, or because of it.
                Event::Report(Err(RecvMessageError::Recv(RecvError::Reset(_)))) => {
                    let why = "the agent lost the command's root process".into();
                    return Err(self.lost(End::Lost { why }));
                }
                Event::Report(Ok(None) | Err(_)) => {
                    self.link.close();
                    let end = self.link.ended().await;
                    return Err(self.lost(end));
                }
                Event::Signal(Ok(signal)) => self.signal(signal),
                Event::Signal(Err(source)) => return Err(RunError::Prepare { step: "receive signals", source }),
                Event::Background => self.leave_terminal(),
                Event::Look => {
                    if self.wants_terminal() {
                        self.take_terminal();
                    }
                    self.check_trouble()?;
                    self.tell_stopped();
                    self.tell_fetching();
                }
                Event::End(end) => return Err(self.lost(end)),
            }
        }
    }

    /// A signal that asked for the end may have ended the transport, too (those that `sudo` runs hear it), and with it the
    /// command. As here, then.
    fn lost(&self, end: End) -> RunError {
        match self.trouble {
            Some(Trouble { signal, .. }) => RunError::Interrupted(signal),
            None => RunError::Lost { end, known: self.known },
        }
    }

    /// What keeps the user waiting, for as long as the command itself has said nothing.
    fn tell_fetching(&mut self) {
        if self.flow.locals.first_output().is_some() {
            self.fetching.end();
        } else {
            self.fetching.look(&self.link, || self.server.latest());
        }
    }

    async fn report(&mut self, report: Report) -> Result<Option<Ended>, RunError> {
        match report {
            Report::Started => {
                tracing::info!("the command runs");
                self.known = Known::Running;
                self.flow.times.started();
                self.flow.locals.started();
            }
            Report::Failed { step, errno, what } => {
                return Err(RunError::Failed { step, errno, what: outcome::told(&what) });
            }
            Report::Stopped { signal } => {
                self.known = Known::Stopped;
                // What stops nothing there must not be sent to this process.
                let stop = i32::try_from(signal).ok().filter(|&signal| signal::stops(signal));
                self.stopped(stop.unwrap_or(libc::SIGSTOP)).await;
            }
            Report::Reads { polls } => self.wanted(polls),
            Report::Continued => {
                self.known = Known::Running;
                self.stopped_alone = None;
            }
            Report::Exited { status, tag, offsets, cpu, mount } => {
                tracing::info!(status, user_us = cpu.0, system_us = cpu.1, "the command has ended");
                self.fetching.end();
                self.flow.times.exited();
                self.counts = mount;
                self.known = Known::Ended(status);
                self.finish(tag, &offsets).await?;
                let typed = match Ending::of(status) {
                    Ending::Signal(signal) => self.flow.locals.typed() == Some(signal),
                    Ending::Exit(_) => false,
                };
                return Ok(Some(Ended { status, typed }));
            }
        }
        Ok(None)
    }

    /// What the command did before its end happens here before ours.
    async fn finish(&mut self, tag: u64, offsets: &[(u32, u64)]) -> Result<(), RunError> {
        self.flow.locals.keys(false);
        let (server, link, files) = (Arc::clone(&self.server), self.link.clone(), self.flow.files);
        let (signals, relays) = (&mut *self.flow.signals, &mut self.relays);
        let finished = async {
            tokio::select! {
                applied = Server::applied(&server, tag) => if !applied {
                    return Err(link.ended().await);
                },
                end = link.ended() => return Err(end),
            }
            for (fd, file) in files {
                if let Some((_, offset)) = offsets.iter().find(|(number, _)| number == fd) {
                    // As lseek(2) fails for the command itself on what cannot seek.
                    let _ = rustix::fs::seek(file, SeekFrom::Start(*offset));
                }
            }
            relays.drain(offsets).await;
            Ok(())
        };
        let mut finished = Box::pin(finished);
        let tidy = tokio::time::sleep(TIDY);
        tokio::pin!(tidy);
        let end = loop {
            tokio::select! {
                end = &mut finished => break end,
                // A slow link, or a reader here that does not read, must not leave the user without keys.
                () = &mut tidy, if !tidy.is_elapsed() => terminal::restore(),
                signal = signals.next() => if let Ok(signal) = signal && signal::kills(signal) {
                    return Err(RunError::Interrupted(signal));
                },
            }
        };
        drop(finished);
        end.map_err(|end| self.lost(end))
    }

    /// The command was stopped: so are we, for the shell that does job control here.
    async fn stopped(&mut self, signal: i32) {
        stderr::clear();
        let wants = matches!(signal, libc::SIGTTIN | libc::SIGTTOU);
        if self.flow.terminal.is_none() && !std::mem::take(&mut self.asked_to_stop) {
            // Nobody here would continue this process: somebody there may continue the command.
            self.stopped_alone = Some((signal, Instant::now()));
            return;
        }
        if let Some(terminal) = self.flow.terminal
            && wants
            && !terminal.in_background()
        {
            // It wants the terminal, and that is ours to give.
            self.take_terminal();
            self.control(Control::Continue);
            return;
        }
        // What a terminal of here sends reaches its whole process group.
        let group = self.flow.terminal.is_some() && (wants || self.flow.locals.typed() == Some(signal));
        self.flow.locals.keys(false);
        terminal::restore();
        let held = self.link.hold().await;
        if group && wants {
            // It stops the transport, too, which has to pass the announcement on first.
            tokio::time::sleep(PASS_ON).await;
        }
        self.flow.signals.stop(signal, group);
        drop(held);
        // SIGCONT comes as a signal of its own, unless it is ignored.
        self.continued();
    }

    /// The command waits for keys, and nobody reads them here for it.
    fn wanted(&mut self, polls: bool) {
        if !self.flow.terminal.is_some_and(Terminal::in_background) {
            return self.take_terminal();
        }
        // From now on it has the terminal whenever this process group does.
        self.flow.eager = true;
        if polls {
            // The kernel lets a background process wait, and stops it when it reads.
            self.announce();
        } else {
            self.control(Control::Signal { signal: libc::SIGTTIN as u32 });
        }
    }

    /// Asks to be told when the command waits for keys.
    fn announce(&self) {
        self.control(Control::Announce { polls: !self.flow.eager });
    }

    /// A command that stays stopped with no job control here must not look as if it hung.
    fn tell_stopped(&mut self) {
        if let Some((signal, _)) = self.stopped_alone.take_if(|(_, since)| since.elapsed() >= STOPPED) {
            let pid = std::process::id();
            crate::report::note_now(&format!(
                "the command was stopped there by signal {signal}; kill -CONT {pid} continues it"
            ));
        }
    }

    fn continued(&mut self) {
        self.stopped_alone = None;
        if self.flow.eager || self.flow.terminal.is_some_and(Terminal::is_raw) {
            self.take_terminal();
        }
        self.resize();
        self.control(Control::Continue);
    }

    fn signal(&mut self, signal: i32) {
        if signal::asks_for_end(signal) {
            self.fetching.end();
        }
        stderr::clear();
        match signal {
            libc::SIGWINCH if self.flow.terminal.is_some() => self.resize(),
            libc::SIGCONT => {
                self.continued();
                if self.flow.terminal.is_some_and(Terminal::in_background) {
                    self.announce();
                }
            }
            _ => {
                // A command that is stopped by it is reported, and then this process stops, too.
                self.asked_to_stop |= signal::stops(signal);
                self.control(Control::Signal { signal: signal as u32 });
                if signal::asks_for_end(signal) {
                    self.note_trouble(signal);
                }
            }
        }
    }

    /// Never waits: a link that takes no more signals has worse troubles.
    fn control(&self, control: Control) {
        if self.controls.try_send(control).is_err() {
            tracing::warn!(?control, "the link does not take it");
        }
    }

    fn resize(&self) {
        if let Some(terminal) = self.flow.terminal {
            self.control(Control::Resize { size: terminal.size() });
        }
    }

    fn wants_terminal(&self) -> bool {
        self.flow.eager && self.flow.terminal.is_some_and(|terminal| !terminal.is_raw())
    }

    /// Makes the terminal raw and reads its keys, if it is ours to do so.
    fn take_terminal(&mut self) {
        let Some(terminal) = self.flow.terminal else {
            // What stands for one (`--tty`) is read in any case.
            self.flow.locals.keys(true);
            return;
        };
        if terminal.in_background() {
            self.leave_terminal();
            return;
        }
        self.flow.eager = true;
        stderr::clear();
        let was_raw = terminal.is_raw();
        match terminal.enter() {
            Ok(()) => self.flow.locals.keys(true),
            Err(error) => tracing::warn!(%error, "cannot make the terminal raw"),
        }
        if !was_raw {
            self.resize();
        }
    }

    /// Somebody else has the terminal now, and sets it as it likes.
    fn leave_terminal(&self) {
        self.flow.locals.keys(false);
        terminal::forget();
    }

    fn note_trouble(&mut self, signal: i32) {
        let heard = self.link.stats().bytes_received;
        match &mut self.trouble {
            Some(trouble) if trouble.heard == heard => trouble.again |= trouble.since.elapsed() >= SECOND,
            _ => self.trouble = Some(Trouble { signal, since: Instant::now(), heard, again: false }),
        }
    }

    /// Leaves if the end was asked for and the host has said nothing at all since.
    fn check_trouble(&mut self) -> Result<(), RunError> {
        let Some(Trouble { since, heard, again, .. }) = self.trouble else { return Ok(()) };
        if self.link.stats().bytes_received != heard {
            self.trouble = None;
        } else if again || since.elapsed() >= GRACE {
            return Err(RunError::Lost { end: End::Silent, known: self.known });
        }
        Ok(())
    }
}
