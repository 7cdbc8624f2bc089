//! `remotely net`: the host's network for one command, or for this whole machine. The work is done by [`crate::net`].

mod args;
mod expand;

use std::ffi::OsString;
use std::process::ExitCode;

pub(super) use self::args::Args;
use self::args::Asked;
pub(super) use self::expand::{ExpandError, expand, is_sshuttle};
use super::log;
use crate::net::{self, NetOptions};
use crate::report::{self, Failure, exit_code};
use crate::target::Target;

pub(super) fn main(args: Args) -> ExitCode {
    log::start(args.way.verbose);
    let sshuttle = std::env::args_os().next().is_some_and(|argv0| is_sshuttle(&argv0));
    match args.asked(sshuttle) {
        Ok(Asked::Private { target, subnets, command, name }) => {
            let (target, subnets) = match (target.parse::<Target>(), net::subnets(&subnets)) {
                (Ok(target), Ok(subnets)) => (target, subnets),
                (Err(error), _) => return refuse(&error),
                (_, Err(error)) => return refuse(&error),
            };
            net::run(NetOptions { connect: args.way.options(target), subnets, name, command: or_shell(command) })
        }
        Ok(Asked::Join { name, command }) => net::join(&name, &or_shell(command)),
        Ok(_) => exit_code(Failure::Setup),
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    report::error(error, None);
    exit_code(Failure::Setup)
}

fn or_shell(command: Vec<OsString>) -> Vec<OsString> {
    if !command.is_empty() {
        return command;
    }
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    vec![shell.unwrap_or_else(|| "/bin/sh".into())]
}
