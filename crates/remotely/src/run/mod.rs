//! `remotely TARGET -- COMMAND` on the side of the client: everything that the command there needs of here, for as long as
//! it runs, and its end. Called by the command line, or by a program that uses the library.
//!
//! What this process was started with is read first (`inherited`, `descriptor`), before anything of its own is opened.
//! `flow` is one attempt, `course` what happens while the command runs; `streams`, `terminal` and `signal` are what goes
//! between here and there meanwhile; `outcome` is how both end. This side never looks into the bytes that it relays.

mod block;
mod course;
mod descriptor;
mod fetching;
mod flow;
mod inherited;
mod intake;
pub mod options;
mod outcome;
mod output;
mod profile;
mod reader;
mod secret;
mod signal;
mod stats;
mod store;
mod streams;
mod tap;
mod terminal;
mod way;
mod writer;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;
use std::sync::Arc;

use remotely_fs::server::{Config, Failure, Profile};
use remotely_proto::ByteVec;
use remotely_proto::exec::{FdKind, Program as Requested, Request, Tty, View};
use remotely_proto::message::MESSAGE_MAX;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::descriptor::{Shown, Survey};
use self::flow::{Finished, Flow};
use self::inherited::Here;
use self::outcome::RunError;
use self::signal::Signals;
#[cfg(feature = "cli")]
pub(crate) use self::signal::{block_terminal_output, die};
use self::stats::Times;
use self::store::Store;
use self::streams::Locals;
use self::terminal::Terminal;
use self::way::Way;
use crate::options::{ConnectOptions, Program, RunOptions, SyncMode, TtyMode};
use crate::report;
use crate::stderr;
use crate::target::Hop;

/// Variables that `ssh` sets on the host for what it forwards; those of here lead nowhere there.
const FORWARDED: [&str; 3] = ["DISPLAY", "XAUTHORITY", "SSH_AUTH_SOCK"];

/// Runs it, and tells the exit code of this process: that of the command. Does not return if the command was killed by a
/// signal: this process then dies of the same one.
///
/// For the one thread of a process that has just been started: it takes over signals, descriptors and the terminal. What
/// goes wrong is printed.
pub fn run(options: RunOptions) -> ExitCode {
    let fds = descriptor::inherited_fds();
    match perform(&options, &fds) {
        Ok((ended, unapplied)) => outcome::leave(ended, unapplied),
        Err(error) => {
            terminal::restore();
            error.report()
        }
    }
}

fn perform(options: &RunOptions, fds: &[u32]) -> Result<(outcome::Ended, bool), RunError> {
    let here = inherited::capture().map_err(RunError::Inherited)?;
    let home = inherited::variable(&here.env, "HOME");
    let hidden = secret::hidden(home, here.identity.uid, &options.hide, &options.show);
    let shown = Shown {
        hidden: hidden.clone(),
        host: options.host_paths.clone(),
        nothing: options.program == Program::HostShell,
    };
    let survey = descriptor::survey(fds, &shown, options.tty);
    for (fd, what) in &survey.left_out {
        tracing::info!("{} is {what} and is not carried", descriptor::name(*fd));
    }
    let profile = match &options.program {
        Program::Command(argv) => argv.first().and_then(|argv0| profile::store(argv0, &here.env, &here.cwd)),
        Program::HostShell => None,
    };
    // One thread for the link and all that is relayed: what may block (files, descriptors) has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RunError::Prepare { step: "start the runtime", source })?;
    let config = Config {
        root: "/".into(),
        hide: hidden.into_iter().map(|path| path.into_os_string().into_vec()).collect(),
        read_only: options.read_only,
        threads: std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8),
    };
    let result = runtime.block_on(async {
        let mut run = Run::prepare(options, here, survey)?;
        run.finish(options, &config, profile.as_ref()).await
    });
    // A thread may be in a read that never ends; nobody waits for it.
    runtime.shutdown_background();
    result
}

/// What is taken over for the time of a run, whatever number of links it needs.
struct Run {
    request: Request,
    locals: Locals,
    files: Vec<(u32, OwnedFd)>,
    terminal: Option<Terminal>,
    eager: bool,
    signals: Signals,
    times: Times,
}

