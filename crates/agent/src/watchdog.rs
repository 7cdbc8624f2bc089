//! Ends the agent if its runtime stands still, so that even then nothing stays behind on the host. Called by
//! the agents of both kinds; knows nothing of what the runtime does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::sys;

const BEAT: Duration = Duration::from_secs(2);
/// A link is given up after 15 s of silence; a runtime that cannot even do that has been stuck for longer.
const MISSED_MAX: u32 = 15;

/// Starts it. Must be called in the runtime that is watched. A process that is stopped or a machine that sleeps is no
/// reason: beats are counted by the watching thread's own turns, not by a clock.
pub(crate) fn start() {
    let beats = Arc::new(AtomicU64::new(0));
    let watched = beats.clone();
    let watching =
        std::thread::Builder::new().name("watchdog".into()).stack_size(64 << 10).spawn(move || watch(&watched));
    if watching.is_ok() {
        tokio::spawn(async move {
            loop {
                beats.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(BEAT).await;
            }
        });
    }
}

fn watch(beats: &AtomicU64) {
    let (mut last, mut missed) = (0, 0);
    loop {
        std::thread::sleep(BEAT);
        let now = beats.load(Ordering::Relaxed);
        missed = if now == last { missed + 1 } else { 0 };
        last = now;
        if missed > MISSED_MAX {
            sys::exit_now(1);
        }
    }
}
