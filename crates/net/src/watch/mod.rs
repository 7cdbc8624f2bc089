//! Names of the network around a machine (`--auto-hosts`): what its hosts file, its connections and its nameservers tell. Run on the
//! dial side, as long as somebody listens. How a nameserver is asked is the caller's.

mod dns;
mod file;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use dns::Kind;

use crate::hosts::is_name;
use crate::subnet::Family;

/// How long what was found is believed.
const BELIEVED: Duration = Duration::from_secs(15 * 60);
/// How often connections are looked at.
const LOOKED: Duration = Duration::from_secs(30);
/// Questions that are under way at once.
const ABREAST: usize = 16;
/// Names and addresses that are looked after, at most.
const MOST: usize = 10_000;
/// How long a nameserver may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is looked at.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Names to begin with.
    pub seeds: Vec<String>,
    /// Look further than the seeds.
    pub auto: bool,
    /// Domains behind which a name without a dot is looked for (`search` of resolv.conf).
    pub search: Vec<String>,
    /// `/etc/hosts`.
    pub hosts: PathBuf,
    /// `/proc/net`.
    pub connections: PathBuf,
    /// Where names are kept until the next time; read by nobody else (mode 600).
    pub kept: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Check {
    Hosts,
    Connections,
    Name(String),
    Address(IpAddr),
}

/// Sends each name with each of its addresses when it is found, and again when it has changed. Ends when nobody receives any more;
/// dropping it at any time is safe. `ask` gets a DNS question as bytes and gives the answer; an error is an answer that says nothing.
pub async fn watch<A, F>(sources: Sources, ask: A, found: mpsc::Sender<(String, IpAddr)>)
where
    A: Fn(Vec<u8>) -> F,
    F: Future<Output = io::Result<Vec<u8>>> + Send + 'static,
{
    let mut watch =
        Watch { known: BTreeMap::new(), due: VecDeque::new(), again: HashMap::new(), found, changed: false };
    for seed in &sources.seeds {
        watch.check_host(seed);
    }
    if sources.auto {
        for (name, address) in sources.kept.iter().flat_map(|path| file::read_kept(path)) {
            watch.found(&name, address, true).await;
        }
        watch.changed = false;
        watch.enqueue(Check::Hosts);
        watch.enqueue(Check::Connections);
        watch.check_host(&rustix::system::uname().nodename().to_string_lossy());
    }
    watch.run(&sources, ask).await;
}

struct Watch {
    known: BTreeMap<(String, Family), IpAddr>,
    due: VecDeque<Check>,
    /// When what was checked is checked again.
    again: HashMap<Check, Instant>,
    found: mpsc::Sender<(String, IpAddr)>,
    /// Something is known that is not kept yet.
    changed: bool,
}

impl Watch {
    async fn run<A, F>(&mut self, sources: &Sources, ask: A)
    where
        A: Fn(Vec<u8>) -> F,
        F: Future<Output = io::Result<Vec<u8>>> + Send + 'static,
    {
        let mut asked: JoinSet<(Check, Vec<dns::Answer>)> = JoinSet::new();
        loop {
            while asked.len() < ABREAST
                && let Some(check) = self.due.pop_front()
            {
                match &check {
                    Check::Hosts => self.hosts(sources).await,
                    Check::Connections => self.connections(sources),
                    Check::Name(_) | Check::Address(_) => self.ask(&check, sources, &ask, &mut asked),
                }
            }
            if asked.is_empty() && self.due.is_empty() {
                self.keep(sources);
            }
            let next = self.again.values().min().copied().unwrap_or_else(|| Instant::now() + BELIEVED);
            tokio::select! {
                Some(answered) = asked.join_next() => {
                    if let Ok((check, answers)) = answered {
                        self.answered(&check, answers).await;
                    }
                }
                () = tokio::time::sleep_until(next), if asked.len() < ABREAST => self.repeat(),
                () = self.found.closed() => return,
            }
        }
    }

    fn ask<A, F>(&self, check: &Check, sources: &Sources, ask: &A, asked: &mut JoinSet<(Check, Vec<dns::Answer>)>)
    where
        A: Fn(Vec<u8>) -> F,
        F: Future<Output = io::Result<Vec<u8>>> + Send + 'static,
    {
        let questions = match check {
            Check::Address(address) => vec![(dns::reverse(*address), Kind::Ptr)],
            Check::Name(name) => candidates(name, &sources.search)
                .into_iter()
                .flat_map(|name| [(name.clone(), Kind::A), (name, Kind::Aaaa)])
                .collect(),
            Check::Hosts | Check::Connections => return,
        };
        let asking: Vec<_> =
            questions.into_iter().filter_map(|(name, kind)| Some((ask(dns::question(&name, kind)?), kind))).collect();
        let check = check.clone();
        asked.spawn(async move {
            let mut answers = Vec::new();
            for (answer, kind) in asking {
                // No answer, or a bad one, is as if there were no such name.
                if let Ok(Ok(bytes)) = tokio::time::timeout(PATIENCE, answer).await {
                    answers.extend(dns::answers(&bytes, kind).unwrap_or_default());
                }
            }
            (check, answers)
        });
    }

