//! Names given, taken and moved: link, unlink, rename.

use rustix::{
    fs::{AtFlags, CWD, FileType, RenameFlags, Statx, linkat, renameat_with, unlinkat},
    io::Errno,
};

use remotely_proto::fs::{Entry, File, Node};

use super::{
    attr::{self, Seat, proc_path},
    entry::Directory,
    name,
    node::Place,
    open::Located,
    service::{Hold, Service},
};

impl Service {
    /// link(2).
    pub(super) fn link(&self, node: Node, file: Option<File>, parent: Node, name: &[u8]) -> Result<Entry, Errno> {
        name::check(name)?;
        let source = match file.and_then(|file| self.files.find(file).ok()) {
            Some(open) => {
                let descriptor = open.descriptor(self)?;
                Located { stat: attr::stat(&descriptor)?, descriptor }
            }
            None => self.locate(node)?,
        };
        let found = self.locate_dir(parent)?;
        let dir = self.directory(&found, false);
        if self.is_hidden_name(&dir, name) {
            return Err(Errno::ACCESS);
        }
        // What is open since before it came to be hidden gets no name that is not.
        if self.hidden.holds(source.as_fd()) {
            return Err(Errno::NOENT);
        }
        if source.kind() == FileType::Symlink {
            self.keep_missing_way(&dir, name)?;
        }
        linkat(CWD, proc_path(source.as_fd()), dir.descriptor, name, AtFlags::SYMLINK_FOLLOW)?;
        let stat = attr::stat(&source.descriptor)?;
        self.nodes.hold().insert(node, (source.key(), source.born()), Some(Place { parent, name: name.into() }));
        {
            let mut known = self.known.hold();
            known.changed(&source.stat, &stat);
            known.settle_name(dir.key, name, Some(source.key()));
        }
        self.directory_changed(&found);
        self.entry_of(&dir, name, Seat::Open(source.as_fd()), &stat)
    }

    /// unlink(2) and rmdir(2).
    pub(super) fn unlink(&self, parent: Node, name: &[u8], dir: bool, keep: Option<Node>) -> Result<(), Errno> {
        name::check(name)?;
        let found = self.locate_dir(parent)?;
        let directory = self.directory(&found, false);
        let stat = self.visible(&directory, name)?;
        if leads(&stat) {
            self.keep_ways(&directory, name, Some(&stat))?;
        }
        let kept = self.to_keep(keep, &stat);
        unlinkat(directory.descriptor, name, if dir { AtFlags::REMOVEDIR } else { AtFlags::empty() })?;
        self.nodes.hold().removed(parent, name);
        self.known.hold().settle_name(directory.key, name, None);
        self.directory_changed(&found);
        self.unnamed(&stat, kept);
        Ok(())
    }

