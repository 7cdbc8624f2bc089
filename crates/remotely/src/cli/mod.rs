//! The command line: the grammar, one file per command, and the log. Called by the executable's `main`; it turns words
//! into [`options`](crate::options) and leaves the work to other modules.

mod completions;
mod copy;
mod doctor;
mod exec;
mod facts;
mod feign;
mod firewall;
mod fleet;
mod forward;
mod gather;
mod hosts;
mod log;
mod man;
mod net;
mod run;
mod screen;
mod slurm;
mod spool;
mod way;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::report::{self, Failure, exit_code};

/// Runs a command of this machine on another machine's CPU, as if here.
///
/// The command finds this machine's files, working directory, environment, user, terminal, signals and exit status; only
/// the processor, the memory and the network are the host's. Nothing has to be installed on the host.
#[derive(Debug, Parser)]
#[command(
    name = "remotely",
    bin_name = "remotely",
    version,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    override_usage = "remotely [OPTIONS] TARGET [OPTIONS] -- COMMAND [ARGS]...\n       \
                      remotely [OPTIONS] slurm: [SALLOC OPTIONS] -- COMMAND [ARGS]...\n       \
                      remotely feign TARGET [OPTIONS]\n       \
                      remotely doctor TARGET [OPTIONS]\n       \
                      remotely exec [OPTIONS] TARGETS -- COMMAND [ARGS]...\n       \
                      remotely put|fetch [OPTIONS] TARGETS SOURCE DESTINATION\n       \
                      remotely facts [OPTIONS] TARGETS\n       \
                      remotely net [OPTIONS] TARGET [SUBNET]... [-- COMMAND [ARGS]...]\n       \
                      remotely forward [OPTIONS] TARGET -L|-R|-D PLACE...\n       \
                      remotely hosts [OPTIONS] EXPR...",
    after_help = AFTER
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Args,
}

const AFTER: &str = "\
Options may stand before or after the target, with or without dashes,
as NAME VALUE or NAME=VALUE.

Targets:
  user@host, host:port, ssh://user@host:port   by ssh, as you have configured it
  local:                                       this machine
  sudo, sudo:USER, su, su:USER                 another user; asks for a password
  docker:NAME, podman:NAME                     a container that runs
  docker-run:IMAGE, podman-run:IMAGE           one of its own, removed at the end
  nsenter:PID, netns:NAME                      a process's namespaces, a network
  srun:[JOB/]NODE                              a node of Slurm
  kubectl:[NAMESPACE/]POD[/CONTAINER]          a pod
  machine:NAME, systemd:, systemd:user         by systemd-run
  'command:WORDS'                              whatever runs a command
  user@host+sudo, gw+user@host+docker:NAME     hops, joined by '+'

Exit status: that of the command, or
  255  the link could not be had, or was lost
  125  something of our own failed
  126  the command could not be executed
  127  the command was not found

Examples:
  remotely user@host -- make -j64
  remotely user@host --read-only -- ffmpeg -i in.mkv -f null -
  remotely slurm: -N1 --mem=64G -- make -j64
  remotely feign user@host
  remotely exec web[1-200] -- uptime";

#[derive(Debug, Subcommand)]
enum Command {
    Feign(feign::Args),
    Doctor(doctor::Args),
    Exec(Box<exec::Args>),
    Put(Box<copy::PutArgs>),
    Fetch(Box<copy::FetchArgs>),
    Facts(Box<facts::Args>),
    Net(Box<net::Args>),
    Forward(Box<forward::Args>),
    Hosts(hosts::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs what the command line of this process asks for.
pub fn main() -> ExitCode {
    crate::agent::keep_memory();
    let mut words = std::env::args_os();
    let sshuttle = words.next().is_some_and(|argv0| net::is_sshuttle(&argv0));
    let words: Vec<OsString> = words.collect();
    if !sshuttle && words.first().is_some_and(|word| word == "firewall") {
        return firewall::main(&words[1..]);
    }
    let words = match of_net(sshuttle, words) {
        Ok(words) => words,
        Err(error) => {
            report::error(&error, None);
            return exit_code(Failure::Setup);
        }
    };
    let cli = Cli::command();
    let commands: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    match slurm::Words::of(&words, &commands) {
        Some(words) => slurm::main(&words, obey),
        None => obey(words),
    }
}

/// The words with those that `net` finds elsewhere. As sshuttle, all of them are net's.
fn of_net(sshuttle: bool, words: Vec<OsString>) -> Result<Vec<OsString>, net::ExpandError> {
    let own = match words.split_first() {
        _ if sshuttle => &words[..],
        Some((first, rest)) if first == "net" => rest,
        _ => return Ok(words),
    };
    let own = net::expand(own, std::env::var_os("SSHUTTLE_ARGS").as_deref())?;
    Ok(std::iter::once("net".into()).chain(own).collect())
}

fn obey(words: Vec<OsString>) -> ExitCode {
    let words = match words::normalize(&Cli::command(), words) {
        Ok(words) => words,
        Err(error) => {
            report::error(&error, error.hint().as_deref());
            return exit_code(Failure::Setup);
        }
    };
    let parsed = Cli::try_parse_from(words);
    match parsed {
        Ok(Cli { command: Some(Command::Feign(args)), .. }) => feign::main(args),
        Ok(Cli { command: Some(Command::Doctor(args)), .. }) => doctor::main(args),
        Ok(Cli { command: Some(Command::Exec(args)), .. }) => exec::main(*args),
        Ok(Cli { command: Some(Command::Put(args)), .. }) => copy::put(*args),
        Ok(Cli { command: Some(Command::Fetch(args)), .. }) => copy::fetch(*args),
        Ok(Cli { command: Some(Command::Facts(args)), .. }) => facts::main(*args),
        Ok(Cli { command: Some(Command::Net(args)), .. }) => net::main(*args),
        Ok(Cli { command: Some(Command::Forward(args)), .. }) => forward::main(*args),
        Ok(Cli { command: Some(Command::Hosts(args)), .. }) => hosts::main(args),
        Ok(Cli { command: Some(Command::Completions(args)), .. }) => completions::main(args),
        Ok(Cli { command: Some(Command::Man(args)), .. }) => man::main(args),
        Ok(Cli { command: None, run }) => run::main(run),
        // Help and version are asked for and go to standard output.
        Err(error) if !error.use_stderr() => match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => exit_code(Failure::Setup),
        },
        Err(error) => {
            let text = error.render().to_string();
            report::note(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
            exit_code(Failure::Setup)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }
}
