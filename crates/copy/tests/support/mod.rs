//! Two ends of a link in one process, with a relay between them that delays or cuts, and trees to compare. Used by the tests
//! and the example of this crate.
#![allow(dead_code, clippy::unwrap_used, reason = "each user needs a part of it; in a test a panic is the finding")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, FileTypeExt, MetadataExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use remotely_session::{Incoming, Link, LinkBuilder, Pipe, Role, Service, Settings};

/// A linked pair whose agent serves files.
pub(crate) struct Pair {
    pub(crate) link: Link,
    pub(crate) agent: Link,
    _incoming: Incoming,
}

/// What lies between the ends.
#[derive(Clone, Default)]
pub(crate) struct Wire {
    /// One way.
    pub(crate) delay: Duration,
    /// After so many bytes towards the agent, or towards the client, everything is cut.
    pub(crate) cut_up: Option<u64>,
    pub(crate) cut_down: Option<u64>,
}

/// What has passed.
#[derive(Clone, Default)]
pub(crate) struct Passed {
    pub(crate) up: Arc<AtomicU64>,
    pub(crate) down: Arc<AtomicU64>,
}

pub(crate) fn ends(wire: &Wire) -> (Pipe, Pipe, Passed) {
    let passed = Passed::default();
    if wire.delay.is_zero() && wire.cut_up.is_none() && wire.cut_down.is_none() {
        let (a, b) = UnixStream::pair().unwrap();
        return (pipe(a), pipe(b), passed);
    }
    let (client, near) = UnixStream::pair().unwrap();
    let (far, agent) = UnixStream::pair().unwrap();
    relay(near.try_clone().unwrap(), far.try_clone().unwrap(), wire.delay, wire.cut_up, passed.up.clone());
    relay(far, near, wire.delay, wire.cut_down, passed.down.clone());
    (pipe(client), pipe(agent), passed)
}

fn pipe(socket: UnixStream) -> Pipe {
    let fd: OwnedFd = socket.into();
    Pipe { reader: fd.try_clone().unwrap(), writer: fd }
}

