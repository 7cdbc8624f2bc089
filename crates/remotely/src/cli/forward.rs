//! `remotely forward TARGET -L|-R|-D PLACE`: ports and sockets that stand for others behind the link, in ssh's own words. The work is
//! done by [`crate::net`].

use std::process::ExitCode;

use super::{log, way};
use crate::net::{Forward, ForwardOptions, forward};
use crate::report::{self, Failure, exit_code};
use crate::target::Target;

/// Forward ports and sockets between here and a host, until interrupted.
///
/// BIND is the address to listen at: this machine only (or the host only, with -R), if not given; * or nothing before the colon is all
/// of its addresses. IPv6 stands in brackets. A word with a slash is the path of a socket.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct Args {
    /// The host.
    target: Target,
    /// Listen here; connections lead to HOST:PORT as the host sees it.
    #[arg(short = 'L', long, value_name = "[BIND:]PORT:HOST:PORT", value_parser = Forward::local)]
    local: Vec<Forward>,
    /// Listen on the host; connections lead to HOST:PORT as seen from here, or anywhere, by SOCKS, if no HOST is named.
    #[arg(short = 'R', long, value_name = "[BIND:]PORT[:HOST:PORT]", value_parser = Forward::remote)]
    remote: Vec<Forward>,
    /// Listen here for SOCKS (4, 4a, 5); connections lead where each says, as the host sees it.
    #[arg(short = 'D', long, value_name = "[BIND:]PORT", value_parser = Forward::dynamic)]
    dynamic: Vec<Forward>,
    #[command(flatten)]
    way: way::Way,
}

const AFTER: &str = "\
Port 0 is one that is free; it is told. When the link is lost it is made again; the ports here stay open meanwhile.

Examples:
  remotely forward user@host -L 8080:localhost:80 -L 5432:db:5432
  remotely forward user@host -L /tmp/docker.sock:/var/run/docker.sock
  remotely forward user@host -R 9000:localhost:3000
  remotely forward user@host -D 1080";

pub(super) fn main(args: Args) -> ExitCode {
    let Args { target, local, remote, dynamic, way } = args;
    log::start(way.verbose);
    let forwards: Vec<Forward> = [local, remote, dynamic].into_iter().flatten().collect();
    if forwards.is_empty() {
        report::note("nothing to forward: -L, -R or -D say what");
        return exit_code(Failure::Setup);
    }
    forward(ForwardOptions { connect: way.options(target), forwards })
}
