//! `remotely completions SHELL`: completions on standard output, from the same definitions as the help.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::report::{self, Failure, exit_code};

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

pub(super) fn main(args: Args) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "remotely", &mut text);
    match std::io::stdout().write_all(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::note(&format!("could not write the completions: {error}"));
            exit_code(Failure::Setup)
        }
    }
}
