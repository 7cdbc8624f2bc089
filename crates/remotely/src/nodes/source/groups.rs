//! clustershell's `groups` file: a line `group: nodes` for each group, `#` before comments. Called by
//! [`Sources::add`](super::Sources::add). (groups.conf(5) of clustershell, the upcall `sed -n 's/^GROUP:\(.*\)/\1/p'`.)

use super::inventory::{FormatError, Inventory, expression};
use crate::nodes::expression::Expression;
use crate::nodes::expression::Operator;

pub(super) fn parse(text: &str, mut inventory: Inventory) -> Result<Inventory, FormatError> {
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split_once('#').map_or(text, |(text, _)| text).trim();
        if text.is_empty() {
            continue;
        }
        let group = text.split_once(':').map(|(name, nodes)| (name.trim(), nodes));
        let Some((name, nodes)) = group.filter(|(name, _)| is_name(name)) else {
            return Err(FormatError::at(line, "a line 'group: nodes' was expected"));
        };
        let nodes = expression(nodes, line, name)?;
        // Of a group on several lines clustershell takes all.
        match inventory.groups.entry(name, || Expression::union(Vec::new())) {
            Expression::Combined(all) => all.push((Operator::Union, nodes)),
            other => *other = nodes,
        }
    }
    Ok(inventory)
}

/// Whether a group can be asked for by this name.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || ",!&^()[]{}'\"*?#:@".contains(c))
}
