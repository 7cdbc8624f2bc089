//! Prints how fast files and trees are copied between two ends in this process: `speed DIR [RTT_MS]`. For whoever changes the
//! code of a transfer; what it costs over ssh is measured by the bench.
#![allow(clippy::unwrap_used, reason = "it prints figures, or nothing")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use remotely_copy::{Options, Unchanged, fetch, put};
use support::{Pair, Random, Wire, pair_over};

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().unwrap_or_else(|| "/dev/shm".into())).join("remotely-speed");
    let rtt = args.next().map_or(0, |rtt| rtt.parse().unwrap());
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let mut random = Random(11);
    let block = random.bytes(1 << 20);
    fs::write(dir.join("large"), block.repeat(1024)).unwrap();
    fs::create_dir(dir.join("small")).unwrap();
    for group in 0..100 {
        let group = dir.join(format!("small/{group}"));
        fs::create_dir(&group).unwrap();
        for file in 0..100 {
            fs::write(group.join(format!("file-{file}")), random.bytes(4096)).unwrap();
        }
    }
    let wire = Wire { delay: Duration::from_millis(rtt) / 2, ..Wire::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (pair, _) = pair_over(&wire);
        pair.link.linked().await.unwrap();
        for round in 0..3 {
            for sync in [false, true] {
                let options = Options { sync, ..Options::default() };
                run(&pair, &dir, "large", true, &options).await;
                run(&pair, &dir, "large", false, &options).await;
                run(&pair, &dir, "small", true, &options).await;
                run(&pair, &dir, "small", false, &options).await;
            }
            let update = Options { unchanged: Unchanged::Stamp, ..Options::default() };
            again(&pair, &dir, "small", &update, "unchanged, by stamp").await;
            let delta = Options { delta: true, sync: false, ..Options::default() };
            again(&pair, &dir, "large", &delta, "delta of what is the same").await;
            println!("-- {round}");
        }
    });
    fs::remove_dir_all(&dir).unwrap();
}

async fn run(pair: &Pair, dir: &Path, what: &str, up: bool, options: &Options) {
    let (source, copy) = (dir.join(what), dir.join("copy"));
    let _ = fs::remove_dir_all(&copy).or_else(|_| fs::remove_file(&copy));
    let (start, cpu) = (Instant::now(), cpu());
    let report = match up {
        true => put(&pair.link, &source, Some(&copy), options).await.unwrap(),
        false => fetch(&pair.link, &source, Some(&copy), options).await.unwrap(),
    };
    let way = if up { "put" } else { "fetch" };
    show(&format!("{way} {what}{}", if options.sync { ", durable" } else { "" }), start, cpu, report.bytes);
}

async fn again(pair: &Pair, dir: &Path, what: &str, options: &Options, shown: &str) {
    let (source, copy) = (dir.join(what), dir.join("copy"));
    let _ = fs::remove_dir_all(&copy).or_else(|_| fs::remove_file(&copy));
    put(&pair.link, &source, Some(&copy), &Options { sync: false, ..Options::default() }).await.unwrap();
    let target = if source.is_dir() { dir.join("copy/.") } else { copy };
    let source = if source.is_dir() { source.join(".") } else { source };
    let (start, cpu) = (Instant::now(), cpu());
    let report = put(&pair.link, &source, Some(&target), options).await.unwrap();
    show(&format!("{shown} ({} of wire)", report.wire), start, cpu, report.bytes);
}

fn show(what: &str, start: Instant, before: f64, bytes: u64) {
    let time = start.elapsed().as_secs_f64();
    let rate = bytes as f64 / time / 1e6;
    println!("{what:<44} {time:7.3} s  {rate:7.0} MB/s  cpu {:6.3} s", cpu() - before);
}

/// CPU seconds of this process.
fn cpu() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}
