//! Names to the shortest sensible text that stands for all of them: `rack[1-3]node[01-16]`. Called by
//! [`NodeSet`](super::NodeSet); n log n in the number of names, also where nothing folds.

use std::collections::{BTreeMap, HashMap};

use super::natural::{self, Piece, pieces};

/// Runs of digits of a name that may become ranges: the last ones; those before stay text.
const DIMENSIONS: usize = 4;
/// Numbers at equal distances above 1 from which on `1-7/2` is written; it is shorter than the numbers from then on.
const STEPPED: usize = 4;

/// The text. Parsed again it is the same set of names.
pub(super) fn fold<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut shapes: HashMap<Vec<Option<&str>>, Vec<Vec<&str>>> = HashMap::new();
    let mut terms: Vec<Term> = Vec::new();
    for name in names {
        match pieces(name) {
            Some(pieces) => {
                let (shape, digits) = shape(&pieces);
                shapes.entry(shape).or_default().push(digits);
            }
            None => terms.push(Term { first: name.into(), text: quote(name) }),
        }
    }
    for (shape, rows) in shapes {
        terms.extend(Grid::new(&rows).fold().into_iter().map(|row| row.term(&shape)));
    }
    terms.sort_unstable_by(|a, b| natural::compare(&a.first, &b.first));
    let texts: Vec<String> = terms.into_iter().map(|term| term.text).collect();
    texts.join(",")
}

/// A part of the text between commas, and the first name it stands for.
struct Term {
    first: String,
    text: String,
}

/// The text of a name with a `None` for each run of digits, and these.
fn shape<'a>(pieces: &[Piece<'a>]) -> (Vec<Option<&'a str>>, Vec<&'a str>) {
    let runs = pieces.iter().filter(|piece| matches!(piece, Piece::Digits(_))).count();
    let mut passed = runs.saturating_sub(DIMENSIONS);
    let mut digits = Vec::with_capacity(runs.min(DIMENSIONS));
    let shape = pieces.iter().map(|piece| match *piece {
        Piece::Text(text) => Some(text),
        Piece::Digits(text) if passed > 0 => {
            passed -= 1;
            Some(text)
        }
        Piece::Digits(text) => {
            digits.push(text);
            None
        }
    });
    (shape.collect(), digits)
}

/// The `'` or `"` around a name that the grammar would read otherwise.
fn quote(name: &str) -> String {
    match (name.contains('\''), name.contains('"')) {
        (false, _) => format!("'{name}'"),
        (true, false) => format!("\"{name}\""),
        (true, true) => name.split('\'').map(|part| format!("'{part}'")).collect::<Vec<_>>().join("\"'\""),
    }
}

/// A number as it is written: filled up with zeros to `width` digits, or not (0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Number {
    value: u64,
    width: usize,
}

impl Number {
    fn write(self, out: &mut String) {
        let Number { value, width } = self;
        out.push_str(&format!("{value:0width$}"));
    }
}

/// All names of one shape: rows of cells, a cell for each run of digits, each cell a set of numbers. Row by row, the names
/// are all combinations of what is in the cells; rows share no name.
struct Grid {
    /// Each set of numbers once, sorted.
    sets: Vec<Vec<Number>>,
    ids: HashMap<Vec<Number>, usize>,
    /// Indices into `sets`.
    rows: Vec<Vec<usize>>,
}

impl Grid {
    fn new(rows: &[Vec<&str>]) -> Self {
        let mut grid = Self { sets: Vec::new(), ids: HashMap::new(), rows: Vec::new() };
        let dimensions = rows.first().map_or(0, Vec::len);
        let mut widths: Vec<Vec<usize>> = vec![Vec::new(); dimensions];
        for (width, digits) in rows.iter().flat_map(|row| widths_of(row)) {
            widths[width].push(digits);
        }
        for widths in &mut widths {
            widths.sort_unstable();
            widths.dedup();
        }
        for row in rows {
            let cells = row.iter().zip(&widths).map(|(digits, widths)| {
                // `10` belongs to `08` and `09` where there are such, else to `9`.
                let width = widths.binary_search(&digits.len()).map_or(0, |_| digits.len());
                vec![Number { value: digits.parse().unwrap_or_default(), width }]
            });
            let cells: Vec<Vec<Number>> = cells.collect();
            let row = cells.into_iter().map(|cell| grid.id(cell)).collect();
            grid.rows.push(row);
        }
        grid
    }

