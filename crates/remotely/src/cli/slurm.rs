//! `remotely slurm: [salloc options] -- COMMAND`: a command of here on a node that Slurm allocates for it. salloc queues, grants and
//! takes back; the way to the node is [`srun`](crate::transport), the rest is a run like any other.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::report::{self, Failure, exit_code};
use crate::transport::allocation::{Allocation, AllocationError};

/// What takes the place of a target.
const WORD: &str = "slurm:";

/// The words of such a line: those before it, salloc's, and the command's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    options: Vec<OsString>,
    salloc: Vec<OsString>,
    command: Vec<OsString>,
}

impl Words {
    /// `None` if the words ask for something else: it may also be a word of one of these commands.
    pub(super) fn of(words: &[OsString], commands: &[&str]) -> Option<Self> {
        let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
        let at = words[..end].iter().position(|word| word == WORD)?;
        if words[..at].iter().any(|word| commands.iter().any(|command| word == command)) {
            return None;
        }
        Some(Self {
            options: words[..at].to_vec(),
            salloc: words[at + 1..end].to_vec(),
            command: words.get(end + 1..).unwrap_or_default().to_vec(),
        })
    }

    /// The line as it is once there is a node.
    fn on(&self, job: &str, node: &str) -> Vec<OsString> {
        let target = OsString::from(format!("srun:{job}/{node}"));
        [&self.options[..], &[target, "--".into()], &self.command].concat()
    }
}

/// Gets an allocation, runs the command on its first node, and gives the allocation back, however that ends. `run` runs
/// the line that it is given.
pub(super) fn main(words: &Words, run: impl FnOnce(Vec<OsString>) -> ExitCode) -> ExitCode {
    if words.command.is_empty() {
        report::note("no command: remotely slurm: [salloc options] -- COMMAND runs one on a node that Slurm allocates");
        return exit_code(Failure::Setup);
    }
    let allocation = match Allocation::get(&words.salloc) {
        Ok(allocation) => allocation,
        Err(error) => {
            let hint = matches!(error, AllocationError::Start(_)).then_some("Slurm's salloc must be in PATH here");
            report::error(&error, hint);
            return exit_code(Failure::Link);
        }
    };
    let [node, others @ ..] = allocation.nodes() else { unreachable!("an allocation has a node") };
    if !others.is_empty() {
        report::note(&format!(
            "the command runs on {node}, the first of {} nodes; `remotely exec slurm:{} -- ...` reaches all of them",
            others.len() + 1,
            allocation.job()
        ));
    }
    run(words.on(allocation.job(), node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_ascii_whitespace().map(Into::into).collect()
    }

    #[test]
    fn what_stands_where_is_whose() {
        let found = Words::of(&words("--stats slurm: -N 2 --time=5 -- make slurm: -j"), &[]).unwrap();
        assert_eq!(found.salloc, words("-N 2 --time=5"));
        assert_eq!(found.on("7", "n1"), words("--stats srun:7/n1 -- make slurm: -j"));
        assert_eq!(Words::of(&words("host -- echo slurm:"), &[]), None);
        assert_eq!(Words::of(&words("slurm:7 -- true"), &[]), None);
        assert_eq!(Words::of(&words("hosts -c slurm:"), &["hosts"]), None);
    }
}
