//! A table of measurements as Markdown. Used by all rows; knows nothing of what is measured.

use std::fmt;
use std::time::Duration;

/// What came of one measurement, or of several.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    /// Seconds, megabytes per second: larger or smaller is better, as the title says. And the number of runs.
    Value(f64, usize),
    /// It was stopped after that time.
    Stopped(Duration),
    /// It did not work; why.
    Failed(String),
}

impl Cell {
    /// The median of several; one that failed or was stopped decides.
    pub(crate) fn median(cells: Vec<Self>) -> Self {
        let mut values = Vec::new();
        for cell in cells {
            match cell {
                Self::Value(value, _) => values.push(value),
                other => return other,
            }
        }
        values.sort_by(f64::total_cmp);
        let count = values.len();
        values.get(count / 2).map_or(Self::Failed("not measured".to_owned()), |value| Self::Value(*value, count))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Not a thing that this one does.
            Self::Value(value, _) if value.is_nan() => Ok(()),
            Self::Value(value, runs) if *value >= 100.0 => write!(f, "{value:.0} ({runs})"),
            Self::Value(value, runs) => write!(f, "{value:.2} ({runs})"),
            Self::Stopped(after) => write!(f, "> {} stopped", after.as_secs()),
            Self::Failed(why) => write!(f, "failed: {}", why.replace(['\n', '|'], " ")),
        }
    }
}

/// A title, columns, and lines that may be shorter than there are columns.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    columns: Vec<String>,
    lines: Vec<(String, Vec<Cell>)>,
}

impl Table {
    pub(crate) fn new(title: &str, columns: impl IntoIterator<Item = String>) -> Self {
        Self { title: title.to_owned(), columns: columns.into_iter().collect(), lines: Vec::new() }
    }

    pub(crate) fn line(&mut self, name: &str, cells: Vec<Cell>) {
        eprintln!("{}: {name}: {}", self.title, cells.iter().map(Cell::to_string).collect::<Vec<_>>().join(", "));
        self.lines.push((name.to_owned(), cells));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} | {} |", self.title, self.columns.join(" | "))?;
        writeln!(f, "|---|{}", "---:|".repeat(self.columns.len()))?;
        for (name, cells) in &self.lines {
            let mut shown: Vec<_> = cells.iter().map(Cell::to_string).collect();
            shown.resize(self.columns.len(), String::new());
            writeln!(f, "| {name} | {} |", shown.join(" | "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Table};

    #[test]
    fn shows_medians_and_failures() {
        let mut table = Table::new("t", ["a".to_owned(), "b".to_owned()]);
        table.line("x", vec![Cell::median(vec![Cell::Value(3.0, 1), Cell::Value(1.0, 1), Cell::Value(2.5, 1)])]);
        table.line("y", vec![Cell::Failed("a|b".into()), Cell::median(Vec::new())]);
        table.line("z", vec![Cell::Value(f64::NAN, 1), Cell::Value(1.0, 2)]);
        let lines = "| t | a | b |\n|---|---:|---:|\n| x | 2.50 (3) |  |\n| y | failed: a b | failed: not measured |\n| z |  | 1.00 (2) |\n";
        assert_eq!(table.to_string(), lines);
    }
}
