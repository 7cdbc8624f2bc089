//! What both formats of ansible's inventories say: groups of hosts and of groups, and the variables that tell how a host is
//! reached. Filled by [`super::ansible_ini`] and [`super::ansible_yaml`]. Nothing of ansible is started.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::groups::is_name;
use super::inventory::{FormatError, Inventory, Table, Way, ssh_target, way};
use crate::nodes::LARGEST;
use crate::nodes::expression::Expression;

#[derive(Debug, Default)]
pub(super) struct Ansible {
    groups: Table<Group>,
    hosts: Table<Variables>,
    members: u64,
}

#[derive(Debug, Default)]
struct Group {
    hosts: Vec<Arc<str>>,
    children: Vec<String>,
    variables: Variables,
}

/// The variables that say how a host is reached; the others are ansible's own business.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Variables {
    host: Option<String>,
    user: Option<String>,
    port: Option<String>,
    connection: Option<String>,
}

impl Variables {
    pub(super) fn set(&mut self, name: &str, value: &str) {
        let place = match name {
            "ansible_host" | "ansible_ssh_host" => &mut self.host,
            "ansible_user" | "ansible_ssh_user" => &mut self.user,
            "ansible_port" | "ansible_ssh_port" => &mut self.port,
            "ansible_connection" => &mut self.connection,
            _ => return,
        };
        *place = Some(value.into());
    }

    /// Takes over what `other` says, which counts more.
    fn lay_over(&mut self, other: &Variables) {
        let Variables { host, user, port, connection } = other;
        let pairs = [
            (&mut self.host, host),
            (&mut self.user, user),
            (&mut self.port, port),
            (&mut self.connection, connection),
        ];
        for (ours, theirs) in pairs {
            if let Some(value) = theirs {
                *ours = Some(value.clone());
            }
        }
    }

    fn way(&self, name: &str) -> Way {
        let values = [&self.host, &self.user, &self.port, &self.connection];
        if values.into_iter().flatten().any(|value| value.contains("{{")) {
            return Way::None("its variables hold a template, which only ansible can fill in".into());
        }
        let address = self.host.as_deref().unwrap_or(name);
        match self.connection.as_deref() {
            None | Some("ssh" | "smart" | "paramiko" | "paramiko_ssh" | "ansible.netcommon.libssh") => {
                way(&ssh_target(self.user.as_deref(), address, self.port.as_deref()))
            }
            Some("local" | "ansible.builtin.local") => way("local:"),
            Some("docker" | "community.docker.docker") => way(&format!("docker:{address}")),
            Some("podman" | "containers.podman.podman") => way(&format!("podman:{address}")),
            Some(other) => Way::None(format!("ansible reaches it by {other:?}, which Remotely does not know")),
        }
    }
}

impl Ansible {
    /// Makes the group known.
    pub(super) fn group(&mut self, name: &str, line: usize) -> Result<(), FormatError> {
        if !is_name(name) {
            return Err(FormatError::at(line, format!("{name:?} cannot be the name of a group")));
        }
        self.groups.entry(name, Group::default);
        Ok(())
    }

    /// Puts a host, or a pattern of hosts, into a group.
    pub(super) fn host(
        &mut self,
        group: &str,
        pattern: &str,
        variables: &Variables,
        line: usize,
    ) -> Result<(), FormatError> {
        for name in hosts(pattern, line)? {
            self.members += 1;
            if self.members > LARGEST {
                return Err(FormatError::too_many(line));
            }
            if name.is_empty() {
                return Err(FormatError::at(line, "the name of a host was expected"));
            }
            self.hosts.entry(&name, Variables::default).lay_over(variables);
            self.groups.entry(group, Group::default).hosts.push(name.into());
        }
        Ok(())
    }

    pub(super) fn child(&mut self, group: &str, child: &str, line: usize) -> Result<(), FormatError> {
        self.group(child, line)?;
        self.groups.entry(group, Group::default).children.push(child.into());
        Ok(())
    }

    pub(super) fn variable(&mut self, group: &str, name: &str, value: &str) {
        self.groups.entry(group, Group::default).variables.set(name, value);
    }

