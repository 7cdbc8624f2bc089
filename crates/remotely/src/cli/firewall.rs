//! `remotely firewall METHOD`: the elevated helper of `remotely net`, which starts it. Not for users. The work is done by
//! [`remotely_net::firewall`].

use std::process::ExitCode;

use remotely_net::firewall::{Settings, serve};

use super::log;
use crate::report::{self, Failure, exit_code};

/// The privileged part of `remotely net`, which starts it.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(super) struct Args {
    method: String,
}

pub(super) fn main(args: Args) -> ExitCode {
    log::start(0);
    match serve(&Settings::new(&args.method)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error, None);
            exit_code(Failure::Setup)
        }
    }
}
