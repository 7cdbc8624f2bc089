//! What a call costs: the first one with the connection, further ones, and the memory of an agent that waits.

use std::fs;
use std::time::{Duration, Instant};

use testbed::Process;

use crate::Plan;
use crate::site::{Site, Way, in_turn, numbers};
use crate::table::{Cell, Table};

const FIRST: [Way; 6] = [
    Way { name: "ssh HOST true", peer: "ssh", script: "ssh dev@HOST THEN true" },
    Way { name: "remotely", peer: "remotely", script: "by-remotely first dev@HOSTTHEN" },
    Way { name: "chopsticks 1.0", peer: "chopsticks", script: "by-chopsticks first dev@HOSTTHEN" },
    Way { name: "mitogen 0.3.54", peer: "mitogen", script: "by-mitogen first dev@HOSTTHEN" },
    Way { name: "clush 1.10.1, true", peer: "clush", script: "clush -l dev -w HOST THEN true" },
    Way { name: "pdsh, true", peer: "pdsh", script: "pdsh -R ssh -l dev -w HOST THEN true" },
];

const RATES: [Way; 4] = [
    Way { name: "remotely, fn", peer: "remotely", script: "by-remotely THEN dev@HOST 1.5" },
    Way { name: "remotely, async fn", peer: "remotely", script: "by-remotely THEN-async dev@HOST 1.5" },
    Way { name: "chopsticks", peer: "chopsticks", script: "by-chopsticks THEN dev@HOST 1.5" },
    Way { name: "mitogen", peer: "mitogen", script: "by-mitogen THEN dev@HOST 1.5" },
];

const IDLE: [Way; 3] = [
    Way { name: "remotely, agent and keeper", peer: "remotely", script: "by-remotely idle dev@HOST" },
    Way { name: "chopsticks", peer: "chopsticks", script: "by-chopsticks idle dev@HOST" },
    Way { name: "mitogen", peer: "mitogen", script: "by-mitogen idle dev@HOST" },
];

/// The three tables.
pub(crate) fn run(plan: &Plan) -> Vec<Table> {
    vec![first(plan), rates(plan), idle(plan)]
}

/// Connecting and the first call. What only runs commands runs `true`, and is timed as a whole.
fn first(plan: &Plan) -> Table {
    let ways = plan.chosen(FIRST);
    let rtts = plan.rtts.as_deref().unwrap_or(&[0, 20, 50]);
    let site = Site::start(&[rtts, &[50]].concat());
    let mut columns: Vec<_> = rtts.iter().map(|rtt| (format!("RTT {rtt} ms"), format!("rtt{rtt}"), false)).collect();
    columns.push(("ssh + sudo, RTT 50 ms".into(), "rtt50".into(), true));
    columns.push(("over a ControlMaster, RTT 50 ms".into(), "rtt50".into(), false));
    let mut table = Table::new("connect + first call, ms", columns.iter().map(|(title, ..)| title.clone()));
    let mut lines: Vec<Vec<Cell>> = ways.iter().map(|_| Vec::new()).collect();
    for (n, (_, host, sudo)) in columns.iter().enumerate() {
        if n + 1 == columns.len() {
            site.share_connections();
        }
        let measured = in_turn(plan, &ways, |way, _| {
            let commands_only = !way.script.starts_with("by-");
            let then = match (sudo, commands_only) {
                (false, _) => "",
                (true, false) => "+sudo",
                (true, true) => "sudo -n",
            };
            site.run(plan, way, host, then).map(|seconds| seconds.iter().map(|s| s * 1000.0).collect())
        });
        for (line, cells) in lines.iter_mut().zip(measured) {
            line.extend(cells.into_iter().take(1));
        }
    }
    for (way, cells) in ways.iter().zip(lines) {
        table.line(way.name, cells);
    }
    table
}

/// Calls of functions that do nothing.
fn rates(plan: &Plan) -> Table {
    let ways = plan.chosen(RATES);
    let site = Site::start(&[0, 20]);
    let columns = ["one after the other, RTT 0 ms", "together, RTT 20 ms"].map(str::to_owned);
    let mut table = Table::new("calls per second", columns);
    let one_by_one = in_turn(plan, &ways, |way, _| site.run(plan, way, "rtt0", "rate"));
    let together = in_turn(plan, &ways, |way, _| site.run(plan, way, "rtt20", "pipelined"));
    for (way, (one, other)) in ways.iter().zip(one_by_one.into_iter().zip(together)) {
        table.line(way.name, one.into_iter().chain(other).collect());
    }
    table
}

/// Private memory of what waits on the host for the next call.
fn idle(plan: &Plan) -> Table {
    let ways = plan.chosen(IDLE);
    let site = Site::start(&[0]);
    let mut table = Table::new("memory of an idle agent, private, MB", ["after one call".to_owned()]);
    let measured = in_turn(plan, &ways, |way, _| {
        let started = Instant::now();
        let mut process = Process::start_open(&mut site.command(way, "rtt0", ""));
        while numbers(&String::from_utf8_lossy(&process.stdout())).is_empty() {
            if process.ended(Duration::from_millis(20)).is_some() || started.elapsed() > plan.limit {
                return Err(Cell::Failed(process.last_words(Duration::from_secs(1))));
            }
        }
        std::thread::sleep(Duration::from_millis(300));
        let proc = site.host.root().join("proc");
        let agents = site.host.processes().into_iter().filter(|process| process.name != "sshd");
        let bytes: u64 = agents.map(|agent| private_memory(&proc.join(agent.pid.to_string()))).sum();
        drop(process.stdin());
        process.ended(Duration::from_secs(10));
        Ok(vec![bytes as f64 / 1e6])
    });
    for (way, cells) in ways.iter().zip(measured) {
        table.line(way.name, cells);
    }
    table
}

/// Bytes that a process shares with no other (proc(5), smaps_rollup); none if it is gone.
pub(crate) fn private_memory(process: &std::path::Path) -> u64 {
    let rollup = fs::read_to_string(process.join("smaps_rollup")).unwrap_or_default();
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    let kilobytes = private.filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.sum::<u64>() * 1024
}
