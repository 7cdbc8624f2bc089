//! Numbers of linux/fuse.h that the mount uses. Values only; the layouts are in `request` and `answer`.

/// `fuse_in_header.opcode`.
pub(super) mod opcode {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const FORGET: u32 = 2;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const SETATTR: u32 = 4;
    pub(in super::super) const READLINK: u32 = 5;
    pub(in super::super) const SYMLINK: u32 = 6;
    pub(in super::super) const MKNOD: u32 = 8;
    pub(in super::super) const MKDIR: u32 = 9;
    pub(in super::super) const UNLINK: u32 = 10;
    pub(in super::super) const RMDIR: u32 = 11;
    pub(in super::super) const RENAME: u32 = 12;
    pub(in super::super) const LINK: u32 = 13;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const FSYNC: u32 = 20;
    pub(in super::super) const SETXATTR: u32 = 21;
    pub(in super::super) const GETXATTR: u32 = 22;
    pub(in super::super) const LISTXATTR: u32 = 23;
    pub(in super::super) const REMOVEXATTR: u32 = 24;
    pub(in super::super) const FLUSH: u32 = 25;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const FSYNCDIR: u32 = 30;
    pub(in super::super) const GETLK: u32 = 31;
    pub(in super::super) const SETLK: u32 = 32;
    pub(in super::super) const SETLKW: u32 = 33;
    pub(in super::super) const ACCESS: u32 = 34;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const INTERRUPT: u32 = 36;
    pub(in super::super) const DESTROY: u32 = 38;
    pub(in super::super) const BATCH_FORGET: u32 = 42;
    pub(in super::super) const FALLOCATE: u32 = 43;
    pub(in super::super) const READDIRPLUS: u32 = 44;
    pub(in super::super) const RENAME2: u32 = 45;
    pub(in super::super) const LSEEK: u32 = 46;
    pub(in super::super) const COPY_FILE_RANGE: u32 = 47;
    pub(in super::super) const SYNCFS: u32 = 50;
    pub(in super::super) const TMPFILE: u32 = 51;
}

/// What a kind of request is called, by its number; `None` if the mount does not know it.
pub fn opcode_name(number: u32) -> Option<&'static str> {
    Some(match number {
        opcode::LOOKUP => "lookup",
        opcode::FORGET => "forget",
        opcode::GETATTR => "getattr",
        opcode::SETATTR => "setattr",
        opcode::READLINK => "readlink",
        opcode::SYMLINK => "symlink",
        opcode::MKNOD => "mknod",
        opcode::MKDIR => "mkdir",
        opcode::UNLINK => "unlink",
        opcode::RMDIR => "rmdir",
        opcode::RENAME => "rename",
        opcode::LINK => "link",
        opcode::OPEN => "open",
        opcode::READ => "read",
        opcode::WRITE => "write",
        opcode::STATFS => "statfs",
        opcode::RELEASE => "release",
        opcode::FSYNC => "fsync",
        opcode::SETXATTR => "setxattr",
        opcode::GETXATTR => "getxattr",
        opcode::LISTXATTR => "listxattr",
        opcode::REMOVEXATTR => "removexattr",
        opcode::FLUSH => "flush",
        opcode::INIT => "init",
        opcode::OPENDIR => "opendir",
        opcode::READDIR => "readdir",
        opcode::RELEASEDIR => "releasedir",
        opcode::FSYNCDIR => "fsyncdir",
        opcode::GETLK => "getlk",
        opcode::SETLK => "setlk",
        opcode::SETLKW => "setlkw",
        opcode::ACCESS => "access",
        opcode::CREATE => "create",
        opcode::INTERRUPT => "interrupt",
        opcode::DESTROY => "destroy",
        opcode::BATCH_FORGET => "batch-forget",
        opcode::FALLOCATE => "fallocate",
        opcode::READDIRPLUS => "readdirplus",
        opcode::RENAME2 => "rename2",
        opcode::LSEEK => "lseek",
        opcode::COPY_FILE_RANGE => "copy-file-range",
        opcode::SYNCFS => "syncfs",
        opcode::TMPFILE => "tmpfile",
        _ => return None,
    })
}

