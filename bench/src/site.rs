//! A host under several names, each with its own round trip time, and a client with all the programs that call functions or
//! run commands there: ours, and the peers'. What the rows `call`, `fanout` and `copy` measure on.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use testbed::spawn::{command, must};
use testbed::{Client, Host, HostOptions, Process, Relay, Wire, executable};

use crate::Plan;
use crate::table::Cell;

/// The peers of PyPI, each with the package and the script that speaks our words; clustershell has a command of its own.
const PEERS: [(&str, &str, &str); 3] = [
    ("by-chopsticks", "chopsticks==1.0", include_str!("../peers/by_chopsticks.py")),
    ("by-mitogen", "mitogen==0.3.54", include_str!("../peers/by_mitogen.py")),
    ("clush", "ClusterShell==1.10.1", "from ClusterShell.CLI.Clush import main\nmain()\n"),
];

/// A host, a client, and the wires between them.
pub(crate) struct Site {
    pub(crate) host: Host,
    pub(crate) client: Client,
    _relays: Vec<Relay>,
}

/// One of the ways to do the same thing. All are run in turn, so that what disturbs the machine disturbs them all.
pub(crate) struct Way {
    /// As the table shows it.
    pub(crate) name: &'static str,
    /// Whose it is, as `--peers` has it.
    pub(crate) peer: &'static str,
    /// What bash runs; `HOST` in it is the host's name, and `THEN` what the row says. `$OUT` is a file of here in memory.
    pub(crate) script: &'static str,
}

impl Site {
    /// With names `rtt0`, `rtt20` ... for the host, one for each round trip time, and `h1`, `h2` ... without a wire.
    pub(crate) fn start(rtts: &[u64]) -> Self {
        let sshd = ["MaxSessions=2000", "MaxStartups=2000", "KexAlgorithms=curve25519-sha256"].map(str::to_owned);
        let packages = vec!["python3".to_owned()];
        let host = Host::start(HostOptions { sudo: true, sshd: sshd.into(), packages, ..HostOptions::default() });
        let mut client = Client::start_bare();
        let mut relays = Vec::new();
        client.reach("h*", host.address());
        for rtt in rtts {
            // Without a delay the relay would be the slowest part of the way.
            let address = if *rtt == 0 {
                host.address()
            } else {
                relays.push(Relay::start(host.address(), Wire::rtt(*rtt)));
                relays[relays.len() - 1].address()
            };
            client.reach(&format!("rtt{rtt}"), address);
        }
        for (package, name) in [("caller", "by-remotely"), ("remotely", "remotely")] {
            let ours = executable::built(&[package], package);
            let ours = std::fs::read(&ours).unwrap_or_else(|e| panic!("read {}: {e}", ours.display()));
            client.program(name, ours);
        }
        for (name, package, script) in PEERS {
            client.program(name, peer(package, script));
        }
        Self { host, client, _relays: relays }
    }

    /// Lets what goes to `rttN` go over one connection that stays.
    pub(crate) fn share_connections(&self) {
        let config = self.client.ssh_config();
        let text = std::fs::read_to_string(&config).unwrap_or_default();
        let control = self.client.home().join("master-%n");
        let shared = format!(
            "Host rtt*\n  ControlMaster auto\n  ControlPersist 600\n  ControlPath {}\n{text}",
            control.display()
        );
        std::fs::write(&config, shared).unwrap_or_else(|e| panic!("write {}: {e}", config.display()));
    }

    /// Lets the key of the host be known, as a gateway wants it.
    pub(crate) fn know_host(&self) {
        let read =
            |path: PathBuf| std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        let key = read(self.host.root().join("etc/ssh/ssh_host_ed25519_key.pub"));
        let known = self.client.write("known_hosts", format!("{} {key}", self.host.address().ip()));
        let config = self.client.ssh_config();
        let text = format!("Host h*\n  UserKnownHostsFile {}\n{}", known.display(), read(config.clone()));
        std::fs::write(&config, text).unwrap_or_else(|e| panic!("write {}: {e}", config.display()));
    }

