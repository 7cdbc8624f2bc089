//! What came of a command on many hosts: by line as it comes, and equal outputs folded at the end. Used by [`super::exec`].

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use similar::TextDiff;

use super::fleet::folded;
use crate::Error;
use crate::exec::{Chunk, Status};

/// What came of it on one host.
pub(super) struct Host {
    name: String,
    streams: [Stream; 2],
    begun: bool,
    ended: Option<(Result<Status, Error>, Duration)>,
}

#[derive(Default)]
struct Stream {
    all: Vec<u8>,
    /// Where the line begins that has no end yet.
    line: usize,
}

impl Host {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), streams: Default::default(), begun: false, ended: None }
    }

    /// It is its turn.
    pub(super) fn begin(&mut self) {
        self.begun = true;
    }

    /// Keeps what the command writes, and hands out each line: (host, whether it is of standard error, line).
    pub(super) fn take(
        &mut self,
        chunk: Chunk,
        mut show: impl FnMut(&str, bool, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let (is_error, bytes): (bool, Bytes) = match chunk {
            Chunk::Output(bytes) => (false, bytes),
            Chunk::Error(bytes) => (true, bytes),
        };
        let stream = &mut self.streams[usize::from(is_error)];
        stream.all.extend_from_slice(&bytes);
        while let Some(length) = stream.all[stream.line..].iter().position(|byte| *byte == b'\n') {
            let line = stream.line..stream.line + length;
            stream.line = line.end + 1;
            show(&self.name, is_error, &stream.all[line])?;
        }
        Ok(())
    }

    /// It has ended; hands out lines that have no end.
    pub(super) fn end(
        &mut self,
        result: Result<Status, Error>,
        time: Duration,
        mut show: impl FnMut(&str, bool, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.ended = Some((result, time));
        for (is_error, stream) in [false, true].into_iter().zip(&mut self.streams) {
            let rest = stream.line..stream.all.len();
            stream.line = rest.end;
            if !rest.is_empty() {
                show(&self.name, is_error, &stream.all[rest])?;
            }
        }
        Ok(())
    }

    /// What is shown is not needed any more.
    pub(super) fn forget(&mut self) {
        for stream in &mut self.streams {
            stream.all.drain(..stream.line);
            stream.line = 0;
        }
    }

    /// As a line of JSON.
    pub(super) fn json(&self) -> String {
        let text = |stream: &Stream| String::from_utf8_lossy(&stream.all).into_owned();
        let (status, error) = match &self.ended {
            Some((Ok(status), _)) => (Some(*status), None),
            Some((Err(error), _)) => (None, Some(crate::report::chain(error))),
            None => (None, None),
        };
        let object = serde_json::json!({
            "host": self.name,
            "status": status.and_then(Status::code),
            "signal": status.and_then(Status::signal),
            "error": error,
            "seconds": self.ended.as_ref().map(|(_, time)| time.as_secs_f64()),
            "stdout": text(&self.streams[0]),
            "stderr": text(&self.streams[1]),
        });
        format!("{object}\n")
    }
}

/// Different outputs, the most frequent first, each with its hosts.
pub(super) struct Gathered<'a>(Vec<(&'a [u8], Vec<&'a str>)>);

impl<'a> Gathered<'a> {
    /// Of who has ended, and of who has written something before being ended.
    pub(super) fn of(hosts: &'a [Host]) -> Self {
        let mut by_output: BTreeMap<&[u8], Vec<&str>> = BTreeMap::new();
        let counts = |host: &&Host| match host.ended {
            Some((Ok(_), _)) => true,
            Some((Err(_), _)) => false,
            None => !host.streams[0].all.is_empty(),
        };
        for host in hosts.iter().filter(counts) {
            by_output.entry(&host.streams[0].all).or_default().push(&host.name);
        }
        let mut outputs: Vec<_> = by_output.into_iter().collect();
        outputs.sort_by_key(|(_, hosts)| std::cmp::Reverse(hosts.len()));
        Self(outputs)
    }

    pub(super) fn shown(&self, diff: bool) -> Vec<u8> {
        const RULE: &str = "---------------\n";
        let mut text = Vec::new();
        let named = |hosts: &[&str]| match hosts.len() {
            1 => hosts[0].to_owned(),
            count => format!("{} ({count})", folded(hosts.iter().copied())),
        };
        for (n, (output, hosts)) in self.0.iter().enumerate() {
            if let (true, Some((first, others))) = (diff && n > 0, self.0.first()) {
                let (old, new) = (String::from_utf8_lossy(first), String::from_utf8_lossy(output));
                let difference = TextDiff::from_lines(&old, &new);
                let difference = difference.unified_diff().header(&named(others), &named(hosts)).to_string();
                text.extend_from_slice(difference.as_bytes());
                continue;
            }
            text.extend_from_slice(format!("{RULE}{}\n{RULE}", named(hosts)).as_bytes());
            text.extend_from_slice(output);
            if !output.is_empty() && !output.ends_with(b"\n") {
                text.push(b'\n');
            }
        }
        text
    }
}

/// How it ended where it did not end well, one line for each way.
pub(super) fn endings(hosts: &[Host]) -> String {
    let mut by_ending: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut text = String::new();
    for host in hosts {
        match &host.ended {
            Some((Ok(status), _)) if !status.success() => {
                by_ending.entry(status.to_string()).or_default().push(&host.name);
            }
            Some((Err(error), _)) => text.push_str(&format!("remotely: {}\n", crate::report::chain(error))),
            Some((Ok(_), _)) | None => {}
        }
    }
    for (ending, hosts) in by_ending {
        let count = if hosts.len() > 1 { format!(" ({})", hosts.len()) } else { String::new() };
        text.push_str(&format!("remotely: {ending}: {}{count}\n", folded(hosts)));
    }
    text
}

/// Who is not done: those that are at it, and those whose turn has not come.
pub(super) fn unfinished(hosts: &[Host]) -> String {
    let mut text = String::new();
    for (begun, what) in [(true, "interrupted while running"), (false, "not begun")] {
        let found = hosts.iter().filter(|host| host.ended.is_none() && host.begun == begun);
        let names: Vec<&str> = found.map(|host| host.name.as_str()).collect();
        let count = names.len();
        if count > 0 {
            text.push_str(&format!("remotely: {what}: {} ({count})\n", folded(names)));
        }
    }
    text
}
