//! What a fleet consists of: each host tells a little about itself, and what is equal is shown once.
//!
//! ```console
//! $ fleet-facts 'web[1-200]' @db
//! web[1-180] (180): Debian GNU/Linux 12 (bookworm), 6.1.0-18-amd64, x86_64, 8 CPUs
//! db[1-4],web[181-200] (24): Debian GNU/Linux 13 (trixie), 6.12.9-amd64, x86_64, 16 CPUs
//! busiest: web17, load 7.25
//! ```

use std::error::Error;

use remotely::facts;
use remotely::{Group, NodeSet, remote};
use serde::{Deserialize, Serialize};

/// What hosts of one kind have in common. A result is any type that serde can write here and read there.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Kind {
    os: String,
    kernel: String,
    arch: String,
    cpus: u32,
}

/// Runs on each host. `facts::gather` is itself a remote function; called like this, it runs where we are: over there. What
/// nobody wants to know (addresses, file systems) stays there.
#[remote]
fn describe() -> Kind {
    let facts = facts::gather();
    Kind { os: facts.os.unwrap_or_default(), kernel: facts.kernel, arch: facts.arch, cpus: facts.cpus }
}

/// Runs on each host.
#[remote]
fn measure_load() -> f64 {
    facts::gather().load[0]
}

// On a host, the same program becomes the agent before `main` is reached.
#[remotely::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let expression = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    // Node sets, @groups of inventories, hosts of ~/.ssh/config. Nothing is connected yet.
    let group = Group::named(&expression).await?;

    // All hosts at once, at most 64 at a time. Awaited as a whole, the results can be folded.
    let kinds = group.call(describe, ()).await;
    for (hosts, kind) in kinds.folded() {
        let (count, hosts) = (hosts.len(), hosts.join(",").parse::<NodeSet>()?.fold());
        println!("{hosts} ({count}): {}, {}, {}, {} CPUs", kind.os, kind.kernel, kind.arch, kind.cpus);
    }
    // A host that cannot be reached has kept nobody waiting.
    for (_, error) in kinds.failures() {
        eprintln!("{error}");
    }

    // The links are there now: this takes one round trip. Taken one by one, results come as they arrive.
    let mut busiest = None;
    let mut loads = group.call(measure_load, ());
    while let Some((host, load)) = loads.next().await {
        let Ok(load) = load else { continue };
        if busiest.as_ref().is_none_or(|(_, most)| *most < load) {
            busiest = Some((host, load));
        }
    }
    if let Some((host, load)) = busiest {
        println!("busiest: {host}, load {load:.2}");
    }
    group.close().await;
    Ok(())
}
