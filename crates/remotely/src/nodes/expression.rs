//! What an expression says, before anything is looked up: terms and operators, from left to right. Made by [`super::parse`]
//! and by the inventories, read by [`super::evaluate`].

use std::sync::Arc;

use super::engine::Query;
use super::word::Word;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// Names, or targets.
    Word(Word),
    /// `@group`, `@source:group`: one group for each name that the word stands for.
    Group { source: Option<String>, name: Word },
    /// What an engine is asked for: `slurm:JOB`, `kubectl:-l SELECTOR`.
    Query(Query),
    /// Names as an inventory lists them, with nothing to expand.
    Names(Vec<Arc<str>>),
    /// Operands from left to right, the first of them joined to nothing.
    Combined(Vec<(Operator, Expression)>),
}

/// How an operand changes what is on its left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Union,
    Difference,
    Intersection,
    SymmetricDifference,
}

impl Operator {
    pub(super) fn of(c: char) -> Option<Self> {
        match c {
            ',' => Some(Self::Union),
            '!' => Some(Self::Difference),
            '&' => Some(Self::Intersection),
            '^' => Some(Self::SymmetricDifference),
            _ => None,
        }
    }
}

impl Expression {
    /// The empty set.
    pub(super) fn nothing() -> Self {
        Self::Names(Vec::new())
    }

    /// A group of the same inventory.
    pub(super) fn group(name: &str) -> Self {
        Self::Group { source: None, name: Word::text(name) }
    }

    /// All of them together.
    pub(super) fn union(operands: Vec<Expression>) -> Self {
        Self::Combined(operands.into_iter().map(|operand| (Operator::Union, operand)).collect())
    }
}
