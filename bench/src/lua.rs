//! The build of Lua on a host, from Debian's source package without its patches (they need libtool): a clean tree each
//! time, and what is built is run here afterwards.

use std::path::PathBuf;
use std::time::Duration;

use testbed::spawn::{command, must};
use testbed::{Pair, Process, Wire};

use crate::Plan;
use crate::peer::{Peer, time};
use crate::table::Cell;

/// Fetches the source, with lists of its own: those of the machine stay as they are. $0: where to.
const FETCH: &str = "set -eu
mkdir -p \"$0/lists/partial\"; cd \"$0\"
mirror=$(sed -n 's/^URIs: *\\(.*debian\\)\\/*$/\\1/p; s/^deb .*\\(http[^ ]*debian\\)\\/* .*/\\1/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -1)
echo \"deb-src ${mirror:-http://deb.debian.org/debian} bookworm main\" >sources
apt() { apt-get -qq -o Dir::Etc::sourcelist=\"$0/sources\" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=\"$0/lists\" \"$@\"; }
apt update
apt source --download-only lua5.4
mkdir tree
tar xf lua5.4_*.orig.tar.gz -C tree --strip-components=1
chmod -R go+rX .";

/// The unpacked source, in the cache directory.
fn source() -> Result<PathBuf, String> {
    let place = testbed::cache::directory().join("lua5.4");
    let _lock = testbed::cache::lock("lua5.4");
    if !place.join("tree").exists() {
        let _ = std::fs::remove_dir_all(&place);
        let mut fetch = command("sh");
        let outcome = Process::start(fetch.args(["-c", FETCH]).arg(&place), b"").wait(Duration::from_secs(300));
        if !outcome.status.success() {
            return Err(format!("apt-get source lua5.4: {}", outcome.errors().lines().last().unwrap_or_default()));
        }
    }
    Ok(place.join("tree"))
}

/// Builds it, once to warm what can be warm, then so many times as the plan says.
pub(crate) fn build(peer: Peer, wire: Wire, plan: &Plan) -> Vec<Cell> {
    let prepared = source().and_then(|tree| peer.pair(wire).map(|pair| (tree, pair)));
    let (tree, pair) = match prepared {
        Ok(prepared) => prepared,
        Err(what) => return vec![Cell::Failed(what)],
    };
    let mut cells = Vec::new();
    for turn in 0..=plan.runs {
        let work = pair.client.work().display().to_string();
        pair.client.empty_work();
        must(command("cp").args(["-r", "--no-target-directory"]).args([tree.as_os_str(), work.as_ref()]));
        must(command("chown").args(["-R", &pair.client.uid().to_string(), &work]));
        let mut started = match peer.start(&pair, &work, &["make", "-j2", "linux"]) {
            Some(started) => started,
            None => there_and_back(&pair, &work),
        };
        match time(plan, &mut started).map(|outcome| Cell::Value(outcome.took.as_secs_f64(), 1)) {
            Ok(cell) if turn > 0 => cells.push(cell),
            Ok(_) => {}
            Err(cell) => return vec![cell],
        }
        let built = Process::start(pair.client.command("sh").args(["-c", "src/lua -e 'print(6 * 7)'"]), b"");
        let said = built.wait(Duration::from_secs(20));
        if said.text() != "42\n" {
            return vec![Cell::Failed(format!("what it built does not run: {}", said.errors()))];
        }
    }
    cells
}

/// What people do without any such tool.
fn there_and_back(pair: &Pair, work: &str) -> std::process::Command {
    let script = "rsync -a --delete \"$0/\" dev@far:tree/ && ssh dev@far make -C tree -j2 linux && rsync -a dev@far:tree/ \"$0/\"";
    let mut both = pair.client.command("sh");
    both.args(["-c", script, work]);
    both
}
