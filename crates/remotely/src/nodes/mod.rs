//! Node sets: many hosts named by one expression, `web[1-200] ! @broken`, and where names and groups come from. Used by the
//! command line and by programs that address groups of hosts. It knows targets and no tunnels.

mod engine;
mod evaluate;
mod expression;
mod fold;
mod glob;
mod natural;
mod parse;
mod set;
mod source;
mod word;

use std::str::FromStr;

pub use engine::EngineError;
pub use parse::SyntaxError;
pub use set::{Node, NodeSet};
pub use source::{Format, GroupName, SourceError, Sources};

use crate::target::TargetError;
use evaluate::{Answers, Outcome};

/// The names that one expression may write out, all its terms together.
pub const LARGEST: u64 = 1_000_000;

impl NodeSet {
    /// The nodes of an expression, as `docs/hosts.md` describes them, in the order of the expression. Names and groups are
    /// looked up in `sources`; engines (`slurm:`, `kubectl:-l`) are asked by their own programs, all at once.
    ///
    /// Cancel safe: dropping the future ends those programs. Must be called inside a tokio runtime.
    pub async fn resolve(text: &str, sources: &Sources) -> Result<Self, NodeError> {
        let expression = parse::parse(text)?;
        let mut answers = Answers::new();
        loop {
            match evaluate::evaluate(&expression, sources, &answers)? {
                Outcome::Nodes(nodes) => return Ok(nodes),
                Outcome::Ask(queries) => {
                    let asked = queries.into_iter().map(async |query| {
                        let answer = query.ask().await?;
                        Ok::<_, NodeError>((query, answer))
                    });
                    for answer in join_all(asked).await {
                        answers.extend([answer?]);
                    }
                }
            }
        }
    }

    /// The same where nobody can be waited for: engines are refused.
    pub fn look_up(text: &str, sources: &Sources) -> Result<Self, NodeError> {
        match evaluate::evaluate(&parse::parse(text)?, sources, &Answers::new())? {
            Outcome::Nodes(nodes) => Ok(nodes),
            Outcome::Ask(_) => Err(NodeError::Engine),
        }
    }
}

impl FromStr for NodeSet {
    type Err = NodeError;

    /// An expression that stands for itself: no groups, no wildcards, no engines.
    fn from_str(text: &str) -> Result<Self, NodeError> {
        Self::look_up(text, &Sources::new())
    }
}

/// All of them at once, in order.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Some(Box::pin(future)), None)).collect();
    std::future::poll_fn(|context| {
        let mut all = true;
        for (future, output) in &mut waiting {
            if let Some(running) = future {
                match running.as_mut().poll(context) {
                    std::task::Poll::Ready(done) => (*future, *output) = (None, Some(done)),
                    std::task::Poll::Pending => all = false,
                }
            }
        }
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

/// Why an expression has no nodes.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It is not one.
    #[error("the node set makes no sense")]
    Syntax(#[from] SyntaxError),
    /// A name is no target.
    #[error("{name:?} names no host")]
    Target {
        /// The name.
        name: String,
        /// Why not.
        source: TargetError,
    },
    /// A group that no source has.
    #[error("there is no group @{name}{}", listed(", there are", known))]
    Group {
        /// Its name, with the source's if one was named.
        name: String,
        /// Groups that there are; of many the first.
        known: Vec<String>,
    },
    /// A source that there is not.
    #[error("there is no source of groups {name:?}{}", listed(", there are", known))]
    Source {
        /// Its name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A wildcard that no known host matches.
    #[error("no known host matches {pattern:?} (hosts are known from inventories and ~/.ssh/config)")]
    Nothing {
        /// The wildcard.
        pattern: String,
    },
    /// A group that is part of itself, or lies too deep.
    #[error("groups go in a circle, or too deep: {way}")]
    Circle {
        /// From group to group.
        way: String,
    },
    /// Too much.
    #[error("the node set stands for more than {limit} names, all its terms together")]
    TooLarge {
        /// How many there may be.
        limit: u64,
    },
    /// A host that an inventory describes as one that cannot be reached.
    #[error("the host {name:?} of {inventory} cannot be reached: {why}")]
    Host {
        /// Its name.
        name: String,
        /// The inventory.
        inventory: String,
        /// What about it.
        why: String,
    },
    /// An engine where nobody can be waited for.
    #[error("slurm: and kubectl: are asked over there, which a plain node set cannot do")]
    Engine,
    /// An engine did not say.
    #[error(transparent)]
    Asked(#[from] EngineError),
}

fn listed(lead: &str, names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("{lead} {}", names.join(" ")) }
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
