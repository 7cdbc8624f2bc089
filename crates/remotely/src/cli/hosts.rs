//! `remotely hosts EXPR`: what a node set stands for, expanded, folded, counted, split. The work is done by [`crate::nodes`].

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, FromArgMatches};

use super::way::count;
use crate::nodes::{GroupName, LARGEST, Node, NodeError, NodeSet, SourceError, Sources};
use crate::report::{self, Failure, exit_code};

/// Expand and fold node sets: which hosts an expression stands for, one on a line.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER)]
pub(super) struct Args {
    /// Node sets, joined; '-', or none at all, reads them from standard input.
    #[arg(value_name = "EXPR")]
    expressions: Vec<String>,
    /// Print one short expression for all: web[1-200].
    #[arg(short, long)]
    fold: bool,
    /// Print how many there are.
    #[arg(short, long)]
    count: bool,
    /// What stands between nodes: a newline, or a blank with --split. \n and \t are understood.
    #[arg(short = 'S', long, value_name = "TEXT", allow_hyphen_values = true)]
    separator: Option<String>,
    /// Cut into so many sets of equal size, one on a line.
    #[arg(short, long, value_name = "N", value_parser = count)]
    split: Option<usize>,
    /// List the groups that there are, or with EXPR those that have one of its nodes; with --fold their nodes, too.
    #[arg(short, long)]
    groups: bool,
    #[command(flatten)]
    operations: Operations,
    /// Take so many of them by chance.
    #[arg(long, value_name = "N")]
    pick: Option<usize>,
    /// Print targets (the ways to the hosts) instead of names.
    #[arg(short, long)]
    targets: bool,
    /// Read groups and hosts from this file, too: TOML, ansible (INI, YAML), clustershell. May be given several times.
    #[arg(long, value_name = "FILE")]
    inventory: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const AFTER: &str = "\
Examples:
  remotely hosts 'rack[1-3]node[01-16]'
  remotely hosts -f web1 web2 web3
  remotely hosts -c '@web ! web13'
  remotely hosts --inventory hosts.ini -f '@*'
  remotely hosts -s 3 -f @web

docs/hosts.md has the syntax and the formats of inventories.";

/// `-x`, `-i` and `-X`, in the order in which they are given.
#[derive(Debug)]
struct Operations(Vec<(Operation, String)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Exclude,
    Intersection,
    Xor,
}

const OPERATIONS: [(Operation, char, &str, &str); 3] = [
    (Operation::Exclude, 'x', "exclude", "Leave these out. May be given several times, as the next two."),
    (Operation::Intersection, 'i', "intersection", "Keep only what is also in these."),
    (Operation::Xor, 'X', "xor", "Keep what is in one of both sets only."),
];

impl clap::Args for Operations {
    fn augment_args(command: clap::Command) -> clap::Command {
        OPERATIONS.iter().fold(command, |command, (_, short, long, help)| {
            let arg = clap::Arg::new(*long).short(*short).long(*long).help(*help);
            command.arg(arg.value_name("EXPR").action(clap::ArgAction::Append))
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Operations {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut found: Vec<(usize, Operation, String)> = Vec::new();
        for (operation, _, long, _) in OPERATIONS {
            let places = matches.indices_of(long).into_iter().flatten();
            let texts = matches.get_many::<String>(long).into_iter().flatten();
            found.extend(places.zip(texts).map(|(place, text)| (place, operation, text.clone())));
        }
        found.sort_by_key(|(place, ..)| *place);
        Ok(Self(found.into_iter().map(|(_, operation, text)| (operation, text)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

pub(super) fn main(args: Args) -> ExitCode {
    match run(&args) {
        Ok(text) => {
            // Whoever reads this may stop reading.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            report::error(&error, None);
            exit_code(Failure::Setup)
        }
    }
}

fn run(args: &Args) -> Result<String, HostsError> {
    let sources = Sources::of_user(&args.inventory).map_err(HostsError::Sources)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(HostsError::Start)?;
    runtime.block_on(async {
        if args.groups && args.expressions.is_empty() {
            return groups(args, &sources, None).await;
        }
        let mut nodes = NodeSet::new();
        let mut written: u64 = 0;
        for text in texts(&args.expressions)? {
            let more = resolve(&text, &sources).await?;
            written += more.len() as u64;
            if written > LARGEST {
                let source = NodeError::TooLarge { limit: LARGEST };
                return Err(HostsError::Nodes { text: short(&text), source });
            }
            nodes = nodes | more;
        }
        for (operation, text) in &args.operations.0 {
            let other = resolve(text, &sources).await?;
            nodes = match operation {
                Operation::Exclude => nodes - other,
                Operation::Intersection => nodes & other,
                Operation::Xor => nodes ^ other,
            };
        }
        if let Some(count) = args.pick {
            nodes = pick(nodes, count)?;
        }
        if args.groups { groups(args, &sources, Some(&nodes)).await } else { Ok(shown(args, &nodes)) }
    })
}

async fn resolve(text: &str, sources: &Sources) -> Result<NodeSet, HostsError> {
    NodeSet::resolve(text, sources).await.map_err(|source| HostsError::Nodes { text: short(text), source })
}

/// The expressions given, and those of standard input where it is asked for, each line one. `#` begins a comment there.
fn texts(expressions: &[String]) -> Result<Vec<String>, HostsError> {
    let mut texts = Vec::new();
    let implied = [String::from("-")];
    if expressions.is_empty() && std::io::stdin().is_terminal() {
        return Err(HostsError::NoExpression);
    }
    for text in if expressions.is_empty() { &implied } else { expressions } {
        if text != "-" {
            texts.push(text.clone());
            continue;
        }
        let mut input = String::new();
        std::io::stdin().read_to_string(&mut input).map_err(HostsError::Input)?;
        let lines = input.lines().filter(|line| !line.trim_start().starts_with('#'));
        texts.extend(lines.map(|line| line.split_once(" #").map_or(line, |(line, _)| line).to_owned()));
    }
    Ok(texts)
}

fn shown(args: &Args, nodes: &NodeSet) -> String {
    let one = |nodes: &NodeSet, separator: &str| match (args.json, args.fold) {
        (true, true) => quoted(&folded(args, nodes)),
        (true, false) => format!("[{}]", nodes.iter().map(object).collect::<Vec<_>>().join(",")),
        (false, true) => folded(args, nodes),
        (false, false) => nodes.iter().map(|node| label(args, node)).collect::<Vec<_>>().join(separator),
    };
    let separator = args.separator.as_deref().map(|text| text.replace("\\n", "\n").replace("\\t", "\t"));
    if args.count {
        return format!("{}\n", nodes.len());
    }
    let text = match args.split {
        None => one(nodes, separator.as_deref().unwrap_or("\n")),
        Some(parts) => {
            let parts = nodes.split(parts);
            let texts: Vec<String> = parts.iter().map(|part| one(part, separator.as_deref().unwrap_or(" "))).collect();
            if args.json { format!("[{}]", texts.join(",")) } else { texts.join("\n") }
        }
    };
    if text.is_empty() { text } else { text + "\n" }
}

fn label(args: &Args, node: &Node) -> String {
    if args.targets { node.target().to_string() } else { node.name().to_owned() }
}

fn folded(args: &Args, nodes: &NodeSet) -> String {
    if !args.targets {
        return nodes.fold();
    }
    nodes.iter().map(|node| Node::named(node.target().to_string(), node.target())).collect::<NodeSet>().fold()
}

/// The groups, or those that have one of `nodes`.
async fn groups(args: &Args, sources: &Sources, nodes: Option<&NodeSet>) -> Result<String, HostsError> {
    let names: Vec<GroupName> = sources.groups().collect();
    let mut lines = Vec::new();
    for name in &names {
        let unique = names.iter().filter(|other| other.group == name.group).count() == 1;
        let shown = if unique { format!("@{}", name.group) } else { name.to_string() };
        if nodes.is_none() && !args.fold && !args.json {
            lines.push(shown);
            continue;
        }
        let all = resolve(&name.to_string(), sources).await?;
        if nodes.is_some_and(|nodes| !nodes.iter().any(|node| all.contains(node.name()))) {
            continue;
        }
        lines.push(if args.json {
            let (group, source, nodes) = (quoted(&name.group), quoted(&name.source), quoted(&all.fold()));
            format!(r#"{{"group":{group},"source":{source},"count":{},"nodes":{nodes}}}"#, all.len())
        } else if args.fold {
            format!("{shown} {}", all.fold())
        } else {
            shown
        });
    }
    if args.json {
        return Ok(format!("[{}]\n", lines.join(",")));
    }
    Ok(lines.iter().map(|line| format!("{line}\n")).collect())
}

/// So many of them by chance, in their order.
fn pick(nodes: NodeSet, count: usize) -> Result<NodeSet, HostsError> {
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
        .map_err(|source| HostsError::Start(source.into()))?;
    let mut state = u64::from_ne_bytes(seed) | 1;
    let (mut left, mut wanted) = (nodes.len() as u64, count as u64);
    // Each is taken with the chance that is left for it; xorshift64 is even enough for that.
    let chosen = nodes.into_iter().filter(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let take = state % left.max(1) < wanted;
        left -= 1;
        wanted -= u64::from(take);
        take
    });
    Ok(chosen.collect())
}

fn object(node: &Node) -> String {
    format!(r#"{{"name":{},"target":{}}}"#, quoted(node.name()), quoted(&node.target().to_string()))
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

/// Enough of an expression to know which one it is.
fn short(text: &str) -> String {
    const SHOWN: usize = 60;
    let end = text.char_indices().nth(SHOWN).map(|(end, _)| end);
    end.map_or_else(|| text.to_owned(), |end| format!("{}...", &text[..end]))
}

/// Why nothing is printed.
#[derive(Debug, thiserror::Error)]
enum HostsError {
    #[error("no node set: say which, for instance remotely hosts 'web[1-3]' (remotely hosts --help says more)")]
    NoExpression,
    #[error("could not start")]
    Start(#[source] std::io::Error),
    #[error("could not read node sets from standard input")]
    Input(#[source] std::io::Error),
    #[error(transparent)]
    Sources(SourceError),
    #[error("{text:?}")]
    Nodes { text: String, source: NodeError },
}
