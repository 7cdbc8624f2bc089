//! What the command does not get to see unless it is told to: private keys and keyrings of the user. Called by `run`
//! once; reads directories and the first bytes of files, changes nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Beneath a home directory, whether there is something now or not.
const IN_HOME: [&str; 3] = [".gnupg/private-keys-v1.d", ".gnupg/secring.gpg", ".local/share/keyrings"];

/// Paths to hide: those hidden by default, less what `show` names (or lies beneath), and `hide`. Absolute, sorted.
pub(super) fn hidden(home: Option<&OsStr>, uid: u32, hide: &[PathBuf], show: &[PathBuf]) -> Vec<PathBuf> {
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let mut homes = homes(&passwd, uid);
    homes.extend(home.map(PathBuf::from).filter(|home| home.is_absolute()));
    select(homes.iter().flat_map(|home| in_home(home)).chain(host_keys()), hide, show)
}

fn select(default: impl Iterator<Item = PathBuf>, hide: &[PathBuf], show: &[PathBuf]) -> Vec<PathBuf> {
    let shown = |path: &PathBuf| show.iter().any(|show| path.starts_with(show));
    let mut paths: Vec<PathBuf> = default.filter(|path| !shown(path)).chain(hide.iter().cloned()).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// Home directories of the user; of all users for root, who can read all their keys.
fn homes(passwd: &[u8], uid: u32) -> Vec<PathBuf> {
    let mut homes = Vec::new();
    for line in passwd.split(|&byte| byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        let [_, _, id, _, _, home, ..] = fields[..] else { continue };
        let own = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()) == Some(uid);
        let home = PathBuf::from(OsStr::from_bytes(home));
        if (own || uid == 0) && home.is_absolute() && home != Path::new("/") {
            homes.push(home);
        }
    }
    homes.sort_unstable();
    homes.dedup();
    homes
}

fn in_home(home: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = IN_HOME.iter().map(|path| home.join(path)).collect();
    if let Ok(entries) = std::fs::read_dir(home.join(".ssh")) {
        let private = |path: &PathBuf| is_key_by_name(path) || is_private_key(path);
        paths.extend(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(private));
    }
    paths
}

fn is_key_by_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    name.starts_with(b"id_") && !name.ends_with(b".pub")
}

/// PEM and OpenSSH's own format say it in their first line.
fn is_private_key(path: &Path) -> bool {
    // Not anything that would wait for a writer.
    if !path.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return false;
    }
    let mut start = Vec::new();
    let Ok(file) = File::open(path) else { return false };
    if file.take(64).read_to_end(&mut start).is_err() {
        return false;
    }
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    line.starts_with(b"-----BEGIN ") && line.windows(11).any(|window| window == b"PRIVATE KEY")
}

fn host_keys() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/etc/ssh") else { return Vec::new() };
    let is_key = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_bytes();
        name.starts_with(b"ssh_host_") && name.ends_with(b"_key")
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\nbad line\nd:x:1:1:d:/:/bin/false\n";

    #[test]
    fn homes_are_ones_own_or_all_for_root() {
        assert_eq!(homes(PASSWD, 1000), [PathBuf::from("/home/u")]);
        assert_eq!(homes(PASSWD, 0), [PathBuf::from("/home/u"), PathBuf::from("/root")]);
        assert_eq!(homes(PASSWD, 1), [] as [PathBuf; 0]);
    }

    #[test]
    fn private_keys_are_found_by_name_and_by_content() {
        let home = std::env::temp_dir().join(format!("secret-{}", std::process::id()));
        let ssh = home.join(".ssh");
        std::fs::create_dir_all(&ssh).unwrap();
        std::fs::write(ssh.join("id_x"), "anything").unwrap();
        std::fs::write(ssh.join("id_x.pub"), "ssh-ed25519 AAAA").unwrap();
        std::fs::write(ssh.join("work"), "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl").unwrap();
        std::fs::write(ssh.join("cert.pem"), "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
        std::fs::write(ssh.join("config"), "Host *\n").unwrap();
        let all = in_home(&home);
        let shown = select(all.clone().into_iter(), &[PathBuf::from("/srv/x")], std::slice::from_ref(&ssh));
        std::fs::remove_dir_all(&home).unwrap();
        let mut found: Vec<_> = all.iter().filter_map(|path| path.strip_prefix(&ssh).ok()).collect();
        found.sort_unstable();
        assert_eq!(found, [Path::new("id_x"), Path::new("work")]);
        assert!(all.contains(&home.join(".gnupg/private-keys-v1.d")), "hidden even before it exists");
        assert!(!shown.iter().any(|path| path.starts_with(&ssh)));
        assert!(shown.contains(&PathBuf::from("/srv/x")));
    }
}
