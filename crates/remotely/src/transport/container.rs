//! What docker and podman have in common: their arguments are the same, their messages nearly so. Used by the files of
//! both.

use std::ffi::OsString;

use super::explain::Failure;

/// A command in a container that runs. Never a terminal: it would change bytes, and mix both outputs.
pub(super) fn exec(program: &str, container: &str, inner: Vec<OsString>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = [program, "exec", "-i", container].map(Into::into).into();
    argv.extend(inner);
    argv
}

/// A command as the first process of a new container. It ends by the end of its input, as an agent does when nobody is
/// left who could close it in order, and the engine removes the container then (`--rm`), whoever started it.
pub(super) fn run(program: &str, image: &str, inner: Vec<OsString>) -> Vec<OsString> {
    let mut words = inner.into_iter();
    // Not behind the image's own entry point, which may be anything.
    let mut argv: Vec<OsString> = [program, "run", "-i", "--rm", "--entrypoint"].map(Into::into).into();
    argv.extend(words.next());
    argv.push(image.into());
    argv.extend(words);
    argv
}

pub(super) const FAILURES: &[Failure] = &[
    Failure {
        says: &["No such container", "no such container", "no container with name or ID"],
        what: "there is no container of that name",
        mend: "ps --all of the engine names those that there are; docker and podman have different ones, and those of root are not those of a user",
    },
    Failure {
        says: &["is not running", "is paused", "container state improper", "not in running state"],
        what: "the container does not run",
        mend: "start (or unpause) it first; docker-run:IMAGE and podman-run:IMAGE make a new one",
    },
    Failure {
        says: &["permission denied while trying to connect", "connect: permission denied"],
        what: "this user may not use the engine",
        mend: "put the user into the engine's group, or go through root: sudo+docker:NAME",
    },
    Failure {
        says: &[
            "Cannot connect to the Docker daemon",
            "failed to connect to the docker API",
            "unable to connect to Podman",
        ],
        what: "the engine does not run, or listens elsewhere",
        mend: "start its service, or set DOCKER_HOST or CONTAINER_HOST as for the engine's own client",
    },
    Failure {
        says: &[
            "Unable to find image",
            "No such image",
            "image not known",
            "initializing source",
            "pull access denied",
        ],
        what: "there is no such image, and it could not be pulled",
        mend: "pull, load or build it first",
    },
    Failure {
        says: &["executable file not found", "executable file `sh` not found", "no such file or directory: unknown"],
        what: "there is no sh in the container",
        mend: "an image without a shell cannot take the agent: use one that has sh, or add busybox to it",
    },
];
