//! `remotely net TARGET [SUBNET...] -- COMMAND`: a command of here with the host's network. The work is done by [`crate::net`].

use std::ffi::OsString;
use std::process::ExitCode;

use super::{log, way};
use crate::net::{self, NetOptions, Subnet};
use crate::report::{self, Failure, exit_code};
use crate::target::Target;

/// Run a command here with the network of a host: what it connects to, sends to and looks up is reached from there.
///
/// The command runs on this machine, in a network of its own that needs no privilege on either side and touches nothing of this machine's.
/// Its localhost is its own, too. Without a command it is a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER, override_usage = USAGE)]
pub(super) struct Args {
    /// The host.
    #[arg(required_unless_present = "join")]
    target: Option<Target>,
    /// Only these addresses are reached from there, all others from here: ADDRESS[/WIDTH][:PORT[-PORT]], as in 10.0.0.0/8,
    /// 192.168.1.7:443, [fd00::1]/64:80-90. Names are looked up there in any case.
    #[arg(value_name = "SUBNET")]
    subnets: Vec<Subnet>,
    #[command(flatten)]
    way: way::Way,
    /// Let further commands of yours into this network by this name.
    #[arg(long, value_name = "NAME", conflicts_with = "join")]
    name: Option<String>,
    /// Run the command in the network that has this name.
    #[arg(long, value_name = "NAME", conflicts_with = "target")]
    join: Option<String>,
    /// The command and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const USAGE: &str = "remotely net [OPTIONS] TARGET [SUBNET]... [-- COMMAND [ARGS]...]
       remotely net --join NAME [-- COMMAND [ARGS]...]";

const AFTER: &str = "\
TCP, UDP, questions about names and pings go through the link. When that is lost, connections are reset, and it is made again for as long
as the command runs.

Exit status: that of the command, or
  255  the link could not be had
  125  something of our own failed
  126  the command could not be executed
  127  the command was not found

Examples:
  remotely net user@host -- curl https://wiki.corp.example
  remotely net user@host 10.0.0.0/8 fd00::/8 -- firefox
  remotely net user@host --name office
  remotely net --join office -- ping db";

pub(super) fn main(args: Args) -> ExitCode {
    let Args { target, subnets, way, name, join, command } = args;
    log::start(way.verbose);
    let command = match command.is_empty() {
        true => vec![std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into())],
        false => command,
    };
    match (target, join) {
        (_, Some(name)) => net::join(&name, &command),
        (Some(target), None) => net::run(NetOptions { connect: way.options(target), subnets, name, command }),
        (None, None) => {
            report::note("no target: say whose network it is to be");
            exit_code(Failure::Setup)
        }
    }
}
