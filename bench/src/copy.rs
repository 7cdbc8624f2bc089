//! Files to a host and from it: one large one against `ssh cat`, many small ones against `tar` over ssh. Both sides have them
//! in memory, so that no disk is measured. Ours hashes on both sides, and makes durable what it has written.

use testbed::spawn::must;

use crate::Plan;
use crate::site::{Site, Way, in_turn};
use crate::table::{Cell, Table};

const MEBIBYTES: u64 = 1024;
const FILES: usize = 10_000;

const PUT: [Way; 3] = [
    Way { name: "put: ssh HOST 'cat >file'", peer: "ssh", script: "ssh dev@HOST 'cat >big' <big" },
    Way { name: "put: remotely", peer: "remotely", script: "by-remotely put dev@HOST big big" },
    Way { name: "put: chopsticks", peer: "chopsticks", script: "by-chopsticks put dev@HOST big /home/dev/big" },
];

const FETCH: [Way; 3] = [
    Way { name: "fetch: ssh HOST 'cat file'", peer: "ssh", script: "ssh dev@HOST 'cat big' >\"$OUT\"" },
    Way { name: "fetch: remotely", peer: "remotely", script: "by-remotely fetch dev@HOST big \"$OUT\"" },
    Way {
        name: "fetch: chopsticks",
        peer: "chopsticks",
        script: "by-chopsticks fetch dev@HOST /home/dev/big \"$OUT\"",
    },
];

const TREE: [Way; 3] = [
    Way {
        name: "tar over ssh",
        peer: "ssh",
        script: "tar -c tree | ssh dev@HOST 'mkdir put && tar -x -C put --strip-components=1'",
    },
    Way { name: "remotely", peer: "remotely", script: "by-remotely put dev@HOST tree put" },
    Way { name: "chopsticks", peer: "chopsticks", script: "by-chopsticks put dev@HOST tree /home/dev/put" },
];

/// Both tables.
pub(crate) fn run(plan: &Plan) -> Vec<Table> {
    let rtts = plan.rtts.as_deref().unwrap_or(&[0, 20]);
    let site = Site::start(rtts);
    let make = format!(
        "head -c 16M /dev/urandom >part; for i in $(seq {}); do cat part; done >big; mkdir tree; cd tree
         split -a 4 -b 4096 -d --additional-suffix=.txt <(head -c {} ../big) file",
        MEBIBYTES / 16,
        FILES * 4096
    );
    // Whatever is copied is in the page cache now.
    must(&mut site.client.bash(&make, ""));
    vec![large(plan, &site, rtts), small(plan, &site, rtts)]
}

fn large(plan: &Plan, site: &Site, rtts: &[u64]) -> Table {
    let columns = rtts.iter().map(|rtt| format!("RTT {rtt} ms"));
    let mut table = Table::new("a file of 1 GiB, MB/s", columns);
    for ways in [PUT, FETCH] {
        let ways = plan.chosen(ways);
        let mut lines: Vec<Vec<Cell>> = ways.iter().map(|_| Vec::new()).collect();
        for rtt in rtts {
            let measured = in_turn(plan, &ways, |way, _| {
                if is_slow(way, *rtt) {
                    return Ok(vec![f64::NAN]);
                }
                let put = way.name.starts_with("put");
                let (there, here) = (site.host.root().join("home/dev/big"), site.out());
                let _ = std::fs::remove_file(if put { &there } else { &here });
                let seconds = site.run(plan, way, &format!("rtt{rtt}"), "")?;
                let length = std::fs::metadata(if put { &there } else { &here }).map_or(0, |m| m.len());
                if length != MEBIBYTES << 20 {
                    return Err(Cell::Failed(format!("{length} bytes arrived")));
                }
                Ok(seconds.iter().map(|seconds| (MEBIBYTES << 20) as f64 / 1e6 / seconds).collect())
            });
            for (line, cells) in lines.iter_mut().zip(measured) {
                line.extend(cells);
            }
        }
        for (way, cells) in ways.iter().zip(lines) {
            table.line(way.name, cells);
        }
    }
    table
}

/// What says nothing new for its minutes: chopsticks waits for the host after each file.
fn is_slow(way: &Way, rtt: u64) -> bool {
    way.peer == "chopsticks" && rtt > 0
}

fn small(plan: &Plan, site: &Site, rtts: &[u64]) -> Table {
    let columns = rtts.iter().map(|rtt| format!("RTT {rtt} ms"));
    let mut table = Table::new("put of 10,000 files of 4 KiB, s", columns);
    let ways = plan.chosen(TREE);
    let mut lines: Vec<Vec<Cell>> = ways.iter().map(|_| Vec::new()).collect();
    for rtt in rtts {
        let measured = in_turn(plan, &ways, |way, _| {
            if is_slow(way, *rtt) {
                return Ok(vec![f64::NAN]);
            }
            site.host.sh("rm -rf /home/dev/put");
            let seconds = site.run(plan, way, &format!("rtt{rtt}"), "")?;
            let arrived = std::fs::read_dir(site.host.root().join("home/dev/put")).map_or(0, Iterator::count);
            if arrived != FILES {
                return Err(Cell::Failed(format!("{arrived} files arrived")));
            }
            Ok(seconds)
        });
        for (line, cells) in lines.iter_mut().zip(measured) {
            line.extend(cells);
        }
    }
    for (way, cells) in ways.iter().zip(lines) {
        table.line(way.name, cells);
    }
    table
}
