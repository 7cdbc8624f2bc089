//! What would be left behind by a helper that was killed: written down before it is done, undone by the next one. A file for each
//! instance of a network namespace, locked by who works on it. Tables that go with their owner need none of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::apply;
use crate::hosts;
use crate::rules::{Plan, Step};

/// How often the lock of one that dies is tried, 10 ms apart.
const DYING: u32 = 500;

/// Why a journal cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It cannot be opened, or written.
    #[error("{}: can't be written", path.display())]
    Write {
        /// The journal.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody works on this instance.
    #[error("port {instance} is in use by another remotely (or what it left behind is just being undone)")]
    Used {
        /// Its port.
        instance: u16,
    },
}

/// The journal of one instance; it is ours until it is dropped.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Takes the instance.
    pub(crate) fn open(place: &Path, instance: u16) -> Result<Self, JournalError> {
        let path = place.join(format!("{}{instance}", prefix()));
        let failed = |source| JournalError::Write { path: path.clone(), source };
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(place);
        made.and_then(|()| ours(place)).map_err(failed)?;
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(JournalError::Used { instance });
        }
        // Whoever has mended it meanwhile has removed the file under our hands.
        let same = fs::metadata(&path).is_ok_and(|there| file.metadata().is_ok_and(|here| here.ino() == there.ino()));
        if same { Ok(Self { file, path }) } else { Err(JournalError::Used { instance }) }
    }

    /// Writes down how to undo a plan, and that lines of this port may be in the hosts file. Where the plan takes the place of another
    /// one, what that one has besides comes first.
    pub(crate) fn note(&mut self, plan: &Plan, before: Option<&Plan>, hosts: Option<u16>) -> Result<(), JournalError> {
        let mut text = format!("net {}\n", network());
        let mut add = |when: &str, before: &[Step], now: &[Step]| {
            let gone = before.iter().filter(|step| !now.contains(step));
            gone.chain(now).for_each(|step| text.push_str(&format!("{when} {}\n", write(step))));
        };
        let nothing = Plan::default();
        let before = before.unwrap_or(&nothing);
        add("undo", &before.undo, &plan.undo);
        add("release", &before.release, &plan.release);
        if let Some(port) = hosts {
            text.push_str(&format!("hosts {port}\n"));
        }
        self.rewrite(&text)
    }

    /// Only the kill switch is left; or nothing, and the file goes.
    pub(crate) fn end(mut self, keep: bool) -> Result<(), JournalError> {
        let left = if keep { self.left() } else { String::new() };
        if left.is_empty() {
            let _ = fs::remove_file(draft(&self.path));
            return fs::remove_file(&self.path)
                .map_err(|source| JournalError::Write { path: self.path.clone(), source });
        }
        self.rewrite(&left)
    }

    /// The steps that lift a kill switch which an earlier helper of this instance has left.
    pub(crate) fn releases(&mut self) -> Vec<Step> {
        let text = self.text();
        if stands_here(&text) { steps(&text, "release") } else { Vec::new() }
    }

    fn left(&mut self) -> String {
        let text = self.text();
        let lines = text.lines().filter(|line| line.starts_with("net ") || line.starts_with("release "));
        let left: String = lines.map(|line| format!("{line}\n")).collect();
        if left.lines().count() > 1 { left } else { String::new() }
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        // One that cannot be read has nothing that could be undone.
        let _ = self.file.rewind();
        let _ = self.file.read_to_string(&mut text);
        text
    }

    /// There is always a whole one: either that of before, or the new one.
    fn rewrite(&mut self, text: &str) -> Result<(), JournalError> {
        let draft = draft(&self.path);
        // Of one that was killed.
        let _ = fs::remove_file(&draft);
        let written = || {
            let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&draft)?;
            // Ours before others can find it.
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&draft, &self.path)?;
            Ok(file)
        };
        self.file = written().map_err(|source| {
            let _ = fs::remove_file(&draft);
            JournalError::Write { path: self.path.clone(), source }
        })?;
        Ok(())
    }
}

