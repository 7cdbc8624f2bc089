//! Which file systems tell of changes: others write to network and FUSE file systems without this kernel's knowing, and
//! the kernel's own (proc, sysfs) change without saying so. Asked once per device.

use std::{collections::HashMap, os::fd::BorrowedFd, sync::Mutex};

use rustix::fs::fstatfs;

use super::service::Hold;

/// Type numbers of statfs(2), from linux/magic.h and the file systems' own sources.
const SILENT: [u32; 28] = [
    0x0000_6969, // NFS
    0x0000_517b, // SMB
    0xfe53_4d42, // SMB2
    0xff53_4d42, // CIFS
    0x0102_1997, // 9P
    0x6573_5546, // FUSE
    0x5346_414f, // AFS
    0x6b41_4653, // kAFS
    0x00c3_6400, // Ceph
    0x7375_7245, // Coda
    0x0000_564c, // NCP
    0x0116_1970, // GFS2
    0x7461_636f, // OCFS2
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0x786f_4256, // vboxsf
    0xaad7_aaea, // PanFS
    0xbacb_acbc, // VMware hgfs
    PROC,
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xf97c_ff8c, // selinuxfs
    0xde5e_81e4, // efivarfs
];
const PROC: u32 = 0x0000_9fa0;
/// overlayfs: a file that is copied up keeps its number, and is born again.
const OVERLAY: u32 = 0x794c_7630;

/// What is known of one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MountKind {
    /// inotify(7) hears of changes.
    pub(super) tells: bool,
    /// proc(5): its files are doors into processes, this one too.
    pub(super) processes: bool,
    /// A birth time stays what it is for as long as the inode lives.
    pub(super) births: bool,
}

impl MountKind {
    /// Of which nothing is known.
    pub(super) const UNKNOWN: Self = Self { tells: false, processes: false, births: false };
}

/// Kinds by device.
#[derive(Debug, Default)]
pub(super) struct MountKinds {
    known: Mutex<HashMap<u64, MountKind>>,
}

impl MountKinds {
    /// The kind of the file system that a descriptor (O_PATH is enough) of device `dev` is on.
    pub(super) fn of(&self, dev: u64, descriptor: BorrowedFd<'_>) -> MountKind {
        if let Some(kind) = self.known(dev) {
            return kind;
        }
        let Ok(statfs) = fstatfs(descriptor) else { return MountKind::UNKNOWN };
        // The numbers are 32 bits wide, whatever the width of the field.
        let magic = statfs.f_type as u32;
        let kind = MountKind { tells: !SILENT.contains(&magic), processes: magic == PROC, births: magic != OVERLAY };
        self.known.hold().insert(dev, kind);
        kind
    }

    /// The same, if it was asked before.
    pub(super) fn known(&self, dev: u64) -> Option<MountKind> {
        self.known.hold().get(&dev).copied()
    }
}
