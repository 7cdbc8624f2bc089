//! Requests of the kernel, parsed into owned values so that an answer may take its time. The kernel is trusted to be itself,
//! but a request that does not parse is refused with EINVAL, never a panic.

use bytes::{Buf, Bytes};
use remotely_proto::ByteVec;

use super::abi::opcode;

/// One request.
#[derive(Debug)]
pub(crate) struct Request {
    /// Names it in the answer.
    pub(crate) unique: u64,
    /// The inode it is about.
    pub(crate) node: u64,
    /// Caller, by the ids of the mount's user namespace.
    pub(crate) uid: u32,
    /// See `uid`.
    pub(crate) gid: u32,
    /// The number of what is wanted, in linux/fuse.h.
    pub(crate) opcode: u32,
    /// What is wanted.
    pub(crate) op: Op,
}

/// What the kernel wants. Names and layouts of linux/fuse.h.
#[derive(Debug)]
pub(crate) enum Op {
    Init { major: u32, minor: u32, max_readahead: u32, flags: u64 },
    Destroy,
    Lookup { name: ByteVec },
    Forget { nodes: Vec<(u64, u64)> },
    Getattr { file: Option<u64> },
    Setattr(SetattrIn),
    Readlink,
    Symlink { name: ByteVec, target: ByteVec },
    Mknod { name: ByteVec, mode: u32, rdev: u32, umask: u32 },
    Unlink { name: ByteVec, dir: bool },
    Rename { name: ByteVec, new_parent: u64, new_name: ByteVec, flags: u32 },
    Link { node: u64, name: ByteVec },
    Open { flags: u32, open_flags: u32 },
    Create { name: ByteVec, flags: u32, mode: u32, umask: u32 },
    Tmpfile { flags: u32, mode: u32, umask: u32 },
    Read { file: u64, offset: u64, size: u32, flags: u32 },
    Write { file: u64, offset: u64, write_flags: u32, flags: u32, data: Bytes },
    Statfs,
    Flush { file: u64, owner: u64 },
    Release { file: u64, flags: u32, owner: u64 },
    Fsync { file: u64, data_only: bool },
    Setxattr { name: ByteVec, flags: u32, value: Bytes },
    Getxattr { name: ByteVec, size: u32 },
    Listxattr { size: u32 },
    Removexattr { name: ByteVec },
    Opendir,
    Readdir { file: u64, offset: u64, size: u32, plus: bool },
    Releasedir { file: u64 },
    Fsyncdir { data_only: bool },
    Lock { file: u64, lock: LockIn, test: bool, wait: bool },
    Access { mask: u32 },
    Interrupt { unique: u64 },
    Fallocate { file: u64, offset: u64, len: u64, mode: u32 },
    Lseek { file: u64, offset: u64, whence: u32 },
    CopyFileRange { file: u64, offset: u64, to_node: u64, to: u64, to_offset: u64, len: u64 },
    Syncfs,
    Unknown,
}

/// `fuse_setattr_in`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetattrIn {
    pub(crate) valid: u32,
    pub(crate) file: u64,
    pub(crate) size: u64,
    pub(crate) atime: (u64, u32),
    pub(crate) mtime: (u64, u32),
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// `fuse_lk_in`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LockIn {
    pub(crate) owner: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) kind: u32,
    pub(crate) pid: u32,
    pub(crate) flock: bool,
}

impl Request {
    /// Bytes of `fuse_in_header`.
    pub(super) const HEADER: usize = 40;

    /// Parses one request as read from the device. On failure the `unique` to refuse, if there is one.
    pub(super) fn parse(mut bytes: Bytes) -> Result<Self, Option<u64>> {
        if bytes.len() < Self::HEADER {
            return Err(None);
        }
        let len = bytes.get_u32_ne() as usize;
        let code = bytes.get_u32_ne();
        let unique = bytes.get_u64_ne();
        let node = bytes.get_u64_ne();
        let uid = bytes.get_u32_ne();
        let gid = bytes.get_u32_ne();
        bytes.advance(8); // pid, extension length, padding
        if len != bytes.len() + Self::HEADER {
            return Err(Some(unique));
        }
        let op = parse_op(code, node, Args(bytes)).ok_or(Some(unique))?;
        Ok(Self { unique, node, uid, gid, opcode: code, op })
    }
}

