//! The table of `--stats`: what a run cost, by phase and by kind of request. Used by `run` at its end.

use std::fmt::Write;
use std::time::{Duration, Instant};

use remotely_fs::server::Stats as Served;
use remotely_session::Stats as Moved;

/// When what happened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    began: Instant,
    connecting: Option<Instant>,
    connected: Option<Instant>,
    started: Option<Instant>,
    exited: Option<Instant>,
}

impl Times {
    /// It begins now.
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), connecting: None, connected: None, started: None, exited: None }
    }

    /// The first flight is ready.
    pub(super) fn connecting(&mut self) {
        self.connecting = Some(Instant::now());
    }

    /// The agent has answered.
    pub(super) fn connected(&mut self) {
        self.connected = Some(Instant::now());
    }

    /// The command runs.
    pub(super) fn started(&mut self) {
        self.started = Some(Instant::now());
    }

    /// The command has ended.
    pub(super) fn exited(&mut self) {
        self.exited = Some(Instant::now());
    }
}

/// Requests that are one-way, or that nobody waits for.
const UNANSWERED: [&str; 5] = ["bind", "forget", "cancel", "release", "release-write"];

/// The table.
pub(super) fn table(times: &Times, first_output: Option<Instant>, served: &Served, moved: &Moved) -> String {
    let mut out = String::from("remotely: statistics\n");
    let since = |from: Option<Instant>, to: Option<Instant>| Some(to?.duration_since(from?));
    line(&mut out, "connect", since(times.connecting, times.connected));
    line(&mut out, "set up", since(times.connected, times.started));
    line(&mut out, "first output", since(times.started, first_output));
    line(&mut out, "command", since(times.started, times.exited));
    line(&mut out, "end", times.exited.map(|exited| exited.elapsed()));
    line(&mut out, "total", Some(times.began.elapsed()));
    line(&mut out, "round trip", moved.rtt);

    let answered =
        served.requests.iter().filter(|(kind, _)| !UNANSWERED.contains(kind)).map(|(_, count)| count).sum::<u64>();
    let _ = writeln!(out, "  {:<14}{answered:>12}", "answered");
    for (kind, count) in &served.requests {
        let _ = writeln!(out, "    {kind:<12}{count:>12}");
    }
    let _ = writeln!(out, "  {:<14}{:>12}", "notices", served.notices);
    let _ = writeln!(out, "  {:<14}{:>12}", "failures", served.failures);
    for (what, bytes) in [
        ("files read", served.bytes_read),
        ("files pushed", served.bytes_pushed),
        ("files written", served.bytes_written),
        ("link to host", moved.bytes_sent),
        ("link from host", moved.bytes_received),
    ] {
        let _ = writeln!(out, "  {what:<14}{bytes:>12} bytes");
    }
    out
}

fn line(out: &mut String, what: &str, time: Option<Duration>) {
    if let Some(time) = time {
        let _ = writeln!(out, "  {what:<14}{:>12.1} ms", time.as_secs_f64() * 1000.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_what_happened_and_nothing_else() {
        let mut times = Times::begin();
        times.connecting();
        times.connected();
        let served = Served { requests: vec![("lookup", 7), ("bind", 3)], bytes_read: 42, ..Served::default() };
        let moved = Moved { rtt: Some(Duration::from_millis(20)), ..Moved::default() };
        let table = table(&times, None, &served, &moved);
        assert!(table.contains("connect") && table.contains("20.0 ms"), "{table}");
        assert!(!table.contains("first output"), "{table}");
        let answered = table.lines().find(|line| line.trim_start().starts_with("answered")).unwrap();
        assert!(answered.ends_with(" 7"), "{table}");
    }
}