fn relay(mut from: UnixStream, mut to: UnixStream, delay: Duration, cut: Option<u64>, passed: Arc<AtomicU64>) {
    let (queue, out) = mpsc::sync_channel::<(Instant, Vec<u8>)>(4096);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match from.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(len) => _ = queue.send((Instant::now() + delay, buffer[..len].to_vec())),
            }
        }
    });
    thread::spawn(move || {
        for (due, mut bytes) in out {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let so_far = passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if let Some(cut) = cut {
                bytes.truncate(usize::try_from(cut.saturating_sub(so_far)).unwrap());
            }
            let broken = to.write_all(&bytes).is_err();
            if broken || cut.is_some_and(|cut| so_far + bytes.len() as u64 >= cut) {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}

pub(crate) fn pair() -> Pair {
    pair_over(&Wire::default()).0
}

pub(crate) fn pair_over(wire: &Wire) -> (Pair, Passed) {
    let (client, agent, passed) = ends(wire);
    let settings = |role| Settings { role, ..Settings::default() };
    let (link, incoming) = LinkBuilder::new(settings(Role::Client)).attach(client, Bytes::new());
    let (agent, mut offers) = LinkBuilder::new(settings(Role::Agent)).attach(agent, Bytes::new());
    tokio::spawn(async move {
        while let Some(offer) = offers.next().await {
            if offer.service == Service::FILE {
                tokio::spawn(remotely_copy::serve(offer));
            }
        }
    });
    (Pair { link, agent, _incoming: incoming }, passed)
}

/// Pseudo-random numbers, the same for the same seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// All that matters of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) mtime: Option<(i64, i64)>,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Directory,
    File([u8; 32], u64),
    Symlink(PathBuf),
    Other(&'static str),
}

/// A tree by its paths.
pub(crate) fn seen(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut found = BTreeMap::new();
    see(root, root, &mut found);
    found
}

fn see(root: &Path, path: &Path, found: &mut BTreeMap<Vec<u8>, Seen>) {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let content = if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            see(root, &entry.unwrap().path(), found);
        }
        Content::Directory
    } else if kind.is_symlink() {
        Content::Symlink(fs::read_link(path).unwrap())
    } else if kind.is_file() {
        Content::File(*blake3::hash(&fs::read(path).unwrap()).as_bytes(), meta.len())
    } else if kind.is_fifo() {
        Content::Other("fifo")
    } else {
        Content::Other("else")
    };
    let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
    let mtime = Some((meta.mtime(), meta.mtime_nsec()));
    found.insert(name, Seen { mode: meta.mode(), mtime, content });
}

/// Complains about the first files that are not the same. Times of directories count if `strict`.
pub(crate) fn assert_same(copy: &Path, source: &Path, strict: bool) {
    let [mut copy, mut source] = [seen(copy), seen(source)];
    let names: Vec<_> = copy.keys().chain(source.keys()).cloned().collect();
    for name in names {
        for tree in [&mut copy, &mut source] {
            if let Some(file) = tree.get_mut(&name).filter(|file| !strict && file.content == Content::Directory) {
                file.mtime = None;
            }
        }
        assert_eq!(copy.get(&name), source.get(&name), "{:?}", String::from_utf8_lossy(&name));
    }
}

/// Names of drafts anywhere beneath.
pub(crate) fn drafts(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap().map(Result::unwrap) {
        if entry.file_name().as_bytes().windows(10).any(|part| part == b".remotely-") {
            found.push(entry.path());
        }
        if entry.file_type().unwrap().is_dir() {
            found.extend(drafts(&entry.path()));
        }
    }
    found
}

/// A tree of many kinds of things.
pub(crate) fn mixed_tree(root: &Path, random: &mut Random) {
    fs::create_dir(root).unwrap();
    for (name, len) in [("empty", 0), ("one", 1), ("small", 4096), ("edge", 64 << 10), ("over", (64 << 10) + 1)] {
        fs::write(root.join(name), random.bytes(len)).unwrap();
    }
    fs::write(root.join("large"), random.bytes(3 << 20)).unwrap();
    let odd: [&[u8]; 5] = [b"new\nline", b"\xff\xfe\x80", b" ", b"-rf", &[b'x'; 255]];
    for name in odd {
        fs::write(root.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    fs::create_dir_all(root.join("a/b/c/d")).unwrap();
    fs::create_dir(root.join("empty dir")).unwrap();
    fs::write(root.join("a/b/c/d/deep"), b"deep").unwrap();
    std::os::unix::fs::symlink("b/c", root.join("a/link")).unwrap();
    std::os::unix::fs::symlink("/nowhere/at all", root.join("dangling")).unwrap();
    fs::hard_link(root.join("large"), root.join("a/linked")).unwrap();
    fs::hard_link(root.join("small"), root.join("a/b/linked small")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o640),
        0,
    )
    .unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(&random.bytes(5000), 10 << 20).unwrap();
    sparse.write_all_at(b"end", 40 << 20).unwrap();
    for (index, name) in ["one", "small", "a/b", "a/b/c", "empty dir"].iter().enumerate() {
        use std::os::unix::fs::PermissionsExt;
        let mode = [0o400, 0o755, 0o555, 0o700, 0o1777][index];
        let file = fs::File::open(root.join(name)).unwrap();
        file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
    }
    for (index, name) in ["one", "a/b/c/d/deep", "a/b/c/d", "a", "empty dir", "a/link", "dangling"].iter().enumerate() {
        let time = rustix::fs::Timespec { tv_sec: 1_000_000_000 + index as i64, tv_nsec: 123_456_789 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, root.join(name), &times, flags).unwrap();
    }
}

/// Bytes that a file has on the disk.
pub(crate) fn disk_bytes(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}
