//! 512 MiB through a file of here, read and written by a command there, against the same bytes through plain ssh.

use std::time::Duration;

use testbed::{Client, HostOptions, Pair, Wire};

use crate::Plan;
use crate::peer::{Peer, time};
use crate::table::{Cell, Table};

const MEBIBYTES: u64 = 512;

/// From here to there.
pub(crate) fn read(plan: &Plan) -> Table {
    let ways = [
        ("ssh host 'cat >/dev/null' <file", "ssh dev@far 'cat >/dev/null' <file"),
        ("remotely -- cat file", "remotely dev@far -- sh -c 'cat file >/dev/null'"),
        ("remotely -- cat <pipe", "cat file | remotely dev@far -- sh -c 'cat >/dev/null'"),
        ("sshfs, cat file", SSHFS_READ),
    ];
    table(plan, "512 MiB read there, MB/s", &ways, true)
}

/// From there to here.
pub(crate) fn write(plan: &Plan) -> Table {
    let ways = [
        ("ssh host cat >file", "ssh dev@far 'head -c 536870912 /dev/zero' >out"),
        ("remotely -- dd of=file", "remotely dev@far -- dd if=/dev/zero of=out bs=1M count=512 status=none"),
        ("remotely -- cat >pipe", "remotely dev@far -- head -c 536870912 /dev/zero | cat >out"),
    ];
    table(plan, "512 MiB written there, MB/s", &ways, false)
}

/// Stands for the peer's own script, which depends on the pair.
const SSHFS_READ: &str = "sshfs";

fn table(plan: &Plan, title: &str, ways: &[(&str, &str)], reads: bool) -> Table {
    let rtts = plan.rtts.as_deref().unwrap_or(&[0, 20]);
    let mut table = Table::new(title, rtts.iter().map(|rtt| format!("RTT {rtt} ms")));
    for (name, script) in ways {
        let sshfs = *script == SSHFS_READ;
        let wanted = if sshfs { Peer::Sshfs } else { Peer::Remotely };
        if !plan.wants(wanted.name()) {
            continue;
        }
        let cells = rtts.iter().map(|rtt| Cell::median(runs(plan, Wire::rtt(*rtt), script, reads))).collect();
        table.line(name, cells);
    }
    table
}

fn runs(plan: &Plan, wire: Wire, script: &str, reads: bool) -> Vec<Cell> {
    let sshfs = script == SSHFS_READ;
    let pair = if sshfs { Peer::Sshfs.pair(wire) } else { Ok(Pair::of(Client::start(), HostOptions::default(), wire)) };
    let pair = match pair {
        Ok(pair) => pair,
        Err(what) => return vec![Cell::Failed(what)],
    };
    let work = pair.client.work().display().to_string();
    if reads {
        // Neither zeros, which something could make little of, nor slow to make.
        let make =
            format!("head -c 16M /dev/urandom >part; for i in $(seq {}); do cat part; done >file", MEBIBYTES / 16);
        let made = testbed::Process::start(&mut pair.client.bash(&make, ""), b"").wait(Duration::from_secs(60));
        if !made.status.success() {
            return vec![Cell::Failed(made.errors())];
        }
    }
    let mut cells = Vec::new();
    for turn in 0..=plan.runs {
        let started = match sshfs {
            true => Peer::Sshfs.start(&pair, &work, &["cat", "file", ">/dev/null"]),
            false => Some(pair.client.bash(script, "")),
        };
        let Some(mut started) = started else { break };
        let speed = |seconds: f64| Cell::Value((MEBIBYTES << 20) as f64 / 1e6 / seconds, 1);
        match time(plan, &mut started).map(|outcome| speed(outcome.took.as_secs_f64())) {
            // The first puts the agent there.
            Ok(cell) if turn > 0 => cells.push(cell),
            Ok(_) => {}
            Err(cell) => return vec![cell],
        }
        let complete = std::fs::metadata(pair.client.work().join("out")).is_ok_and(|m| m.len() == MEBIBYTES << 20);
        if !reads && !complete {
            return vec![Cell::Failed("the file has not the right length".to_owned())];
        }
    }
    cells
}
