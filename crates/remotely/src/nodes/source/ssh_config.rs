//! The hosts that `~/.ssh/config` and the files it includes name: `Host` lines without patterns. Called by
//! [`Sources::of_user`](super::Sources::of_user). What is said about a host stays between the user and ssh. (ssh_config(5))

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::{SourceError, read_text};
use crate::nodes::{Node, NodeSet, glob};
use crate::target::{Hop, Target};
use crate::transport::shell;

/// As deep as ssh itself follows `Include`.
const DEPTH: usize = 16;
/// Files that are read at most.
const FILES: usize = 1024;

/// The hosts, in the order of the files; none where there is no configuration.
pub(super) fn read(home: &Path) -> Result<NodeSet, SourceError> {
    let mut reading = Reading { home, hosts: NodeSet::new(), files: 0 };
    match reading.file(&home.join(".ssh/config"), 0) {
        Err(SourceError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(reading.hosts),
        Err(error) => Err(error),
        Ok(()) => Ok(reading.hosts),
    }
}

struct Reading<'a> {
    home: &'a Path,
    hosts: NodeSet,
    files: usize,
}

impl Reading<'_> {
    fn file(&mut self, path: &Path, depth: usize) -> Result<(), SourceError> {
        self.files += 1;
        let text = read_text(path)?;
        for (keyword, words) in text.lines().filter_map(line) {
            if keyword.eq_ignore_ascii_case("host") {
                let names = words.iter().filter(|name| !name.contains(['*', '?', '!']));
                self.hosts.extend(names.filter_map(|name| node(name)));
            } else if keyword.eq_ignore_ascii_case("include") && depth < DEPTH {
                for path in words.iter().flat_map(|word| included(word, self.home)) {
                    if self.files < FILES {
                        // ssh passes over what it cannot read, too.
                        let _ = self.file(&path, depth + 1);
                    }
                }
            }
        }
        Ok(())
    }
}

/// `Keyword words`, or `Keyword=words`, quotes taken off.
fn line(text: &str) -> Option<(&str, Vec<String>)> {
    let text = text.trim();
    let (keyword, rest) =
        text.split_once(|c: char| c.is_whitespace() || c == '=').filter(|_| !text.starts_with('#'))?;
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').filter(|_| !text[keyword.len()..].starts_with('=')).unwrap_or(rest);
    let words = shell::split(OsStr::new(rest.trim())).ok()?;
    let words = words.into_iter().filter_map(|word| word.into_string().ok());
    Some((keyword, words.take_while(|word| !word.starts_with('#')).collect()))
}

/// The node of a name that ssh would look up in its configuration as it is; `None` for what we cannot pass to it.
fn node(name: &str) -> Option<Node> {
    let target: Target = format!("ssh:{name}").parse().ok()?;
    match target.hops() {
        [Hop::Ssh(ssh)] if ssh.host == name && ssh.user.is_none() && ssh.port.is_none() => {
            Node::new(&target.to_string()).ok()
        }
        _ => None,
    }
}

/// The files of an `Include`: below `~/.ssh` unless it says otherwise; wildcards in any part, sorted.
fn included(word: &str, home: &Path) -> Vec<PathBuf> {
    let path = match word.strip_prefix("~/") {
        Some(rest) => home.join(rest),
        None => home.join(".ssh").join(word),
    };
    let mut found = vec![PathBuf::new()];
    for part in path.components() {
        let pattern = part.as_os_str().to_str().filter(|part| part.contains(['*', '?']));
        found = match pattern {
            None => found.into_iter().map(|path| path.join(part)).collect(),
            Some(pattern) => found.iter().flat_map(|directory| entries(directory, pattern)).collect(),
        };
        found.truncate(FILES);
    }
    found
}

fn entries(directory: &Path, pattern: &str) -> Vec<PathBuf> {
    let names = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let visible = |name: &String| !name.starts_with('.') || pattern.starts_with('.');
    let mut names: Vec<String> = names.filter(visible).filter(|name| glob::matches(pattern, name)).collect();
    names.sort();
    names.into_iter().map(|name| directory.join(name)).collect()
}
