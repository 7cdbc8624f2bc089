//! A tunnel by a way that the library does not know: whatever runs the command that is put behind its words. Shows what is
//! different there.
//!
//! ```console
//! $ write-your-own nice -n 5
//! nice value: 0 here, 5 there
//! $ sudo write-your-own unshare --net --pid --fork --mount-proc
//! namespace net: net:[4026531840] here, net:[4026532275] there
//! $ write-your-own ./in-vm build7
//! ```
//!
//! What such a command has to do, and a script for one: docs/transports.md, "Write your own tunnel".

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;

use remotely::target::Target;
use remotely::{Tunnel, remote};

/// What a process finds where it runs.
#[remote]
fn look() -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let line = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    seen.insert("host name".into(), line("/proc/sys/kernel/hostname"));
    // The 19th field of /proc/PID/stat, see proc(5); the second one may have blanks in it.
    if let Some(nice) = line("/proc/self/stat").rsplit(')').next().and_then(|rest| rest.split(' ').nth(17)) {
        seen.insert("nice value".into(), nice.to_owned());
    }
    for entry in fs::read_dir("/proc/self/ns").into_iter().flatten().flatten() {
        if let Ok(namespace) = fs::read_link(entry.path()) {
            let name = format!("namespace {}", entry.file_name().display());
            seen.insert(name, namespace.display().to_string());
        }
    }
    seen
}

#[remotely::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // As text this is "command:nice -n 5", and could be a hop of a longer way: "gw+command:nice -n 5+docker:web".
    let target = Target::local().command(std::env::args().skip(1))?;
    // A name of its own, for results and messages; the default is the whole target.
    let tunnel = Tunnel::new(target).named("there");

    // The same function, called there and called here.
    let (there, here) = (tunnel.call(look, ()).await?, look());
    for (name, here) in &here {
        match there.get(name) {
            Some(there) if there == here => {}
            Some(there) => println!("{name}: {here} here, {there} there"),
            None => println!("{name}: {here} here, unknown there"),
        }
    }
    tunnel.close().await;
    Ok(())
}