    /// The inventory: groups as expressions, each host with the way to it.
    pub(super) fn finish(self, mut inventory: Inventory) -> Result<Inventory, FormatError> {
        let depths = self.depths()?;
        let mut told: Vec<(usize, &str)> = Vec::new();
        for (name, group) in self.groups.iter() {
            if group.variables != Variables::default() {
                told.push((depths.get(name).copied().unwrap_or(1), name));
            }
        }
        // As ansible has it: what is further from `all` counts more, then what comes later in the alphabet.
        told.sort_unstable();
        let mut effective: HashMap<&str, Variables> = HashMap::new();
        for (_, name) in told {
            let Some(group) = self.groups.position(name).and_then(|place| self.groups.at(place)) else { continue };
            for host in self.below(name) {
                effective.entry(host).or_default().lay_over(&group.variables);
            }
        }
        for (name, own) in self.hosts.iter() {
            let mut variables = effective.remove(name).unwrap_or_default();
            variables.lay_over(own);
            if !inventory.list(name.into(), variables.way(name)) {
                return Err(FormatError::too_many(0));
            }
        }
        for (name, group) in self.groups.iter() {
            // `all` is all there is, whatever is listed under it.
            if name == "all" {
                continue;
            }
            let children = group.children.iter().map(|child| Expression::group(child));
            let members = std::iter::once(Expression::Names(group.hosts.clone())).chain(children).collect();
            _ = inventory.groups.add(name, Expression::union(members));
        }
        Ok(inventory)
    }

    /// How far each group is from `all`, by its longest way.
    fn depths(&self) -> Result<HashMap<&str, usize>, FormatError> {
        let mut depths: HashMap<&str, usize> =
            self.groups.names().map(|name| (name, usize::from(name != "all"))).collect();
        // The longest way without a circle is as long as there are groups.
        for round in 0..=self.groups.len() {
            let mut changed = false;
            for (name, group) in self.groups.iter() {
                let next = depths.get(name).copied().unwrap_or_default() + 1;
                for child in &group.children {
                    if let Some(depth) = depths.get_mut(child.as_str()).filter(|depth| **depth < next) {
                        *depth = next;
                        changed = true;
                        if round == self.groups.len() {
                            return Err(FormatError::at(0, format!("the group {child} is a child of itself")));
                        }
                    }
                }
            }
            if !changed {
                break;
            }
        }
        Ok(depths)
    }

    /// All hosts of a group, those of its children included.
    fn below<'a>(&'a self, name: &'a str) -> HashSet<&'a str> {
        if name == "all" {
            return self.hosts.names().collect();
        }
        let mut seen = HashSet::from([name]);
        let mut waiting = vec![name];
        let mut hosts = HashSet::new();
        while let Some(group) = waiting.pop().and_then(|name| self.groups.at(self.groups.position(name)?)) {
            hosts.extend(group.hosts.iter().map(|host| &**host));
            waiting.extend(group.children.iter().map(String::as_str).filter(|child| seen.insert(child)));
        }
        hosts
    }
}

/// The hosts of a pattern: `web[01:50].example.com`, `db-[a:f]`, `n[0:100:10]`. Brackets of IPv6 addresses are no ranges.
pub(super) fn hosts(pattern: &str, line: usize) -> Result<Vec<String>, FormatError> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, behind)) = rest.split_once('[') {
        if let Some(address) = crate::nodes::parse::address(&rest[before.len()..]) {
            names.iter_mut().for_each(|name| _ = (name.push_str(before), name.push_str(address)));
            rest = &rest[before.len() + address.len()..];
            continue;
        }
        let wrong = || FormatError::at(line, format!("in {pattern:?}, a range such as [01:50] or [a:f] was expected"));
        let (range, after) = behind.split_once(']').ok_or_else(wrong)?;
        let parts: Vec<&str> = range.split(':').collect();
        let (first, last, step) = match parts[..] {
            [first, last] => (first, last, "1"),
            [first, last, step] => (first, last, step),
            _ => return Err(wrong()),
        };
        let step: usize = step.parse().ok().filter(|step| *step > 0).ok_or_else(wrong)?;
        let letter = |text: &str| text.parse::<char>().ok().filter(char::is_ascii_alphabetic);
        let texts: Vec<String> = if let (Some(first), Some(last)) = (letter(first), letter(last)) {
            (first..=last).step_by(step).map(String::from).collect()
        } else {
            // Nothing before the colon is 0.
            let first = if first.is_empty() { "0" } else { first };
            let digits =
                |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
            let (Some(from), Some(to)) = (digits(first), digits(last)) else { return Err(wrong()) };
            let width = if first.starts_with('0') && first.len() > 1 { first.len() } else { 0 };
            if width > 0 && last.len() != width {
                return Err(FormatError::at(line, format!("in {pattern:?}, both ends of a range need as many digits")));
            }
            if to.saturating_sub(from) / step as u64 >= LARGEST {
                return Err(FormatError::too_many(line));
            }
            (from..=to).step_by(step).map(|number| format!("{number:0width$}")).collect()
        };
        if texts.is_empty() {
            return Err(wrong());
        }
        let bytes = (names.len() as u64).saturating_mul(texts.len() as u64).saturating_mul(pattern.len() as u64);
        if names.len().saturating_mul(texts.len()) as u64 > LARGEST || bytes > crate::nodes::word::LARGEST_TEXT {
            return Err(FormatError::too_many(line));
        }
        names = names.iter().flat_map(|name| texts.iter().map(move |text| format!("{name}{before}{text}"))).collect();
        rest = after;
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}
