//! `podman:container` and `podman-run:image`, by podman, as the user at that place of the way. Used by
//! [`super::command_line`].

use std::ffi::OsString;

use super::container;

pub(super) fn exec(name: &str, inner: Vec<OsString>) -> Vec<OsString> {
    container::exec("podman", name, inner)
}

pub(super) fn run(image: &str, inner: Vec<OsString>) -> Vec<OsString> {
    container::run("podman", image, inner)
}
