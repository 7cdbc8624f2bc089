//! `remotely feign TARGET`: everything set up, and a shell on the host itself to look at it.

use std::process::ExitCode;

use super::run::View;
use crate::options::Program;
use crate::target::Target;

/// Set everything up and give a shell of the host, where the files of here are mounted to look at.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The host.
    target: Target,
    #[command(flatten)]
    view: View,
}

pub(super) fn main(args: Args) -> ExitCode {
    args.view.run(args.target, Program::HostShell)
}
