//! What commands touched in earlier runs, kept in the user's cache directory: one file for each command and working
//! directory. Used by `run`; a profile that is missing or cannot be kept is no error, it only costs time.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use remotely_fs::server::Profile;
use remotely_proto::ByteVec;

use super::inherited::variable;

/// Largest profile in bytes.
const SIZE_MAX: u64 = 8 << 20;
/// Most profiles; the ones not used for longest go.
const COUNT_MAX: usize = 256;

/// Where the profile of one command is kept.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    name: String,
}

impl Store {
    /// For `argv0` as it is found in `PATH`, run in `cwd`. The host plays no part: the files are those of here. `None`
    /// without a home directory.
    pub(super) fn of(argv0: &OsString, env: &[ByteVec], cwd: &[u8]) -> Option<Self> {
        let absolute = |name| variable(env, name).map(Path::new).filter(|path| path.is_absolute());
        let cache =
            absolute("XDG_CACHE_HOME").map(Path::to_owned).or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        let program = resolve(argv0, variable(env, "PATH"), Path::new(OsStr::from_bytes(cwd)));
        let mut hash = Fnv::new();
        hash.add(program.as_os_str().as_bytes());
        hash.add(&[0]);
        hash.add(cwd);
        Some(Self { dir: cache.join("remotely/profile"), name: format!("{:032x}", hash.0) })
    }

    /// What was kept last.
    pub(super) fn load(&self) -> Option<Profile> {
        let path = self.dir.join(&self.name);
        let mut data = Vec::new();
        let file = File::open(path).ok()?;
        (&file).take(SIZE_MAX + 1).read_to_end(&mut data).ok()?;
        if data.len() as u64 > SIZE_MAX {
            return None;
        }
        // One of another version is as good as none.
        let profile = minicbor::decode(&data).ok()?;
        // The order in which they go is that of use.
        let _ = file.set_modified(SystemTime::now());
        Some(profile)
    }

    /// Keeps it. A run at the same time may win; either is whole.
    pub(super) fn save(&self, profile: &Profile) -> io::Result<()> {
        // Writing into a Vec cannot fail.
        let data = minicbor::to_vec(profile).unwrap_or_default();
        if data.len() as u64 > SIZE_MAX {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let temporary = self.dir.join(format!("{}.{}", self.name, std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.set_permissions(fs::Permissions::from_mode(0o600))?;
                file.write_all(&data)
            })
            .and_then(|()| fs::rename(&temporary, self.dir.join(&self.name)));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.and_then(|()| self.prune())
    }

    /// Removes those that were not used for longest, and what a run that was killed left behind.
    fn prune(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = fs::read_dir(&self.dir)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        files.sort_unstable();
        let excess = files.len().saturating_sub(COUNT_MAX);
        for (_, path) in files.drain(..excess) {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

/// The file that execvp(3) would run, or the word itself.
fn resolve(argv0: &OsString, path: Option<&OsStr>, cwd: &Path) -> PathBuf {
    if argv0.as_bytes().contains(&b'/') {
        return cwd.join(argv0);
    }
    let dirs = path.unwrap_or(OsStr::new("/bin:/usr/bin")).as_bytes().split(|&byte| byte == b':');
    dirs.map(|dir| cwd.join(OsStr::from_bytes(dir)).join(argv0))
        .find(|candidate| {
            candidate.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
        .unwrap_or_else(|| argv0.into())
}

/// FNV-1a of 128 bits: names only have to differ, nobody gains from two that do not.
struct Fnv(u128);

impl Fnv {
    fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
}

#[cfg(test)]
mod tests {
    use remotely_fs::server::{Item, Wanted};

    use super::*;

    fn store(cache: &Path, argv0: &str, cwd: &str) -> Store {
        let entry = [b"XDG_CACHE_HOME=", cache.as_os_str().as_bytes()].concat();
        Store::of(&argv0.into(), &[entry.into(), b"PATH=/usr/bin:/bin".to_vec().into()], cwd.as_bytes()).unwrap()
    }

    #[test]
    fn what_was_saved_is_loaded_and_old_ones_go() {
        let cache = std::env::temp_dir().join(format!("profile-{}", std::process::id()));
        let profile = |path: &str| Profile {
            items: vec![Item { path: vec![path.as_bytes().to_vec().into()], wanted: Wanted::Listing, age: 0 }],
        };
        let first = store(&cache, "sh", "/srv");
        assert_eq!(first.load(), None);
        first.save(&profile("one")).unwrap();
        first.save(&profile("two")).unwrap();
        assert_eq!(first.load(), Some(profile("two")));
        let mode = fs::metadata(first.dir.join(&first.name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // Older than all that follow.
        let old = SystemTime::now() - std::time::Duration::from_secs(1000);
        File::options().write(true).open(first.dir.join(&first.name)).unwrap().set_modified(old).unwrap();
        for n in 0..COUNT_MAX {
            store(&cache, "sh", &format!("/srv/{n}")).save(&profile("x")).unwrap();
        }
        let left = fs::read_dir(&first.dir).unwrap().count();
        let gone = first.load();
        fs::remove_dir_all(&cache).unwrap();
        assert_eq!(left, COUNT_MAX);
        assert_eq!(gone, None);
    }

    #[test]
    fn a_command_is_the_same_by_name_and_by_path_but_not_elsewhere() {
        let name = |argv0, cwd| store(Path::new("/c"), argv0, cwd).name;
        assert_eq!(name("env", "/"), name("/usr/bin/env", "/"));
        assert_ne!(name("env", "/"), name("env", "/usr"));
        assert_ne!(name("env", "/"), name("sh", "/"));
        assert_eq!(resolve(&"./x".into(), None, Path::new("/d")), Path::new("/d/./x"));
        assert_eq!(resolve(&"no such command".into(), None, Path::new("/d")), Path::new("no such command"));
    }

    #[test]
    fn the_hash_is_fnv() {
        let mut hash = Fnv::new();
        hash.add(b"a");
        assert_eq!(hash.0, 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
