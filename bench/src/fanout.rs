//! The same call on 200 hosts, which are one sshd under so many names: how long until all have answered, and what it costs here.
//! And `true` on 1,000 of them, from here and through a tree.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use testbed::{Client, Process};

use crate::Plan;
use crate::call::private_memory;
use crate::site::{Site, Way, in_turn, numbers};
use crate::table::{Cell, Table};

const WAYS: [Way; 5] = [
    Way { name: "remotely", peer: "remotely", script: "exec by-remotely fanout dev@h 200" },
    Way { name: "pdsh -f 64, true", peer: "pdsh", script: "time pdsh -R ssh -f 64 -l dev -w 'h[1-200]' true" },
    Way { name: "clush -f 64, true", peer: "clush", script: "time clush -f 64 -l dev -w 'h[1-200]' true" },
    Way { name: "chopsticks", peer: "chopsticks", script: "exec by-chopsticks fanout dev@h 200" },
    Way { name: "mitogen", peer: "mitogen", script: "exec by-mitogen fanout dev@h 200" },
];

const TREE: [Way; 2] = [
    Way { name: "remotely exec", peer: "remotely", script: "time remotely exec -f 1000 'dev@h[1-1000]' -- true" },
    Way { name: "remotely exec --tree", peer: "remotely", script: "time remotely exec --tree 'dev@h[1-1000]' -- true" },
];

/// Clock ticks in a second, of /proc/PID/stat (USER_HZ of x86 and Arm).
const TICKS: f64 = 100.0;

/// The table of calls. What has no tunnels connects anew for a second call, which is not measured then.
pub(crate) fn run(plan: &Plan) -> Table {
    let columns = ["first call on all, s", "second call on all, s", "CPU here, s", "private memory here, MB"];
    measured(plan, "200 hosts", &plan.chosen(WAYS), columns)
}

/// The table of trees.
pub(crate) fn tree(plan: &Plan) -> Table {
    let columns = ["`true` on all, s", "-", "CPU here, s", "private memory here, MB"];
    measured(plan, "1,000 hosts", &plan.chosen(TREE), columns)
}

fn measured(plan: &Plan, title: &str, ways: &[Way], columns: [&str; 4]) -> Table {
    let site = Site::start(&[]);
    site.know_host();
    let mut table = Table::new(title, columns.map(str::to_owned));
    // The first run, which is not timed, is the one whose memory is looked at.
    let mut memory = vec![Vec::new(); ways.len()];
    let mut at = 0;
    let measured = in_turn(plan, ways, |way, turn| {
        let run = measure(plan, &site, way, turn == 0);
        if let (0, Ok(run)) = (turn, &run) {
            memory[at].push(Cell::Value(run.memory as f64 / 1e6, 1));
            at += 1;
        } else if turn == 0 {
            at += 1;
        }
        run.map(|run| vec![run.first, run.second.unwrap_or(f64::NAN), run.cpu])
    });
    for ((way, cells), memory) in ways.iter().zip(measured).zip(memory) {
        table.line(way.name, cells.into_iter().chain(memory).collect());
    }
    table
}

struct Run {
    first: f64,
    second: Option<f64>,
    cpu: f64,
    memory: u64,
}

fn measure(plan: &Plan, site: &Site, way: &Way, memory: bool) -> Result<Run, Cell> {
    let stays = way.script.starts_with("exec ");
    let started = Instant::now();
    let mut command = site.command(way, "", "");
    let mut process = Process::start_open(command.env("TIMEFORMAT", "%U %S"));
    let mut most = 0;
    loop {
        let ended = process.ended(Duration::from_millis(if memory { 200 } else { 10 }));
        let said = numbers(&String::from_utf8_lossy(&process.stdout()));
        if memory && ended.is_none() {
            most = most.max(private(&site.client));
        }
        match (ended, &said[..]) {
            (None, &[first, second]) if stays => {
                let run = Run { first, second: Some(second), cpu: ticks(&site.client) / TICKS, memory: most };
                drop(process.stdin());
                process.ended(Duration::from_secs(60));
                settle(site);
                return Ok(run);
            }
            (Some(status), _) if !stays && status.success() => {
                let took = started.elapsed().as_secs_f64();
                let words = process.last_words(Duration::from_secs(1));
                let cpu = numbers(words.lines().last().unwrap_or_default()).iter().sum();
                settle(site);
                return Ok(Run { first: took, second: None, cpu, memory: most });
            }
            (Some(status), _) => {
                let words = process.last_words(Duration::from_secs(1));
                return Err(Cell::Failed(format!("{status} {}", words.lines().last().unwrap_or_default())));
            }
            (None, _) if started.elapsed() > plan.limit => return Err(Cell::Stopped(plan.limit)),
            (None, _) => {}
        }
    }
}

/// Waits until nothing of a run is left to disturb the next one.
fn settle(site: &Site) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline && !(site.client.processes().is_empty() && site.host.processes().is_empty()) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn private(client: &Client) -> u64 {
    client.processes().iter().map(|process| private_memory(&Path::new("/proc").join(process.pid.to_string()))).sum()
}

/// Of all processes of the client, and of those that they have waited for.
fn ticks(client: &Client) -> f64 {
    let of = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let behind = stat.rsplit_once(')').map(|(_, behind)| behind.to_owned()).unwrap_or_default();
        // utime, stime, cutime and cstime are the fields 14 to 17, and the name is the second.
        let fields = behind.split_ascii_whitespace().skip(11).take(4);
        fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>()
    };
    client.processes().iter().map(|process| of(process.pid)).sum()
}
