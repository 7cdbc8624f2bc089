//! YAML text to a tree, as far as inventories need it: scalars are text, aliases are shared, merge keys are followed. Depth
//! and size are bounded, so that no file takes memory or stack beyond them. Called by [`super::ansible_yaml`].

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::inventory::FormatError;

/// How deep values may be within each other.
const DEPTH: usize = 64;
/// Values at most, those that merge keys bring included.
const VALUES: usize = 4_000_000;

#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Null,
    Text(String),
    List(Vec<Rc<Value>>),
    Map(Vec<(String, Rc<Value>)>),
}

/// The first document, null if there is none.
pub(super) fn parse(text: &str) -> Result<Rc<Value>, FormatError> {
    let mut builder = Builder { open: Vec::new(), anchors: HashMap::new(), values: 0, root: None };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| FormatError::at(error.marker().line(), error.info()))?;
        if matches!(event, Event::DocumentEnd) {
            break;
        }
        builder.take(event, span.start.line())?;
    }
    Ok(builder.root.unwrap_or_else(|| Rc::new(Value { line: 1, kind: Kind::Null })))
}

struct Builder {
    /// Lists and maps that are not complete, the innermost last.
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Value>>,
    values: usize,
    root: Option<Rc<Value>>,
}

struct Open {
    line: usize,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Rc<Value>>),
    /// Complete entries, and the key that waits for its value.
    Map(Vec<(String, Rc<Value>)>, Option<String>),
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), FormatError> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let kind = if null { Kind::Null } else { Kind::Text(text.into_owned()) };
                self.put(Rc::new(Value { line, kind }), anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(line, anchor, Inside::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.open(line, anchor, Inside::Map(Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { line, anchor, inside }) => {
                    let kind = match inside {
                        Inside::List(list) => Kind::List(list),
                        Inside::Map(map, _) => Kind::Map(map),
                    };
                    self.put(Rc::new(Value { line, kind }), anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(value) => self.put(Rc::clone(value), 0),
                None => Err(FormatError::at(line, "an alias within its own anchor")),
            },
            _ => Ok(()),
        }
    }

    fn open(&mut self, line: usize, anchor: usize, inside: Inside) -> Result<(), FormatError> {
        if self.open.len() == DEPTH {
            return Err(FormatError::at(line, format!("values are more than {DEPTH} deep within each other")));
        }
        self.open.push(Open { line, anchor, inside });
        Ok(())
    }

    /// A complete value goes to where it belongs.
    fn put(&mut self, value: Rc<Value>, anchor: usize) -> Result<(), FormatError> {
        self.values += 1;
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&value));
        }
        match self.open.last_mut().map(|open| &mut open.inside) {
            None => self.root = Some(value),
            Some(Inside::List(list)) => list.push(value),
            Some(Inside::Map(map, key)) => match (key.take(), &value.kind) {
                (None, Kind::Text(text)) => *key = Some(text.clone()),
                (None, Kind::Null) => *key = Some(String::new()),
                (None, _) => return Err(FormatError::at(value.line, "a key that is text was expected")),
                (Some(name), _) if name == "<<" => {
                    let before = map.len();
                    merge(map, &value);
                    self.values += map.len() - before;
                }
                (Some(name), _) => map.push((name, value)),
            },
        }
        if self.values > VALUES { Err(FormatError::at(0, "there is too much in it")) } else { Ok(()) }
    }
}

/// `<<: *defaults`, `<<: [*a, *b]`. What is said besides counts more, whichever comes first: who reads it looks at the
/// entries from the last to the first, so these go to the front.
fn merge(map: &mut Vec<(String, Rc<Value>)>, value: &Value) {
    let entries: Vec<_> = match &value.kind {
        Kind::Map(entries) => entries.clone(),
        Kind::List(maps) => maps.iter().rev().filter_map(|map| map.entries().ok()).flatten().cloned().collect(),
        Kind::Null | Kind::Text(_) => Vec::new(),
    };
    map.splice(0..0, entries);
}

impl Value {
    /// The entries of a map, none of null; an error for anything else.
    pub(super) fn entries(&self) -> Result<&[(String, Rc<Value>)], FormatError> {
        match &self.kind {
            Kind::Map(entries) => Ok(entries),
            Kind::Null => Ok(&[]),
            Kind::Text(_) | Kind::List(_) => Err(FormatError::at(self.line, "names with values were expected")),
        }
    }

    /// The text of a scalar; of a list or map nothing.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            Kind::Null => Some(""),
            Kind::List(_) | Kind::Map(_) => None,
        }
    }
}
