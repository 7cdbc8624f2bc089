//! The grammar of expressions: words, ranges, alternatives, operators. Text in, [`Expression`] out; nothing is looked up and
//! nothing written out. No text makes it panic, and its depth is bounded.

use std::fmt;
use std::net::Ipv6Addr;

use super::engine::Query;
use super::expression::{Expression, Operator};
use super::word::{DIGITS, Part, Range, Word};
use crate::transport::shell;

/// How deep parentheses and braces may be within each other.
const DEPTH: usize = 32;

/// Reads `text` to its end.
pub(super) fn parse(text: &str) -> Result<Expression, SyntaxError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    parser.blanks();
    if parser.peek().is_none() {
        return Ok(Expression::nothing());
    }
    let expression = parser.expression()?;
    match parser.peek() {
        None => Ok(expression),
        Some(_) => Err(parser.expected("an operator or the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes that were read.
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn expected(&self, what: &'static str) -> SyntaxError {
        SyntaxError::new(self.text, self.at, what)
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, SyntaxError>) -> Result<T, SyntaxError> {
        if self.depth == DEPTH {
            return Err(self.expected("no more than 32 brackets within each other"));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Terms and operators up to the end or a `)`. Two terms with only blanks between them are joined.
    fn expression(&mut self) -> Result<Expression, SyntaxError> {
        let first = self.term()?;
        let mut operands = Vec::new();
        loop {
            let before = self.at;
            self.blanks();
            let operator = match self.peek() {
                None | Some(')') => break,
                Some(c) => match Operator::of(c) {
                    Some(operator) => {
                        self.next();
                        self.blanks();
                        operator
                    }
                    None if self.at > before => Operator::Union,
                    None => return Err(self.expected("an operator: ',' '!' '&' or '^'")),
                },
            };
            operands.push((operator, self.term()?));
        }
        if operands.is_empty() {
            return Ok(first);
        }
        operands.insert(0, (Operator::Union, first));
        Ok(Expression::Combined(operands))
    }

    fn term(&mut self) -> Result<Expression, SyntaxError> {
        match self.peek() {
            Some('(') => self.deeper(|parser| {
                parser.next();
                parser.blanks();
                let inner = parser.expression()?;
                if parser.take(')') { Ok(inner) } else { Err(parser.expected("')'")) }
            }),
            Some('@') => {
                self.next();
                self.group()
            }
            _ if self.rest().starts_with(Query::KUBECTL) => self.kubectl(),
            _ => {
                let start = self.at;
                let word = self.word(Ends::Term)?;
                if self.at == start {
                    return Err(self.expected("a node, a @group or '('"));
                }
                self.refuse_blank_in_command(start)?;
                match word.plain().and_then(Query::of) {
                    Some(query) => {
                        query.map(Expression::Query).map_err(|what| SyntaxError::new(self.text, start, what))
                    }
                    None => Ok(Expression::Word(word)),
                }
            }
        }
    }

    /// A bare `command:` whose words go on behind a blank: without quotes they would be further hosts.
    fn refuse_blank_in_command(&mut self, start: usize) -> Result<(), SyntaxError> {
        let written = self.text.get(start..self.at).unwrap_or_default();
        let bare = written.split(['\'', '"']).next().unwrap_or_default();
        let end = self.at;
        if !(bare.starts_with("command:") || bare.contains("+command:")) {
            return Ok(());
        }
        self.blanks();
        let goes_on = self.at > end && self.peek().is_some_and(|c| c != ')' && Operator::of(c).is_none());
        if !goes_on {
            self.at = end;
            return Ok(());
        }
        let mut error = self.expected("quotes around a command of several words");
        let rest = self.text.get(start..).unwrap_or_default();
        let all = rest.get(..rest.find([',', '!', '&', '^', '(', ')']).unwrap_or(rest.len())).unwrap_or_default();
        let all = all.trim_end();
        error.meant =
            ['\'', '"'].into_iter().find(|quote| !all.contains(*quote)).map(|quote| format!("{quote}{all}{quote}"));
        Err(error)
    }

    fn group(&mut self) -> Result<Expression, SyntaxError> {
        let start = self.at;
        let mut name = self.word(Ends::Term)?;
        if self.at == start {
            return Err(self.expected("the name of a group"));
        }
        let mut source = None;
        if let Some(Part::Text(text)) = name.parts.first_mut()
            && let Some((before, after)) = text.split_once(':')
        {
            source = Some(before.to_owned());
            *text = after.to_owned();
        }
        if name.parts.iter().all(|part| matches!(part, Part::Text(text) if text.is_empty())) {
            return Err(self.expected("the name of a group"));
        }
        Ok(Expression::Group { source, name })
    }

    /// `kubectl:-l app=web`: blanks belong to it before the value of an option and before a further option.
    fn kubectl(&mut self) -> Result<Expression, SyntaxError> {
        let start = self.at;
        self.at += Query::KUBECTL.len() - 1;
        loop {
            let option = self.at;
            self.raw()?;
            let option = self.text.get(option..self.at).unwrap_or_default();
            let end = self.at;
            self.blanks();
            let more = match self.peek() {
                None => false,
                Some(c) if Operator::of(c).is_some() || c == ')' => false,
                Some('-') => true,
                Some(_) => Query::wants_value(option),
            };
            if !more || self.at == end {
                self.at = end;
                break;
            }
        }
        let next = self.rest().trim_start();
        // `a=b,c=d`, `a!=b`, `a in (b)`: what follows is no host.
        let label = next.strip_prefix(',').unwrap_or_default().trim_start();
        let label = label.split(|c: char| c.is_whitespace() || ",&^(".contains(c)).next().unwrap_or_default();
        let is_selector = next.starts_with("!=")
            || label.contains('=') && !label.starts_with(Query::KUBECTL) && !label.contains("command:")
            || ["in", "notin"]
                .iter()
                .any(|set| next.strip_prefix(set).is_some_and(|rest| rest.trim_start().starts_with('(')));
        if is_selector {
            return Err(self.expected("quotes around a selector with more than 'label=value': kubectl:-l 'a=b,c!=d'"));
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        let query = Query::of(text).unwrap_or(Err("a selector of pods: kubectl:-l app=web"));
        query.map(Expression::Query).map_err(|what| SyntaxError::new(self.text, self.at, what))
    }

    /// Characters up to a blank or an operator, with quotes kept.
    fn raw(&mut self) -> Result<(), SyntaxError> {
        while let Some(c) = self.peek() {
            if c.is_whitespace() || Operator::of(c).is_some() || c == ')' {
                break;
            }
            self.next();
            if matches!(c, '\'' | '"') {
                self.quoted(c, |_| ())?;
            }
        }
        Ok(())
    }

    fn quoted(&mut self, quote: char, mut each: impl FnMut(char)) -> Result<(), SyntaxError> {
        loop {
            match self.next() {
                Some(c) if c == quote => return Ok(()),
                Some(c) => each(c),
                None if quote == '"' => return Err(self.expected("a closing \"")),
                None => return Err(self.expected("a closing '")),
            }
        }
    }

    fn word(&mut self, ends: Ends) -> Result<Word, SyntaxError> {
        let mut word = Word::default();
        while let Some(c) = self.peek() {
            match c {
                ',' => break,
                '}' if ends == Ends::Choice => break,
                _ if ends == Ends::Term && (c.is_whitespace() || c == ')' || Operator::of(c).is_some()) => break,
                _ if c.is_whitespace() || "!&^()".contains(c) => {
                    return Err(self.expected(match ends {
                        Ends::Term => "an operator: ',' '!' '&' or '^'",
                        Ends::Choice => "',' or '}'",
                    }));
                }
                ']' => return Err(self.expected("no ']' without its '['")),
                '}' => return Err(self.expected("no '}' without its '{'")),
                '[' => self.bracket(&mut word)?,
                '{' => {
                    let part = self.deeper(Self::brace)?;
                    word.wild |= matches!(&part, Part::Choice(words) if words.iter().any(|word| word.wild));
                    word.parts.push(part);
                }
                '\'' | '"' => {
                    self.next();
                    self.quoted(c, |c| word.push(c))?;
                }
                _ => {
                    self.next();
                    word.wild |= matches!(c, '*' | '?');
                    word.push(c);
                }
            }
        }
        Ok(word)
    }

    /// `[1-3,07,10-20/2]`, or an IPv6 address, which stays as it is.
    fn bracket(&mut self, word: &mut Word) -> Result<(), SyntaxError> {
        if let Some(literal) = address(self.rest()) {
            literal.chars().for_each(|c| word.push(c));
            self.at += literal.len();
            return Ok(());
        }
        let inside = self.rest().split_once(']').map_or(self.rest(), |(inside, _)| inside);
        if inside.contains(':') {
            self.next();
            return Err(self.expected("an IPv6 address, or numbers such as 1-3,7"));
        }
        self.next();
        let mut ranges = Vec::new();
        loop {
            ranges.push(self.range()?);
            match self.peek() {
                Some(',') => _ = self.next(),
                Some(']') => break,
                _ => return Err(self.expected("',' or ']'")),
            }
        }
        self.next();
        word.parts.push(Part::Numbers(ranges));
        Ok(())
    }

    fn range(&mut self) -> Result<Range, SyntaxError> {
        let (first, text) = self.number("a number")?;
        let zeros = padding(text);
        if !self.take('-') {
            return Ok(Range::between(first, first, 1, zeros));
        }
        let start = self.at;
        let (last, end) = self.number("a number")?;
        if last < first {
            return Err(SyntaxError::new(self.text, start, "a number that is not below the first"));
        }
        // `08-10`, and `01-100` as pdsh reads it; `8-010` nobody can tell.
        if padding(end) != 0 && end.len() != text.len() {
            return Err(SyntaxError::new(self.text, start, "as many digits as the first number has"));
        }
        let step = if self.take('/') { self.step()? } else { 1 };
        Ok(Range::between(first, last, step, zeros))
    }

    fn step(&mut self) -> Result<u64, SyntaxError> {
        let start = self.at;
        match self.number("a step")?.0 {
            0 => Err(SyntaxError::new(self.text, start, "a step above 0")),
            step => Ok(step),
        }
    }

    /// A number, and how it is written.
    fn number(&mut self, what: &'static str) -> Result<(u64, &'a str), SyntaxError> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let text = self.rest().get(..digits).unwrap_or_default();
        if digits == 0 {
            return Err(self.expected(what));
        }
        if digits > DIGITS {
            return Err(self.expected("a number of 18 digits at most"));
        }
        self.at += digits;
        // 18 digits fit.
        Ok((text.parse().unwrap_or_default(), text))
    }

    /// `{a,b}`, `{1..200}`, `{01..10..2}`, `{a..e}`, as bash has them.
    fn brace(&mut self) -> Result<Part, SyntaxError> {
        self.next();
        let inside = self.rest().split(['{', '}', ',', '\'', '"']).next().unwrap_or_default();
        if inside.contains("..") && self.rest().get(inside.len()..).is_some_and(|rest| rest.starts_with('}')) {
            let part = self.sequence()?;
            return if self.take('}') { Ok(part) } else { Err(self.expected("'}'")) };
        }
        let mut words = vec![self.word(Ends::Choice)?];
        while self.take(',') {
            words.push(self.word(Ends::Choice)?);
        }
        match self.peek() {
            Some('}') if words.len() > 1 => {
                self.next();
                Ok(Part::Choice(words))
            }
            Some('}') => Err(self.expected("',' and another alternative")),
            _ => Err(self.expected("',' or '}'")),
        }
    }

    fn sequence(&mut self) -> Result<Part, SyntaxError> {
        let mut letters = self.rest().chars();
        let first = letters.next().unwrap_or_default();
        if first.is_ascii_alphabetic() && letters.as_str().starts_with("..") {
            self.at += 3;
            let last = match self.peek() {
                Some(last) if last.is_ascii_alphabetic() && last.is_ascii_lowercase() == first.is_ascii_lowercase() => {
                    last
                }
                _ => return Err(self.expected("a letter of the same case")),
            };
            self.next();
            let step = if self.rest().starts_with("..") { self.steps()? } else { 1 };
            let Range { count, .. } = Range::between(first.into(), last.into(), step, 0);
            let letter = |n: u64| {
                let way = u8::try_from(n.saturating_mul(step)).unwrap_or_default();
                let (first, last) = (first as u8, last as u8);
                Word::text(&char::from(if last < first { first - way } else { first + way }).to_string())
            };
            return Ok(Part::Choice((0..count).map(letter).collect()));
        }
        let (first, text) = self.number("a number or a letter")?;
        if !self.rest().starts_with("..") {
            return Err(self.expected("'..'"));
        }
        self.at += 2;
        let (last, end) = self.number("a number")?;
        let step = if self.rest().starts_with("..") { self.steps()? } else { 1 };
        let width = if padding(text).max(padding(end)) > 0 { text.len().max(end.len()) } else { 0 };
        Ok(Part::Numbers(vec![Range::between(first, last, step, width)]))
    }

    fn steps(&mut self) -> Result<u64, SyntaxError> {
        self.at += 2;
        self.step()
    }
}

impl Word {
    /// A word with nothing to expand.
    pub(super) fn text(text: &str) -> Self {
        Self { parts: vec![Part::Text(text.into())], wild: false }
    }
}

/// What ends a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Term,
    Choice,
}

/// How many digits a number is filled up to: none, unless it begins with a zero.
fn padding(text: &str) -> usize {
    if text.len() > 1 && text.starts_with('0') { text.len() } else { 0 }
}

/// The IPv6 address in brackets, zone included, that `text` begins with.
pub(super) fn address(text: &str) -> Option<&str> {
    let (inside, _) = text.strip_prefix('[')?.split_once(']')?;
    let (digits, zone) = inside.split_once('%').map_or((inside, None), |(digits, zone)| (digits, Some(zone)));
    let zone = zone
        .is_none_or(|zone| !zone.is_empty() && zone.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c)));
    (zone && digits.parse::<Ipv6Addr>().is_ok()).then(|| &text[..inside.len() + 2])
}

/// Where an expression stops making sense, and what could have stood there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SyntaxError {
    /// The character, counted from 1.
    pub column: usize,
    /// The text before it; of a long one the end.
    pub before: String,
    /// What was expected.
    pub expected: &'static str,
    /// What stands there instead; `None` is the end.
    pub found: Option<char>,
    /// How it is written if what was meant is plain.
    pub meant: Option<String>,
}

impl SyntaxError {
    /// Characters that are quoted.
    const SHOWN: usize = 40;

    fn new(text: &str, at: usize, expected: &'static str) -> Self {
        let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
        let length = before.chars().count();
        Self {
            column: length + 1,
            before: before.chars().skip(length.saturating_sub(Self::SHOWN)).collect(),
            expected,
            found: after.chars().next(),
            meant: None,
        }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "column {}", self.column)?;
        if !self.before.is_empty() {
            write!(out, ", behind {:?}", self.before)?;
        }
        write!(out, ": expected {}", self.expected)?;
        match self.found {
            Some(found) => write!(out, ", found {found:?}")?,
            None => out.write_str(", found the end")?,
        }
        match &self.meant {
            Some(meant) => {
                let in_shell = match meant.contains(['"', '$', '`', '\\', '!']) {
                    false => format!("\"{meant}\""),
                    true => shell::quote(meant.as_ref()).to_string_lossy().into_owned(),
                };
                write!(out, "; write {meant}, which in a shell is {in_shell}")
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
