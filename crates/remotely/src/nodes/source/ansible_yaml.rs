//! Inventories in YAML: ansible's (groups with `hosts`, `children`, `vars`) and clustershell's (sources with groups). Called
//! by [`Sources::add`](super::Sources::add).

use std::rc::Rc;

use super::ansible::{Ansible, Variables};
use super::groups::is_name;
use super::inventory::{FormatError, Inventory, expression};
use super::yaml::{self, Kind, Value};
use crate::nodes::LARGEST;
use crate::nodes::expression::Expression;

/// One inventory, or one for each source of clustershell's.
pub(super) fn parse(text: &str, inventory: Inventory) -> Result<Vec<Inventory>, FormatError> {
    let root = yaml::parse(text)?;
    let entries = root.entries()?;
    if !entries.is_empty() && entries.iter().all(|(_, value)| holds_node_sets(value)) {
        return entries.iter().map(|(name, groups)| clustershell(groups, inventory.renamed(name))).collect();
    }
    let mut reading = Reading { ansible: Ansible::default(), groups: 0 };
    for (name, group) in entries {
        reading.group(name, group)?;
    }
    reading.ansible.finish(inventory).map(|inventory| vec![inventory])
}

/// Whether a value is clustershell's: groups, whose nodes are text. ansible's groups have maps in them.
fn holds_node_sets(value: &Value) -> bool {
    let nodes = |value: &Value| match &value.kind {
        Kind::Text(_) => true,
        Kind::List(list) => list.iter().all(|item| matches!(item.kind, Kind::Text(_))),
        Kind::Null | Kind::Map(_) => false,
    };
    let groups = match &value.kind {
        Kind::Map(groups) => groups,
        Kind::Null | Kind::Text(_) | Kind::List(_) => return false,
    };
    !groups.is_empty()
        && groups.iter().all(|(name, value)| nodes(value) && !matches!(name.as_str(), "hosts" | "children" | "vars"))
}

fn clustershell(groups: &Value, mut inventory: Inventory) -> Result<Inventory, FormatError> {
    for (name, value) in groups.entries()? {
        if !is_name(name) {
            return Err(FormatError::at(value.line, format!("{name:?} cannot be the name of a group")));
        }
        let texts = match &value.kind {
            Kind::List(list) => list.iter().filter_map(|item| item.text()).collect(),
            _ => value.text().into_iter().collect::<Vec<_>>(),
        };
        let nodes = texts.into_iter().map(|text| expression(text, value.line, name)).collect::<Result<_, _>>()?;
        if !inventory.groups.add(name, Expression::union(nodes)) {
            return Err(FormatError::at(value.line, format!("there are two groups {name}")));
        }
    }
    Ok(inventory)
}

struct Reading {
    ansible: Ansible,
    /// Groups that were read: aliases can make many out of few.
    groups: u64,
}

impl Reading {
    fn group(&mut self, name: &str, value: &Value) -> Result<(), FormatError> {
        self.groups += 1;
        if self.groups > LARGEST {
            return Err(FormatError::at(value.line, format!("there are more than {LARGEST} groups")));
        }
        self.ansible.group(name, value.line)?;
        for (key, part) in value.entries()? {
            match key.as_str() {
                "hosts" => self.hosts(name, part)?,
                "children" => {
                    for (child, value) in part.entries()? {
                        self.ansible.child(name, child, value.line)?;
                        self.group(child, value)?;
                    }
                }
                "vars" => {
                    for (variable, value) in part.entries()? {
                        value.text().into_iter().for_each(|text| self.ansible.variable(name, variable, text));
                    }
                }
                _ => {
                    let why = format!("in the group {name}, hosts, children or vars were expected, not {key:?}");
                    return Err(FormatError::at(part.line, why));
                }
            }
        }
        Ok(())
    }

    fn hosts(&mut self, group: &str, value: &Value) -> Result<(), FormatError> {
        let none = Variables::default();
        match &value.kind {
            Kind::Text(pattern) => self.ansible.host(group, pattern, &none, value.line),
            Kind::List(list) => list.iter().try_for_each(|item: &Rc<Value>| match item.text() {
                Some(pattern) => self.ansible.host(group, pattern, &none, item.line),
                None => Err(FormatError::at(item.line, "the name of a host was expected")),
            }),
            Kind::Map(_) | Kind::Null => value.entries()?.iter().try_for_each(|(pattern, said)| {
                let mut variables = Variables::default();
                for (name, value) in said.entries()? {
                    value.text().into_iter().for_each(|text| variables.set(name, text));
                }
                self.ansible.host(group, pattern, &variables, said.line)
            }),
        }
    }
}
