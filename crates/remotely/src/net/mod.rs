//! `remotely net`: a command of here in a namespace whose network is the host's. Brings together what the parts do: the namespace, the
//! link and its loss, capture, and the command's life with a terminal.

mod background;
mod files;
mod forward;
mod interrupted;
mod job;
mod left_alone;
mod line;
mod table;
mod whole;

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use remotely_net::capture::{Capture, Domain, Exits, Naming, Wanted};
use remotely_net::dial::Dialer;
use remotely_net::firewall::{ClientError, Firewall};
use remotely_net::forward::ListenError;
use remotely_net::namespace::{self, Door, JoinError, Namespace, NamespaceError, Settings};
use remotely_net::subnet::{SubnetError, Table};
use thiserror::Error;
use tokio::sync::watch;

pub(crate) use self::background::{Background, BackgroundError};
pub(crate) use self::forward::{Forward, ForwardOptions, forward};
use self::job::Job;
use self::line::Line;
pub(crate) use self::table::Wishes;
pub(crate) use self::whole::WholeOptions;
use crate::options::ConnectOptions;
use crate::report::{self, Failure, exit_code};
use crate::tunnel::{Error as TunnelError, ErrorKind};

/// What the command line says.
#[derive(Debug)]
pub(crate) struct NetOptions {
    /// The way to the host.
    pub(crate) connect: ConnectOptions,
    /// What is reached from there; everything, if nothing is named.
    pub(crate) subnets: Wishes,
    /// Which names are asked for there; all, if there are none.
    pub(crate) domains: Vec<Domain>,
    /// A name by which others enter.
    pub(crate) name: Option<String>,
    /// The command and its arguments.
    pub(crate) command: Vec<OsString>,
}

