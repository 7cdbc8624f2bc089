//! What of the environment is the host's: variables that the transport made there (`ssh -X`, `ssh -A`), and the sockets
//! and files that they name. Called by the agent before the root is made.
//!
//! A command has the client's files, so a path of the host means nothing to it. What SSH_AUTH_SOCK and XAUTHORITY name is
//! put into [`SHARED_DIR`], and the variable says so; for a DISPLAY of the host itself its /tmp/.X11-unix is shown where
//! the client has one. A variable that the host does not have is removed: that of the client would lead nowhere.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use remotely_proto::ByteVec;

use crate::run::order::Shared;

/// Where shared things are in the root: the directory of fusectl, which exists wherever FUSE is used.
pub(crate) const SHARED_DIR: &str = "/sys/fs/fuse/connections";

/// Variables of the host, and what they need.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct HostEnvironment {
    values: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// What is to be made reachable.
    pub(crate) shared: Vec<Shared>,
}

/// Reads the variables of these names here, on the host.
pub(crate) fn of_host(names: &[ByteVec]) -> HostEnvironment {
    let variable = |name: &[u8]| std::env::var_os(std::ffi::OsStr::from_bytes(name)).map(OsStringExt::into_vec);
    let exists = |path: &[u8]| Path::new(std::ffi::OsStr::from_bytes(path)).exists();
    resolve(names, variable, exists)
}

fn resolve(
    names: &[ByteVec],
    variable: impl Fn(&[u8]) -> Option<Vec<u8>>,
    exists: impl Fn(&[u8]) -> bool,
) -> HostEnvironment {
    let mut host = HostEnvironment::default();
    for name in names.iter().filter(|name| !name.is_empty() && !name.contains(&b'=') && !name.contains(&0)) {
        let name = name.as_slice();
        let mut value = variable(name);
        match name {
            b"SSH_AUTH_SOCK" | b"XAUTHORITY" => {
                if name == b"XAUTHORITY" && value.is_none() && variable(b"DISPLAY").is_some() {
                    // Where sshd has xauth put the cookie.
                    value = variable(b"HOME").map(|home| [home.as_slice(), b"/.Xauthority"].concat());
                }
                value = value.filter(|path| exists(path)).map(|path| {
                    host.shared.push(Shared { host: path.into(), place: name.to_vec().into() });
                    [SHARED_DIR.as_bytes(), b"/", name].concat()
                });
            }
            b"DISPLAY"
                if value.as_ref().is_some_and(|value| value.starts_with(b":") || value.starts_with(b"unix:")) =>
            {
                let sockets = b"/tmp/.X11-unix".to_vec();
                host.shared.push(Shared { host: sockets.clone().into(), place: sockets.into() });
            }
            _ => {}
        }
        host.values.push((name.to_vec(), value));
    }
    host
}

impl HostEnvironment {
    /// Puts them into the environment of a command, each where that of the client was, else at the end.
    pub(crate) fn apply(&self, env: Vec<ByteVec>) -> Vec<ByteVec> {
        let mut pending: Vec<_> = self.values.iter().map(|(name, value)| (name, value.as_ref())).collect();
        let entry = |name: &[u8], value: &[u8]| ByteVec::from([name, b"=", value].concat());
        let mut out: Vec<ByteVec> = Vec::with_capacity(env.len());
        for old in env {
            let name = old.iter().position(|byte| *byte == b'=').map(|end| &old[..end]);
            match self.values.iter().position(|(of_host, _)| Some(of_host.as_slice()) == name) {
                None => out.push(old),
                Some(index) => out.extend(pending[index].1.take().map(|value| entry(pending[index].0, value))),
            }
        }
        out.extend(pending.into_iter().filter_map(|(name, value)| Some(entry(name, value?))));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(list: &[&str]) -> Vec<ByteVec> {
        list.iter().map(|text| text.as_bytes().to_vec().into()).collect()
    }

    #[test]
    fn those_of_the_host_take_the_place_of_those_of_the_client() {
        let variable = |name: &[u8]| match name {
            b"DISPLAY" => Some(b"localhost:10.0".to_vec()),
            b"SSH_AUTH_SOCK" => Some(b"/tmp/ssh-x/agent.1".to_vec()),
            b"HOME" => Some(b"/home/sue".to_vec()),
            _ => None,
        };
        let names = bytes(&["SSH_AUTH_SOCK", "DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY"]);
        let host = resolve(&names, variable, |_| true);
        let env = bytes(&["A=1", "DISPLAY=:0", "nothing", "WAYLAND_DISPLAY=w", "A=2", "DISPLAY=:1", "XAUTHORITY=/x"]);
        let expected = bytes(&[
            "A=1",
            "DISPLAY=localhost:10.0",
            "nothing",
            "A=2",
            "XAUTHORITY=/sys/fs/fuse/connections/XAUTHORITY",
            "SSH_AUTH_SOCK=/sys/fs/fuse/connections/SSH_AUTH_SOCK",
        ]);
        assert_eq!(host.apply(env), expected);
        let paths: Vec<&[u8]> = host.shared.iter().map(|shared| shared.host.as_slice()).collect();
        assert_eq!(paths, [&b"/tmp/ssh-x/agent.1"[..], b"/home/sue/.Xauthority"]);
    }

    #[test]
    fn a_path_that_leads_nowhere_is_removed() {
        let host = resolve(&bytes(&["SSH_AUTH_SOCK"]), |_| Some(b"/gone".to_vec()), |_| false);
        assert_eq!(host.apply(bytes(&["SSH_AUTH_SOCK=/x", "B=1"])), bytes(&["B=1"]));
        assert!(host.shared.is_empty());
    }

    #[test]
    fn a_display_of_the_host_itself_needs_its_sockets() {
        let host = resolve(&bytes(&["DISPLAY"]), |_| Some(b":0".to_vec()), |_| true);
        assert_eq!(host.shared.len(), 1);
        assert_eq!(host.apply(Vec::new()), bytes(&["DISPLAY=:0"]));
    }
}
