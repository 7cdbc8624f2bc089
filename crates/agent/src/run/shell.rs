//! The shell of `feign`: the host user's own, in the host's own root. Called by [`crate::run::exec`].

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use remotely_proto::ByteVec;

use crate::run::passwd;

/// Its arguments: the login shell, unless that lets nobody in, else SHELL, else /bin/sh.
pub(crate) fn argv() -> Vec<ByteVec> {
    let usable = |path: &Vec<u8>| {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        !path.file_name().is_none_or(|name| name == "nologin" || name == "false") && path.exists()
    };
    let login = passwd::by_uid(rustix::process::getuid().as_raw()).map(|entry| entry.shell).filter(usable);
    let shell = login.or_else(|| std::env::var_os("SHELL").map(OsStringExt::into_vec).filter(usable));
    vec![shell.unwrap_or_else(|| b"/bin/sh".to_vec()).into()]
}

/// Its environment: that of the agent, with TERM of the client, and REMOTELY_MOUNT saying where the client's files are.
pub(crate) fn environment(client: &[ByteVec], mount: &[u8]) -> Vec<ByteVec> {
    let term = client.iter().find(|entry| entry.starts_with(b"TERM=")).cloned();
    let replaces_term = term.is_some();
    std::env::vars_os()
        .filter(|(name, _)| name != "REMOTELY_MOUNT" && !(replaces_term && name == "TERM"))
        .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'=').into())
        .chain(term)
        .chain([[b"REMOTELY_MOUNT=", mount].concat().into()])
        .collect()
}
