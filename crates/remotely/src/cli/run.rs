//! `remotely TARGET -- COMMAND`: a command of here on the host. The work is done by [`crate::run`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::{log, way};
use crate::options::{Program, RunOptions, SyncMode, TtyMode};
use crate::report::{self, Failure, exit_code};
use crate::target::Target;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to run it: [user@]host[:port], local:, or hops joined by '+', such as user@host+sudo.
    target: Option<Target>,
    #[command(flatten)]
    view: View,
    /// The command and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The options that running and feigning share.
#[derive(Debug, clap::Args)]
pub(super) struct View {
    #[command(flatten)]
    pub(super) way: way::Way,
    /// Never start the agent through 'sudo -n' on a host that has no usable user namespaces.
    #[arg(long)]
    no_sudo: bool,
    /// How files are served.
    #[arg(long, value_name = "WAY", default_value = "fuse")]
    fs: Files,
    /// What becomes of the NFS server of here afterwards, with --fs nfs: takes effect when that does.
    #[arg(long, value_name = "on|off|same")]
    nfs_afterwards: Option<NfsAfterwards>,
    /// See this path as it is on the host. May be given several times.
    #[arg(long, value_name = "PATH", value_parser = OsStringValueParser::new().try_map(absolute))]
    host_path: Vec<PathBuf>,
    /// Hide this path of here from the command. May be given several times.
    #[arg(long, value_name = "PATH")]
    hide: Vec<PathBuf>,
    /// Show this path although it is hidden by default, as private keys are. May be given several times.
    #[arg(long, value_name = "PATH")]
    show: Vec<PathBuf>,
    /// Let the command change nothing here.
    #[arg(long)]
    read_only: bool,
    /// When changes are applied here: in order before anything can be observed, or each before its call returns.
    #[arg(long, value_name = "MODE", default_value = "ordered")]
    sync: Sync,
    /// Make 0, 1 and 2 a terminal there even if they are none here.
    #[arg(long, conflicts_with = "no_tty")]
    tty: bool,
    /// Use pipes there even if 0, 1 or 2 are a terminal here.
    #[arg(long)]
    no_tty: bool,
    /// Print round trips, requests, cache hits, bytes and times at the end.
    #[arg(long)]
    stats: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Files {
    /// By FUSE on the host.
    Fuse,
    /// By the NFS server of this machine: still to come, refused for now.
    Nfs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum NfsAfterwards {
    /// Running.
    On,
    /// Stopped.
    Off,
    /// As it was before.
    Same,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sync {
    /// In order, before anything of the command can be observed here.
    Ordered,
    /// Each before its call returns.
    Strict,
}

pub(super) fn main(args: Args) -> ExitCode {
    let Args { target, view, command } = args;
    let Some(target) = target else {
        return view.refuse(
            "no target: say where to run it, for instance remotely user@host -- COMMAND (remotely help says more)",
        );
    };
    if command.is_empty() {
        let what =
            format!("no command: remotely {target} -- COMMAND runs one, remotely feign {target} gives a shell there");
        return view.refuse(&what);
    }
    view.run(target, Program::Command(command))
}

impl View {
    /// Runs it; the exit code is all that is left to do.
    pub(super) fn run(self, target: Target, program: Program) -> ExitCode {
        log::start(self.way.verbose);
        if self.fs == Files::Nfs {
            return self
                .refuse("--fs nfs is still to come: --fs fuse, the default, is the one way to serve files for now");
        }
        if self.nfs_afterwards.is_some() {
            report::note("--nfs-afterwards takes effect with --fs nfs, which is still to come");
        }
        let here = |paths: Vec<PathBuf>| paths.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>();
        let (hide, show) = match (here(self.hide), here(self.show)) {
            (Ok(hide), Ok(show)) => (hide, show),
            (Err(error), _) | (_, Err(error)) => {
                report::error(&error, None);
                return exit_code(Failure::Setup);
            }
        };
        crate::run::run(RunOptions {
            program,
            no_sudo: self.no_sudo,
            host_paths: self.host_path,
            hide,
            show,
            read_only: self.read_only,
            sync: match self.sync {
                Sync::Ordered => SyncMode::Ordered,
                Sync::Strict => SyncMode::Strict,
            },
            tty: match (self.tty, self.no_tty) {
                (true, _) => TtyMode::Always,
                (_, true) => TtyMode::Never,
                _ => TtyMode::Auto,
            },
            stats: self.stats,
            verbose: self.way.verbose,
            connect: self.way.options(target),
        })
    }

    fn refuse(&self, why: &str) -> ExitCode {
        report::note(why);
        exit_code(Failure::Setup)
    }
}

fn absolute(text: OsString) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("an absolute path on the host is wanted") }
}