fn parse_op(code: u32, node: u64, mut a: Args) -> Option<Op> {
    Some(match code {
        opcode::LOOKUP => Op::Lookup { name: a.name()? },
        opcode::FORGET => Op::Forget { nodes: vec![(node, a.u64()?)] },
        opcode::BATCH_FORGET => {
            let count = a.u32()? as usize;
            a.skip(4)?;
            if a.0.len() < count.checked_mul(16)? {
                return None;
            }
            Op::Forget { nodes: (0..count).map(|_| Some((a.u64()?, a.u64()?))).collect::<Option<_>>()? }
        }
        opcode::GETATTR => {
            let flags = a.u32()?;
            a.skip(4)?;
            let file = a.u64()?;
            Op::Getattr { file: (flags & 1 != 0).then_some(file) }
        }
        opcode::SETATTR => Op::Setattr(a.setattr()?),
        opcode::READLINK => Op::Readlink,
        opcode::SYMLINK => Op::Symlink { name: a.name()?, target: a.name()? },
        opcode::MKNOD => {
            let (mode, rdev, umask) = (a.u32()?, a.u32()?, a.u32()?);
            a.skip(4)?;
            Op::Mknod { name: a.name()?, mode, rdev, umask }
        }
        opcode::MKDIR => {
            let (mode, umask) = (a.u32()?, a.u32()?);
            Op::Mknod { name: a.name()?, mode: libc::S_IFDIR | (mode & 0o7777), rdev: 0, umask }
        }
        opcode::UNLINK => Op::Unlink { name: a.name()?, dir: false },
        opcode::RMDIR => Op::Unlink { name: a.name()?, dir: true },
        opcode::RENAME => {
            let new_parent = a.u64()?;
            Op::Rename { new_parent, name: a.name()?, new_name: a.name()?, flags: 0 }
        }
        opcode::RENAME2 => {
            let (new_parent, flags) = (a.u64()?, a.u32()?);
            a.skip(4)?;
            Op::Rename { new_parent, name: a.name()?, new_name: a.name()?, flags }
        }
        opcode::LINK => Op::Link { node: a.u64()?, name: a.name()? },
        opcode::OPEN => Op::Open { flags: a.u32()?, open_flags: a.u32()? },
        opcode::CREATE | opcode::TMPFILE => {
            let (flags, mode, umask) = (a.u32()?, a.u32()?, a.u32()?);
            a.skip(4)?;
            match code {
                opcode::CREATE => Op::Create { name: a.name()?, flags, mode, umask },
                _ => Op::Tmpfile { flags, mode, umask },
            }
        }
        opcode::READ => {
            let (file, offset, size, flags) = a.io()?;
            Op::Read { file, offset, size, flags }
        }
        opcode::WRITE => {
            let (file, offset, size) = (a.u64()?, a.u64()?, a.u32()?);
            let write_flags = a.u32()?;
            a.skip(8)?;
            let flags = a.u32()?;
            a.skip(4)?;
            Op::Write { file, offset, write_flags, flags, data: a.bytes(size as usize)? }
        }
        opcode::STATFS => Op::Statfs,
        opcode::FLUSH => {
            let file = a.u64()?;
            a.skip(8)?;
            Op::Flush { file, owner: a.u64()? }
        }
        opcode::RELEASE => {
            let file = a.u64()?;
            a.skip(4)?;
            Op::Release { file, flags: a.u32()?, owner: a.u64()? }
        }
        opcode::FSYNC => Op::Fsync { file: a.u64()?, data_only: a.u32()? & 1 != 0 },
        opcode::SETXATTR => {
            let (size, flags) = (a.u32()?, a.u32()?);
            let name = a.name()?;
            Op::Setxattr { name, flags, value: a.bytes(size as usize)? }
        }
        opcode::GETXATTR => {
            let size = a.u32()?;
            a.skip(4)?;
            Op::Getxattr { size, name: a.name()? }
        }
        opcode::LISTXATTR => Op::Listxattr { size: a.u32()? },
        opcode::REMOVEXATTR => Op::Removexattr { name: a.name()? },
        opcode::INIT => {
            let (major, minor) = (a.u32()?, a.u32()?);
            let (max_readahead, low) = (a.u32()?, a.u32()?);
            let high = a.u32().unwrap_or(0);
            Op::Init { major, minor, max_readahead, flags: u64::from(low) | u64::from(high) << 32 }
        }
        opcode::OPENDIR => Op::Opendir,
        opcode::READDIR | opcode::READDIRPLUS => {
            let (file, offset, size, _) = a.io()?;
            Op::Readdir { file, offset, size, plus: code == opcode::READDIRPLUS }
        }
        opcode::RELEASEDIR => Op::Releasedir { file: a.u64()? },
        opcode::FSYNCDIR => {
            a.skip(8)?;
            Op::Fsyncdir { data_only: a.u32()? & 1 != 0 }
        }
        opcode::GETLK | opcode::SETLK | opcode::SETLKW => {
            let (file, owner) = (a.u64()?, a.u64()?);
            let (start, end) = (a.u64()?, a.u64()?);
            let (kind, pid, flags) = (a.u32()?, a.u32()?, a.u32()?);
            let lock = LockIn { owner, start, end, kind, pid, flock: flags & 1 != 0 };
            Op::Lock { file, lock, test: code == opcode::GETLK, wait: code == opcode::SETLKW }
        }
        opcode::ACCESS => Op::Access { mask: a.u32()? },
        opcode::INTERRUPT => Op::Interrupt { unique: a.u64()? },
        opcode::DESTROY => Op::Destroy,
        opcode::FALLOCATE => Op::Fallocate { file: a.u64()?, offset: a.u64()?, len: a.u64()?, mode: a.u32()? },
        opcode::LSEEK => Op::Lseek { file: a.u64()?, offset: a.u64()?, whence: a.u32()? },
        opcode::COPY_FILE_RANGE => Op::CopyFileRange {
            file: a.u64()?,
            offset: a.u64()?,
            to_node: a.u64()?,
            to: a.u64()?,
            to_offset: a.u64()?,
            len: a.u64()?,
        },
        opcode::SYNCFS => Op::Syncfs,
        _ => Op::Unknown,
    })
}