    async fn answered(&mut self, check: &Check, answers: Vec<dns::Answer>) {
        for answer in answers {
            match (check, answer) {
                (Check::Name(name), dns::Answer::Address(address)) => {
                    self.enqueue(Check::Address(address));
                    self.found(name, address, false).await;
                }
                (Check::Address(address), dns::Answer::Name(name)) => {
                    self.check_host(&name);
                    self.found(&name, *address, true).await;
                }
                _ => {}
            }
        }
    }

    async fn hosts(&mut self, sources: &Sources) {
        let mut first = BTreeSet::new();
        for (name, address) in file::hosts(&sources.hosts) {
            if !first.insert((name.clone(), Family::of(address))) || first.len() > MOST {
                continue;
            }
            // As with a resolver, the file has the last word about its names.
            self.again.insert(Check::Name(name.clone()), Instant::now() + BELIEVED * 1000);
            if leads_somewhere(address) {
                self.enqueue(Check::Address(address));
            }
            self.found(&name, address, false).await;
        }
    }

    fn connections(&mut self, sources: &Sources) {
        for address in file::connections(&sources.connections) {
            if leads_somewhere(address) {
                self.enqueue(Check::Address(address));
            }
        }
    }

    fn check_host(&mut self, host: &str) {
        match host.parse() {
            Ok(address) => self.enqueue(Check::Address(address)),
            Err(_) if !host.is_empty() => self.enqueue(Check::Name(host.trim_end_matches('.').to_owned())),
            Err(_) => {}
        }
    }

    /// Once each; then again in its time.
    fn enqueue(&mut self, check: Check) {
        if self.again.contains_key(&check) || self.again.len() >= MOST {
            return;
        }
        let pause = if check == Check::Connections { LOOKED } else { BELIEVED };
        self.again.insert(check.clone(), Instant::now() + pause);
        self.due.push_back(check);
    }

    fn repeat(&mut self) {
        let now = Instant::now();
        let due: Vec<Check> = self.again.iter().filter(|(_, at)| **at <= now).map(|(check, _)| check.clone()).collect();
        for check in due {
            self.again.remove(&check);
            self.enqueue(check);
        }
    }

    /// Also by the name's first part, as people write it, unless another name has that first part too. What is only `likely` (a name
    /// found by an address) gives way to what is known, so that two sources that disagree don't take turns.
    async fn found(&mut self, name: &str, address: IpAddr, likely: bool) {
        let short = name.split('.').next().unwrap_or(name);
        if !is_name(name) || short.is_empty() || short == "localhost" || !leads_somewhere(address) {
            return;
        }
        let family = Family::of(address);
        let before = self.known.get(&(name.to_owned(), family)).copied();
        if before.is_some_and(|before| likely || before == address) {
            return;
        }
        let of_short = self.known.get(&(short.to_owned(), family)).copied();
        let taken = short != name && of_short.is_some() && of_short != before;
        for name in [short, name] {
            if (taken && name == short) || (before.is_none() && self.known.len() >= MOST) {
                continue;
            }
            if self.known.insert((name.to_owned(), family), address) != Some(address) {
                self.changed = true;
                // Whoever has gone is seen by the loop.
                let _ = self.found.send((name.to_owned(), address)).await;
            }
        }
    }

    fn keep(&mut self, sources: &Sources) {
        if let Some(path) = sources.kept.as_ref().filter(|_| sources.auto && self.changed) {
            self.changed = false;
            if let Err(error) = file::write_kept(path, &self.known) {
                tracing::debug!(error = %error, "names are not kept");
            }
        }
    }
}

/// A name without a dot is looked for behind each domain first, as resolvers do.
fn candidates(name: &str, search: &[String]) -> Vec<String> {
    let behind = search.iter().filter(|_| !name.contains('.')).map(|domain| format!("{name}.{domain}"));
    behind.chain([name.to_owned()]).collect()
}

fn leads_somewhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 127 | 224..) && !address.is_link_local(),
        IpAddr::V6(address) => {
            let mapped = address.to_ipv4_mapped().is_some();
            !mapped
                && !address.is_unspecified()
                && !address.is_loopback()
                && !address.is_unicast_link_local()
                && !address.is_multicast()
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
