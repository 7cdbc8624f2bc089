//! The executable that becomes the agent: its hash, which names it everywhere, and its compressed form for the way.
//!
//! Both are remembered in the cache directory of this user, as far as that can be written. Used by [`super::connect`];
//! [`super::place`] uses the hash on the host.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::ConnectError;

/// First half of the BLAKE3 hash of an executable, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hash(String);

impl Hash {
    /// Characters of a hash.
    pub(super) const LEN: usize = 32;

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash of these bytes.
    #[cfg(test)]
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self::from(blake3::hash(bytes))
    }

    /// The hash of everything that can still be read.
    pub(super) fn read(mut file: impl Read) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut file, &mut hasher)?;
        Ok(Self::from(hasher.finalize()))
    }

    fn parse(text: &str) -> Option<Self> {
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == Self::LEN && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }
}

impl From<blake3::Hash> for Hash {
    fn from(hash: blake3::Hash) -> Self {
        let mut text = hash.to_hex().to_string();
        text.truncate(Self::LEN);
        Self(text)
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

/// An executable that is sent to hosts.
#[derive(Debug)]
pub(super) struct Executable {
    path: PathBuf,
    file: File,
    pub(super) hash: Hash,
    cache: Option<PathBuf>,
}

impl Executable {
    /// Opens `path`, or the executable that runs, and knows its hash: from the cache while the file is unchanged.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, ConnectError> {
        let path = path.unwrap_or(Path::new("/proc/self/exe")).to_owned();
        let failed = |source| ConnectError::Executable { path: path.clone(), source };
        let file = File::open(&path).map_err(failed)?;
        let cache = cache();
        let meta = file.metadata().map_err(failed)?;
        let identity = format!(
            "hash-{:x}-{:x}-{:x}-{:x}.{:x}-{:x}.{:x}",
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec()
        );
        let remembered = cache.as_ref().map(|cache| cache.join(identity));
        let known = remembered.as_ref().and_then(|at| Hash::parse(&fs::read_to_string(at).ok()?));
        let hash = match known {
            Some(hash) => hash,
            None => {
                if is_dynamic(&file).map_err(failed)? {
                    let path = fs::read_link(&path).unwrap_or(path);
                    return Err(ConnectError::Dynamic { path });
                }
                let hash = Hash::read(&file).map_err(failed)?;
                if let (Some(at), Some(cache)) = (remembered, &cache) {
                    remember(cache, &at, hash.as_str().as_bytes());
                    forget_all_but_newest(cache, "hash-");
                }
                hash
            }
        };
        Ok(Self { path, file, hash, cache })
    }

    /// Its bytes.
    pub(super) fn plain(&self) -> Result<Vec<u8>, ConnectError> {
        let read = || {
            let mut bytes = Vec::new();
            io::Seek::seek(&mut &self.file, io::SeekFrom::Start(0))?;
            (&self.file).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|source| ConnectError::Executable { path: self.path.clone(), source })
    }

    /// Its bytes, compressed by gzip. `again` says that what the cache gave turned out to be wrong. Of several hosts that want
    /// them at once, the others wait for what the first one makes, and share it.
    pub(super) fn packed(&self, again: bool) -> Result<Arc<Vec<u8>>, ConnectError> {
        static LAST: Mutex<Option<(Hash, Weak<Vec<u8>>)>> = Mutex::new(None);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some((hash, packed)), false) = (&*last, again)
            && *hash == self.hash
            && let Some(packed) = packed.upgrade()
        {
            return Ok(packed);
        }
        let packed = Arc::new(self.pack(again)?);
        *last = Some((self.hash.clone(), Arc::downgrade(&packed)));
        Ok(packed)
    }

    fn pack(&self, again: bool) -> Result<Vec<u8>, ConnectError> {
        let at = self.cache.as_ref().map(|cache| cache.join(format!("packed-{}.gz", self.hash)));
        if let (Some(at), false) = (&at, again)
            && let Ok(packed) = fs::read(at)
        {
            return Ok(packed);
        }
        let plain = self.plain()?;
        // Well takes three times as long as fast: over 20 s for a program with all its debug information whose compressor is not optimised.
        let fast = plain.len() > LARGE || cfg!(debug_assertions);
        let level = if fast { flate2::Compression::fast() } else { flate2::Compression::default() };
        let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(plain.len() / 2), level);
        let packed = encoder.write_all(&plain).and_then(|()| encoder.finish());
        let packed = packed.map_err(|source| ConnectError::Executable { path: self.path.clone(), source })?;
        if let (Some(at), Some(cache)) = (at, &self.cache) {
            remember(cache, &at, &packed);
            forget_all_but_newest(cache, "packed-");
        }
        Ok(packed)
    }
}

/// Whether an executable asks for a dynamic linker (PT_INTERP, elf(5)). What is no ELF file of 64 bits does not.
fn is_dynamic(file: &File) -> io::Result<bool> {
    const PT_INTERP: u32 = 3;
    let mut header = [0; 64];
    if file.read_at(&mut header, 0)? < header.len() || !header.starts_with(b"\x7fELF\x02") {
        return Ok(false);
    }
    let (size, count) =
        (usize::from(u16::from_ne_bytes([header[54], header[55]])), u16::from_ne_bytes([header[56], header[57]]));
    let mut at = [0; 8];
    at.copy_from_slice(&header[32..40]);
    let mut table = vec![0; size * usize::from(count)];
    file.read_exact_at(&mut table, u64::from_ne_bytes(at))?;
    let mut kinds = table.chunks(size.max(4)).filter_map(|entry| entry.first_chunk::<4>());
    Ok(kinds.any(|kind| u32::from_ne_bytes(*kind) == PT_INTERP))
}

/// This user's directory for what can be made again.
pub(super) fn cache() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("remotely"))
}

/// Writes a file of the cache, whole or not at all. Only speed depends on it, so that failing is silent.
pub(super) fn remember(cache: &Path, at: &Path, bytes: &[u8]) {
    let _ = fs::DirBuilder::new().recursive(true).mode(0o700).create(cache);
    let temporary = cache.join(format!(".new-{:016x}", nonce()));
    let file = File::options().write(true).create_new(true).mode(0o600).open(&temporary);
    let written = file.and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&temporary, at));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
}

/// An executable that is larger is compressed fast rather than well, in bytes.
const LARGE: usize = 32 << 20;

/// How many files of a kind, and how many agents of other versions, are kept.
pub(super) const KEPT: usize = 5;

/// Removes the oldest of the files whose name starts with `prefix`, but for [`KEPT`].
pub(super) fn forget_all_but_newest(directory: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    for (_, path) in found.iter().skip(KEPT) {
        let _ = fs::remove_file(path);
    }
}

/// A number that no other process has.
pub(super) fn nonce() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        // Before the kernel's pool is ready, at boot.
        _ => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            now.as_nanos() as u64 ^ u64::from(std::process::id()) << 40
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_hosts_at_once_need_one_compression() {
        let dir = tempfile::tempdir().unwrap();
        // Long enough to compress that all are at it; not even the cache can help.
        let path = dir.path().join("plain");
        fs::write(&path, vec![7; 16 << 20]).unwrap();
        let executable =
            Executable { path: path.clone(), file: File::open(path).unwrap(), hash: Hash::of(b"x"), cache: None };
        let all: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| executable.packed(false).unwrap())).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(all.iter().all(|one| Arc::ptr_eq(one, &all[0])));
    }
}
