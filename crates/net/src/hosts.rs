//! Names of the host's network in the hosts file of here: lines with a mark of ours, put in, merged with those of others, taken out
//! again. Called by the elevated helper only.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Seek as _, Write as _};
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

/// Most characters of a name (RFC 1035, 2.3.4).
const NAME_MAX: usize = 253;

/// Whether this is a name at all: nothing else of it would mean something where it is written.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(fits)
}

/// Whether a name of the host's network may stand in a hosts file of here: neither what this machine is called by itself, nor what is
/// read as an address.
#[must_use]
pub fn may_stand(name: &str) -> bool {
    let name = plain(name);
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = |label: &str| {
        let digits = label.strip_prefix("0x").unwrap_or(label);
        let hexadecimal = digits.len() < label.len();
        digits.bytes().all(|byte| if hexadecimal { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() })
    };
    // `127.1` and `0x7f000001` are addresses too; nothing that is not one ends like them.
    !(last == "localhost" || name.starts_with("localhost.") || number(last) || name.parse::<IpAddr>().is_ok())
}

/// A name as others compare it.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Puts these names in, in place of those that the same port has put in before; not those that somebody else has put there. The first
/// time, a copy of the file is kept beside it (`hosts.before-remotely`).
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
        // A copy of its own: whoever writes over the file does not write over this too.
        let draft = beside(path, "before-remotely.tmp");
        let copied = draw(path, &draft, text).and_then(|()| fs::rename(&draft, &backup));
        copied.map_err(|source| {
            let _ = fs::remove_file(&draft);
            HostsError::Backup { path: backup, source }
        })?;
    }
    replace(path, port, text, &new).map_err(|source| HostsError::Write { path: path.clone(), source })
}

fn merged(text: &[u8], port: u16, names: &Names) -> Vec<u8> {
    let mark = format!("# remotely-firewall-{port} AUTOCREATED");
    let foreign = |line: &&[u8]| !line.trim_ascii_end().ends_with(mark.as_bytes());
    let mut new: Vec<u8> = text.split_inclusive(|byte| *byte == b'\n').filter(foreign).flatten().copied().collect();
    if !names.is_empty() && new.last().is_some_and(|byte| *byte != b'\n') {
        new.push(b'\n');
    }
    let others = named_by_others(text);
    for ((name, _), address) in names.iter().filter(|((name, _), _)| !others.contains(&plain(name))) {
        let entry = format!("{address} {name}");
        new.extend(format!("{entry:<30} {mark}\n").into_bytes());
    }
    new
}

/// The names in lines that no instance of ours has put in.
fn named_by_others(text: &[u8]) -> HashSet<String> {
    let mut names = HashSet::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        let (entry, comment) = line.split_once('#').unwrap_or((&line, ""));
        let comment = comment.trim();
        let instance = comment.strip_prefix("remotely-firewall-").and_then(|rest| rest.strip_suffix(" AUTOCREATED"));
        if instance.is_none_or(|port| port.parse::<u16>().is_err()) {
            names.extend(entry.split_whitespace().skip(1).map(plain));
        }
    }
    names
}

/// By another file that takes its place, with the same owner and mode. Where the kernel says that this cannot be (a file that is itself
/// a mount, as in containers), by writing over it; then the other file lies beside it until that is done.
fn replace(path: &Path, port: u16, old: &[u8], new: &[u8]) -> io::Result<()> {
    let draft = beside(path, &format!("{port}.tmp"));
    let moved = draw(path, &draft, new).and_then(|()| match fs::rename(&draft, path) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EXDEV)) => overwrite(path, old, new),
        moved => moved,
    });
    // Moved away, or of no more use; it may never have been there.
    let _ = fs::remove_file(&draft);
    moved
}

