//! One word of an expression as a recipe for names: text, ranges of numbers and alternatives, counted before they are written
//! out. Made by [`super::parse`], read by [`super::evaluate`]. Pure.

use super::LARGEST;

/// The bytes that the names of one expression may have together: a bound on memory, far above what names need.
pub(super) const LARGEST_TEXT: u64 = 256 << 20;

/// Parts, one after the other; the names are all combinations, the last part changing fastest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) parts: Vec<Part>,
    /// Whether an unquoted `*` or `?` is in it.
    pub(super) wild: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Numbers(Vec<Range>),
    Choice(Vec<Word>),
}

/// Numbers at equal distances, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u64,
    pub(super) step: u64,
    pub(super) count: u64,
    /// From the largest to the smallest.
    pub(super) down: bool,
    /// Digits at least, filled up with zeros.
    pub(super) width: usize,
}

/// What writing an expression out costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) names: u64,
    /// Bytes, at most.
    pub(super) text: u64,
}

impl Cost {
    pub(super) const LIMIT: Cost = Cost { names: LARGEST, text: LARGEST_TEXT };

    pub(super) fn plus(self, other: Cost) -> Cost {
        Cost { names: self.names.saturating_add(other.names), text: self.text.saturating_add(other.text) }
    }

    pub(super) fn within(self, limit: Cost) -> bool {
        self.names <= limit.names && self.text <= limit.text
    }
}

impl Word {
    /// The text of a word that has nothing to expand.
    pub(super) fn plain(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    pub(super) fn push(&mut self, c: char) {
        match self.parts.last_mut() {
            Some(Part::Text(text)) => text.push(c),
            _ => self.parts.push(Part::Text(c.into())),
        }
    }

    /// How many names there are, and how many bytes they have at most. Saturates.
    pub(super) fn cost(&self) -> Cost {
        let (names, longest) = self.extent();
        Cost { names, text: names.saturating_mul(longest) }
    }

    fn extent(&self) -> (u64, u64) {
        self.parts.iter().fold((1, 0), |(names, longest): (u64, u64), part| {
            let (more, longer) = match part {
                Part::Text(text) => (1, text.len() as u64),
                Part::Numbers(ranges) => (
                    ranges.iter().fold(0, |sum: u64, range| sum.saturating_add(range.count)),
                    ranges.iter().map(|range| range.width.max(DIGITS) as u64).max().unwrap_or_default(),
                ),
                Part::Choice(words) => {
                    words.iter().map(Word::extent).fold((0, 0), |(sum, most): (u64, u64), (names, longest)| {
                        (sum.saturating_add(names), most.max(longest))
                    })
                }
            };
            (names.saturating_mul(more), longest.saturating_add(longer))
        })
    }

    /// All names. The caller has looked at the [`cost`](Self::cost).
    pub(super) fn expand(&self) -> Vec<String> {
        let mut names = vec![String::new()];
        for part in &self.parts {
            match part {
                Part::Text(text) => names.iter_mut().for_each(|name| name.push_str(text)),
                Part::Numbers(ranges) => {
                    let numbers: Vec<String> = ranges.iter().flat_map(Range::texts).collect();
                    names = product(names, &numbers);
                }
                Part::Choice(words) => {
                    let texts: Vec<String> = words.iter().flat_map(Word::expand).collect();
                    names = product(names, &texts);
                }
            }
        }
        names
    }
}

/// Digits of the largest number of a range.
pub(super) const DIGITS: usize = 18;

impl Range {
    /// From `first` to `last`, upwards or downwards.
    pub(super) fn between(first: u64, last: u64, step: u64, width: usize) -> Self {
        let step = step.max(1);
        Self { first, step, count: first.abs_diff(last) / step + 1, down: last < first, width }
    }

    fn texts(&self) -> impl Iterator<Item = String> {
        let &Range { first, step, count, down, width } = self;
        (0..count).map(move |n| {
            let way = n.saturating_mul(step);
            let number = if down { first.saturating_sub(way) } else { first.saturating_add(way) };
            format!("{number:0width$}")
        })
    }
}

fn product(heads: Vec<String>, tails: &[String]) -> Vec<String> {
    if let [tail] = tails {
        return heads.into_iter().map(|head| head + tail).collect();
    }
    heads.iter().flat_map(|head| tails.iter().map(move |tail| [head.as_str(), tail].concat())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_too_much_is_counted_and_not_written() {
        let many = Part::Numbers(vec![Range::between(1, u64::MAX / 2, 1, 0)]);
        let word = Word { parts: vec![many.clone(), many.clone(), many], wild: false };
        assert_eq!(word.cost(), Cost { names: u64::MAX, text: u64::MAX });
        assert!(!word.cost().within(Cost::LIMIT));
    }

    #[test]
    fn the_last_part_changes_fastest() {
        let numbers = |first, last, width| Part::Numbers(vec![Range::between(first, last, 1, width)]);
        let text = |text: &str| Part::Text(text.into());
        let word = Word { parts: vec![text("r"), numbers(2, 1, 0), text("n"), numbers(9, 10, 2)], wild: false };
        assert_eq!(word.expand(), ["r2n09", "r2n10", "r1n09", "r1n10"]);
        assert_eq!(word.cost().names, 4);
    }
}
