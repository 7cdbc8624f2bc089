//! How the client's files look on the host: ids that exist there, inode numbers that are unique over all devices of the
//! client, and who may do what.

use remotely_proto::exec::Identity;
use remotely_proto::fs::Attr;

/// Ids that exist in the mount's user namespace: `None` if all do, else ranges of (first, count).
#[derive(Debug, Clone, Default)]
pub struct IdMaps {
    /// User ids.
    pub uids: Option<Vec<(u32, u32)>>,
    /// Group ids.
    pub gids: Option<Vec<(u32, u32)>>,
}

/// Turns attributes of the client into what the kernel is shown.
#[derive(Debug)]
pub(super) struct Show {
    maps: IdMaps,
    uid: u32,
    gid: u32,
    /// Devices of the client by their place in the inode number; the first is that of the root.
    devices: std::sync::Mutex<Vec<u64>>,
}

impl Show {
    pub(super) fn new(maps: IdMaps, identity: &Identity, root_dev: u64) -> Self {
        Self { maps, uid: identity.uid, gid: identity.gid, devices: std::sync::Mutex::new(vec![root_dev]) }
    }

    /// The attributes as they are shown.
    ///
    /// The kernel refuses to write, rename or remove an inode whose owner or group has no number in the user namespace
    /// (inode_permission, may_delete, notify_change), whatever the file system says, and with another reason than here.
    /// What the user of the client may do must not change by that, so ids that have no number are shown as his own.
    pub(super) fn attr(&self, attr: &Attr) -> Attr {
        let mut shown = attr.clone();
        shown.ino = self.ino(attr.dev, attr.ino);
        if !exists(&self.maps.uids, attr.uid) {
            shown.uid = self.uid;
        }
        if !exists(&self.maps.gids, attr.gid) {
            shown.gid = self.gid;
        }
        shown
    }

    /// The mount is one device, the client's files may be on many: inode numbers of others than the root's carry the
    /// device's place above bit 48, or a tree walk takes two mount points with inode 2 for a loop.
    fn ino(&self, dev: u64, ino: u64) -> u64 {
        let mut devices = self.devices.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let place = devices.iter().position(|&known| known == dev).unwrap_or_else(|| {
            devices.push(dev);
            devices.len() - 1
        });
        ino ^ (place as u64) << 48
    }
}

fn exists(ranges: &Option<Vec<(u32, u32)>>, id: u32) -> bool {
    ranges.as_ref().is_none_or(|ranges| ranges.iter().any(|&(first, count)| id >= first && id - first < count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use remotely_proto::fs::{Time, access};

    fn file(uid: u32, gid: u32, access: u8) -> Attr {
        let t = Time::default();
        Attr {
            dev: 1,
            ino: 2,
            mode: 0o100644,
            nlink: 1,
            uid,
            gid,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 0,
            atime: t,
            mtime: t,
            ctime: t,
            btime: t,
            access,
            flags: 0,
        }
    }

    fn show() -> Show {
        let identity = Identity { uid: 1000, gid: 1000, groups: vec![], hostname: vec![].into() };
        let one = Some(vec![(1000, 1)]);
        Show::new(IdMaps { uids: one.clone(), gids: one }, &identity, 1)
    }

    #[test]
    fn ids_without_a_number_are_shown_as_the_users_own() {
        for (uid, gid) in [(0, 27), (1000, 27), (0, 1000), (0, 0)] {
            let shown = show().attr(&file(uid, gid, access::READ));
            assert_eq!((shown.uid, shown.gid), (1000, 1000));
        }
    }

    #[test]
    fn where_all_ids_exist_they_are_shown() {
        let identity = Identity { uid: 1000, gid: 1000, groups: vec![], hostname: vec![].into() };
        let shown = Show::new(IdMaps::default(), &identity, 1).attr(&file(0, 27, access::READ));
        assert_eq!((shown.uid, shown.gid), (0, 27));
    }

    #[test]
    fn inode_numbers_of_two_devices_differ() {
        let show = show();
        let mut other = file(0, 0, 4);
        other.dev = 7;
        assert_ne!(show.attr(&other).ino, show.attr(&file(0, 0, 4)).ino);
        assert_eq!(show.attr(&file(0, 0, 4)).ino, 2);
    }
}