impl Run {
    fn prepare(options: &RunOptions, here: Here, survey: Survey) -> Result<Self, RunError> {
        let step = |step| move |source: std::io::Error| RunError::Prepare { step, source };
        let signals = Signals::catch(here.inherited.ignored).map_err(step("catch signals"))?;
        let (tty, ends) = match survey.terminal() {
            Some(fd) => terminal_ends(fd, options.tty).map_err(step("open the terminal"))?,
            None => (None, None),
        };
        // Others may write to the terminal, and read it, as soon as the output of the command goes to them.
        let piped =
            survey.specs.iter().any(|spec| spec.fd == 1 && matches!(spec.kind, FdKind::PipeOut | FdKind::Socket))
                && output_is_piped();
        let terminal = match &ends {
            Some((keyboard, _)) if rustix::termios::isatty(keyboard) => {
                Some(Terminal::new(Arc::clone(keyboard), piped))
            }
            _ => None,
        };
        let mut tty = tty;
        if let (Some(tty), Some(terminal)) = (&mut tty, &terminal) {
            // Who does not have the terminal from the start has to be told when it is wanted.
            tty.announce = piped || terminal.in_background();
        }
        let files = positions(&survey).map_err(step("copy a descriptor"))?;
        let carried = ends.map(|(keyboard, screen)| (keyboard, screen, tty.as_ref()));
        let locals = Locals::take(&survey, carried).map_err(step("read and write descriptors"))?;
        let request = request(options, here, survey, tty);
        if minicbor::to_vec(&request).is_ok_and(|bytes| bytes.len() > MESSAGE_MAX) {
            return Err(RunError::Prepare { step: "pass arguments and environment on", source: Errno::TOOBIG.into() });
        }
        Ok(Self { request, locals, files, terminal, eager: !piped, signals, times: Times::begin() })
    }

    async fn finish(
        &mut self,
        options: &RunOptions,
        config: &Config,
        profile: Option<&Store<Profile>>,
    ) -> Result<(outcome::Ended, bool), RunError> {
        let Finished { ended, server, link, counts, .. } = self.attempts(options, config, profile).await?;
        let mut failures = server.failures();
        // Then each write waits for its end, and whoever wrote has been told.
        failures.retain(|failure| options.sync != SyncMode::Strict || failure.operation != "write");
        let lost = report_failures(&failures, &self.locals.broken());
        if let Some(store) = profile
            && let Err(error) = store.save(&server.profile())
        {
            tracing::info!(%error, "the profile could not be kept");
        }
        if options.stats {
            let (served, moved) = (server.stats(), link.stats());
            let table = stats::table(&self.times, self.locals.first_output(), &served, counts.as_ref(), &moved);
            stderr::write(table.as_bytes());
        }
        Ok((ended, lost))
    }

    /// The second one is as root, where the first one says that it would help.
    async fn attempts(
        &mut self,
        options: &RunOptions,
        config: &Config,
        profile: Option<&Store<Profile>>,
    ) -> Result<Finished, RunError> {
        let first = match self.attempt(&options.connect, config, profile).await {
            Err(error) => error,
            finished => return finished,
        };
        let Some(why) = flow::wants_privilege(&first).filter(|_| !options.no_sudo) else { return Err(first) };
        tracing::info!(why, "starting the agent again through sudo");
        self.attempt(&options.connect.elevated(), config, profile).await.map_err(|second| match second {
            RunError::Connect(error) => RunError::Privilege { first: why, had: false, second: report::chain(&error) },
            second => match flow::wants_privilege(&second) {
                Some(second) => RunError::Privilege { first: why, had: true, second },
                None => second,
            },
        })
    }