    /// renameat2(2).
    pub(super) fn rename(
        &self,
        from: (Node, &[u8]),
        to: (Node, &[u8]),
        flags: u32,
        keep: Option<Node>,
    ) -> Result<(), Errno> {
        name::check(from.1)?;
        name::check(to.1)?;
        let flags = RenameFlags::from_bits_retain(flags);
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE | RenameFlags::WHITEOUT).contains(flags) {
            return Err(Errno::INVAL);
        }
        let (old_found, new_found) = (self.locate_dir(from.0)?, self.locate_dir(to.0)?);
        let old_dir = self.directory(&old_found, false);
        let new_dir = self.directory(&new_found, false);
        let moved = self.visible(&old_dir, from.1)?;
        let replaced = match attr::stat_name(new_dir.descriptor, to.1) {
            Ok(stat) if self.is_hidden(&new_dir, to.1, attr::key(&stat)) => return Err(Errno::ACCESS),
            Ok(stat) => Some(stat),
            Err(_) if self.is_hidden_name(&new_dir, to.1) => return Err(Errno::ACCESS),
            Err(_) => None,
        };
        if leads(&moved) || replaced.as_ref().is_some_and(leads) {
            self.keep_ways(&old_dir, from.1, Some(&moved))?;
            self.keep_ways(&new_dir, to.1, replaced.as_ref())?;
        }
        let kept = replaced.as_ref().and_then(|replaced| self.to_keep(keep, replaced));
        renameat_with(old_dir.descriptor, from.1, new_dir.descriptor, to.1, flags)?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if !exchange && replaced.as_ref().is_some_and(|replaced| attr::key(replaced) == attr::key(&moved)) {
            // Two names of one inode: rename(2) then does nothing, and both stay.
            return Ok(());
        }
        self.nodes.hold().renamed(from, to, exchange);
        self.settle_move(&new_dir, to.1, Some(&moved));
        match replaced {
            Some(replaced) if exchange => self.settle_move(&old_dir, from.1, Some(&replaced)),
            replaced => {
                self.settle_move(&old_dir, from.1, None);
                if let Some(replaced) = replaced {
                    self.unnamed(&replaced, kept);
                }
            }
        }
        self.directory_changed(&old_found);
        if old_dir.key != new_dir.key {
            self.directory_changed(&new_found);
        }
        Ok(())
    }

    /// EBUSY if a hidden path leads through this name: what is beneath it would be seen from elsewhere.
    fn keep_ways(&self, dir: &Directory<'_>, name: &[u8], stat: Option<&Statx>) -> Result<(), Errno> {
        if self.hidden.passes(dir.key, name, stat.map(attr::key)) { Err(Errno::BUSY) } else { Ok(()) }
    }

    /// The same for a symbolic link that is to be made.
    pub(super) fn keep_missing_way(&self, dir: &Directory<'_>, name: &[u8]) -> Result<(), Errno> {
        if attr::stat_name(dir.descriptor, name).is_ok() { Err(Errno::EXIST) } else { self.keep_ways(dir, name, None) }
    }

    /// The state of a name that the mount may see.
    fn visible(&self, dir: &Directory<'_>, name: &[u8]) -> Result<Statx, Errno> {
        let stat = attr::stat_name(dir.descriptor, name)?;
        if self.is_hidden(dir, name, attr::key(&stat)) { Err(Errno::NOENT) } else { Ok(stat) }
    }

    /// After a rename: what `name` names now, where `before` was its state under its old name. With none, it is gone, or
    /// a whiteout is there.
    fn settle_move(&self, dir: &Directory<'_>, name: &[u8], before: Option<&Statx>) {
        let now = attr::stat_name(dir.descriptor, name).ok();
        let mut known = self.known.hold();
        known.settle_name(dir.key, name, now.as_ref().map(attr::key));
        match (before, &now) {
            (Some(before), Some(now)) if attr::key(before) == attr::key(now) => known.changed(before, now),
            (None, Some(whiteout)) => known.settle(whiteout),
            _ => {}
        }
    }

    /// What the mount goes on using is held open before its name goes.
    fn to_keep(&self, keep: Option<Node>, losing: &Statx) -> Option<(Node, Located)> {
        let keep = keep?;
        self.locate(keep).ok().filter(|found| found.key() == attr::key(losing)).map(|found| (keep, found))
    }

    /// An inode has lost a name.
    fn unnamed(&self, before: &Statx, kept: Option<(Node, Located)>) {
        let key = attr::key(before);
        // Descriptors kept for speed would keep its space in use.
        self.directories.drop_one(key);
        self.readers.drop_one(key);
        if let Some((node, found)) = kept {
            if let Ok(after) = attr::stat(&found.descriptor) {
                self.known.hold().changed(before, &after);
            }
            self.nodes.hold().pin(node, found.descriptor);
        }
    }
}

/// True for what a path can lead through.
fn leads(stat: &Statx) -> bool {
    matches!(attr::kind(stat), FileType::Directory | FileType::Symlink)
}
