//! A client, a host and the wire between them: what most tests start from.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::host::{Host, HostOptions};
use crate::relay::{Relay, Wire};
use crate::spawn::{Outcome, Process};

/// A client that reaches one host, named as in its options, through a relay.
#[derive(Debug)]
pub struct Pair {
    /// The host.
    pub host: Host,
    /// The wire.
    pub relay: Relay,
    /// The client.
    pub client: Client,
}

impl Pair {
    /// The default host, no latency.
    pub fn start() -> Self {
        Self::with(HostOptions::default(), Wire::default())
    }

    /// A host and a wire of one's choice.
    pub fn with(options: HostOptions, wire: Wire) -> Self {
        Self::of(Client::start(), options, wire)
    }

    /// The same for a client that was made before.
    pub fn of(mut client: Client, options: HostOptions, wire: Wire) -> Self {
        let host = Host::start(options);
        let relay = Relay::start(host.address(), wire);
        client.reach(&host.options().name, relay.address());
        Self { host, relay, client }
    }

    /// The host's target: `dev@far`.
    pub fn target(&self) -> String {
        let options = self.host.options();
        format!("{}@{}", options.user, options.name)
    }

    /// What stands for `$RUN` in scripts: `remotely dev@far --`.
    pub fn run(&self) -> String {
        format!("remotely {} --", self.target())
    }

    /// Runs a script of bash with `$RUN` meaning there, to its end.
    #[track_caller]
    pub fn there(&self, script: &str, limit: Duration) -> Outcome {
        Process::start(&mut self.client.bash(script, &self.run()), b"").wait(limit)
    }

    /// Runs it with `$RUN` meaning here.
    #[track_caller]
    pub fn here(&self, script: &str, limit: Duration) -> Outcome {
        Process::start(&mut self.client.bash(script, ""), b"").wait(limit)
    }

    /// Starts a command there, with its standard input open.
    pub fn start_there(&self, words: &[&str]) -> Process {
        let target = self.target();
        let arguments = [target.as_str(), "--"].into_iter().chain(words.iter().copied());
        Process::start_open(&mut self.client.remotely(arguments))
    }

    /// Waits until nothing of a run is left on either side, and returns how long that took.
    ///
    /// # Panics
    /// When something is after `limit`; the text names it.
    #[track_caller]
    pub fn clean_within(&self, limit: Duration) -> Duration {
        let started = Instant::now();
        let left = self.left_after(limit);
        assert!(left.is_empty(), "left over after {limit:?}:\n{}", left.join("\n"));
        started.elapsed()
    }

    /// Waits until nothing of a run is left on the host; the client may have a shell of its own.
    ///
    /// # Panics
    /// When something is after `limit`.
    #[track_caller]
    pub fn host_clean_within(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.host.leftovers().is_empty() {
            assert!(Instant::now() < deadline, "left over after {limit:?}:\n{}", self.host.leftovers().join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is left of a run on either side after at most `limit`, one line each.
    pub fn left_after(&self, limit: Duration) -> Vec<String> {
        let deadline = Instant::now() + limit;
        loop {
            let mut left = self.host.leftovers();
            left.extend(self.client.leftovers());
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
