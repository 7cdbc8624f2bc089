//! The log on standard error: warnings, more with `-v`, or what `REMOTELY_LOG` says (`debug`, or
//! `remotely=debug,remotely_session=trace`).

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::report;
use crate::stderr::Stderr;

/// Starts it, once per process.
pub(super) fn start(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let asked = std::env::var("REMOTELY_LOG").unwrap_or_default();
    let filter = match asked.parse::<Targets>() {
        Ok(filter) if !asked.is_empty() => filter,
        Ok(_) => Targets::new().with_default(level),
        Err(error) => {
            report::note(&format!("REMOTELY_LOG={asked} is not understood: {error}"));
            Targets::new().with_default(level)
        }
    };
    let lines = tracing_subscriber::fmt::layer()
        .compact()
        .with_ansi(false)
        .with_timer(tracing_subscriber::fmt::time::uptime())
        .with_writer(|| Stderr);
    // A program that uses the library may have a log of its own, which then is the one.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}
