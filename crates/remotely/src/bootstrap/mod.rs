//! From a target to a link: starts the transport, has the host's shell become the agent (sending the executable where
//! the host does not have it yet), and hands the pipe to the session.
//!
//! Called by `run`, by [`Tunnel`](crate::Tunnel) and by `doctor`. It knows nothing of what the link is for.

mod ciphers;
mod conversation;
mod door;
mod error;
mod executable;
mod line;
pub mod place;
#[cfg(feature = "cli")]
mod progress;
#[cfg(not(feature = "cli"))]
#[path = "no_progress.rs"]
mod progress;
#[cfg(feature = "cli")]
mod script;
mod widen;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use remotely_session::{Incoming, Link, LinkBuilder, Pipe};

pub use self::conversation::Uploaded;
use self::conversation::{Conversation, Failure, Greeted};
use self::door::Doors;
pub use self::error::ConnectError;
use self::executable::Executable;
pub use self::line::{WORD, one_line};
#[cfg(feature = "cli")]
pub use self::script::output;
use self::widen::Widener;
use crate::options::{ConnectOptions, Width};
use crate::transport;
use crate::transport::session::{self, Connection};
use crate::transport::spawn::{self, Manner, Process};

/// A link, and what it took to get it.
pub struct Connected {
    /// The link. Its handshake may still fail, which shows as its end.
    pub link: Link,
    /// Streams that the agent opens.
    pub incoming: Incoming,
    /// The local process of the transport. The link ends with it and it ends when dropped; to end in order, close the
    /// link, wait for its end, then [`Process::close`].
    pub process: Process,
    /// From the call until the agent answered.
    pub time: Duration,
    /// The agent had to be sent.
    pub uploaded: Option<Uploaded>,
}

/// An agent that has said that it is ready, and speaks frames from here on.
pub(crate) struct Ready {
    /// The pipe to it.
    pub(crate) pipe: Pipe,
    /// What was already read from the pipe: the beginning of its frames.
    pub(crate) received: Bytes,
    /// What is left of the first flight.
    pub(crate) unsent: Bytes,
    /// The local process of the transport.
    pub(crate) process: Process,
    uploaded: Option<Uploaded>,
    widener: Option<Widener>,
}

/// Gets a link to `options.target`. What has been queued in `builder` when `queued` resolves travels before the first answer;
/// the transport starts meanwhile.
///
/// Must be called inside a Tokio runtime. Cancel safe: dropping the future kills the process of the transport and leaves the terminal as it was, also during a password prompt of ssh.
pub async fn connect<F: Future<Output = ()>>(
    options: &ConnectOptions,
    mut builder: LinkBuilder,
    queued: F,
) -> Result<Connected, ConnectError> {
    let began = Instant::now();
    let flight = async {
        queued.await;
        builder.first_flight()
    };
    let Ready { pipe, received, unsent, process, uploaded, widener } = reach(options, flight).await?;
    let time = began.elapsed();
    let (link, incoming) = builder.attach_behind(unsent, pipe, received);
    if let Some(widener) = widener {
        widener.start(link.pipes());
    }
    Ok(Connected { link, incoming, process, time, uploaded })
}

/// Gets a pipe to an agent at `options.target`, for a link whose first flight `flight` tells. The rest is as with [`connect`].
pub(crate) async fn reach(
    options: &ConnectOptions,
    flight: impl Future<Output = Bytes>,
) -> Result<Ready, ConnectError> {
    let executable = Arc::new(Executable::open(options.executable.as_deref())?);
    let mut flight = Flight { coming: Some(Box::pin(flight)), bytes: Bytes::new() };
    let shared = options.width != Width::Exactly(1);
    match attempt(options, &executable, &mut flight, true, shared).await {
        Err(ConnectError::Ended { status, stderr, explained: None, .. }) if damaged(status.code(), &stderr) => {
            tracing::info!("the host could not execute what it has; sending it again");
            attempt(options, &executable, &mut flight, false, false).await
        }
        Err(ConnectError::Ended { stderr, .. }) if shared && session::cannot_listen(&stderr) => {
            tracing::info!("ssh cannot listen for further sessions here; trying without");
            attempt(options, &executable, &mut flight, true, false).await
        }
        result => result,
    }
}

/// The first flight, made when all that is to be in it is queued.
struct Flight<F> {
    /// Until then.
    coming: Option<Pin<Box<F>>>,
    bytes: Bytes,
}

impl<F: Future<Output = Bytes>> Flight<F> {
    /// Cancel safe.
    async fn bytes(&mut self) -> Bytes {
        if let Some(coming) = &mut self.coming {
            self.bytes = coming.await;
            self.coming = None;
            tracing::debug!(bytes = self.bytes.len(), "first flight");
        }
        self.bytes.clone()
    }
}

