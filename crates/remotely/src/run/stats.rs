//! The table of `--stats`: what a run cost, by phase and by kind of request. Used by `run` at its end.

use std::fmt::Write;
use std::time::{Duration, Instant};

use remotely_fs::mount::opcode_name;
use remotely_fs::server::Stats as Served;
use remotely_proto::fs::{Asked, Counts};
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
const UNANSWERED: [&str; 7] = ["bind", "cancel", "forget", "open", "release", "release-write", "used"];

/// The table. `counts` are those of the mount on the host, if it told them.
pub(super) fn table(
    times: &Times,
    first_output: Option<Instant>,
    served: &Served,
    counts: Option<&Counts>,
    moved: &Moved,
) -> String {
    let mut out = String::from("remotely: statistics\n");
    let since = |from: Option<Instant>, to: Option<Instant>| Some(to?.duration_since(from?));
    line(&mut out, "connect", since(times.connecting, times.connected));
    line(&mut out, "set up", since(times.connected, times.started));
    line(&mut out, "first output", since(times.started, first_output));
    line(&mut out, "command", since(times.started, times.exited));
    line(&mut out, "end", times.exited.map(|exited| exited.elapsed()));
    line(&mut out, "total", Some(times.began.elapsed()));
    line(&mut out, "round trip", moved.rtt);

    if let Some(counts) = counts {
        hits(&mut out, counts);
    }
    let answered =
        served.requests.iter().filter(|(kind, _)| !UNANSWERED.contains(kind)).map(|(_, count)| count).sum::<u64>();
    let _ = writeln!(out, "  {:<14}{answered:>12}", "answered");
    for (kind, count) in &served.requests {
        let _ = writeln!(out, "    {kind:<12}{count:>12}");
    }
    let _ = writeln!(out, "  {:<14}{:>12}", "notices", served.notices);
    let _ = writeln!(out, "  {:<14}{:>12}", "failures", served.failures);
    if let Some(counts) = counts {
        bytes(&mut out, "read there", counts.bytes_read);
        bytes(&mut out, "written there", counts.bytes_written);
    }
    for (what, count) in [
        ("files read", served.bytes_read),
        ("files pushed", served.bytes_pushed),
        ("files written", served.bytes_written),
        ("link to host", moved.bytes_sent),
        ("link from host", moved.bytes_received),
    ] {
        bytes(&mut out, what, count);
    }
    out
}

/// What the kernel of the host asked for, and what of it was answered there without waiting for this side.
fn hits(out: &mut String, counts: &Counts) {
    let mut requests = counts.requests.clone();
    requests.sort_by_key(|asked| std::cmp::Reverse(asked.count));
    // Numbers of the other side: any of them may be anything.
    let sum = |of: fn(&Asked) -> u64| requests.iter().map(of).fold(0, u64::saturating_add);
    let (all, hits) = (sum(|asked| asked.count), sum(|asked| asked.hits));
    let _ = writeln!(out, "  {:<14}{all:>12}", "FUSE requests");
    let share = if all == 0 { 0.0 } else { hits as f64 / all as f64 * 100.0 };
    let _ = writeln!(out, "  {:<14}{hits:>12} {share:.1} %", "cache hits");
    for Asked { opcode, count, hits } in requests {
        let kind = opcode_name(opcode).map_or_else(|| format!("kind {opcode}"), str::to_owned);
        let _ = writeln!(out, "    {kind:<15}{count:>9}, {hits} hits");
    }
}

fn bytes(out: &mut String, what: &str, count: u64) {
    let _ = writeln!(out, "  {what:<14}{count:>12} bytes");
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
        let table = table(&times, None, &served, None, &moved);
        assert!(table.contains("connect") && table.contains("20.0 ms"), "{table}");
        assert!(!table.contains("first output") && !table.contains("FUSE"), "{table}");
        let answered = table.lines().find(|line| line.trim_start().starts_with("answered")).unwrap();
        assert!(answered.ends_with(" 7"), "{table}");
    }

    #[test]
    fn cache_hits_are_counted_over_all_kinds_and_by_kind() {
        let asked = |opcode, count, hits| Asked { opcode, count, hits };
        let requests = vec![asked(15, 5, 1), asked(1, 15, 14), asked(4_000_000, u64::MAX, u64::MAX)];
        let counts = Counts { requests: requests[..2].to_vec(), bytes_read: 4096, bytes_written: 7 };
        let times = Times::begin();
        let shown = table(&times, None, &Served::default(), Some(&counts), &Moved::default());
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<_> = shown.lines().map(words).collect();
        let begin = lines.iter().position(|line| line.starts_with("FUSE")).unwrap();
        let expected = ["FUSE requests 20", "cache hits 15 75.0 %", "lookup 15, 14 hits", "read 5, 1 hits"];
        assert_eq!(lines[begin..begin + 4], expected, "{shown}");
        assert!(lines.contains(&"read there 4096 bytes".into()) && lines.contains(&"written there 7 bytes".into()));

        let hostile = Counts { requests, ..Counts::default() };
        let shown = table(&times, None, &Served::default(), Some(&hostile), &Moved::default());
        assert!(shown.contains("kind 4000000"), "{shown}");
        let none = table(&times, None, &Served::default(), Some(&Counts::default()), &Moved::default());
        assert!(none.contains("0.0 %"), "{none}");
    }
}