/// Writes into the file itself. It is never shorter than it has to be, so that there is room for what was there before.
fn overwrite(path: &Path, old: &[u8], new: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    let mut put = |text: &[u8]| {
        file.rewind()?;
        file.write_all(text)?;
        file.set_len(text.len() as u64)?;
        file.sync_all()
    };
    put(new).inspect_err(|_| {
        // What does not fit now has been there a moment ago.
        let _ = put(old);
    })
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
        let backup = place.path().join("hosts.before-remotely");
        assert_eq!(fs::read_to_string(&backup).unwrap(), OLD);
        assert_eq!(fs::metadata(&backup).unwrap().nlink(), 1, "a copy");
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
    fn what_others_have_named_stays_theirs() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("hosts");
        let old = "127.0.0.1 localhost\n10.9.9.9\tWeb.corp  web # mine\n#10.9.9.9 db\n10.0.0.4 \n\
                   10.0.0.9 mail # remotely-firewall-7 AUTOCREATED\n";
        fs::write(&path, old).unwrap();
        let all = ["web", "WEB.CORP", "web.corp.", "db", "mail", "localhost"].map(|name| (name, "10.0.0.1"));
        write(&path, 1, &names(&all)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let added: Vec<&str> = text.strip_prefix(old).unwrap().lines().map(|line| &line[9..13]).collect();
        assert_eq!(added, ["db  ", "mail"]);
        restore(&path, 1).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), old);
    }

    #[test]
    fn neither_localhost_nor_an_address_is_a_name() {
        for name in
            ["localhost", "LocalHost.", "a.localhost", "localhost.localdomain", "10.0.0.1", "127.1", "1", "0x7f.0X1"]
        {
            assert!(!may_stand(name), "{name}");
        }
        for name in ["web", "1.web", "a1", "localhosts", "0xg", "10.0.0.1.example", "my-localhost"] {
            assert!(may_stand(name), "{name}");
        }
    }

    /// On a thread whose mounts are its own.
    fn with_mounts(act: impl FnOnce(&Path) + Send) {
        let place = tempfile::tempdir().unwrap();
        let mounted = || {
            use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
            // SAFETY: only the mounts of this thread change; no descriptor or memory is concerned.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
                .expect("these tests mount: run them as root");
            mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
            mount("none", place.path(), "tmpfs", MountFlags::empty(), Some(c"size=32k")).unwrap();
            act(place.path());
        };
        std::thread::scope(|scope| scope.spawn(mounted).join()).unwrap();
    }

    /// Leaves this many bytes.
    fn fill(place: &Path, left: usize) {
        let mut filler = File::create(place.join("filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        let length = filler.metadata().unwrap().len();
        filler.set_len(length - left as u64).unwrap();
    }

    #[test]
    fn a_full_disk_changes_nothing() {
        with_mounts(|place| {
            let path = place.join("hosts");
            fs::write(&path, OLD).unwrap();
            fs::write(place.join("hosts.before-remotely"), OLD).unwrap();
            fill(place, 0);
            let error = write(&path, 1, &names(&[("web", "10.0.0.1")])).unwrap_err();
            assert!(matches!(error, HostsError::Write { .. }), "{error:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), OLD);
            fs::remove_file(place.join("hosts.before-remotely")).unwrap();
            fill(place, 0);
            let error = write(&path, 1, &names(&[("web", "10.0.0.1")])).unwrap_err();
            assert!(matches!(error, HostsError::Backup { .. }), "{error:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), OLD);
            assert_eq!(fs::read_dir(place).unwrap().count(), 2, "no draft is left");
        });
    }

    #[test]
    fn a_mounted_file_is_written_over_and_restored_if_that_fails() {
        use rustix::mount::mount_bind;
        with_mounts(|place| {
            let path = place.join("hosts");
            fs::write(&path, OLD).unwrap();
            mount_bind(&path, &path).unwrap();
            let before = fs::metadata(&path).unwrap().ino();
            write(&path, 1, &names(&[("web", "10.0.0.1")])).unwrap();
            assert!(fs::read_to_string(&path).unwrap().contains("10.0.0.1 web "));
            restore(&path, 1).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), OLD);
            assert_eq!(fs::metadata(&path).unwrap().ino(), before);
            assert_eq!(fs::read_dir(place).unwrap().count(), 2, "no draft is left");
            // The draft has room, and the file has not.
            let full = place.join("full");
            fs::create_dir(&full).unwrap();
            rustix::mount::mount("none", &full, "tmpfs", rustix::mount::MountFlags::empty(), Some(c"size=4k")).unwrap();
            fs::write(full.join("hosts"), OLD).unwrap();
            rustix::mount::unmount(&path, rustix::mount::UnmountFlags::empty()).unwrap();
            mount_bind(full.join("hosts"), &path).unwrap();
            let long = format!("{}.example", "x".repeat(200));
            let many: Vec<String> = (0..20).map(|n| format!("{n}{long}")).collect();
            let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "10.0.0.1")).collect();
            let error = write(&path, 1, &names(&many)).unwrap_err();
            assert!(matches!(error, HostsError::Write { .. }), "{error:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), OLD);
        });
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
