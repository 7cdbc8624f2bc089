//! Our own inventories, in TOML: `[groups]` of expressions, `[hosts]` with what is special about a host. Called by
//! [`Sources::add`](super::Sources::add).

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::groups::is_name;
use super::inventory::{FormatError, Inventory, Way, expression, ssh_target, way};
use crate::nodes::expression::Expression;
use crate::nodes::parse;
use crate::nodes::word::Cost;

pub(super) fn parse(text: &str, mut inventory: Inventory) -> Result<Inventory, FormatError> {
    let ends: Vec<usize> = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
    let line = |at: usize| 1 + ends.partition_point(|end| *end < at);
    let file = DeTable::parse(text)
        .map_err(|error| FormatError::at(error.span().map_or(0, |span| line(span.start)), error.message().trim()))?;
    let reading = Reading { line: &line };
    for (key, value) in in_order(file.get_ref()) {
        match key.get_ref().as_ref() {
            "groups" => reading.groups(value, &mut inventory)?,
            "hosts" => reading.hosts(value, &mut inventory)?,
            other => return Err(reading.wrong(key, format!("[groups] or [hosts] was expected, not {other:?}"))),
        }
    }
    Ok(inventory)
}

/// The entries as they stand in the file.
fn in_order<'v, 't>(table: &'v DeTable<'t>) -> Vec<(&'v Spanned<DeString<'t>>, &'v Spanned<DeValue<'t>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

struct Reading<'a> {
    line: &'a dyn Fn(usize) -> usize,
}

impl Reading<'_> {
    fn wrong<T>(&self, value: &Spanned<T>, why: impl Into<String>) -> FormatError {
        FormatError::at((self.line)(value.span().start), why)
    }

    fn table<'v, 't>(&self, value: &'v Spanned<DeValue<'t>>, what: &str) -> Result<&'v DeTable<'t>, FormatError> {
        value.get_ref().as_table().ok_or_else(|| self.wrong(value, format!("{what} was expected")))
    }

    /// `web = "web[1-200]"`, `front = ["@web", "lb1"]`
    fn groups(&self, groups: &Spanned<DeValue<'_>>, inventory: &mut Inventory) -> Result<(), FormatError> {
        for (name, value) in in_order(self.table(groups, "a table of groups")?) {
            let group = name.get_ref().as_ref();
            if !is_name(group) {
                return Err(self.wrong(name, format!("{group:?} cannot be the name of a group")));
            }
            let text = |item: &Spanned<DeValue<'_>>| match item.get_ref().as_str() {
                Some(text) => expression(text, (self.line)(item.span().start), group),
                None => Err(self.wrong(item, format!("the nodes of the group {group} were expected as text"))),
            };
            let nodes = match value.get_ref().as_array() {
                Some(list) => list.iter().map(text).collect::<Result<_, _>>()?,
                None => vec![text(value)?],
            };
            // A name occurs once in a table.
            _ = inventory.groups.add(group, Expression::union(nodes));
        }
        Ok(())
    }

    fn hosts(&self, hosts: &Spanned<DeValue<'_>>, inventory: &mut Inventory) -> Result<(), FormatError> {
        let mut cost = Cost { names: 0, text: 0 };
        for (name, value) in in_order(self.table(hosts, "a table of hosts")?) {
            let line = (self.line)(name.span().start);
            let said = self.said(value)?;
            let word = match parse::parse(name.get_ref()) {
                Ok(Expression::Word(word)) if !word.wild => word,
                Ok(_) => return Err(self.wrong(name, format!("{:?} is not the name of a host", name.get_ref()))),
                Err(error) => return Err(self.wrong(name, format!("the host {:?}: {error}", name.get_ref()))),
            };
            let own = word.cost();
            let templates = said.longest(own.text / own.names.max(1)).saturating_mul(own.names);
            cost = cost.plus(own).plus(Cost { names: 0, text: templates });
            if !cost.within(Cost::LIMIT) {
                return Err(FormatError::too_many(line));
            }
            for name in word.expand() {
                let way = said.way(&name);
                if let Way::None(why) = &way {
                    return Err(FormatError::at(line, format!("the host {name}: {why}")));
                }
                if !inventory.list(name.into(), way) {
                    return Err(FormatError::too_many(line));
                }
            }
        }
        Ok(())
    }

    fn said(&self, host: &Spanned<DeValue<'_>>) -> Result<Said, FormatError> {
        let mut said = Said::default();
        for (key, value) in self.table(host, "a table such as { user = \"ops\", port = 2222 }")? {
            let name = key.get_ref().as_ref();
            let place = match name {
                "target" => &mut said.target,
                "address" => &mut said.address,
                "user" => &mut said.user,
                "port" => &mut said.port,
                "via" => &mut said.via,
                _ => {
                    let why = format!("target, address, user, port or via was expected, not {name:?}");
                    return Err(self.wrong(key, why));
                }
            };
            *place = match value.get_ref() {
                DeValue::String(text) => Some(text.clone().into_owned()),
                DeValue::Integer(number) if name == "port" => Some(number.to_string()),
                _ => return Err(self.wrong(value, format!("{name} was expected as text"))),
            };
        }
        let parts = [&said.address, &said.user, &said.port, &said.via];
        if said.target.is_some() && parts.iter().any(|part| part.is_some()) {
            return Err(self.wrong(host, "target says all there is to say: no address, user, port or via beside it"));
        }
        Ok(said)
    }
}

/// What is said about a host. `{name}` stands for its name.
#[derive(Debug, Default)]
struct Said {
    target: Option<String>,
    address: Option<String>,
    user: Option<String>,
    port: Option<String>,
    via: Option<String>,
}

impl Said {
    fn way(&self, name: &str) -> Way {
        let filled = |text: &Option<String>| text.as_ref().map(|text| text.replace("{name}", name));
        if let Some(target) = filled(&self.target) {
            return way(&target);
        }
        let via = filled(&self.via).map(|via| format!("{via}+")).unwrap_or_default();
        let parts = [&self.address, &self.user, &self.port];
        if parts.iter().all(|part| part.is_none()) {
            return way(&format!("{via}{name}"));
        }
        let address = filled(&self.address);
        let own = ssh_target(filled(&self.user).as_deref(), address.as_deref().unwrap_or(name), self.port.as_deref());
        way(&format!("{via}{own}"))
    }

    /// Bytes of the templates at most, with a name of so many bytes put in.
    fn longest(&self, name: u64) -> u64 {
        let parts = [&self.target, &self.address, &self.user, &self.port, &self.via];
        let bytes = |text: &String| {
            let places = text.matches("{name}").count() as u64;
            places.saturating_add(1).saturating_mul(name).saturating_add(text.len() as u64)
        };
        parts.into_iter().flatten().map(bytes).fold(0, u64::saturating_add)
    }
}