    /// What runs a way.
    pub(crate) fn command(&self, way: &Way, host: &str, then: &str) -> Command {
        let script = way.script.replace("HOST", host).replace("THEN", then);
        let mut bash = self.client.bash(&format!("ulimit -n 4096\n{script}"), "");
        bash.env("OUT", self.out());
        bash
    }

    /// A file of here that is in memory. Removed at the end.
    pub(crate) fn out(&self) -> PathBuf {
        format!("/dev/shm/bench-{}", self.client.uid()).into()
    }

    /// Runs a way: the numbers that it says, or the seconds that it took if it says none.
    pub(crate) fn run(&self, plan: &Plan, way: &Way, host: &str, then: &str) -> Result<Vec<f64>, Cell> {
        let outcome = crate::peer::time(plan, &mut self.command(way, host, then))?;
        let numbers = numbers(&outcome.text());
        Ok(if numbers.is_empty() { vec![outcome.took.as_secs_f64()] } else { numbers })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.out());
    }
}

/// The numbers of a line, none if there is anything else on it.
pub(crate) fn numbers(text: &str) -> Vec<f64> {
    let line = text.lines().next().unwrap_or_default();
    line.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().unwrap_or_default()
}

/// Runs all ways in turn, once to warm what can be warm and then so many times as the plan says; the medians of each. A way
/// that fails once is not tried again.
pub(crate) fn in_turn(
    plan: &Plan,
    ways: &[Way],
    mut run: impl FnMut(&Way, usize) -> Result<Vec<f64>, Cell>,
) -> Vec<Vec<Cell>> {
    let mut measured: Vec<Vec<Vec<Cell>>> = ways.iter().map(|_| Vec::new()).collect();
    for turn in 0..=plan.runs {
        for (way, cells) in ways.iter().zip(&mut measured) {
            if cells.iter().flatten().any(|cell| !matches!(cell, Cell::Value(..))) {
                continue;
            }
            match run(way, turn) {
                Ok(values) if turn > 0 => cells.push(values.iter().map(|value| Cell::Value(*value, 1)).collect()),
                Ok(_) => {}
                Err(cell) => *cells = vec![vec![cell]],
            }
        }
    }
    let median = |runs: Vec<Vec<Cell>>| {
        let columns = runs.iter().map(Vec::len).max().unwrap_or(0);
        (0..columns).map(|n| Cell::median(runs.iter().filter_map(|run| run.get(n).cloned()).collect())).collect()
    };
    measured.into_iter().map(median).collect()
}

/// A program that runs a peer's script, or says why it cannot.
fn peer(package: &str, script: &str) -> String {
    match modules(package) {
        Ok(place) => {
            format!("#!/usr/bin/python3\nimport sys\nsys.path.insert(0, '{}')\n{script}", place.display())
        }
        Err(why) => format!("#!/bin/sh\necho '{}' >&2\nexit 1\n", why.replace('\'', " ")),
    }
}

/// The directory in the cache into which pip has put a package.
pub(crate) fn modules(package: &str) -> Result<PathBuf, String> {
    let name = package.split("==").next().unwrap_or(package);
    let place = testbed::cache::directory().join(package);
    let _lock = testbed::cache::lock(name);
    if !place.exists() {
        let unfinished = place.with_extension("unfinished");
        let _ = std::fs::remove_dir_all(&unfinished);
        let mut pip = command("/usr/bin/python3");
        pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&unfinished).arg(package);
        let outcome = Process::start(&mut pip, b"").wait(Duration::from_secs(300));
        if !outcome.status.success() {
            return Err(format!("pip install {package}: {}", outcome.errors().lines().last().unwrap_or_default()));
        }
        must(command("chmod").args(["-R", "go+rX"]).arg(&unfinished));
        std::fs::rename(&unfinished, &place).map_err(|e| format!("rename to {}: {e}", place.display()))?;
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn a_line_of_numbers_is_told_from_other_words() {
        assert_eq!(numbers("0.5 12\nmore\n"), [0.5, 12.0]);
        assert!(numbers("5 apples\n").is_empty());
        assert!(numbers("").is_empty());
    }
}
