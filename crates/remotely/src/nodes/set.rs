//! [`NodeSet`]: nodes in the order in which they were named, each once, and the algebra of such sets. What a group is made of.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Add, BitAnd, BitOr, BitXor, Sub};
use std::sync::Arc;

use super::fold;
use crate::target::{Target, TargetError};

/// A host of a set: a name, and the way there.
///
/// The name is what results are kept and shown under. Two nodes are equal when their names are.
#[derive(Debug, Clone)]
pub struct Node {
    name: Arc<str>,
    /// `None`: the name is the target, which was checked when the node was made.
    target: Option<Arc<Target>>,
}

impl Node {
    /// The node that a target names by itself: `web1`, `user@web1:22`, `docker:web`. Its name is the target as it prints.
    pub fn new(target: &str) -> Result<Self, TargetError> {
        let parsed = target.parse::<Target>()?;
        let printed = parsed.to_string();
        // What prints as something else than it was is kept, so that the name need not be a target for good.
        let itself = printed == target;
        Ok(Self { name: printed.into(), target: (!itself).then(|| parsed.into()) })
    }

    /// A node of an inventory: its name there, and the way to it.
    pub fn named(name: impl Into<Arc<str>>, target: impl Into<Arc<Target>>) -> Self {
        Self { name: name.into(), target: Some(target.into()) }
    }

    /// A node that is only looked for or taken out by its name, and never given out.
    pub(super) fn unreachable(name: &str) -> Self {
        Self { name: name.into(), target: None }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The way there.
    pub fn target(&self) -> Target {
        match &self.target {
            Some(target) => Target::clone(target),
            None => self.name.parse().expect("a name without a target was parsed when the node was made"),
        }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Node {}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Borrow<str> for Node {
    fn borrow(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

/// Nodes in the order in which they were first named, each name once.
///
/// Sets compare as sets: the order makes no difference, and neither do targets. Operators keep the order of the left side
/// and, of a name that both sides have, the left side's target. They cost as much as both sides are long.
///
/// ```
/// use remotely::nodes::NodeSet;
///
/// let web: NodeSet = "web[1-200]".parse()?;
/// let rest = web - "web13,web[100-200]".parse::<NodeSet>()?;
/// assert_eq!(rest.len(), 98);
/// assert_eq!(rest.to_string(), "web[1-12,14-99]");
/// # Ok::<(), remotely::nodes::NodeError>(())
/// ```
#[derive(Clone, Default)]
pub struct NodeSet {
    order: Vec<Node>,
    found: HashSet<Node>,
}

impl NodeSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether there is a node of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.found.contains(name)
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.found.get(name)
    }

    /// The nodes, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Node> {
        self.order.iter()
    }

    /// Adds a node at the end; false if its name is there already, whose target then stays.
    pub fn insert(&mut self, node: Node) -> bool {
        let new = self.found.insert(node.clone());
        if new {
            self.order.push(node);
        }
        new
    }

    /// Keeps only the nodes that `wanted` is true for.
    pub fn retain(&mut self, mut wanted: impl FnMut(&Node) -> bool) {
        self.order.retain(|node| {
            let keep = wanted(node);
            if !keep {
                self.found.remove(node);
            }
            keep
        });
    }

    /// What is in either.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.extend(other);
        self
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(mut self, other: &Self) -> Self {
        self.retain(|node| other.found.contains(node));
        self
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        self.retain(|node| !other.found.contains(node));
        self
    }

    /// What is in one of them only: first that of this one.
    #[must_use]
    pub fn symmetric_difference(self, other: &Self) -> Self {
        let theirs: Vec<Node> = other.iter().filter(|node| !self.found.contains(*node)).cloned().collect();
        let mut ours = self.difference(other);
        ours.extend(theirs);
        ours
    }

    /// Cuts into `parts` sets of as equal a size as can be, in order, the larger ones first; fewer if there are fewer
    /// nodes. None for no parts.
    pub fn split(&self, parts: usize) -> Vec<NodeSet> {
        let parts = parts.min(self.len());
        let (least, larger) = (self.len().checked_div(parts).unwrap_or(0), self.len().checked_rem(parts).unwrap_or(0));
        let mut rest = self.order.iter().cloned();
        (0..parts).map(|n| rest.by_ref().take(least + usize::from(n < larger)).collect()).collect()
    }

    /// The shortest text that is this set again, in natural order: `db[1-4],web[001-200]`. Takes n log n time. It holds
    /// names, not targets: what an inventory says about them must be at hand to read it.
    pub fn fold(&self) -> String {
        fold::fold(self.order.iter().map(Node::name))
    }
}

impl fmt::Display for NodeSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.fold())
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "NodeSet({})", self.fold())
    }
}

impl PartialEq for NodeSet {
    fn eq(&self, other: &Self) -> bool {
        self.found == other.found
    }
}

impl Eq for NodeSet {}

impl Extend<Node> for NodeSet {
    fn extend<I: IntoIterator<Item = Node>>(&mut self, nodes: I) {
        nodes.into_iter().for_each(|node| _ = self.insert(node));
    }
}

impl<'a> Extend<&'a Node> for NodeSet {
    fn extend<I: IntoIterator<Item = &'a Node>>(&mut self, nodes: I) {
        self.extend(nodes.into_iter().cloned());
    }
}

impl FromIterator<Node> for NodeSet {
    fn from_iter<I: IntoIterator<Item = Node>>(nodes: I) -> Self {
        let mut set = Self::new();
        set.extend(nodes);
        set
    }
}

impl IntoIterator for NodeSet {
    type Item = Node;
    type IntoIter = std::vec::IntoIter<Node>;

    fn into_iter(self) -> Self::IntoIter {
        self.order.into_iter()
    }
}

impl<'a> IntoIterator for &'a NodeSet {
    type Item = &'a Node;
    type IntoIter = std::slice::Iter<'a, Node>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// An operator between sets, owned or borrowed on either side.
macro_rules! operator {
    ($($trait:ident $function:ident $method:ident),+) => { $(
        impl $trait<&NodeSet> for NodeSet {
            type Output = NodeSet;
            fn $function(self, other: &NodeSet) -> NodeSet {
                self.$method(other)
            }
        }
        impl $trait for NodeSet {
            type Output = NodeSet;
            fn $function(self, other: NodeSet) -> NodeSet {
                self.$method(&other)
            }
        }
        impl $trait<&NodeSet> for &NodeSet {
            type Output = NodeSet;
            fn $function(self, other: &NodeSet) -> NodeSet {
                self.clone().$method(other)
            }
        }
        impl $trait<NodeSet> for &NodeSet {
            type Output = NodeSet;
            fn $function(self, other: NodeSet) -> NodeSet {
                self.clone().$method(&other)
            }
        }
    )+ };
}

operator!(BitOr bitor union, Add add union, BitAnd bitand intersection, BitXor bitxor symmetric_difference, Sub sub difference);
