//! What is remembered from run to run, in the user's cache directory: a small file for each thing, the ones not used for
//! longest go. Used by `profile` and `way`; what is missing or cannot be kept is no error, it only costs time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use minicbor::{Decode, Encode};
use remotely_proto::ByteVec;

use super::inherited::variable;

/// Largest file in bytes.
const SIZE_MAX: u64 = 8 << 20;
/// Most files of one kind.
const COUNT_MAX: usize = 256;

/// The place of one thing of type `T`.
#[derive(Debug)]
pub(super) struct Store<T> {
    dir: PathBuf,
    name: String,
    kept: PhantomData<fn() -> T>,
}

impl<T: Encode<()> + for<'b> Decode<'b, ()>> Store<T> {
    /// For what all of `key` together name, among things of this `kind`. `None` without a home directory.
    pub(super) fn of(kind: &str, key: &[&[u8]], env: &[ByteVec]) -> Option<Self> {
        let absolute = |name| variable(env, name).map(Path::new).filter(|path| path.is_absolute());
        let cache =
            absolute("XDG_CACHE_HOME").map(Path::to_owned).or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        let mut hash = Fnv::new();
        for (index, part) in key.iter().enumerate() {
            if index > 0 {
                hash.add(&[0]);
            }
            hash.add(part);
        }
        Some(Self { dir: cache.join("remotely").join(kind), name: format!("{:032x}", hash.0), kept: PhantomData })
    }

    /// What was kept last, and when it was last kept or loaded.
    pub(super) fn load(&self) -> Option<(T, SystemTime)> {
        let path = self.dir.join(&self.name);
        let mut data = Vec::new();
        let file = File::open(path).ok()?;
        (&file).take(SIZE_MAX + 1).read_to_end(&mut data).ok()?;
        if data.len() as u64 > SIZE_MAX {
            return None;
        }
        // One of another version is as good as none.
        let kept = minicbor::decode(&data).ok()?;
        let used = file.metadata().ok()?.modified().ok()?;
        // The order in which they go is that of use.
        let _ = file.set_modified(SystemTime::now());
        Some((kept, used))
    }

    /// Keeps it. A run at the same time may win; either is whole.
    pub(super) fn save(&self, kept: &T) -> io::Result<()> {
        // Writing into a Vec cannot fail.
        let data = minicbor::to_vec(kept).unwrap_or_default();
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
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn store(cache: &Path, key: &str) -> Store<u64> {
        let entry = [b"XDG_CACHE_HOME=", cache.as_os_str().as_bytes()].concat();
        Store::of("number", &[key.as_bytes()], &[entry.into()]).unwrap()
    }

    #[test]
    fn what_was_saved_is_loaded_and_old_ones_go() {
        let cache = std::env::temp_dir().join(format!("store-{}", std::process::id()));
        let first = store(&cache, "/srv");
        assert_eq!(first.load(), None);
        first.save(&1).unwrap();
        first.save(&2).unwrap();
        assert_eq!(first.load().map(|(kept, _)| kept), Some(2));
        let mode = fs::metadata(first.dir.join(&first.name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // Older than all that follow.
        let old = SystemTime::now() - std::time::Duration::from_secs(1000);
        File::options().write(true).open(first.dir.join(&first.name)).unwrap().set_modified(old).unwrap();
        for n in 0..COUNT_MAX {
            store(&cache, &format!("/srv/{n}")).save(&3).unwrap();
        }
        let left = fs::read_dir(&first.dir).unwrap().count();
        let gone = first.load();
        fs::remove_dir_all(&cache).unwrap();
        assert_eq!(left, COUNT_MAX);
        assert_eq!(gone, None);
    }

    #[test]
    fn keys_of_several_parts_differ_by_where_they_are_parted() {
        let name = |key: &[&[u8]]| Store::<u64>::of("number", key, &[b"HOME=/h".to_vec().into()]).unwrap().name;
        assert_ne!(name(&[b"ab", b"c"]), name(&[b"a", b"bc"]));
        assert_eq!(name(&[b"ab", b"c"]), name(&[b"ab", b"c"]));
    }

    #[test]
    fn the_hash_is_fnv() {
        let mut hash = Fnv::new();
        hash.add(b"a");
        assert_eq!(hash.0, 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
