//! Prints how fast commands of here run on a host, against the tools that people use for it today, all in one run:
//! `cargo run --profile fast -p bench -- [ROW...]`. Needs root, as the hosts do. Not a test: nothing here passes or fails.

use std::process::ExitCode;
use std::time::Duration;

use testbed::Wire;

mod ask;
mod bulk;
mod call;
mod copy;
mod fanout;
mod lua;
mod mux;
mod net;
mod peer;
mod site;
mod table;

use peer::Peer;
use site::Way;
use table::{Cell, Table};

const USAGE: &str = "usage: bench [OPTION...] [ROW...]
rows:    gcc lua read write mux, for commands; call fanout tree copy, for programs; net (all of them, if none is named)
options: --rtt MS[,MS...]   --runs N   --peers NAME[,NAME...]   --limit SECONDS of one run
peers:   native ssh remotely remotely-cold sshfs outrun rsync; ssh remotely chopsticks mitogen clush pdsh; ssh remotely sshuttle";

struct Plan {
    rows: Vec<String>,
    rtts: Option<Vec<u64>>,
    peers: Option<Vec<String>>,
    runs: usize,
    limit: Duration,
}

impl Plan {
    fn wants(&self, peer: &str) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.iter().any(|wanted| wanted == peer))
    }

    fn chosen(&self, ways: impl IntoIterator<Item = Way>) -> Vec<Way> {
        ways.into_iter().filter(|way| self.wants(way.peer)).collect()
    }
}

fn main() -> ExitCode {
    if let [word, server, seconds] = &std::env::args().skip(1).collect::<Vec<_>>()[..]
        && word == "ask"
    {
        let asked = seconds.parse().map_err(std::io::Error::other).and_then(|seconds| ask::main(server, seconds));
        return asked.map_or_else(
            |error| {
                eprintln!("bench: {error}");
                ExitCode::FAILURE
            },
            |()| ExitCode::SUCCESS,
        );
    }
    let plan = match parse(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(what) => {
            eprintln!("bench: {what}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    println!("{}", machine());
    for row in &plan.rows {
        match row.as_str() {
            "gcc" => {
                use Peer::{Native, Outrun, Remotely, RemotelyCold, Ssh, Sshfs};
                let peers = [Native, Ssh, RemotelyCold, Remotely, Sshfs, Outrun];
                let gcc =
                    |peer, wire| peer::command(peer, wire, &plan, &["gcc", "--version"], "Free Software Foundation");
                println!("{}", timed(&plan, "`gcc --version`, seconds (ssh runs `true`)", &peers, &[0, 20, 50], &gcc));
            }
            "lua" => {
                use Peer::{Native, Outrun, Remotely, Rsync, Sshfs};
                let peers = [Native, Remotely, Rsync, Sshfs, Outrun];
                let build = |peer, wire| lua::build(peer, wire, &plan);
                let title = "`make -j2 linux` of lua5.4, clean tree, from the second run on, seconds";
                println!("{}", timed(&plan, title, &peers, &[0, 20], &build));
            }
            "read" => println!("{}", bulk::read(&plan)),
            "write" => println!("{}", bulk::write(&plan)),
            "call" => call::run(&plan).iter().for_each(|table| println!("{table}")),
            "fanout" => println!("{}", fanout::run(&plan)),
            "tree" => println!("{}", fanout::tree(&plan)),
            "net" => net::run(&plan).iter().for_each(|table| println!("{table}")),
            "copy" => copy::run(&plan).iter().for_each(|table| println!("{table}")),
            _ => mux::run(),
        }
    }
    ExitCode::SUCCESS
}

/// A table of seconds: a line for each peer, a column for each round trip time.
fn timed(plan: &Plan, title: &str, peers: &[Peer], rtts: &[u64], run: &dyn Fn(Peer, Wire) -> Vec<Cell>) -> Table {
    let rtts = plan.rtts.as_deref().unwrap_or(rtts);
    let mut table = Table::new(title, rtts.iter().map(|rtt| format!("RTT {rtt} ms")));
    for peer in peers.iter().filter(|peer| plan.wants(peer.name())) {
        // What does not use the wire is measured once.
        let columns = if *peer == Peer::Native { &rtts[..1.min(rtts.len())] } else { rtts };
        let cells: Vec<_> = columns.iter().map(|rtt| Cell::median(run(*peer, Wire::rtt(*rtt)))).collect();
        table.line(peer.name(), cells);
    }
    table
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Plan, String> {
    let rows = ["gcc", "lua", "read", "write", "mux", "call", "fanout", "tree", "copy", "net"];
    let mut plan = Plan { rows: Vec::new(), rtts: None, peers: None, runs: 3, limit: Duration::from_secs(200) };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text:?}: {e}"));
        match word.as_str() {
            "--rtt" => plan.rtts = Some(value()?.split(',').map(number).collect::<Result<_, _>>()?),
            "--runs" => plan.runs = usize::try_from(number(&value()?)?.max(1)).map_err(|e| e.to_string())?,
            "--limit" => plan.limit = Duration::from_secs(number(&value()?)?),
            "--peers" => plan.peers = Some(value()?.split(',').map(peer).collect::<Result<_, _>>()?),
            row if rows.contains(&row) => plan.rows.push(word),
            other => return Err(format!("{other:?}?")),
        }
    }
    if plan.rows.is_empty() {
        plan.rows = rows.map(str::to_owned).to_vec();
    }
    Ok(plan)
}

/// The name, if there is such a peer in any row.
fn peer(name: &str) -> Result<String, String> {
    let known = Peer::is_name(name) || ["chopsticks", "mitogen", "clush", "pdsh", "sshuttle"].contains(&name);
    if known { Ok(name.to_owned()) } else { Err(format!("no peer {name:?}")) }
}

/// What it was measured on, as a line of Markdown.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown CPU").to_owned();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "Client and host on one machine: {model}, {cores} cores, Linux {}. Median of the runs (n).\n",
        kernel.trim()
    )
}
