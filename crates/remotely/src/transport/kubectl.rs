//! `kubectl:[namespace/]pod[/container]`, by kubectl and its configuration. Used by [`super::command_line`].

use std::ffi::OsString;

use super::explain::Failure;

/// Never `-t`: a terminal would change bytes, and mix both outputs. `--quiet` keeps its remarks out of the user's.
pub(super) fn wrap(namespace: Option<&str>, pod: &str, container: Option<&str>, inner: Vec<OsString>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = ["kubectl", "exec", "-i", "--quiet"].map(Into::into).into();
    if let Some(namespace) = namespace {
        argv.extend(["-n", namespace].map(Into::into));
    }
    if let Some(container) = container {
        argv.extend(["-c", container].map(Into::into));
    }
    argv.extend([pod, "--"].map(Into::into));
    argv.extend(inner);
    argv
}

pub(super) const FAILURES: &[Failure] = &[
    Failure {
        says: &["(NotFound): pods", "pods \"", "namespaces \""],
        what: "there is no such pod",
        mend: "`kubectl get pods -A` lists them: kubectl:NAMESPACE/POD",
    },
    Failure {
        says: &["container not found", "is not valid for pod", "cannot exec into a container in a completed pod"],
        what: "the container does not run",
        mend: "`kubectl describe pod` names the containers and says how they are: kubectl:NAMESPACE/POD/CONTAINER",
    },
    Failure {
        says: &["(Forbidden)"],
        what: "this user may not run commands in pods",
        mend: "the role needs the verb create on pods/exec",
    },
    Failure {
        says: &["The connection to the server", "Unable to connect to the server", "current-context is not set"],
        what: "the cluster did not answer",
        mend: "does `kubectl get pods` work? KUBECONFIG names another configuration",
    },
    Failure {
        says: &["executable file not found", "no such file or directory: unknown"],
        what: "there is no sh in the container",
        mend: "an image without a shell cannot take the agent: use one that has sh, or add busybox to it",
    },
];
