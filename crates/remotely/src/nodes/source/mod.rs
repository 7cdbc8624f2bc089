//! Where names and groups come from: inventories (files of several formats) and the hosts of ssh's configuration. Read by
//! [`super::evaluate`]. Only [`Sources::read`] and its kin look at files; a format turns text into an [`Inventory`].

mod ansible;
mod ansible_ini;
#[cfg(feature = "inventory")]
mod ansible_yaml;
mod groups;
mod inventory;
mod ssh_config;
#[cfg(feature = "inventory")]
mod toml;
#[cfg(feature = "inventory")]
mod yaml;

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::expression::Expression;
use super::{Node, NodeError, NodeSet, glob};
use inventory::{FormatError, Inventory};

/// The inventories and hosts that an expression is looked up in. Of several that know a name, the first counts.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    inventories: Vec<Inventory>,
    ssh: NodeSet,
}

/// A group, and the source that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupName {
    /// The source: the name of its file without what follows the last dot.
    pub source: String,
    /// The group.
    pub group: String,
}

impl fmt::Display for GroupName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "@{}:{}", self.source, self.group)
    }
}

/// What an inventory is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Our own, TOML.
    Toml,
    /// clustershell's, a line `group: nodes` for each.
    Groups,
    /// ansible's, in the style of an INI file.
    AnsibleIni,
    /// ansible's in YAML, or clustershell's.
    Yaml,
}

impl Sources {
    /// How `~/.ssh/config` is called as a source.
    pub(super) const SSH: &str = "ssh";
    /// How many groups a message names.
    const NAMED: usize = 12;
    /// Bytes of a file at most.
    const LARGEST_FILE: u64 = 64 << 20;

    /// None at all: a name is a target.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the user of this process has: the files given, then `hosts.toml` in `$XDG_CONFIG_HOME/remotely` or
    /// `~/.config/remotely`, and the hosts of `~/.ssh/config`. Only the files given must be there.
    pub fn of_user(files: &[PathBuf]) -> Result<Self, SourceError> {
        let mut sources = Self::new();
        for file in files {
            sources.read(file)?;
        }
        let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = directory("HOME");
        let config = directory("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        #[cfg(feature = "inventory")]
        if let Some(own) = config.map(|config| config.join("remotely/hosts.toml")).filter(|own| own.exists()) {
            sources.read(&own)?;
        }
        #[cfg(not(feature = "inventory"))]
        drop(config);
        if let Some(home) = home {
            sources.ssh = ssh_config::read(&home)?;
        }
        Ok(sources)
    }

    /// Adds an inventory file, of whatever format it is: by the end of its name, else by how it begins.
    pub fn read(&mut self, file: &Path) -> Result<(), SourceError> {
        let text = read_text(file)?;
        let format = format(file, &text);
        let name = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy();
        self.add(&name, &file.display().to_string(), format, &text)
    }

    /// Adds an inventory that is at hand as text. `name` is that of the source, `title` how messages call it.
    pub fn add(&mut self, name: &str, title: &str, format: Format, text: &str) -> Result<(), SourceError> {
        let inventory = Inventory::new(name, title);
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let read = match format {
            Format::Groups => groups::parse(text, inventory).map(|inventory| vec![inventory]),
            Format::AnsibleIni => ansible_ini::parse(text, inventory).map(|inventory| vec![inventory]),
            #[cfg(feature = "inventory")]
            Format::Toml => toml::parse(text, inventory).map(|inventory| vec![inventory]),
            #[cfg(feature = "inventory")]
            Format::Yaml => ansible_yaml::parse(text, inventory),
            #[cfg(not(feature = "inventory"))]
            Format::Toml | Format::Yaml => return Err(SourceError::Feature { file: title.into() }),
        };
        self.inventories.extend(read.map_err(|FormatError { line, why }| SourceError::Understand {
            file: title.into(),
            line,
            why,
        })?);
        Ok(())
    }

    /// All groups of all inventories.
    pub fn groups(&self) -> impl Iterator<Item = GroupName> {
        self.inventories.iter().flat_map(|inventory| {
            inventory.groups.names().map(|group| GroupName { source: inventory.name.clone(), group: group.into() })
        })
    }

    /// The host of this name in the first inventory that describes it.
    pub(super) fn host(&self, name: &str) -> Option<Result<Node, NodeError>> {
        self.inventories.iter().find_map(|inventory| inventory.node(name))
    }

    pub(super) fn ssh_hosts(&self) -> &NodeSet {
        &self.ssh
    }

    pub(super) fn len(&self) -> usize {
        self.inventories.len()
    }

    /// The names of all sources.
    pub(super) fn names(&self) -> Vec<String> {
        self.inventories.iter().map(|inventory| inventory.name.clone()).chain([Self::SSH.to_owned()]).collect()
    }

    /// The inventory of this name.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.inventories.iter().position(|inventory| inventory.name == name)
    }

