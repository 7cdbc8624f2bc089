//! What has a name and no content of its own: symbolic links, fifos, device nodes, further names of files.

use remotely_proto::{
    file::{Meta, Operation, Reason},
    fs::Time,
};
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, chmodat, linkat, mknodat, readlinkat, renameat, statat, symlinkat, unlinkat,
    },
    io::Errno,
};

use super::{
    attribute::{Taken, same_time},
    draft::{Fault, Spot},
};
use crate::{
    beneath::open_chain,
    draft_name::{SLOTS, draft_name},
    seat::components,
};

/// Makes a symbolic link. It leads where it will: nothing here ever follows it.
pub(super) fn symlink(spot: &Spot, target: &[u8], meta: &Meta, taken: Taken) -> Vec<Fault> {
    let dir = &spot.folder.descriptor;
    // Made anew, it would change its directory.
    let same = readlinkat(dir, spot.name.as_slice(), Vec::new()).is_ok_and(|there| there.to_bytes() == target);
    let made = if same { Ok(()) } else { make(spot, |name| symlinkat(target, dir, name)) };
    match made {
        Ok(()) => taken.apply_name(dir, &spot.name, meta),
        Err(errno) => vec![(Operation::Symlink, Some(errno))],
    }
}

/// Makes a fifo or a device node, or says why not.
pub(super) fn special(spot: &Spot, meta: &Meta, device: u64, taken: Taken) -> Result<Vec<Fault>, Reason> {
    let dir = &spot.folder.descriptor;
    let kind = FileType::from_raw_mode(meta.mode);
    let device = match kind {
        FileType::Fifo => 0,
        FileType::CharacterDevice | FileType::BlockDevice if taken.owner() => device,
        FileType::CharacterDevice | FileType::BlockDevice => return Err(Reason::Device),
        _ => return Ok(vec![(Operation::MakeSpecial, Some(Errno::INVAL))]),
    };
    let bare = Mode::from_raw_mode(0o600);
    let there = statat(dir, spot.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
    let same = there.is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == kind && (kind == FileType::Fifo || stat.st_rdev == device)
    });
    if !same && let Err(errno) = make(spot, |name| mknodat(dir, name, kind, bare, device)) {
        return Ok(vec![(Operation::MakeSpecial, Some(errno))]);
    }
    let mut faults = taken.apply_name(dir, &spot.name, meta);
    // It is a node of this kind, and no symbolic link; and it must not be opened.
    let mode = Mode::from_raw_mode(taken.mode(meta, false));
    if let Err(errno) = chmodat(dir, spot.name.as_slice(), mode, AtFlags::empty()) {
        faults.push((Operation::SetMode, Some(errno)));
    }
    Ok(faults)
}

/// Makes a further name of a file beneath `root`, which must be the one that was sent.
pub(super) fn link(spot: &Spot, root: &Spot, target: &[u8], size: u64, mtime: Time) -> Result<(), Errno> {
    let chain = components(target)?;
    let Some((last, before)) = chain.split_last() else { return Err(Errno::INVAL) };
    use std::os::fd::AsFd;
    let parent = open_chain(root.folder.descriptor.as_fd(), before, OFlags::PATH | OFlags::DIRECTORY)?;
    let found = statat(&parent, *last, AtFlags::SYMLINK_NOFOLLOW)?;
    let is = Time { sec: found.st_mtime, nsec: u32::try_from(found.st_mtime_nsec).unwrap_or_default() };
    let same = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
        && u64::try_from(found.st_size) == Ok(size)
        && same_time(is, mtime);
    if !same {
        // Something else stands there: the file itself has failed.
        return Err(Errno::NOENT);
    }
    let dir = &spot.folder.descriptor;
    let there = statat(dir, spot.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW);
    if there.is_ok_and(|there| (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)) {
        return Ok(());
    }
    make(spot, |name| linkat(&parent, *last, dir, name, AtFlags::empty()))
}

/// Makes something under its name, or, if there is something, under another one and puts it in that place.
fn make(spot: &Spot, make: impl Fn(&[u8]) -> Result<(), Errno>) -> Result<(), Errno> {
    match make(&spot.name) {
        Err(Errno::EXIST) => {}
        result => return result,
    }
    let dir = &spot.folder.descriptor;
    for slot in 0..SLOTS {
        let draft = draft_name(&spot.name, slot);
        match make(&draft) {
            Err(Errno::EXIST) => continue,
            result => result?,
        }
        let renamed = renameat(dir, draft.as_slice(), dir, spot.name.as_slice());
        // Of two names of one file, rename(2) leaves both.
        let left = unlinkat(dir, draft.as_slice(), AtFlags::empty());
        debug_assert!(renamed.is_err() || left.is_ok() || left == Err(Errno::NOENT));
        return renamed;
    }
    Err(Errno::EXIST)
}