    fn id(&mut self, set: Vec<Number>) -> usize {
        if let Some(&id) = self.ids.get(&set) {
            return id;
        }
        let id = self.sets.len();
        self.sets.push(set.clone());
        self.ids.insert(set, id);
        id
    }

    /// As few rows as folding one dimension after the other gives, whichever comes first.
    fn fold(mut self) -> Vec<Row> {
        let dimensions = self.rows.first().map_or(0, Vec::len);
        let whole = std::mem::take(&mut self.rows);
        let mut best = whole.clone();
        for first in (0..dimensions).rev() {
            let mut rows = whole.clone();
            let others = (0..dimensions).rev().filter(|dimension| *dimension != first);
            for dimension in std::iter::once(first).chain(others) {
                rows = self.merge(rows, dimension);
            }
            if rows.len() < best.len() {
                best = rows;
            }
            if best.len() == 1 {
                break;
            }
        }
        best.into_iter().map(|row| Row { cells: row.into_iter().map(|id| self.sets[id].clone()).collect() }).collect()
    }

    /// Makes one row of those that differ in `dimension` only.
    fn merge(&mut self, rows: Vec<Vec<usize>>, dimension: usize) -> Vec<Vec<usize>> {
        let mut alike: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        for mut row in rows {
            let id = row.remove(dimension);
            alike.entry(row).or_default().push(id);
        }
        let merged = alike.into_iter().map(|(mut row, ids)| {
            let id = match ids.as_slice() {
                [id] => *id,
                _ => {
                    let mut set: Vec<Number> = ids.iter().flat_map(|id| self.sets[*id].iter().copied()).collect();
                    set.sort_unstable();
                    self.id(set)
                }
            };
            row.insert(dimension, id);
            row
        });
        merged.collect()
    }
}

/// The width of each run of digits that has one, by dimension.
fn widths_of<'a>(row: &'a [&str]) -> impl Iterator<Item = (usize, usize)> + 'a {
    let padded = |digits: &&str| digits.len() > 1 && digits.starts_with('0');
    row.iter().enumerate().filter(move |(_, digits)| padded(digits)).map(|(n, digits)| (n, digits.len()))
}

struct Row {
    cells: Vec<Vec<Number>>,
}

impl Row {
    fn term(&self, shape: &[Option<&str>]) -> Term {
        let mut term = Term { first: String::new(), text: String::new() };
        let mut cells = self.cells.iter();
        for piece in shape {
            if let Some(text) = piece {
                term.first.push_str(text);
                term.text.push_str(text);
            } else if let Some(cell) = cells.next() {
                cell.first().copied().into_iter().for_each(|number| number.write(&mut term.first));
                match cell.as_slice() {
                    [number] => number.write(&mut term.text),
                    numbers => ranges(numbers, &mut term.text),
                }
            }
        }
        term
    }
}

/// `[1-9,20,30-60/10]`
fn ranges(numbers: &[Number], out: &mut String) {
    let mut by_width: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for number in numbers {
        by_width.entry(number.width).or_default().push(number.value);
    }
    let mut runs: Vec<(Number, usize, u64)> = Vec::new();
    for (width, values) in by_width {
        let mut rest = values.as_slice();
        while let [value, after @ ..] = rest {
            let step = after.first().map_or(1, |next| next - value);
            let length = 1 + rest.windows(2).take_while(|pair| pair[1] - pair[0] == step).count();
            let length = if step == 1 || length >= STEPPED { length } else { 1 };
            runs.push((Number { value: *value, width }, length, step));
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    runs.sort_unstable();
    out.push('[');
    for (n, (first, length, step)) in runs.into_iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        first.write(out);
        if length > 1 {
            out.push('-');
            Number { value: first.value + step * (length as u64 - 1), ..first }.write(out);
        }
        if length > 1 && step > 1 {
            out.push_str(&format!("/{step}"));
        }
    }
    out.push(']');
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
