//! A pool of throwaway containers on several machines, which take work as they get done with it.
//!
//! ```console
//! $ container-pool 4 big1+docker-run:debian:12 big2+podman-run:debian:12
//! 25997 primes below 300000, found by 8 workers
//! ```

use std::collections::VecDeque;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use remotely::{Tunnel, remote};
use tokio::task::JoinSet;

const BELOW: u64 = 300_000;
const STEP: u64 = 10_000;

/// Runs in a container. It is not async: it has a thread of its own for as long as it computes.
#[remote]
fn count_primes(from: u64, to: u64) -> u64 {
    let is_prime = |n: u64| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (from..to).filter(|n| is_prime(*n)).count() as u64
}

type Work = Arc<Mutex<VecDeque<u64>>>;

/// Has one worker do work until there is none left, and says what it found.
async fn employ(worker: Tunnel, work: Work) -> u64 {
    let lock = || work.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = 0;
    loop {
        let Some(from) = lock().pop_front() else { break };
        match worker.call(count_primes, (from, from + STEP)).await {
            Ok(count) => found += count,
            Err(error) => {
                // The machine is gone, perhaps. What it had taken is for the others.
                eprintln!("{error}");
                lock().push_back(from);
                break;
            }
        }
    }
    // The container is removed with its link: here, at Ctrl-C, and if this machine dies.
    worker.close().await;
    found
}

#[remotely::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let each: usize = words.next().ok_or("usage: container-pool WORKERS TARGET...")?.parse()?;
    let work: Work = Arc::new(Mutex::new((0..BELOW).step_by(STEP as usize).collect()));

    let mut pool = JoinSet::new();
    for target in words {
        for n in 1..=each {
            // Each tunnel to `docker-run:` is a container of its own. It starts with the first call.
            let worker = Tunnel::to(&target)?.named(format!("{target}#{n}"));
            pool.spawn(employ(worker, work.clone()));
        }
    }
    let found = pool.join_all().await;
    // What the last one has left behind is done here: called like this, it is a function as any other.
    let left = std::mem::take(&mut *work.lock().unwrap_or_else(PoisonError::into_inner));
    let here: u64 = left.into_iter().map(|from| count_primes(from, from + STEP)).sum();
    let workers = found.iter().filter(|found| **found > 0).count();
    println!("{} primes below {BELOW}, found by {workers} workers", found.iter().sum::<u64>() + here);
    Ok(())
}
