//! Names as people read them: text and runs of digits. Natural order, and the parts that folding may fold. Pure.

use std::cmp::Ordering;

use super::parse::address;
use super::word::DIGITS;

/// A piece of a name, as it stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    /// Digits that can be a number of a range.
    Digits(&'a str),
}

/// The pieces of a name in which nothing means anything to the grammar; `None` if it must be quoted.
pub(super) fn pieces(name: &str) -> Option<Vec<Piece<'_>>> {
    if name.is_empty() || name.starts_with('@') {
        return None;
    }
    let mut pieces = Vec::new();
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '[' => address(rest)?.len(),
            _ if c.is_ascii_digit() => rest.bytes().take_while(u8::is_ascii_digit).count(),
            _ if special(c) => return None,
            _ => rest.find(|c: char| c.is_ascii_digit() || special(c)).unwrap_or(rest.len()),
        };
        let (piece, after) = rest.split_at_checked(length)?;
        let digits = c.is_ascii_digit() && length <= DIGITS;
        pieces.push(if digits { Piece::Digits(piece) } else { Piece::Text(piece) });
        rest = after;
    }
    Some(pieces)
}

fn special(c: char) -> bool {
    c.is_whitespace() || c.is_control() || ",!&^()[]{}'\"*?#".contains(c)
}

/// `web2` before `web10`, and `web01` before `web1`; for what is otherwise the same, the order of bytes.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (Some(x), Some(y)) = (left.chars().next(), right.chars().next()) else {
            return left.len().cmp(&right.len()).then_with(|| a.cmp(b));
        };
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (number, after) = number(left);
            let (other, behind) = self::number(right);
            let order = number.len().cmp(&other.len()).then_with(|| number.cmp(other));
            if order != Ordering::Equal {
                return order;
            }
            (left, right) = (after, behind);
        } else if x == y {
            let length = x.len_utf8();
            (left, right) = (left.get(length..).unwrap_or_default(), right.get(length..).unwrap_or_default());
        } else {
            return x.cmp(&y);
        }
    }
}

/// A number without leading zeros that text begins with, and what is behind it.
fn number(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, after) = text.split_at_checked(digits).unwrap_or((text, ""));
    (number.trim_start_matches('0'), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_as_numbers() {
        let mut names =
            vec!["web10", "web2", "web", "db1", "web1.b", "web01", "web1", "é2", "é10", "éa", "a1b10", "a1b9"];
        names.sort_by(|a, b| compare(a, b));
        let expected = ["a1b9", "a1b10", "db1", "web", "web01", "web1", "web1.b", "web2", "web10", "é2", "é10", "éa"];
        assert_eq!(names, expected);
    }

    #[test]
    fn what_the_grammar_would_read_must_be_quoted() {
        for name in ["", "@web", "a b", "a,b", "a[1]", "a*", "a'b", "x]", "[zz]"] {
            assert_eq!(pieces(name), None, "{name}");
        }
        let address = pieces("u@[fe80::1%eth0]:22").unwrap();
        assert_eq!(address, [Piece::Text("u@"), Piece::Text("[fe80::1%eth0]"), Piece::Text(":"), Piece::Digits("22")]);
        assert_eq!(pieces("a1234567890123456789").unwrap()[1], Piece::Text("1234567890123456789"));
    }
}
