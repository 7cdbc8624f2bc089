//! An [`Expression`] to its nodes: names are looked up in the sources, groups are followed, operators applied from left to
//! right. Does no I/O: what an engine must be asked for is left to the caller, who comes again with the answers.

use std::collections::HashMap;
use std::rc::Rc;

use super::engine::Query;
use super::expression::{Expression, Operator};
use super::source::Sources;
use super::word::{Cost, Word};
use super::{LARGEST, Node, NodeError, NodeSet, glob};

/// How deep groups may name groups.
const DEPTH: usize = 64;
/// Names that are compared or passed on at most: a bound on time.
const WORK: u64 = 100 << 20;

/// What engines have said.
pub(super) type Answers = HashMap<Query, NodeSet>;

/// The nodes, or what must be asked first.
pub(super) enum Outcome {
    Nodes(NodeSet),
    Ask(Vec<Query>),
}

pub(super) fn evaluate(expression: &Expression, sources: &Sources, answers: &Answers) -> Result<Outcome, NodeError> {
    let mut evaluation = Evaluation {
        sources,
        answers,
        ask: Vec::new(),
        cost: Cost { names: 0, text: 0 },
        work: 0,
        open: Vec::new(),
        groups: HashMap::new(),
        known: [None, None],
        unreachable: HashMap::new(),
    };
    match evaluation.set(expression, None, true) {
        // What is not found may be among what is still to be asked for.
        Ok(_) | Err(NodeError::Nothing { .. }) if !evaluation.ask.is_empty() => Ok(Outcome::Ask(evaluation.ask)),
        Ok(nodes) => match nodes.iter().find_map(|node| evaluation.unreachable.remove(node.name())) {
            Some(error) => Err(error),
            None => Ok(Outcome::Nodes(Rc::unwrap_or_clone(nodes))),
        },
        Err(error) => Err(error),
    }
}

/// A group: the inventory it is in, and its number there.
type Group = (usize, usize);

struct Evaluation<'a> {
    sources: &'a Sources,
    answers: &'a Answers,
    ask: Vec<Query>,
    cost: Cost,
    work: u64,
    /// Groups whose nodes are being looked for, each named by the one before.
    open: Vec<Group>,
    groups: HashMap<Group, Rc<NodeSet>>,
    /// What wildcards are compared with: outside of inventories, and in them.
    known: [Option<Rc<NodeSet>>; 2],
    /// Hosts that an inventory knows no way to that we could go: they may be in groups, but not in what comes out.
    unreachable: HashMap<String, NodeError>,
}

impl<'a> Evaluation<'a> {
    /// `home` is the inventory that the expression stands in. `wanted`: what names no host is a mistake.
    fn set(&mut self, expression: &'a Expression, home: Option<usize>, wanted: bool) -> Result<Rc<NodeSet>, NodeError> {
        match expression {
            Expression::Word(word) if word.wild => self.wild(word, home, wanted),
            Expression::Word(word) => {
                self.spend(word.cost())?;
                let nodes = word.expand().into_iter().map(|name| self.node(&name));
                nodes.collect::<Result<NodeSet, _>>().map(Rc::new)
            }
            Expression::Names(names) => {
                let text = names.iter().fold(0, |sum: u64, name| sum.saturating_add(name.len() as u64));
                self.spend(Cost { names: names.len() as u64, text })?;
                names.iter().map(|name| self.node(name)).collect::<Result<NodeSet, _>>().map(Rc::new)
            }
            Expression::Group { source, name } => {
                self.spend(name.cost())?;
                let mut nodes = NodeSet::new();
                for name in name.expand() {
                    let group = self.named(source.as_deref(), &name, home, wanted)?;
                    nodes = self.combine(nodes, Operator::Union, &group)?;
                }
                Ok(nodes.into())
            }
            Expression::Query(query) => match self.answers.get(query) {
                Some(nodes) => {
                    self.spend_nodes(nodes)?;
                    Ok(nodes.clone().into())
                }
                None => {
                    if !self.ask.contains(query) {
                        self.ask.push(query.clone());
                    }
                    Ok(Rc::default())
                }
            },
            Expression::Combined(operands) => {
                let mut nodes = NodeSet::new();
                for (operator, operand) in operands {
                    let right = self.set(operand, home, wanted && *operator != Operator::Difference)?;
                    nodes = self.combine(nodes, *operator, &right)?;
                }
                Ok(nodes.into())
            }
        }
    }

    fn combine(&mut self, left: NodeSet, operator: Operator, right: &NodeSet) -> Result<NodeSet, NodeError> {
        if left.is_empty() && operator == Operator::Union {
            return Ok(right.clone());
        }
        if operator != Operator::Union {
            self.work(left.len())?;
        }
        let nodes = match operator {
            Operator::Union => left.union(right),
            Operator::Difference => left.difference(right),
            Operator::Intersection => left.intersection(right),
            Operator::SymmetricDifference => left.symmetric_difference(right),
        };
        Ok(nodes)
    }

    /// Counts what is written out, so that no expression takes more memory or time than its limit allows.
    fn spend(&mut self, cost: Cost) -> Result<(), NodeError> {
        self.cost = self.cost.plus(cost);
        if self.cost.within(Cost::LIMIT) { Ok(()) } else { Err(NodeError::TooLarge { limit: LARGEST }) }
    }

    fn work(&mut self, names: usize) -> Result<(), NodeError> {
        self.work = self.work.saturating_add(names as u64);
        if self.work <= WORK { Ok(()) } else { Err(NodeError::TooLarge { limit: LARGEST }) }
    }

    fn spend_nodes(&mut self, nodes: &NodeSet) -> Result<(), NodeError> {
        self.spend(Cost { names: nodes.len() as u64, text: 0 })
    }