    pub(super) fn listed(&self, inventory: usize) -> &[Arc<str>] {
        self.inventories.get(inventory).map_or(&[], |inventory| &inventory.listed)
    }

    pub(super) fn groups_of(&self, inventory: usize) -> usize {
        self.inventories.get(inventory).map_or(0, |inventory| inventory.groups.len())
    }

    pub(super) fn group(&self, inventory: usize, name: &str) -> Option<usize> {
        self.inventories.get(inventory)?.groups.position(name)
    }

    pub(super) fn groups_like(&self, inventory: usize, pattern: &str) -> Vec<usize> {
        let names = self.inventories.get(inventory).into_iter().flat_map(|inventory| inventory.groups.names());
        names.enumerate().filter(|(_, name)| glob::matches(pattern, name)).map(|(n, _)| n).collect()
    }

    pub(super) fn expression(&self, (inventory, group): (usize, usize)) -> &Expression {
        const NOTHING: &Expression = &Expression::Names(Vec::new());
        self.inventories.get(inventory).and_then(|inventory| inventory.groups.at(group)).unwrap_or(NOTHING)
    }

    /// How a message calls a group.
    pub(super) fn title(&self, (inventory, group): (usize, usize)) -> String {
        let inventory = self.inventories.get(inventory);
        let name = inventory.and_then(|inventory| inventory.groups.names().nth(group));
        format!("@{}", name.unwrap_or_default())
    }

    /// Some of the groups, for a message.
    pub(super) fn some_groups(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.groups().take(Self::NAMED + 1).map(|name| format!("@{}", name.group)).collect();
        if names.len() > Self::NAMED {
            names.pop();
            names.push("...".into());
        }
        names
    }
}

fn read_text(file: &Path) -> Result<String, SourceError> {
    use io::Read;
    let failed = |source| SourceError::Read { file: file.into(), source };
    let mut bytes = Vec::new();
    let mut reader = std::fs::File::open(file).map_err(failed)?.take(Sources::LARGEST_FILE + 1);
    reader.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > Sources::LARGEST_FILE {
        return Err(failed(io::Error::other("it is larger than 64 MiB")));
    }
    String::from_utf8(bytes).map_err(|_| failed(io::Error::other("it is not UTF-8")))
}

/// What a file is written in.
fn format(file: &Path, text: &str) -> Format {
    match file.extension().and_then(OsStr::to_str) {
        Some("toml") => return Format::Toml,
        Some("yaml" | "yml" | "json") => return Format::Yaml,
        Some("ini") => return Format::AnsibleIni,
        _ => {}
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    match lines.next() {
        Some(line) if line.starts_with("---") => Format::Yaml,
        // Groups have no blank before the colon; a host of INI with a port has a number behind it.
        Some(line) => match line.split_once(':') {
            Some((name, _)) if line.starts_with('[') || name.contains([' ', '=']) => Format::AnsibleIni,
            Some((_, "")) => Format::Yaml,
            Some((_, nodes))
                if nodes.starts_with(char::is_whitespace) || !nodes.bytes().all(|c| c.is_ascii_digit()) =>
            {
                Format::Groups
            }
            _ => Format::AnsibleIni,
        },
        None => Format::Groups,
    }
}

/// Why a source cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file could not be read.
    #[error("could not read the inventory {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is in it makes no sense.
    #[error("{file}{}: {why}", if *line > 0 { format!(", line {line}") } else { String::new() })]
    Understand {
        /// The file.
        file: String,
        /// The line, counted from 1; 0 if it is not about one.
        line: usize,
        /// What about it.
        why: String,
    },
    /// The crate was built without the feature `inventory`.
    #[error("{file}: inventories in TOML and YAML need the feature \"inventory\" of the crate remotely")]
    Feature {
        /// The file.
        file: String,
    },
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
