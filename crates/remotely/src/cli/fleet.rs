//! The words of every command that goes to many hosts: which hosts, and how many at once.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

use super::screen::Screen;
use super::way::{Words, count, seconds, words};
use crate::group::Group;
use crate::nodes::{NodeError, NodeSet, SourceError, Sources};
use crate::options::Width;
use crate::password::Passwords;
use crate::report::{self, Failure, exit_code};
use crate::target::TargetError;

#[derive(Debug, clap::Args)]
pub(super) struct Fleet {
    /// Which hosts: node sets such as web[1-200], targets, @groups; see docs/hosts.md.
    #[arg(value_name = "TARGETS", required = true)]
    targets: String,
    /// Leave these out. May be given several times.
    #[arg(short = 'x', long, value_name = "TARGETS")]
    exclude: Vec<String>,
    /// Read groups and hosts from this file, too: TOML, ansible (INI, YAML), clustershell. May be given several times.
    #[arg(long, value_name = "FILE")]
    inventory: Vec<PathBuf>,
    /// As this user of each host, by sudo: root, if none is named.
    #[arg(long, value_name = "USER", num_args = 0..=1, default_missing_value = "root", require_equals = true)]
    sudo: Option<String>,
    /// Reach the hosts from these, which are dealt out among them; see docs/hosts.md.
    #[arg(long, value_name = "GATEWAYS", conflicts_with = "tree")]
    through: Option<String>,
    /// Reach most hosts from some of their own, if there are more than 64.
    #[arg(long)]
    tree: bool,
    /// So many hosts at once; as many from each gateway.
    #[arg(short, long, value_name = "N", value_parser = count, default_value = "64")]
    fanout: usize,
    /// Give up on a host that has not been connected to within this time.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    connect_timeout: Duration,
    /// Give up on a host that is not done within this time, connecting not included.
    #[arg(short = 't', long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Options for ssh, split into words as a shell splits them: --ssh-opts '-p 2222 -i key'.
    #[arg(long, value_name = "STRING", allow_hyphen_values = true, value_parser = OsStringValueParser::new().try_map(words))]
    ssh_opts: Option<Words>,
    /// Sessions of each ssh connection that a link runs over: a number up to 8, or auto, which opens them when they help.
    #[arg(long, value_name = "N", default_value = "auto")]
    pipes: Width,
    /// Say more about what is done; twice for more still. REMOTELY_LOG=debug has the same effect.
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Fleet {
    /// Runs what a command does with it, which gives its exit code.
    pub(super) fn main<E: Error>(&self, command: impl Future<Output = Result<u8, E>>) -> ExitCode {
        super::log::start(self.verbose);
        let runtime = match tokio::runtime::Runtime::new() {
            Ok(runtime) => runtime,
            Err(error) => return refuse(&error),
        };
        let code = runtime.block_on(command);
        // Reading of standard input may still wait.
        runtime.shutdown_background();
        code.map_or_else(|error| refuse(&error), ExitCode::from)
    }

    /// The group that is meant, and the screen of the command, on which appears what is printed on the hosts or said by the way there.
    pub(super) async fn shown(&self, verb: &str, prefix: bool) -> Result<(Group, Arc<Screen>), FleetError> {
        let group = self.group().await?;
        let screen = Arc::new(Screen::new(verb, group.len(), prefix));
        let on = screen.clone();
        Ok((group.on_line(move |line| drop(on.line(&line.host, true, &line.bytes))), screen))
    }

    async fn group(&self) -> Result<Group, FleetError> {
        let sources = Sources::of_user(&self.inventory).map_err(FleetError::Sources)?;
        let resolve = async |text: &str| {
            let found = NodeSet::resolve(text, &sources).await;
            found.map_err(|source| FleetError::Nodes { text: text.to_owned(), source })
        };
        let gateways = match &self.through {
            Some(text) => match resolve(text).await? {
                nodes if nodes.is_empty() => return Err(FleetError::NoGateway { text: text.clone() }),
                nodes => Some(nodes),
            },
            None => None,
        };
        let mut nodes = resolve(&self.targets).await?;
        for text in &self.exclude {
            nodes = nodes - resolve(text).await?;
        }
        if nodes.is_empty() {
            return Err(FleetError::Nobody { text: self.targets.clone() });
        }
        let opts = self.ssh_opts.clone().unwrap_or_default().0;
        let (passwords, pipes) = (Passwords::from_terminal(), self.pipes);
        let group = |nodes: NodeSet| {
            Group::from(nodes)
                .each_changed(|tunnel| tunnel.ssh_opts(opts.clone()).width(pipes))
                .passwords(passwords.clone())
        };
        let hosts = match &self.sudo {
            Some(user) => {
                group(nodes).sudo(Some(user.as_str()).filter(|user| *user != "root")).map_err(FleetError::Sudo)?
            }
            None => group(nodes),
        };
        let hosts = match (gateways, self.tree) {
            (Some(gateways), _) => hosts.through(group(gateways)),
            (None, true) => hosts.tree(),
            (None, false) => hosts,
        };
        let group =
            hosts.call_window(self.fanout).connect_window(self.fanout.min(64), 8).connect_timeout(self.connect_timeout);
        Ok(match self.timeout {
            Some(limit) => group.call_timeout(limit),
            None => group,
        })
    }
}

/// Closes all links, as far as they still carry that, and with them ends everything everywhere.
pub(super) async fn stop(group: &Group) {
    let _ = tokio::time::timeout(Duration::from_secs(3), group.close()).await;
}

fn refuse(error: &dyn Error) -> ExitCode {
    report::error(error, None);
    exit_code(Failure::Setup)
}

/// Which hosts are meant could not be found out.
#[derive(Debug, thiserror::Error)]
pub(super) enum FleetError {
    #[error("could not read the inventories")]
    Sources(#[source] SourceError),
    #[error("{text:?}")]
    Nodes { text: String, source: NodeError },
    #[error("{text:?} stands for no host")]
    Nobody { text: String },
    #[error("--through {text:?} names no gateway")]
    NoGateway { text: String },
    #[error("--sudo")]
    Sudo(#[source] TargetError),
}

/// Names, folded: `web[1-3,7]`.
pub(super) fn folded<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut set = NodeSet::new();
    let mut odd = Vec::new();
    for name in names {
        match crate::nodes::Node::new(name) {
            Ok(node) => drop(set.insert(node)),
            // The name of an inventory may be anything.
            Err(_) => odd.push(name),
        }
    }
    let mut text = set.fold();
    for name in odd {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
    }
    text
}