/// Reads fields off the front, in the byte order of the machine.
struct Args(Bytes);

impl Args {
    fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32_ne().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.0.try_get_u64_ne().ok()
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        (self.0.len() >= count).then(|| self.0.advance(count))
    }

    fn bytes(&mut self, count: usize) -> Option<Bytes> {
        (self.0.len() >= count).then(|| self.0.split_to(count))
    }

    /// A NUL-terminated name.
    fn name(&mut self) -> Option<ByteVec> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let name = self.0.split_to(end);
        self.0.advance(1);
        Some(name.to_vec().into())
    }

    /// The front of `fuse_read_in`: file, offset, size, open flags.
    fn io(&mut self) -> Option<(u64, u64, u32, u32)> {
        let (file, offset, size) = (self.u64()?, self.u64()?, self.u32()?);
        self.skip(12)?;
        Some((file, offset, size, self.u32()?))
    }

    fn setattr(&mut self) -> Option<SetattrIn> {
        let valid = self.u32()?;
        self.skip(4)?;
        let (file, size) = (self.u64()?, self.u64()?);
        self.skip(8)?;
        let (atime, mtime) = (self.u64()?, self.u64()?);
        self.skip(8)?;
        let (atime_nsec, mtime_nsec) = (self.u32()?, self.u32()?);
        self.skip(4)?;
        let mode = self.u32()?;
        self.skip(4)?;
        let (uid, gid) = (self.u32()?, self.u32()?);
        Some(SetattrIn { valid, file, size, atime: (atime, atime_nsec), mtime: (mtime, mtime_nsec), mode, uid, gid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(code: u32, body: &[u8]) -> Bytes {
        let mut out = Vec::new();
        out.extend(((Request::HEADER + body.len()) as u32).to_ne_bytes());
        out.extend(code.to_ne_bytes());
        out.extend(7u64.to_ne_bytes());
        out.extend(1u64.to_ne_bytes());
        out.extend([0; 16]);
        out.extend(body);
        out.into()
    }

    #[test]
    fn a_name_is_bytes_up_to_the_nul() {
        let request = Request::parse(header(opcode::LOOKUP, b"a\xff\0")).unwrap();
        assert!(matches!(request.op, Op::Lookup { name } if name[..] == *b"a\xff"));
    }

    #[test]
    fn every_cut_of_every_request_is_refused_or_parsed_without_a_panic() {
        for code in 0..64 {
            for len in 0..128 {
                let _ = Request::parse(header(code, &vec![1; len]));
            }
        }
        assert!(Request::parse(Bytes::from_static(b"short")).is_err());
    }
}
