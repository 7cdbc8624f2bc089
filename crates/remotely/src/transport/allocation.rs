//! An allocation of Slurm, held for as long as this process lives: salloc starts a shell that waits for the end of a pipe, and
//! takes the allocation back when that shell ends, also when this process was killed. Used by `remotely slurm:`.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::process::ExitStatus;

use super::spawn::{self, Attached, StartError};
use crate::nodes::NodeSet;

/// What salloc starts: says what there is, and waits.
const HOLD: &str = r#"echo "$SLURM_JOB_ID"; echo "$SLURM_JOB_NODELIST"; cat >/dev/null"#;

/// See above. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Allocation {
    job: String,
    nodes: Vec<String>,
    _salloc: Attached,
}

/// There is no allocation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AllocationError {
    /// salloc could not be started.
    #[error("could not ask Slurm for an allocation")]
    Start(#[from] StartError),
    /// It ended without one; why stands on standard error.
    #[error("Slurm gave no allocation: salloc ended with {0}")]
    Refused(ExitStatus),
    /// What it says cannot be understood.
    #[error("Slurm gave an allocation without a number or nodes")]
    Strange,
    /// What it says cannot be read.
    #[error("could not read what salloc says")]
    Read(#[source] io::Error),
}

impl Allocation {
    /// Asks salloc for one, with these options, and waits until it is granted. What salloc says appears on standard error.
    ///
    /// To be called on the thread that lives as long as the allocation is needed: salloc ends with it.
    pub(crate) fn get(options: &[OsString]) -> Result<Self, AllocationError> {
        let hold = ["sh", "-c", HOLD].map(OsString::from);
        let argv = [&["salloc".into()], options, &hold].concat();
        let (mut salloc, output) = spawn::attached(&argv)?;
        let mut output = BufReader::new(output);
        let mut line = || {
            let mut line = String::new();
            output.read_line(&mut line).map_err(AllocationError::Read)?;
            Ok::<_, AllocationError>(line.trim_end().to_owned())
        };
        let (job, nodes) = (line()?, line()?);
        if job.is_empty() {
            return Err(AllocationError::Refused(salloc.wait()));
        }
        let nodes: Vec<String> = match nodes.parse::<NodeSet>() {
            Ok(nodes) => nodes.iter().map(|node| node.name().to_owned()).collect(),
            Err(_) => Vec::new(),
        };
        if nodes.is_empty() || !job.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AllocationError::Strange);
        }
        Ok(Self { job, nodes, _salloc: salloc })
    }

    /// The number of the job.
    pub(crate) fn job(&self) -> &str {
        &self.job
    }

    /// Its nodes, at least one.
    pub(crate) fn nodes(&self) -> &[String] {
        &self.nodes
    }
}
