//! `remotely man DIR`: man pages, from the same definitions as the help.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::report::{self, Failure, exit_code};

/// Write the man pages into a directory.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory; it is made if it is not there.
    dir: PathBuf,
}

pub(super) fn main(args: Args) -> ExitCode {
    let made =
        std::fs::create_dir_all(&args.dir).and_then(|()| clap_mangen::generate_to(super::Cli::command(), &args.dir));
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::note(&format!("could not write man pages into {}: {error}", args.dir.display()));
            exit_code(Failure::Setup)
        }
    }
}
