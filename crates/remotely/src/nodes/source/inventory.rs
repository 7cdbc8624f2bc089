//! [`Inventory`]: groups and hosts as a file has them, whatever its format. Filled by the formats, read by
//! [`Sources`](super::Sources).

use std::collections::HashMap;
use std::sync::Arc;

use crate::nodes::expression::Expression;
use crate::nodes::{LARGEST, Node, NodeError, parse};
use crate::target::Target;

#[derive(Debug, Clone)]
pub(super) struct Inventory {
    /// As a source: `@name:group`.
    pub(super) name: String,
    /// As messages call it.
    title: String,
    pub(super) groups: Table<Expression>,
    /// Hosts that are listed by name, in order.
    pub(super) listed: Vec<Arc<str>>,
    hosts: HashMap<Arc<str>, Way>,
}

/// How a host is reached.
#[derive(Debug, Clone)]
pub(super) enum Way {
    Target(Arc<Target>),
    /// Not by us; says why, when the host is asked for.
    None(String),
}

impl Inventory {
    pub(super) fn new(name: &str, title: &str) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            groups: Table::default(),
            listed: Vec::new(),
            hosts: HashMap::new(),
        }
    }

    /// An empty one of another name, out of the same file.
    #[cfg(feature = "inventory")]
    pub(super) fn renamed(&self, name: &str) -> Self {
        Self::new(name, &self.title)
    }

    /// Lists a host; of one that is listed twice the first way counts. `false` if there are too many.
    #[must_use]
    pub(super) fn list(&mut self, name: Arc<str>, way: Way) -> bool {
        if !self.hosts.contains_key(&name) {
            self.listed.push(Arc::clone(&name));
            self.hosts.insert(name, way);
        }
        self.listed.len() as u64 <= LARGEST
    }

    pub(super) fn node(&self, name: &str) -> Option<Result<Node, NodeError>> {
        let (name, way) = self.hosts.get_key_value(name)?;
        Some(match way {
            Way::Target(target) => Ok(Node::named(Arc::clone(name), Arc::clone(target))),
            Way::None(why) => {
                Err(NodeError::Host { name: name.to_string(), inventory: self.title.clone(), why: why.clone() })
            }
        })
    }
}

/// The target that this text is, or why not.
pub(super) fn way(target: &str) -> Way {
    match target.parse::<Target>() {
        Ok(target) => Way::Target(target.into()),
        Err(error) => Way::None(error.to_string()),
    }
}

/// A host by its parts, as ssh has them.
pub(super) fn ssh_target(user: Option<&str>, address: &str, port: Option<&str>) -> String {
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let bracketed = address.contains(':') && !address.starts_with('[');
    if bracketed { format!("ssh:{user}[{address}]{port}") } else { format!("ssh:{user}{address}{port}") }
}

/// An expression of a file, for a group.
pub(super) fn expression(text: &str, line: usize, group: &str) -> Result<Expression, FormatError> {
    parse::parse(text).map_err(|error| FormatError { line, why: format!("group {group}: {error}") })
}

/// What a format does not understand.
#[derive(Debug)]
pub(super) struct FormatError {
    /// Counted from 1; 0 if it is not about one.
    pub(super) line: usize,
    pub(super) why: String,
}

impl FormatError {
    pub(super) fn at(line: usize, why: impl Into<String>) -> Self {
        Self { line, why: why.into() }
    }

    pub(super) fn too_many(line: usize) -> Self {
        Self::at(line, format!("there are more than {LARGEST} hosts"))
    }
}

/// Values by name, in the order in which they were added.
#[derive(Debug, Clone)]
pub(super) struct Table<V> {
    rows: Vec<(String, V)>,
    places: HashMap<String, usize>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { rows: Vec::new(), places: HashMap::new() }
    }
}

impl<V> Table<V> {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    pub(super) fn at(&self, place: usize) -> Option<&V> {
        self.rows.get(place).map(|(_, value)| value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.rows.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The value of this name, made if there is none.
    pub(super) fn entry(&mut self, name: &str, make: impl FnOnce() -> V) -> &mut V {
        let place = match self.places.get(name) {
            Some(place) => *place,
            None => {
                self.rows.push((name.to_owned(), make()));
                self.places.insert(name.to_owned(), self.rows.len() - 1);
                self.rows.len() - 1
            }
        };
        &mut self.rows[place].1
    }

    /// `false` if there is one of this name, which then stays.
    #[must_use]
    pub(super) fn add(&mut self, name: &str, value: V) -> bool {
        let new = !self.places.contains_key(name);
        if new {
            self.entry(name, || value);
        }
        new
    }
}
