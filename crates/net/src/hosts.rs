//! Names of the host's network in the hosts file of here: lines with a mark of ours, put in, merged with those of others, taken out
//! again. Called by the elevated helper only.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Uid};

use crate::subnet::Family;

/// Why the hosts file is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostsError {
    /// It cannot be read.
    #[error("{}: can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The copy of it cannot be made.
    #[error("{}: can't be written as a copy of what was before", path.display())]
    Backup {
        /// The copy.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("{}: can't be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Addresses by name; a name may have one of each family.
pub type Names = BTreeMap<(String, Family), IpAddr>;

/// Puts these names in, in place of those that the same port has put in before. The first time, a copy of the file is kept beside it
/// (`hosts.before-remotely`).
///
/// # Errors
///
/// The file is as it was.
pub fn write(path: &Path, port: u16, names: &Names) -> Result<(), HostsError> {
    change(path, port, names)
}

/// Takes out what this port has put in. Does nothing where there is nothing.
///
/// # Errors
///
/// The file is as it was.
pub fn restore(path: &Path, port: u16) -> Result<(), HostsError> {
    change(path, port, &Names::new())
}

fn change(path: &Path, port: u16, names: &Names) -> Result<(), HostsError> {
    // Where it is a link, what it leads to is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let _lock = lock(path);
    let old = match fs::read(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(HostsError::Read { path: path.clone(), source }),
    };
    let text = old.as_deref().unwrap_or_default();
    let new = merged(text, port, names);
    if new == text {
        return Ok(());
    }
    let backup = beside(path, "before-remotely");
    if !names.is_empty() && !text.trim_ascii().is_empty() && !backup.exists() {
        let linked = fs::hard_link(path, &backup).or_else(|_| fs::copy(path, &backup).map(drop));
        linked.map_err(|source| HostsError::Backup { path: backup, source })?;
    }
    replace(path, port, &new).map_err(|source| HostsError::Write { path: path.clone(), source })
}

fn merged(text: &[u8], port: u16, names: &Names) -> Vec<u8> {
    let mark = format!("# remotely-firewall-{port} AUTOCREATED");
    let foreign = |line: &&[u8]| !line.trim_ascii_end().ends_with(mark.as_bytes());
    let mut new: Vec<u8> = text.split_inclusive(|byte| *byte == b'\n').filter(foreign).flatten().copied().collect();
    if !names.is_empty() && new.last().is_some_and(|byte| *byte != b'\n') {
        new.push(b'\n');
    }
    for ((name, _), address) in names {
        let entry = format!("{address} {name}");
        new.extend(format!("{entry:<30} {mark}\n").into_bytes());
    }
    new
}

/// By another file that takes its place, with the same owner and mode; where that cannot be (a single mounted file), by writing over it.
fn replace(path: &Path, port: u16, new: &[u8]) -> io::Result<()> {
    let draft = beside(path, &format!("{port}.tmp"));
    let moved = draw(path, &draft, new).and_then(|()| fs::rename(&draft, path));
    if moved.is_err() {
        // It may never have been there.
        let _ = fs::remove_file(&draft);
        return fs::write(path, new);
    }
    Ok(())
}

fn draw(path: &Path, draft: &Path, new: &[u8]) -> io::Result<()> {
    // Of one that was killed.
    let _ = fs::remove_file(draft);
    let before = fs::metadata(path).ok();
    let mode = before.as_ref().map_or(0o644, |before| before.mode() & 0o7777);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(new)?;
    if let Some(before) = before {
        rustix::fs::fchown(&file, Some(Uid::from_raw(before.uid())), Some(Gid::from_raw(before.gid())))?;
    }
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode))?;
    file.sync_all()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// Two of us must not both read before either writes. The file itself is replaced, so its directory is locked.
fn lock(path: &Path) -> Option<File> {
    let directory = File::open(path.parent()?).ok()?;
    rustix::fs::flock(&directory, FlockOperation::LockExclusive).ok()?;
    Some(directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(entries: &[(&str, &str)]) -> Names {
        let entry = |(name, address): &(&str, &str)| {
            let address: IpAddr = address.parse().unwrap();
            (((*name).to_owned(), Family::of(address)), address)
        };
        entries.iter().map(entry).collect()
    }

    const OLD: &str =
        "127.0.0.1 localhost\n\u{e9} odd # AUTOCREATED\n10.0.0.9 other # remotely-firewall-123 AUTOCREATED\n";

    #[test]
    fn merges_with_others_and_restores() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("hosts");
        fs::write(&path, OLD).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&path, Some(1234), Some(2345)).unwrap();
        write(&path, 12300, &names(&[("web", "10.0.0.1"), ("web", "fd00::1"), ("web.corp.example", "10.0.0.1")]))
            .unwrap();
        let first = format!(
            "{OLD}10.0.0.1 web                   # remotely-firewall-12300 AUTOCREATED\n\
             fd00::1 web                    # remotely-firewall-12300 AUTOCREATED\n\
             10.0.0.1 web.corp.example      # remotely-firewall-12300 AUTOCREATED\n"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), first);
        write(&path, 1230, &names(&[("db", "10.0.0.2")])).unwrap();
        write(&path, 12300, &names(&[("web", "10.0.0.3")])).unwrap();
        write(&path, 12300, &names(&[("web", "10.0.0.3")])).unwrap();
        let both = format!(
            "{OLD}10.0.0.2 db                    # remotely-firewall-1230 AUTOCREATED\n\
             10.0.0.3 web                   # remotely-firewall-12300 AUTOCREATED\n"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), both);
        let state = fs::metadata(&path).unwrap();
        assert_eq!((state.mode() & 0o7777, state.uid(), state.gid()), (0o640, 1234, 2345));
        restore(&path, 12300).unwrap();
        restore(&path, 1230).unwrap();
        restore(&path, 1230).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), OLD);
        assert_eq!(fs::read_to_string(place.path().join("hosts.before-remotely")).unwrap(), OLD);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_copy_is_that_of_the_first_time() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("hosts");
        fs::write(&path, "a\n").unwrap();
        write(&path, 1, &names(&[("web", "10.0.0.1")])).unwrap();
        restore(&path, 1).unwrap();
        fs::write(&path, "b\n").unwrap();
        write(&path, 1, &names(&[("web", "10.0.0.1")])).unwrap();
        assert_eq!(fs::read_to_string(place.path().join("hosts.before-remotely")).unwrap(), "a\n");
    }

    #[test]
    fn follows_a_link_and_begins_a_missing_file() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("hosts");
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        fs::write(place.path().join("elsewhere"), "a").unwrap();
        write(&path, 1, &names(&[("web", "10.0.0.1")])).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert!(fs::read_to_string(place.path().join("elsewhere")).unwrap().starts_with("a\n10.0.0.1 web "));
        let missing = place.path().join("missing");
        restore(&missing, 1).unwrap();
        assert!(!missing.exists());
        write(&missing, 1, &names(&[("web", "10.0.0.1")])).unwrap();
        assert_eq!(fs::metadata(&missing).unwrap().mode() & 0o777, 0o644);
    }

    #[test]
    fn two_at_once_lose_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("hosts");
        fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        std::thread::scope(|scope| {
            for port in 1..=8 {
                let path = &path;
                scope.spawn(move || write(path, port, &names(&[("web", "10.0.0.1")])).unwrap());
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 9);
    }
}
