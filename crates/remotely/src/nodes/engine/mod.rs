//! Engines that know nodes by themselves, and are asked by their own programs: a Slurm job's nodes, pods by a selector.
//! Called by [`super::evaluate`] for what an expression asks; scheduling stays theirs.

mod kubectl;
mod slurm;

use std::ffi::OsString;
use std::process::ExitStatus;

use super::{Node, NodeError, NodeSet};
use crate::target::Target;
use crate::transport::spawn::{self, StartError};

/// What an engine is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Query {
    /// `slurm:JOB`; without a job that in which we run.
    Slurm { job: String },
    /// `kubectl:-l SELECTOR`: arguments of `kubectl get pods`.
    Kubectl(kubectl::Pods),
}

impl Query {
    /// How pods are asked for; a pod itself does not begin with a dash.
    pub(super) const KUBECTL: &str = "kubectl:-";
    const SLURM: &str = "slurm:";

    /// The query that a word is; `None` if it is none, an error if it says what is wrong with it.
    pub(super) fn of(word: &str) -> Option<Result<Self, &'static str>> {
        if let Some(job) = word.strip_prefix(Self::SLURM) {
            let plain = job.bytes().all(|c| c.is_ascii_digit() || b"_+".contains(&c));
            return Some(if plain {
                Ok(Self::Slurm { job: job.into() })
            } else {
                Err("the number of a job: slurm:1234")
            });
        }
        word.starts_with(Self::KUBECTL).then(|| {
            let arguments = word.strip_prefix("kubectl:").unwrap_or(word);
            kubectl::Pods::parse(arguments).map(Self::Kubectl)
        })
    }

    /// Whether the next word belongs to this one, an option of a query.
    pub(super) fn wants_value(option: &str) -> bool {
        let option = option.strip_prefix("kubectl:").unwrap_or(option);
        kubectl::VALUED.contains(&option)
    }

    /// Asks. Cancel safe: dropping the future ends the program.
    pub(super) async fn ask(&self) -> Result<NodeSet, EngineError> {
        let (program, found) = match self {
            Self::Slurm { job } => ("squeue", slurm::ask(job).await?),
            Self::Kubectl(pods) => ("kubectl", kubectl::ask(pods).await?),
        };
        let node = |Found { name, target }: Found| match target.parse::<Target>() {
            Ok(way) => Ok(Node::named(name, way)),
            Err(source) => Err(nodes_of(program, NodeError::Target { name: target, source })),
        };
        found.into_iter().map(node).collect()
    }
}

/// What an engine says of a node.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    name: String,
    /// As text.
    target: String,
}

fn nodes_of(program: &str, source: NodeError) -> EngineError {
    EngineError::Nodes { program: program.into(), source: Box::new(source) }
}

/// Runs a program of an engine to its end.
async fn answer(argv: Vec<OsString>) -> Result<String, EngineError> {
    let program = argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
    let finished = match spawn::finished(&argv).await {
        Ok(finished) => finished,
        Err(source) => return Err(EngineError::Start { program, source }),
    };
    if !finished.status.success() {
        return Err(EngineError::Failed { program, status: finished.status, said: finished.said });
    }
    String::from_utf8(finished.output).map_err(|_| EngineError::Answer { program, why: "it is not UTF-8".into() })
}

/// Why an engine did not say which nodes it has.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Its program could not be started.
    #[error("{program} is needed to ask for nodes")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: StartError,
    },
    /// Its program failed.
    #[error("{program} failed ({status}){}{said}", if said.is_empty() { "" } else { ": " })]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to standard error.
        said: String,
    },
    /// Its answer was not understood.
    #[error("the answer of {program} was not understood: {why}")]
    Answer {
        /// The program.
        program: String,
        /// What about it.
        why: String,
    },
    /// The nodes that it named are no targets.
    #[error("{program} names nodes that are no targets")]
    Nodes {
        /// The program.
        program: String,
        /// Which, and why.
        source: Box<NodeError>,
    },
    /// The job has no nodes now.
    #[error("the Slurm job {job} has no nodes: it is waiting, or has ended (squeue -j {job} says more)")]
    NoNodes {
        /// The job.
        job: String,
    },
    /// `slurm:` outside of a job.
    #[error(
        "slurm: alone is the job of this process, and there is none (SLURM_JOB_ID is not set): name it, slurm:1234"
    )]
    NoJob,
}
