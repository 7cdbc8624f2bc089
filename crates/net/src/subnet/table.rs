//! All rules of one capture in the order in which they decide, and the same as disjoint intervals, which a kernel looks up in one
//! step. Called by who plans rules and by capture; does no I/O.

use std::net::IpAddr;

use super::{Family, Ports, Rule};

/// Rules, the deciding one first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    rules: Vec<Rule>,
}

/// Addresses in a row that have one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first address, as a number.
    pub first: u128,
    /// The last address, included.
    pub last: u128,
    /// Excepted rather than captured.
    pub exclude: bool,
}

/// Disjoint addresses for a range of ports. Who finds no answer in one layer asks the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// For which ports; `None` for all.
    pub ports: Option<Ports>,
    /// Ascending, disjoint, neighbours differ. Never empty.
    pub spans: Vec<Span>,
}

impl Table {
    /// Orders the rules: fewer ports first, then more leading bits, excepted before captured. Doubles are dropped.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        let mut rules: Vec<Rule> = rules.into_iter().collect();
        rules.sort_by(|a, b| b.weight().cmp(&a.weight()).then_with(|| a.subnet.cmp(&b.subnet)));
        rules.dedup();
        Self { rules }
    }

    /// The rules, the deciding one first.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Those of one family, the deciding one first.
    pub fn of(&self, family: Family) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.subnet.family() == family)
    }

    /// Whether something of this family is captured at all.
    #[must_use]
    pub fn captures_any(&self, family: Family) -> bool {
        self.of(family).any(|rule| !rule.exclude)
    }

    /// Whether a connection to there is captured.
    #[must_use]
    pub fn captures(&self, address: IpAddr, port: u16) -> bool {
        self.rules.iter().find(|rule| rule.subnet.contains(address, port)).is_some_and(|rule| !rule.exclude)
    }

    /// The rules of one family as layers of disjoint intervals, to be asked in this order. Ranges of ports with the same length are
    /// of equal rank, so those that overlap are cut into pieces; all others keep a layer each.
    #[must_use]
    pub fn layers(&self, family: Family) -> Vec<Layer> {
        let rules: Vec<Rule> = self.of(family).copied().collect();
        let ranks = rules.chunk_by(|a, b| a.weight().0 == b.weight().0);
        ranks.flat_map(pieces).collect()
    }
}

/// The layers of rules whose ranges of ports have the same length.
fn pieces(rules: &[Rule]) -> Vec<Layer> {
    if rules.iter().all(|rule| rule.subnet.ports.is_none()) {
        return vec![Layer { ports: None, spans: spans(rules) }];
    }
    let mut cuts: Vec<u32> = Vec::new();
    for ports in rules.iter().filter_map(|rule| rule.subnet.ports) {
        cuts.extend([u32::from(ports.first), u32::from(ports.last) + 1]);
    }
    cuts.sort_unstable();
    cuts.dedup();
    let mut layers = Vec::new();
    for pair in cuts.windows(2) {
        let [Ok(first), Ok(last)] = [u16::try_from(pair[0]), u16::try_from(pair[1] - 1)] else { continue };
        let inside = |rule: &&Rule| rule.subnet.ports.is_some_and(|ports| ports.contains(first));
        let here: Vec<Rule> = rules.iter().filter(inside).copied().collect();
        if !here.is_empty() {
            layers.push(Layer { ports: Ports::new(first, last), spans: spans(&here) });
        }
    }
    layers
}

/// Cuts nested subnets into disjoint intervals in which the innermost decides, and the excepted one of two equals.
fn spans(rules: &[Rule]) -> Vec<Span> {
    let mut nested: Vec<Span> = rules
        .iter()
        .map(|rule| {
            let (first, last) = rule.subnet.bounds();
            Span { first, last, exclude: rule.exclude }
        })
        .collect();
    // Outer ones before inner ones; of equals the excepted one last, where it hides the other.
    nested.sort_unstable_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)).then(a.exclude.cmp(&b.exclude)));
    let mut done = Vec::new();
    let mut open: Vec<Span> = Vec::new();
    // The first address that nothing was said about yet; none after the very last.
    let mut next = Some(0);
    for span in nested {
        while let Some(outer) = open.pop_if(|outer| outer.last < span.first) {
            next = close(&mut done, next, outer);
        }
        if let (Some(outer), Some(from)) = (open.last(), next)
            && from < span.first
        {
            push(&mut done, Span { first: from, last: span.first - 1, exclude: outer.exclude });
        }
        next = next.map(|_| span.first);
        open.push(span);
    }
    while let Some(outer) = open.pop() {
        next = close(&mut done, next, outer);
    }
    done
}

fn close(done: &mut Vec<Span>, next: Option<u128>, outer: Span) -> Option<u128> {
    let from = next?;
    if from <= outer.last {
        push(done, Span { first: from, ..outer });
        return outer.last.checked_add(1);
    }
    Some(from)
}

fn push(done: &mut Vec<Span>, span: Span) {
    match done.last_mut() {
        Some(before) if before.exclude == span.exclude && before.last.checked_add(1) == Some(span.first) => {
            before.last = span.last;
        }
        _ => done.push(span),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
