//! Answers to the kernel, laid out as linux/fuse.h wants them. Pure: builds bytes, writes nothing.

use std::time::Duration;

use bytes::Bytes;
use remotely_proto::fs::{Attr, Lock, LockKind, Statfs, Time};

use super::abi::{Flags, MAJOR, MINOR, lock_type};

/// The body of an answer: fixed fields, then data that is not copied.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(super) head: Vec<u8>,
    pub(super) data: Vec<Bytes>,
}

/// What a name is answered with: the kernel's inode, how long it and its attributes may be trusted, and the attributes as
/// they are to be shown.
#[derive(Debug, Clone)]
pub(crate) struct EntryOut {
    pub(crate) node: u64,
    pub(crate) entry_valid: Duration,
    pub(crate) attr_valid: Duration,
    pub(crate) attr: Attr,
}

impl Answer {
    /// Nothing but success.
    pub(crate) fn done() -> Self {
        Self::default()
    }

    /// Plain data.
    pub(crate) fn data(data: Vec<Bytes>) -> Self {
        Self { head: Vec::new(), data }
    }

    /// Bytes of its data.
    pub(crate) fn data_len(&self) -> usize {
        self.data.iter().map(Bytes::len).sum()
    }

    /// `fuse_init_out`. Reads and writes of 1 MiB, many of them at once.
    pub(crate) fn init(minor: u32, max_readahead: u32, offered: u64) -> Self {
        let flags = offered & Flags::WANTED;
        let mut out = Out::default();
        out.u32(MAJOR).u32(minor.min(MINOR)).u32(max_readahead).u32(flags as u32);
        out.u16(256).u16(192).u32(1 << 20).u32(1);
        out.u16(256).u16(0).u32((flags >> 32) as u32);
        out.zeros(64 - 36);
        out.into()
    }

    /// `fuse_init_out` for a kernel that speaks a later major version: it asks again.
    pub(crate) fn init_version() -> Self {
        let mut out = Out::default();
        out.u32(MAJOR).u32(MINOR);
        out.into()
    }

    /// `fuse_entry_out`.
    pub(crate) fn entry(entry: &EntryOut) -> Self {
        let mut out = Out::default();
        out.entry(entry);
        out.into()
    }

    /// `fuse_entry_out` that says: there is no such name, and you may keep that.
    pub(crate) fn absent(valid: Duration) -> Self {
        let mut out = Out::default();
        out.u64(0).u64(0).valid(valid, Duration::ZERO).zeros(ATTR);
        out.into()
    }

    /// `fuse_entry_out` and `fuse_open_out`.
    pub(crate) fn created(entry: &EntryOut, file: u64, flags: u32) -> Self {
        let mut out = Out::default();
        out.entry(entry).u64(file).u32(flags).u32(0);
        out.into()
    }

    /// `fuse_attr_out`.
    pub(crate) fn attr(attr: &Attr, valid: Duration) -> Self {
        let mut out = Out::default();
        out.u64(valid.as_secs()).u32(valid.subsec_nanos()).u32(0).attr(attr);
        out.into()
    }

    /// `fuse_open_out`.
    pub(crate) fn open(file: u64, flags: u32) -> Self {
        let mut out = Out::default();
        out.u64(file).u32(flags).u32(0);
        out.into()
    }

    /// `fuse_write_out`, `fuse_getxattr_out`: a count.
    pub(crate) fn count(count: u32) -> Self {
        let mut out = Out::default();
        out.u32(count).u32(0);
        out.into()
    }

    /// `fuse_lseek_out`.
    pub(crate) fn offset(offset: u64) -> Self {
        let mut out = Out::default();
        out.u64(offset);
        out.into()
    }

    /// `fuse_statfs_out`.
    pub(crate) fn statfs(s: &Statfs) -> Self {
        let mut out = Out::default();
        out.u64(s.blocks).u64(s.bfree).u64(s.bavail).u64(s.files).u64(s.ffree);
        out.u32(s.bsize).u32(s.namelen).u32(s.frsize).zeros(4 + 24);
        out.into()
    }

    /// `fuse_lk_out`.
    pub(crate) fn lock(lock: &Lock) -> Self {
        let kind = match lock.kind {
            LockKind::Read => lock_type::READ,
            LockKind::Write => lock_type::WRITE,
            LockKind::Unlock => lock_type::UNLOCK,
        };
        let mut out = Out::default();
        out.u64(lock.start).u64(lock.end).u32(kind).u32(lock.pid);
        out.into()
    }
}