fn draft(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Undoes what dead helpers of this network namespace have left, but for kill switches.
pub(crate) fn mend(place: &Path, hosts_file: &Path) {
    dead(place).into_iter().for_each(|journal| undo(journal, hosts_file));
}

/// Undoes what the helper of one instance has left that is just dying; tells whether there was something.
pub(crate) fn mend_after(place: &Path, hosts_file: &Path, instance: u16) -> bool {
    for _ in 0..DYING {
        if !place.join(format!("{}{instance}", prefix())).exists() {
            return false;
        }
        match Journal::open(place, instance) {
            Ok(journal) => {
                undo(journal, hosts_file);
                return true;
            }
            // What a process has locked is free only at the end of its end.
            Err(JournalError::Used { .. }) => std::thread::sleep(Duration::from_millis(10)),
            Err(JournalError::Write { .. }) => return false,
        }
    }
    false
}

fn undo(mut journal: Journal, hosts_file: &Path) {
    let text = journal.text();
    if !stands_here(&text) {
        // One that was begun and not written is nobody's; what stands in another namespace is not ours to undo.
        if text.is_empty() {
            let _ = journal.end(false);
        }
        return;
    }
    steps(&text, "undo").iter().for_each(|step| drop(apply::run(step)));
    for port in text.lines().filter_map(|line| line.strip_prefix("hosts ")?.parse().ok()) {
        // A hosts file that cannot be written now could not be written then.
        let _ = hosts::restore(hosts_file, port);
    }
    let _ = journal.end(true);
}

/// Lifts the kill switches that dead helpers of this network namespace have left. Called when other rules stand.
pub(crate) fn take_over(place: &Path) {
    for mut journal in dead(place) {
        let releases = journal.releases();
        if !releases.is_empty() {
            releases.iter().for_each(|step| drop(apply::run(step)));
            let _ = journal.end(false);
        }
    }
}

/// The journals that nobody works on.
fn dead(place: &Path) -> Vec<Journal> {
    if ours(place).is_err() {
        return Vec::new();
    }
    let names =
        fs::read_dir(place).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let prefix = prefix();
    names.filter_map(|name| Journal::open(place, name.strip_prefix(&prefix)?.parse().ok()?).ok()).collect()
}

/// Of the journals of this network namespace: each has ports of its own.
fn prefix() -> String {
    let number: String = network().chars().filter(char::is_ascii_digit).collect();
    format!("firewall-{number}-")
}

/// What is written there is carried out by root.
fn ours(place: &Path) -> io::Result<()> {
    let there = fs::symlink_metadata(place)?;
    let safe = there.is_dir() && there.uid() == rustix::process::geteuid().as_raw() && there.mode() & 0o022 == 0;
    if safe {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "belongs to others, or they may write to it"))
    }
}

/// The network namespace of this process, in which rules stand or don't.
fn network() -> String {
    fs::read_link("/proc/thread-self/ns/net").map_or_else(|_| "unknown".into(), |link| link.display().to_string())
}

fn stands_here(text: &str) -> bool {
    text.lines().next() == Some(&format!("net {}", network()))
}

/// One line: words with tabs between, line ends as `\n`.
fn write(step: &Step) -> String {
    match step {
        Step::Nft { text, .. } => format!("nft\t{}", text.replace('\n', "\\n")),
        Step::Run { argv, .. } | Step::Unless { argv, .. } => argv.join("\t"),
    }
}

fn steps(text: &str, when: &str) -> Vec<Step> {
    let lines =
        text.lines().filter_map(|line| line.split_once(' ').filter(|(word, _)| *word == when).map(|(_, step)| step));
    let read = |line: &str| match line.strip_prefix("nft\t") {
        Some(text) => Step::Nft { text: text.replace("\\n", "\n"), held: false },
        None => Step::Run { argv: line.split('\t').map(str::to_owned).collect(), input: String::new() },
    };
    lines.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(undo: &[&str], release: &[&str]) -> Plan {
        let steps = |lines: &[&str]| lines.iter().map(|line| Step::run(line)).collect();
        Plan { undo: steps(undo), release: steps(release), ..Plan::default() }
    }

    #[test]
    fn the_old_text_stays_until_the_new_one_is_whole() {
        let place = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(place.path(), 12300).unwrap();
        journal.note(&plan(&["a b"], &["c"]), None, Some(12300)).unwrap();
        let text = fs::read_to_string(&journal.path).unwrap();
        assert_eq!(text, format!("net {}\nundo a\tb\nrelease c\nhosts 12300\n", network()));
        // Where no draft can be written, nothing changes.
        fs::create_dir(draft(&journal.path)).unwrap();
        journal.note(&plan(&["d"], &[]), None, None).unwrap_err();
        assert_eq!(fs::read_to_string(&journal.path).unwrap(), text);
        fs::remove_dir(draft(&journal.path)).unwrap();
        // One that was killed has left a draft.
        fs::write(draft(&journal.path), "net").unwrap();
        journal.note(&plan(&["d"], &["c"]), None, None).unwrap();
        assert_eq!(journal.text(), format!("net {}\nundo d\nrelease c\n", network()));
        assert!(matches!(Journal::open(place.path(), 12300), Err(JournalError::Used { .. })), "still ours");
        assert!(dead(place.path()).is_empty());
        assert_eq!(journal.releases(), [Step::run("c")]);
        journal.end(true).unwrap();
        let journal = Journal::open(place.path(), 12300).unwrap();
        assert_eq!(fs::read_to_string(&journal.path).unwrap(), format!("net {}\nrelease c\n", network()));
        journal.end(false).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_change_is_noted_with_what_was_before() {
        let place = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(place.path(), 12300).unwrap();
        journal.note(&plan(&["x", "b"], &["r"]), Some(&plan(&["a", "x"], &["r", "q"])), None).unwrap();
        let text = journal.text();
        let steps: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(steps, ["undo a", "undo x", "undo b", "release q", "release r"]);
    }
}
