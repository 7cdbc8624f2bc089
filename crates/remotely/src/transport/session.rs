//! How ssh is started so that its connection can have further sessions, and with the ciphers that are fast here; and those sessions.
//! Made by [`bootstrap`](crate::bootstrap) for one connection; adds nothing where the user has chosen himself.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use remotely_session::Pipe;

use super::control;
pub(crate) use super::control::Session;
pub(crate) use super::ssh_config::knows_cipher;
use super::{shell, spawn, ssh, ssh_config, through, unnamed};
use crate::target::{Hop, Target};

/// What OpenSSH offers without being told, those first that the processor does by itself.
const CIPHERS: &str = "Ciphers=aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr";
/// The ssh connection of a target, as far as we have a say in it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Further words for ssh.
    pub(crate) words: Vec<OsString>,
    /// A program of which it is not known yet whether it has the ciphers that are fast here; it is left alone this time.
    pub(crate) unknown: Option<PathBuf>,
    control: Control,
}

#[derive(Debug)]
enum Control {
    /// There are no further sessions.
    None,
    /// Ssh listens there from its login on.
    Ours(Name),
    /// What the user has chosen; the command line that tells.
    Users(Vec<OsString>),
}

/// Of a control socket of ours. Removed when dropped, as ssh does not when it is killed.
#[derive(Debug)]
struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Connection {
    /// For a way to `target`. `nonce` is for this one alone; `shared` says whether further sessions may be wanted; `knows` whether a
    /// program is [known](ssh_config::knows_cipher) to have the ciphers.
    pub(crate) fn plan(
        target: &Target,
        opts: &[OsString],
        nonce: u64,
        shared: bool,
        knows: impl Fn(&Path) -> Option<bool>,
    ) -> Self {
        let mut connection = Self { words: Vec::new(), unknown: None, control: Control::None };
        let [Hop::Ssh(place), further @ ..] = target.hops() else { return connection };
        let chosen = ssh_config::chosen(opts);
        if !chosen.ciphers
            && has_aes()
            && let Some(program) = chosen.program
        {
            match knows(&program) {
                Some(true) => connection.words.extend(["-o".into(), CIPHERS.into()]),
                // Where a link is only passed on, nothing is to be remembered either.
                None if shared => connection.unknown = Some(program),
                Some(false) | None => {}
            }
        }
        if !shared || !further.iter().all(stays) {
            return connection;
        }
        if chosen.control {
            connection.control = Control::Users(ssh::question(place, opts));
            return connection;
        }
        // With a name, it would be left behind when ssh is killed with us.
        let Some(path) = unnamed::path(&format!("{nonce:016x}")) else { return connection };
        let mut word = OsString::from("ControlPath=");
        word.push(&path);
        connection.words.extend(["-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-o"].map(OsString::from));
        connection.words.push(word);
        connection.control = Control::Ours(Name(path));
        connection
    }

    /// Whether there may be further sessions.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self.control, Control::None)
    }

    /// Its control socket. An error is normal: the user may have none.
    pub(crate) async fn socket(&self) -> io::Result<PathBuf> {
        match &self.control {
            Control::Ours(name) => Ok(name.0.clone()),
            Control::Users(question) => users_path(question).await,
            Control::None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Whether this is how ssh says that it cannot reach the place where it is to listen, and ends: it was made to run in a container, or
/// as another user.
pub(crate) fn cannot_listen(said: &str) -> bool {
    unnamed::path("").is_some_and(|path| said.contains(&*path.to_string_lossy()))
}

/// Opens a session over a control socket, in which `sh -c script` runs at the end of `target`, with no hop asking for anything. An error
/// is normal: a server has its bounds.
pub(crate) async fn open(socket: &Path, target: &Target, script: &str) -> io::Result<(Session, Pipe)> {
    let inner = through(target.hops().get(1..).unwrap_or_default(), &[], script, 0);
    control::open(socket, shell::command(&inner).as_bytes()).await
}

/// Whether another session of the connection comes through this hop to where the first one is.
fn stays(hop: &Hop) -> bool {
    matches!(
        hop,
        Hop::Sudo { .. }
            | Hop::Docker { .. }
            | Hop::Podman { .. }
            | Hop::Nsenter { .. }
            | Hop::Netns { .. }
            | Hop::Machine { .. }
    )
}

/// The control socket of the user's own connection.
async fn users_path(question: &[OsString]) -> io::Result<PathBuf> {
    let said = spawn::output(question).await.map_err(io::Error::other)?;
    let found = said.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"controlpath "));
    let path =
        found.filter(|path| *path != b"none").map(|path| Path::new(std::ffi::OsStr::from_bytes(path)).to_owned());
    path.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Whether this processor has instructions for AES. The host's is of the same kind, as its agent is.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many words ssh is given, and whether there may be further sessions.
    fn plan(target: &str, opts: &[&str], shared: bool, knows: Option<bool>) -> (usize, bool) {
        let opts: Vec<OsString> = opts.iter().map(Into::into).collect();
        let connection = Connection::plan(&target.parse().unwrap(), &opts, 7, shared, |_| knows);
        (connection.words.len(), connection.is_shared())
    }

    #[test]
    fn sessions_are_shared_where_each_comes_to_the_same_place() {
        // An own control path of the user, so that nothing hangs on the configuration of who runs the test.
        let opts = ["-oControlPath=none", "-caes128-ctr"];
        for (target, shared) in [
            ("web", true),
            ("web+sudo", true),
            ("web+docker:box", true),
            ("web+nsenter:1", true),
            ("web+netns:blue", true),
            ("web+ssh:inner", false),
            ("web+sudo+ssh:inner", false),
            ("local:", false),
            ("docker:box", false),
        ] {
            assert_eq!(plan(target, &opts, true, None), (0, shared), "{target}");
            assert_eq!(plan(target, &opts, false, None), (0, false), "{target}");
        }
    }
}
