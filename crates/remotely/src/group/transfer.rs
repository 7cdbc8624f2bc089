//! Files and trees to all hosts of a group, and from them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use remotely_copy::{Options, Report};
use thiserror::Error;

use super::{Group, Results};
use crate::tunnel::What;

/// What is fetched from several hosts cannot go to one place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("what comes from {first} and from {second} would both go to {}: say {{host}} in the destination", path.display())]
pub struct SamePlace {
    /// A host.
    pub first: String,
    /// Another.
    pub second: String,
    /// The place.
    pub path: PathBuf,
}

impl Group {
    /// Copies a file or a tree of here to each host, see [`Tunnel::put`](crate::Tunnel::put). In `remote`, `{host}` stands for the host's name.
    pub fn put(&self, local: impl AsRef<Path>, remote: impl AsRef<Path>, options: &Options) -> Results<Report> {
        self.transfer(options, put_to(local.as_ref(), remote.as_ref()))
    }

    /// Copies a file or a tree of each host to here, see [`Tunnel::fetch`](crate::Tunnel::fetch). In `local`, `{host}` stands for the
    /// host's name (with `_` for `/`), so that each has a place of its own: `"logs/{host}"`.
    pub fn fetch(
        &self,
        remote: impl AsRef<Path>,
        local: impl AsRef<Path>,
        options: &Options,
    ) -> Result<Results<Report>, SamePlace> {
        Ok(self.transfer(options, fetch_from(self, remote.as_ref(), local.as_ref())?))
    }

    fn transfer(&self, options: &Options, what: impl Fn(&str) -> What) -> Results<Report> {
        let timeout = self.timeout;
        self.on_each(|tunnel, windows| {
            let (what, options, copying) = (what(tunnel.host()), options.clone(), tunnel.clone());
            let copy = move || copying.transfer(what.clone()).options(options.clone()).into_future();
            async move { windows.reach(&tunnel, timeout, copy).await }
        })
    }
}

/// What is put to each host.
pub(crate) fn put_to(local: &Path, remote: &Path) -> impl Fn(&str) -> What {
    move |host: &str| What::Put { local: local.to_owned(), remote: Some(place(remote, host)) }
}

/// What is fetched from each host of a group.
pub(crate) fn fetch_from(group: &Group, remote: &Path, local: &Path) -> Result<impl Fn(&str) -> What, SamePlace> {
    let mut taken: HashMap<PathBuf, &str> = HashMap::new();
    for host in group.hosts() {
        let path = place(local, host);
        if let Some(first) = taken.insert(path.clone(), host) {
            return Err(SamePlace { first: first.to_owned(), second: host.to_owned(), path });
        }
    }
    Ok(move |host: &str| What::Fetch { remote: place(remote, host), local: Some(place(local, host)) })
}

/// The place of one host.
fn place(template: &Path, host: &str) -> PathBuf {
    match template.to_str() {
        Some(text) => text.replace("{host}", &host.replace('/', "_")).into(),
        // Not text, so no place for a name.
        None => template.to_owned(),
    }
}
