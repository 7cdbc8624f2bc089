//! `slurm:JOB`: the nodes of an allocation, by squeue(1), to be reached through `srun` inside it. Called by
//! [`super::Query::ask`].

use std::collections::HashMap;

use super::{EngineError, Found, nodes_of};
use crate::nodes::NodeSet;

pub(super) async fn ask(job: &str) -> Result<Vec<Found>, EngineError> {
    let ours = std::env::var("SLURM_JOB_ID").unwrap_or_default();
    let job = match job {
        "" if ours.is_empty() => return Err(EngineError::NoJob),
        "" => &ours,
        job => job,
    };
    // %A is the number that srun knows, also of a part of an array; %N the nodes, folded as here.
    let argv = ["squeue", "--noheader", "--states=R,CG,S", "--format=%A|%N", "--jobs", job];
    let found = read(&super::answer(argv.map(Into::into).into()).await?)?;
    if found.is_empty() { Err(EngineError::NoNodes { job: job.into() }) } else { Ok(found) }
}

/// The nodes in the answer of squeue. Of several jobs on a node the first counts.
fn read(answer: &str) -> Result<Vec<Found>, EngineError> {
    let mut found = Vec::new();
    let mut seen = NodeSet::new();
    // The jobs of an array often have the same nodes.
    let mut folded: HashMap<&str, NodeSet> = HashMap::new();
    for line in answer.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let fields = line.split_once('|').filter(|(job, _)| !job.is_empty() && job.bytes().all(|c| c.is_ascii_digit()));
        let Some((job, names)) = fields else {
            return Err(EngineError::Answer { program: "squeue".into(), why: format!("{line:?} is not JOB|NODES") });
        };
        if !folded.contains_key(names) {
            let nodes = names.parse().map_err(|source| nodes_of("squeue", source))?;
            folded.insert(names, nodes);
        }
        for node in folded.get(names).into_iter().flatten() {
            if seen.insert(node.clone()) {
                found.push(Found { name: node.name().into(), target: format!("srun:{job}/{}", node.name()) });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_reached_in_its_own_job() {
        let found = read("12|n[0-1]\n13|n1,gpu[01-02]\n14|\n\n").unwrap();
        let targets: Vec<String> = found.iter().map(|found| format!("{}={}", found.name, found.target)).collect();
        assert_eq!(targets, ["n0=srun:12/n0", "n1=srun:12/n1", "gpu01=srun:13/gpu01", "gpu02=srun:13/gpu02"]);
        for odd in ["n[0-1]", "x|n1", "|n1", "1|n[", "1|a;b"] {
            assert!(read(odd).is_err(), "{odd}");
        }
    }
}