    /// A name as an inventory knows it, else a target.
    fn node(&mut self, name: &str) -> Result<Node, NodeError> {
        if let Some(known) = self.known_host(name) {
            return Ok(known);
        }
        let node = Node::new(name).map_err(|source| NodeError::Target { name: name.into(), source })?;
        let printed = Some(node.name()).filter(|printed| *printed != name);
        Ok(printed.and_then(|printed| self.known_host(printed)).unwrap_or(node))
    }

    fn known_host(&mut self, name: &str) -> Option<Node> {
        match self.sources.host(name)? {
            Ok(node) => Some(node),
            Err(error) => {
                self.unreachable.insert(name.into(), error);
                Some(Node::unreachable(name))
            }
        }
    }

    /// `@name`, `@source:name`, `@*` and wildcards in `name`.
    fn named(
        &mut self,
        source: Option<&str>,
        name: &str,
        home: Option<usize>,
        wanted: bool,
    ) -> Result<Rc<NodeSet>, NodeError> {
        let unknown = |sources: &Sources| NodeError::Group {
            name: source.map_or(name.to_owned(), |source| format!("{source}:{name}")),
            known: sources.some_groups(),
        };
        if source == Some(Sources::SSH) {
            let hosts: NodeSet =
                self.sources.ssh_hosts().iter().filter(|node| glob::matches(name, node.name())).cloned().collect();
            self.spend_nodes(&hosts)?;
            return Ok(hosts.into());
        }
        let inventories = match source {
            Some(source) => vec![
                self.sources
                    .named(source)
                    .ok_or_else(|| NodeError::Source { name: source.into(), known: self.sources.names() })?,
            ],
            // The inventory's own groups come first in it.
            None => home.into_iter().chain((0..self.sources.len()).filter(|n| Some(*n) != home)).collect(),
        };
        if name == "*" {
            return self.everything(&inventories);
        }
        if name.contains(['*', '?']) {
            let mut nodes = NodeSet::new();
            let mut any = false;
            for inventory in inventories {
                self.work(self.sources.groups_of(inventory))?;
                for group in self.sources.groups_like(inventory, name) {
                    any = true;
                    let group = self.group((inventory, group))?;
                    nodes = self.combine(nodes, Operator::Union, &group)?;
                }
            }
            return if any || !wanted { Ok(nodes.into()) } else { Err(unknown(self.sources)) };
        }
        for inventory in &inventories {
            if let Some(group) = self.sources.group(*inventory, name) {
                return self.group((*inventory, group));
            }
        }
        if name == "all" && !inventories.is_empty() {
            return self.everything(&inventories);
        }
        Err(unknown(self.sources))
    }

    fn group(&mut self, group: Group) -> Result<Rc<NodeSet>, NodeError> {
        if let Some(nodes) = self.groups.get(&group) {
            let nodes = Rc::clone(nodes);
            self.spend_nodes(&nodes)?;
            return Ok(nodes);
        }
        if self.open.contains(&group) || self.open.len() == DEPTH {
            let way = self.open.iter().skip_while(|open| **open != group && self.open.len() < DEPTH);
            let way: Vec<String> = way.chain([&group]).map(|group| self.sources.title(*group)).collect();
            return Err(NodeError::Circle { way: way.join(" -> ") });
        }
        self.open.push(group);
        let sources = self.sources;
        let nodes = self.set(sources.expression(group), Some(group.0), true)?;
        self.open.pop();
        self.groups.insert(group, Rc::clone(&nodes));
        Ok(nodes)
    }

    /// All hosts of inventories: those that they list, then those of their groups.
    fn everything(&mut self, inventories: &[usize]) -> Result<Rc<NodeSet>, NodeError> {
        let mut nodes = NodeSet::new();
        let sources = self.sources;
        for &inventory in inventories {
            for name in sources.listed(inventory) {
                self.spend(Cost { names: 1, text: name.len() as u64 })?;
                nodes.insert(self.node(name)?);
            }
            for group in 0..self.sources.groups_of(inventory) {
                let group = self.group((inventory, group))?;
                nodes = self.combine(nodes, Operator::Union, &group)?;
            }
        }
        Ok(nodes.into())
    }

    /// The known hosts that a wildcard stands for. Inside an inventory these are the ones that are listed by name, so that
    /// a group does not depend on itself.
    fn wild(&mut self, word: &Word, home: Option<usize>, wanted: bool) -> Result<Rc<NodeSet>, NodeError> {
        self.spend(word.cost())?;
        let known = match &self.known[usize::from(home.is_some())] {
            Some(known) => Rc::clone(known),
            None => self.known(home)?,
        };
        let mut nodes = NodeSet::new();
        for pattern in word.expand() {
            self.work(known.len())?;
            let mut found = known.iter().filter(|node| glob::matches(&pattern, node.name())).peekable();
            if found.peek().is_none() && wanted && home.is_none() {
                return Err(NodeError::Nothing { pattern });
            }
            nodes.extend(found);
        }
        self.spend_nodes(&nodes)?;
        Ok(nodes.into())
    }

    fn known(&mut self, home: Option<usize>) -> Result<Rc<NodeSet>, NodeError> {
        let sources = self.sources;
        let mut nodes = NodeSet::new();
        match home {
            None => {
                let inventories: Vec<usize> = (0..sources.len()).collect();
                nodes.extend(&*self.everything(&inventories)?);
            }
            Some(_) => {
                for name in (0..sources.len()).flat_map(|inventory| sources.listed(inventory)) {
                    nodes.insert(self.node(name)?);
                }
            }
        }
        nodes.extend(sources.ssh_hosts());
        let nodes = Rc::new(nodes);
        self.known[usize::from(home.is_some())] = Some(Rc::clone(&nodes));
        Ok(nodes)
    }
}
