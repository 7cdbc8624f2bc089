//! An allocation of Slurm, held for as long as this process lives: salloc starts a shell that waits for the end of a pipe, and
//! takes the allocation back when that shell ends, also when this process was killed. Used by `remotely slurm:`.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::process::ExitStatus;

use super::spawn::{self, Attached, StartError};

/// What salloc starts: says what there is, and waits.
const HOLD: &str = r#"echo "$SLURM_JOB_ID"; scontrol show hostnames "$SLURM_JOB_NODELIST"; echo; cat >/dev/null"#;

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
        let mut lines = Vec::new();
        for line in BufReader::new(output).lines() {
            match line.map_err(AllocationError::Read)? {
                line if line.is_empty() => break,
                line => lines.push(line),
            }
        }
        match lines.split_first() {
            None => Err(AllocationError::Refused(salloc.wait())),
            Some((job, nodes)) if !nodes.is_empty() && job.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Self { job: job.clone(), nodes: nodes.to_vec(), _salloc: salloc })
            }
            Some(_) => Err(AllocationError::Strange),
        }
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
