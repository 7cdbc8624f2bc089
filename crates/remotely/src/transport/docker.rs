//! `docker:container` and `docker-run:image`, by the docker client, whose contexts and `DOCKER_HOST` count. Used by
//! [`super::command_line`].

use std::ffi::OsString;

use super::container;

pub(super) fn exec(name: &str, inner: Vec<OsString>) -> Vec<OsString> {
    container::exec("docker", name, inner)
}

pub(super) fn run(image: &str, inner: Vec<OsString>) -> Vec<OsString> {
    container::run("docker", image, inner)
}
