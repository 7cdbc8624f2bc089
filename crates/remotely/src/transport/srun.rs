//! `srun:[job/]node`, a node of a Slurm cluster. Used by [`super::command_line`]; allocating is Slurm's business.

use std::ffi::OsString;

use super::explain::Failure;
use super::shell;

pub(super) fn wrap(job: Option<&str>, node: &str, inner: Vec<OsString>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = Vec::with_capacity(inner.len() + 16);
    // -u: without it output is kept until there is a newline in it, which binary data may never have. (Slurm makes standard
    // output a terminal then, one that changes nothing.) The directory of here need not exist there.
    let fixed = ["srun", "-u", "--mpi=none", "-N", "1", "-n", "1", "--chdir=/", "--job-name=remotely", "-w", node];
    argv.extend(fixed.map(OsString::from));
    if let Some(job) = job {
        // A step beside those that the allocation runs already.
        argv.extend(["--overlap", "--jobid", job].map(OsString::from));
    }
    argv.push("--".into());
    if inner.iter().any(|word| word == ":") {
        // By itself it begins another part of a heterogeneous job, wherever it stands.
        argv.extend(["sh".into(), "-c".into(), shell::command(&inner)]);
    } else {
        argv.extend(inner);
    }
    argv
}

pub(super) const FAILURES: &[Failure] = &[
    Failure {
        says: &["Invalid node name specified", "Requested node configuration is not available"],
        what: "there is no such node in the partition or the job",
        mend: "`sinfo -N` lists the nodes, `squeue -j JOB -o %N` those of a job",
    },
    Failure {
        says: &["Invalid job id", "Job/step already completing or completed"],
        what: "there is no such job that runs",
        mend: "`squeue --me` lists those of this user",
    },
    Failure {
        says: &["Unable to contact slurm controller", "Could not establish a configuration source", "fetch_config"],
        what: "Slurm's controller did not answer",
        mend: "does `sinfo` work there? SLURM_CONF names another configuration",
    },
    Failure {
        says: &["Required node not available", "queued and waiting for resources"],
        what: "the node is not free",
        mend: "`sinfo -N -l` says what it is doing; srun:JOB/NODE goes into an allocation that is there",
    },
    Failure {
        says: &["execve(): sh: No such file", "Invalid account", "Access/permission denied"],
        what: "Slurm did not start a shell there",
        mend: "does `srun -w NODE sh -c true` work by itself?",
    },
];
