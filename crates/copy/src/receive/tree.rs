//! What a receiver makes besides files: directories, links, nodes.

use std::rc::Rc;

use remotely_proto::{
    file::{Meta, Operation, Seat},
    fs::Time,
};
use rustix::{
    fs::{Mode, mkdirat},
    io::{Errno, fcntl_dupfd_cloexec},
};

use super::{
    ReceiveError, Receiver,
    directory::{Folder, Found},
    draft::{Fault, Spot},
    node, protocol,
};
use crate::beneath::open_directory;

impl Receiver {
    pub(super) fn directory(&mut self, id: u32, seat: &Seat, mode: u32) -> Result<(), ReceiveError> {
        if seat.directory == 0 {
            return self.root_directory(id, seat, mode);
        }
        let parent = seat.directory;
        let (opened, made) = match self.spot(seat)? {
            None => (None, false),
            Some(spot) => self.make_directory(&spot, mode)?,
        };
        if !self.directories.add(id, parent, seat.name.to_vec(), opened, made) {
            return protocol("too many directories, or one twice");
        }
        Ok(())
    }

    fn root_directory(&mut self, id: u32, seat: &Seat, mode: u32) -> Result<(), ReceiveError> {
        let Some(place) = self.place.as_ref().filter(|_| self.received.tree && seat.name.is_empty()) else {
            return protocol("a root that was not begun");
        };
        let folder = fcntl_dupfd_cloexec(&place.directory, 3).and_then(Folder::new);
        let folder = match folder {
            Ok(folder) => Rc::new(folder),
            Err(errno) => {
                self.over = true;
                let path = self.root_path();
                return Ok(self.fail((Operation::Enter, Some(errno)), &path, None)?);
            }
        };
        let path: Rc<[u8]> = place.path.as_slice().into();
        let (opened, made) = match place.name.clone() {
            None => (Some(folder), false),
            Some(name) => self.make_directory(&Spot { folder, name, path: path.clone() }, mode)?,
        };
        match &opened {
            Some(folder) => self.root = Some(Spot { folder: folder.clone(), name: Vec::new(), path }),
            None => self.over = true,
        }
        if self.over {
            self.received.path = std::path::PathBuf::new();
        }
        if self.directories.add_root(id, opened, made) { Ok(()) } else { protocol("a second root") }
    }

    /// Makes a directory, or enters the one that is there.
    fn make_directory(&mut self, spot: &Spot, mode: u32) -> Result<(Option<Rc<Folder>>, bool), ReceiveError> {
        let dir = &spot.folder.descriptor;
        // Should its end never come, this is what it stays with. What gets another owner is closed to others until then.
        let open = if self.taken.owner() { 0 } else { mode & 0o777 };
        let made = match mkdirat(dir, spot.name.as_slice(), Mode::RWXU | Mode::from_raw_mode(open)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => {
                self.fail((Operation::MakeDirectory, Some(errno)), &spot.path, None)?;
                return Ok((None, false));
            }
        };
        match open_directory(dir, &spot.name).and_then(Folder::new) {
            Ok(folder) => {
                if made {
                    self.note_disk(&folder);
                }
                Ok((Some(Rc::new(folder)), made))
            }
            Err(errno) => {
                // Something that is no directory has the name: that is why it cannot be made.
                let taken = matches!(errno, Errno::NOTDIR | Errno::LOOP);
                let fault = if taken {
                    (Operation::MakeDirectory, Some(Errno::EXIST))
                } else {
                    (Operation::Enter, Some(errno))
                };
                self.fail(fault, &spot.path, None)?;
                Ok((None, false))
            }
        }
    }

    fn note_disk(&mut self, folder: &Folder) {
        if folder.syncable {
            self.settler.note_device(folder.device, |from| fcntl_dupfd_cloexec(&folder.descriptor, from));
        }
    }

    pub(super) fn directory_end(&mut self, id: u32, meta: &Meta) -> Result<(), ReceiveError> {
        let found = self.directories.find(id);
        let root = self.root_path();
        let path = self.directories.path(&root, id, b"");
        match (found, self.directories.end(id)) {
            (_, None) => protocol("the end of a directory that was not begun"),
            (Found::Open(folder), Some(true)) => {
                let faults = self.taken.apply(&folder.descriptor, meta, false);
                self.faults(faults, &path)
            }
            _ => Ok(()),
        }
    }

    /// Names attributes that could not be set.
    pub(super) fn faults(&mut self, faults: Vec<Fault>, path: &[u8]) -> Result<(), ReceiveError> {
        for fault in faults {
            self.fail(fault, path, None)?;
        }
        Ok(())
    }

    pub(super) fn symlink(&mut self, seat: &Seat, target: &[u8], meta: &Meta) -> Result<(), ReceiveError> {
        let Some(spot) = self.spot_in_tree(seat)? else { return Ok(()) };
        let faults = node::symlink(&spot, target, meta, self.taken);
        self.faults(faults, &spot.path)
    }

    pub(super) fn special(&mut self, seat: &Seat, meta: &Meta, device: u64) -> Result<(), ReceiveError> {
        let Some(spot) = self.spot_in_tree(seat)? else { return Ok(()) };
        match node::special(&spot, meta, device, self.taken) {
            Ok(faults) => self.faults(faults, &spot.path),
            Err(reason) => Ok(self.skip(reason, &spot.path)?),
        }
    }

    pub(super) fn link(&mut self, seat: &Seat, target: &[u8], size: u64, mtime: Time) -> Result<(), ReceiveError> {
        let Some(spot) = self.spot_in_tree(seat)? else { return Ok(()) };
        let Some(root) = self.root.clone() else { return protocol("a link before anything else") };
        // What it links to may wait for its place.
        let settled = self.settler.flush();
        self.settled(settled)?;
        match node::link(&spot, &root, target, size, mtime) {
            Ok(()) => Ok(()),
            Err(errno) => Ok(self.fail((Operation::Link, Some(errno)), &spot.path, None)?),
        }
    }

    fn spot_in_tree(&mut self, seat: &Seat) -> Result<Option<Spot>, ReceiveError> {
        if seat.directory == 0 {
            return protocol("a root that is neither file nor directory");
        }
        self.spot(seat)
    }
}