/// Why the command did not run, or not to its end.
#[derive(Debug, Error)]
enum NetError {
    #[error("could not {step}")]
    Prepare { step: &'static str, source: std::io::Error },
    #[error(transparent)]
    Namespace(NamespaceError),
    #[error(transparent)]
    Join(JoinError),
    #[error(transparent)]
    Link(TunnelError),
    #[error("{command}: {source}")]
    Execute { command: String, source: std::io::Error },
    #[error(transparent)]
    Subnet(SubnetError),
    #[error(transparent)]
    Firewall(ClientError),
    #[error("the firewall helper has ended, and its rules with it")]
    Helper,
    #[error("the host has no routes but its default one: name subnets")]
    Nothing,
    #[error(transparent)]
    Background(BackgroundError),
    #[error("could not enter the network {}", path.display())]
    Enter { path: PathBuf, source: std::io::Error },
    #[error("could not listen at {at}")]
    Listen { at: String, source: std::io::Error },
    #[error("the host could not listen at {at}")]
    ListenThere { at: String, source: ListenError },
    #[error("the network of the command is gone, and the command with it")]
    Gone,
}

impl NetError {
    fn failure(&self) -> Failure {
        match self {
            Self::Link(error) if matches!(error.kind(), ErrorKind::Depth { .. }) => Failure::Setup,
            Self::Link(_) => Failure::Link,
            Self::Execute { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Failure::NotFound,
            Self::Execute { .. } => Failure::NotExecutable,
            _ => Failure::Setup,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Namespace(error) => error.hint(),
            Self::Link(error) => error.hint(),
            _ => None,
        }
    }

    fn report(&self) -> ExitCode {
        report::error(self, self.hint().as_deref());
        exit_code(self.failure())
    }
}

fn preparing(step: &'static str) -> impl Fn(std::io::Error) -> NetError {
    move |source| NetError::Prepare { step, source }
}

/// Runs the command; the exit code is all that is left to do. Must be called while this process has one thread.
pub(crate) fn run(options: NetOptions) -> ExitCode {
    match begin(options) {
        Ok(status) => job::leave(status),
        Err(error) => error.report(),
    }
}

/// Runs a command in a network that has a name. Must be called while this process has one thread.
pub(crate) fn join(name: &str, command: &[OsString]) -> ExitCode {
    match namespace::join(name, command) {
        Ok(Ok(status)) => job::leave(status),
        Ok(Err(errno)) => not_executed(command, errno).report(),
        Err(error) => NetError::Join(error).report(),
    }
}

fn not_executed(command: &[OsString], errno: i32) -> NetError {
    let command = command.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    NetError::Execute { command, source: std::io::Error::from_raw_os_error(errno) }
}

fn begin(options: NetOptions) -> Result<i32, NetError> {
    let door = options.name.as_deref().map(Door::open).transpose().map_err(NetError::Join)?;
    let settings = Settings { command: options.command.clone(), foreground: job::is_alone(), ignored: job::ignored() };
    // Before there is a second thread.
    let namespace = Namespace::make(&settings).map_err(preparing("start a process"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(preparing("start threads"))?;
    let ended = runtime.block_on(live(options, settings, namespace, door));
    runtime.shutdown_background();
    ended
}

/// The wait status of the command.
async fn live(
    options: NetOptions,
    settings: Settings,
    mut namespace: Namespace,
    door: Option<Door>,
) -> Result<i32, NetError> {
    let mut job = Job::new(settings.foreground).map_err(preparing("catch signals"))?;
    let NetOptions { connect, subnets, domains, command, .. } = options;
    let line = Line::new(connect);
    let dialer = Dialer::new();
    let everything = subnets.is_empty();
    let table = match everything && subnets.exclude.is_empty() && subnets.exclude_from.is_empty() {
        true => None,
        false => Some(subnets.table(&dialer).await.map_err(NetError::Subnet)?),
    };
    // Both take their time; whichever fails first is told.
    let made = async { namespace.sockets().await.map_err(NetError::Namespace) };
    let reached = async { line.connect().await.map_err(NetError::Link) };
    let begun = async { tokio::try_join!(made, reached) };
    let (sockets, (reached, surroundings)) = tokio::select! {
        begun = begun => begun?,
        status = job.interrupted() => return Ok(status),
    };
    let (here, incoming) = remotely_net::link_to_self().map_err(preparing("make a link to myself"))?;
    tokio::spawn(dialer.serve_all(incoming));
    let (there, link) = watch::channel(Some(reached.link().clone()));
    let naming = Naming { domains, ..Naming::default() };
    let exits = Exits { there: link, here, wanted: wanted(table), naming, left_alone: None };
    let _capture = Capture::start(sockets, &exits).map_err(preparing("use the sockets of the network"))?;
    if let Some(door) = door {
        tokio::spawn(door.answer(namespace.holder()));
    }
    let start = files::start(&surroundings, everything);
    namespace.start(&start).map_err(|_| NetError::Gone)?;
    tokio::spawn(line.keep(reached, there.clone()));
    job.run(&mut namespace, &there, &command).await
}

/// Everything, if nothing is named.
fn wanted(table: Option<Table>) -> Wanted {
    Arc::new(move |ip: IpAddr, port| table.as_ref().is_none_or(|table| table.captures(ip, port)))
}

/// Captures the whole machine, or all that is in another network namespace of it, until interrupted; the exit code is all that is left to
/// do. Must be called while this process has one thread.
pub(crate) fn whole(options: WholeOptions, background: Background, inside: Option<&Path>) -> ExitCode {
    if let Some(path) = inside
        && let Err(source) = enter(path)
    {
        return fatal(&NetError::Enter { path: path.to_owned(), source });
    }
    let (ready, log) = match background.fork() {
        Ok(background::Fork::Child(ready, log)) => (ready, log),
        Ok(background::Fork::Parent(code)) => return code,
        Err(error) => {
            let code = if matches!(error, BackgroundError::Running { .. }) { RUNS_ALREADY } else { FATAL };
            report::error(&NetError::Background(error), None);
            return ExitCode::from(code);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fatal(&preparing("start threads")(error)),
    };
    let mut held = None;
    let ended = runtime.block_on(whole::live(options, || {
        held = Some(ready.say()?);
        Ok(())
    }));
    runtime.shutdown_background();
    drop(held);
    let ended = ended.map_err(|error| fatal(&error));
    drop(log);
    match ended {
        // As asked: rules are gone, and so ends a command that was interrupted.
        Ok(signal) => {
            crate::run::die(signal, false);
            ExitCode::from(128_u8.saturating_add(signal as u8))
        }
        Err(code) => code,
    }
}

/// Lifts what kill switches dead ones have left, by the helper's word for that.
pub(crate) fn release(word: &str) -> ExitCode {
    let lifted = std::env::current_exe().map_err(preparing("find this executable"));
    let lifted = lifted.and_then(|executable| {
        Firewall::run(&[executable.into(), "firewall".into(), word.into()]).map_err(NetError::Firewall)
    });
    lifted.map_or_else(|error| fatal(&error), |()| ExitCode::SUCCESS)
}

/// Goes into a network namespace, and so does all that is started from here on.
fn enter(path: &Path) -> std::io::Result<()> {
    let namespace = std::fs::File::open(path)?;
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?)
}

/// The codes that scripts know of sshuttle.
const FATAL: u8 = 99;
const RUNS_ALREADY: u8 = 5;

fn fatal(error: &NetError) -> ExitCode {
    report::error(error, error.hint().as_deref());
    ExitCode::from(FATAL)
}