/// Bytes of `fuse_attr`.
const ATTR: usize = 88;
/// Bytes of `fuse_entry_out`.
const ENTRY: usize = 40 + ATTR;

/// Collects directory entries up to the size that the kernel asked for.
pub(crate) struct DirBuffer {
    out: Out,
    size: usize,
}

impl DirBuffer {
    pub(crate) fn new(size: u32) -> Self {
        Self { out: Out::default(), size: size as usize }
    }

    /// Adds `fuse_dirent`, or `fuse_direntplus` if `entry` is given (`Some(None)`: without a lookup). False if it is full.
    pub(crate) fn add(
        &mut self,
        entry: Option<Option<&EntryOut>>,
        ino: u64,
        next: u64,
        mode: u32,
        name: &[u8],
    ) -> bool {
        let padded = name.len().next_multiple_of(8);
        let need = 24 + padded + if entry.is_some() { ENTRY } else { 0 };
        if self.out.0.len() + need > self.size {
            return false;
        }
        match entry {
            Some(Some(entry)) => {
                self.out.entry(entry);
            }
            Some(None) => {
                self.out.zeros(ENTRY);
            }
            None => {}
        }
        self.out.u64(ino).u64(next).u32(name.len() as u32).u32((mode & libc::S_IFMT) >> 12);
        self.out.0.extend_from_slice(name);
        self.out.zeros(padded - name.len());
        true
    }

    pub(crate) fn finish(self) -> Answer {
        self.out.into()
    }
}

#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    fn valid(&mut self, entry: Duration, attr: Duration) -> &mut Self {
        self.u64(entry.as_secs()).u64(attr.as_secs()).u32(entry.subsec_nanos()).u32(attr.subsec_nanos())
    }

    fn entry(&mut self, entry: &EntryOut) -> &mut Self {
        self.u64(entry.node).u64(0).valid(entry.entry_valid, entry.attr_valid).attr(&entry.attr)
    }

    fn attr(&mut self, a: &Attr) -> &mut Self {
        let seconds = |time: &Time| time.sec as u64;
        self.u64(a.ino).u64(a.size).u64(a.blocks);
        self.u64(seconds(&a.atime)).u64(seconds(&a.mtime)).u64(seconds(&a.ctime));
        self.u32(a.atime.nsec).u32(a.mtime.nsec).u32(a.ctime.nsec);
        self.u32(a.mode).u32(a.nlink).u32(a.uid).u32(a.gid).u32(kernel_dev(a.rdev)).u32(a.blksize).u32(0)
    }
}

impl From<Out> for Answer {
    fn from(out: Out) -> Self {
        Self { head: out.0, data: Vec::new() }
    }
}

/// `new_encode_dev` of the kernel, from the encoding of glibc's makedev(3).
fn kernel_dev(dev: u64) -> u32 {
    let (major, minor) = (libc::major(dev), libc::minor(dev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr() -> Attr {
        let time = Time { sec: 1, nsec: 2 };
        Attr {
            dev: 0,
            ino: 9,
            mode: libc::S_IFREG | 0o644,
            nlink: 1,
            uid: 1,
            gid: 2,
            rdev: 0,
            size: 3,
            blocks: 8,
            blksize: 4096,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            access: 7,
            flags: 0,
        }
    }

    #[test]
    fn layouts_have_the_sizes_of_the_kernel_header() {
        let entry = EntryOut { node: 1, entry_valid: Duration::ZERO, attr_valid: Duration::ZERO, attr: attr() };
        assert_eq!(Answer::entry(&entry).head.len(), 128);
        assert_eq!(Answer::absent(Duration::ZERO).head.len(), 128);
        assert_eq!(Answer::attr(&attr(), Duration::ZERO).head.len(), 104);
        assert_eq!(Answer::created(&entry, 1, 0).head.len(), 144);
        assert_eq!(Answer::init(38, 0, u64::MAX).head.len(), 64);
        let mut dir = DirBuffer::new(4096);
        assert!(dir.add(Some(Some(&entry)), 9, 1, libc::S_IFREG, b"name"));
        assert_eq!(dir.finish().head.len(), 128 + 24 + 8);
    }

    #[test]
    fn device_numbers_are_reencoded() {
        assert_eq!(kernel_dev(libc::makedev(1, 3)), 0x103);
        assert_eq!(kernel_dev(libc::makedev(259, 0x12345)), 0x45 | (259 << 8) | (0x123 << 20));
    }
}