/// Whether this is how it ends when the shell found an agent of that name that is none any more (a disk that was full, a
/// host that crashed), which the line cannot tell us: it could not be executed (126, 127), it died at once (as a shell says
/// of signals, or ssh, by 255 and no word, which of its own failures it has), or it is a script of nothing.
fn damaged(code: Option<i32>, stderr: &str) -> bool {
    match code {
        Some(0 | 126 | 127 | 129..=159) => true,
        Some(255) => stderr.is_empty(),
        _ => false,
    }
}

async fn attempt<F: Future<Output = Bytes>>(
    options: &ConnectOptions,
    executable: &Arc<Executable>,
    flight: &mut Flight<F>,
    reuse: bool,
    shared: bool,
) -> Result<Ready, ConnectError> {
    let packed = !transport::is_of_here(&options.target);
    let line = line::line(&executable.hash, executable::nonce(), reuse, packed, options.agent);
    let may_ask = options.may_ask();
    let mut connection =
        Connection::plan(&options.target, &options.ssh_opts, executable::nonce(), shared, ciphers::known);
    // Of what is said twice ssh takes the first, the user's.
    let ssh_opts: Vec<_> = options.ssh_opts.iter().chain(&connection.words).cloned().collect();
    let argv = transport::asking_command_line(&options.target, &ssh_opts, &line, may_ask);
    tracing::debug!(?argv, "starting the transport");
    let terminal = Terminal::remember();
    let own_group = !transport::uses_terminal(&options.target);
    let started = spawn::start_with(&argv, Manner { errors: &options.errors, own_group })?;
    let mut process = started.process;
    let mut conversation = Conversation::new(started.reader, started.writer).map_err(ConnectError::pipe)?;
    let mut doors = Doors::new(options);

    let talk = async {
        match doors.pass(&mut conversation, flight, &mut process).await? {
            Greeted::Ready { unsent } => Ok((None, unsent)),
            Greeted::Needs(need) => {
                let flight = flight.bytes().await;
                let _untimed = options.untimed.begin();
                let uploaded = conversation.upload(need, executable, options.progress, flight).await?;
                Ok((Some(uploaded), Bytes::new()))
            }
            Greeted::Asked { .. } | Greeted::Opened => {
                Err(ConnectError::Strange { what: "a hop asked out of turn".into() }.into())
            }
        }
    };
    match talk.await {
        Ok((uploaded, unsent)) => {
            terminal.forget();
            if let Some(program) = connection.unknown.take() {
                ciphers::find_out(program);
            }
            let (reader, writer, received) = conversation.into_pipe().map_err(ConnectError::pipe)?;
            let (target, hash) = (options.target.clone(), executable.hash.clone());
            let widener = connection.is_shared().then_some(Widener { connection, target, hash, width: options.width });
            Ok(Ready { pipe: Pipe { reader, writer }, received, unsent, process, uploaded, widener })
        }
        Err(Failure::Error(error)) if error.names_target() => Err(error),
        Err(Failure::Error(error)) => Err(error.at(&options.target)),
        Err(Failure::Ended) => {
            let noise = conversation.noise();
            // Nobody is to wait for input that will not come.
            drop(conversation);
            let status = tokio::time::timeout(Duration::from_secs(5), process.ended()).await;
            let stderr = process.last_words().await;
            // Docker writes to standard output why it could not start anything.
            let explained = transport::explain(&options.target, &format!("{stderr}\n{noise}"));
            if let (None, Some(error)) = (&explained, doors.refused()) {
                return Err(error);
            }
            Err(ConnectError::Ended {
                target: options.target.to_string(),
                program: argv.first().cloned().unwrap_or_default(),
                status: status.unwrap_or_default(),
                stderr,
                noise,
                explained: explained.map(Box::new),
            })
        }
    }
}

/// The modes of the terminal, put back when dropped: ssh turns the echo off while it asks for a password, and may be
/// ended in the middle of that.
struct Terminal(Option<(std::os::fd::OwnedFd, rustix::termios::Termios)>);

impl Terminal {
    fn remember() -> Self {
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let terminal = rustix::fs::open("/dev/tty", flags, rustix::fs::Mode::empty());
        Self(terminal.ok().and_then(|tty| {
            let modes = rustix::termios::tcgetattr(&tty).ok()?;
            Some((tty, modes))
        }))
    }

    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let Some((tty, modes)) = &self.0 else { return };
        // From the background this would stop us, and there was no prompt then.
        if crate::stderr::in_foreground(tty) == Some(true) {
            let _ = rustix::termios::tcsetattr(tty, rustix::termios::OptionalActions::Now, modes);
        }
    }
}