/// `fuse_out_header.error` of a notification.
pub(super) mod notify {
    pub(in super::super) const INVAL_INODE: i32 = 2;
    pub(in super::super) const INVAL_ENTRY: i32 = 3;
    /// Flag of it: looked up again when it is used, instead of dropped (Linux 6.2; before, it is dropped).
    pub(in super::super) const EXPIRE_ONLY: u32 = 1;
}

/// FUSE_INTERRUPT has the `unique` of the request that it is about, and this bit, which no other request has.
pub(super) const INTERRUPT_BIT: u64 = 1;

/// Protocol spoken: 7.31 is the oldest accepted (Linux 5.4), 7.38 what is understood.
pub(super) const MAJOR: u32 = 7;
pub(super) const MINOR: u32 = 38;
pub(super) const MINOR_OLDEST: u32 = 31;

/// Features of INIT.
pub(crate) struct Flags;

impl Flags {
    pub(super) const ASYNC_READ: u64 = 1 << 0;
    pub(super) const POSIX_LOCKS: u64 = 1 << 1;
    pub(super) const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub(super) const BIG_WRITES: u64 = 1 << 5;
    pub(super) const DONT_MASK: u64 = 1 << 6;
    pub(super) const FLOCK_LOCKS: u64 = 1 << 10;
    pub(super) const DO_READDIRPLUS: u64 = 1 << 13;
    pub(super) const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub(super) const ASYNC_DIO: u64 = 1 << 15;
    pub(super) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(super) const ABORT_ERROR: u64 = 1 << 21;
    pub(super) const MAX_PAGES: u64 = 1 << 22;
    pub(super) const CACHE_SYMLINKS: u64 = 1 << 23;
    pub(super) const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub(super) const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub(super) const INIT_EXT: u64 = 1 << 30;
    pub(super) const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;

    /// What is asked for. Not the writeback cache: with it the kernel owns sizes and times, and a change made on the
    /// client could not be shown. Not POSIX_ACL: it brings default_permissions, which decides with mapped ids.
    pub(super) const WANTED: u64 = Self::ASYNC_READ
        | Self::POSIX_LOCKS
        | Self::ATOMIC_O_TRUNC
        | Self::BIG_WRITES
        | Self::DONT_MASK
        | Self::FLOCK_LOCKS
        | Self::DO_READDIRPLUS
        | Self::READDIRPLUS_AUTO
        | Self::ASYNC_DIO
        | Self::PARALLEL_DIROPS
        | Self::ABORT_ERROR
        | Self::MAX_PAGES
        | Self::CACHE_SYMLINKS
        | Self::EXPLICIT_INVAL_DATA
        | Self::HANDLE_KILLPRIV_V2
        | Self::INIT_EXT
        | Self::DIRECT_IO_ALLOW_MMAP;
}

/// `fuse_setattr_in.valid`.
pub(crate) mod attr_set {
    pub(crate) const MODE: u32 = 1 << 0;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const FH: u32 = 1 << 6;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
    pub(crate) const KILL_SUIDGID: u32 = 1 << 11;
}

/// `fuse_open_out.open_flags`, and what the kernel says about an open.
pub(crate) mod open_flag {
    /// Answer: pages of an earlier open stay.
    pub(crate) const KEEP_CACHE: u32 = 1 << 1;
    /// Asked: set-user-id bits go (`fuse_open_in.open_flags`).
    pub(crate) const KILL_SUIDGID: u32 = 1 << 0;
    /// `__FMODE_EXEC` in `flags`: opened to be executed.
    pub(crate) const EXEC: u32 = 0x20;
    /// `fuse_write_in.write_flags`: written back from the page cache, `fh` is a guess.
    pub(crate) const WRITE_CACHE: u32 = 1 << 0;
    /// `fuse_write_in.write_flags`.
    pub(crate) const WRITE_KILL_SUIDGID: u32 = 1 << 2;
    /// `fuse_release_in.release_flags`: the flock of this owner goes.
    pub(crate) const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
}

/// `fuse_file_lock.type`, as F_RDLCK and so on.
pub(crate) mod lock_type {
    pub(crate) const READ: u32 = libc::F_RDLCK as u32;
    pub(crate) const WRITE: u32 = libc::F_WRLCK as u32;
    pub(crate) const UNLOCK: u32 = libc::F_UNLCK as u32;
}