    async fn attempt(
        &mut self,
        connect: &ConnectOptions,
        config: &Config,
        profile: Option<&Store<Profile>>,
    ) -> Result<Finished, RunError> {
        let store = way::store(connect, &self.request.env);
        let way = store.as_ref().and_then(Store::load);
        let mut flow = Flow {
            request: &self.request,
            locals: &self.locals,
            files: &self.files,
            terminal: self.terminal.as_ref(),
            eager: self.eager,
            signals: &mut self.signals,
            config,
            profile: profile.and_then(Store::load).map(|(profile, _)| profile),
            way,
            times: &mut self.times,
        };
        let finished = flow.attempt(connect).await?;
        let learned = Way::learn(way.map(|(way, _)| way), &finished.link.stats(), finished.answered);
        if let Some(Err(error)) = store.map(|store| store.save(&learned)) {
            tracing::info!(%error, "what the way carries could not be kept");
        }
        Ok(finished)
    }
}

fn request(options: &RunOptions, here: Here, survey: Survey, tty: Option<Tty>) -> Request {
    let bytes = |text: &OsString| ByteVec::from(text.as_bytes().to_vec());
    let by_ssh = options.connect.target.hops().iter().any(|hop| matches!(hop, Hop::Ssh(_)));
    let forwarded = if by_ssh { &FORWARDED[..] } else { &[] };
    Request {
        program: match &options.program {
            Program::Command(argv) => Requested::Command { argv: argv.iter().map(bytes).collect() },
            Program::HostShell => Requested::HostShell,
        },
        env: here.env,
        cwd: here.cwd,
        identity: here.identity,
        inherited: here.inherited,
        fds: survey.specs,
        tty,
        view: View {
            host_paths: options.host_paths.iter().map(|path| path.as_os_str().as_bytes().to_vec().into()).collect(),
            read_only: options.read_only,
            strict: options.sync == SyncMode::Strict,
            host_network: true,
        },
        host_env: forwarded.iter().map(|name| name.as_bytes().to_vec().into()).collect(),
    }
}

type Ends = (Arc<OwnedFd>, Arc<OwnedFd>);

/// The terminal's description, and where its keys come from and its output goes to.
fn terminal_ends(fd: u32, mode: TtyMode) -> std::io::Result<(Option<Tty>, Option<Ends>)> {
    let duplicate = |fd: u32| -> std::io::Result<Arc<OwnedFd>> {
        // SAFETY: a descriptor that was surveyed, and has not been taken over yet.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd as i32) };
        Ok(Arc::new(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?))
    };
    let own = duplicate(fd)?;
    let tty = terminal::describe(&own);
    if mode == TtyMode::Always && !rustix::termios::isatty(&own) {
        return Ok((Some(tty), Some((own, duplicate(1)?))));
    }
    // `fd` may be open one way only; and a description of its own has flags of its own.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let both_ways = rustix::fs::open(format!("/proc/self/fd/{fd}"), flags, Mode::empty()).map(Arc::new);
    let end = both_ways.unwrap_or(own);
    Ok((Some(tty), Some((Arc::clone(&end), end))))
}

/// Whether somebody of this job reads what the command writes: a pipe or a socket rather than a file.
fn output_is_piped() -> bool {
    let kind = rustix::fs::fstat(rustix::stdio::stdout()).map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode));
    matches!(kind, Ok(rustix::fs::FileType::Fifo | rustix::fs::FileType::Socket))
}

/// Copies of the descriptors whose position has to follow that of the command.
fn positions(survey: &Survey) -> std::io::Result<Vec<(u32, OwnedFd)>> {
    let files = survey.specs.iter().filter(|spec| matches!(spec.kind, FdKind::File { .. }));
    files.map(|spec| Ok((spec.fd, descriptor::take(spec.fd)?))).collect()
}

/// Tells of everything that could not be written here; whether there was anything.
fn report_failures(failures: &[Failure], broken: &[(u32, rustix::io::Errno)]) -> bool {
    for (fd, errno) in broken {
        let why = outcome::errno_text(errno.raw_os_error().unsigned_abs());
        report::note(&format!("cannot write to descriptor {fd}: {why}"));
    }
    for Failure { operation, path, errno } in failures {
        let file = if path.is_empty() { "a file without a name".into() } else { outcome::shown(path) };
        report::note(&format!(
            "{operation} of {file} failed after the command had gone on: {}",
            outcome::errno_text(*errno)
        ));
    }
    !failures.is_empty() || !broken.is_empty()
}
