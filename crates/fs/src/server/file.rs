//! The open files of the mount, by the numbers it gave them.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, OnceLock},
};

use remotely_proto::fs::{File, Node};
use rustix::{fs::OFlags, io::Errno};

use super::service::{Hold, Service};

/// Open files of one session; a limit on what the peer can make grow.
const FILES_MAX: usize = 1 << 20;

/// One open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// What it is open on.
    pub(super) node: Node,
    /// Opened on first need: messages about a file may overtake one another on the pool, its opening included.
    descriptor: OnceLock<Result<Arc<OwnedFd>, Errno>>,
}

impl OpenFile {
    /// The descriptor; opened for reading if it was not opened yet.
    pub(super) fn descriptor(&self, service: &Service) -> Result<Arc<OwnedFd>, Errno> {
        let open = || service.reopen(&service.locate(self.node)?, OFlags::RDONLY).map(Arc::new);
        self.descriptor.get_or_init(open).clone()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct FileTable {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    open: HashMap<File, Arc<OpenFile>>,
    /// What files opened by changes are open on; known from when the message came in.
    announced: HashMap<File, Node>,
}

impl FileTable {
    /// Registers a file that is opened for reading when needed.
    pub(super) fn promise(&self, file: File, node: Node) {
        self.insert(file, OpenFile { node, descriptor: OnceLock::new() });
    }

    /// A change that opens a file has come in.
    pub(super) fn announce(&self, file: File, node: Node) {
        let mut tables = self.tables.hold();
        if tables.announced.len() < FILES_MAX {
            tables.announced.insert(file, node);
        }
    }

    /// Registers a file that is open.
    pub(super) fn add(&self, file: File, node: Node, descriptor: Arc<OwnedFd>) {
        self.insert(file, OpenFile { node, descriptor: OnceLock::from(Ok(descriptor)) });
    }

    fn insert(&self, file: File, open: OpenFile) {
        let mut tables = self.tables.hold();
        if tables.open.len() < FILES_MAX || tables.open.contains_key(&file) {
            tables.open.insert(file, Arc::new(open));
        }
    }

    /// EBADF if it is not open.
    pub(super) fn find(&self, file: File) -> Result<Arc<OpenFile>, Errno> {
        self.tables.hold().open.get(&file).cloned().ok_or(Errno::BADF)
    }

    /// A descriptor of what is open on a node, whichever name it has by now, or none.
    pub(super) fn open_on(&self, node: Node) -> Option<Arc<OwnedFd>> {
        let tables = self.tables.hold();
        let mut open = tables.open.values().filter(|open| open.node == node);
        open.find_map(|open| open.descriptor.get()?.as_ref().ok().cloned())
    }

    /// What a file is open on, or will be.
    pub(super) fn node(&self, file: File) -> Option<Node> {
        let tables = self.tables.hold();
        tables.announced.get(&file).copied().or_else(|| tables.open.get(&file).map(|open| open.node))
    }

    /// Closes one, as soon as nobody uses it.
    pub(super) fn remove(&self, file: File) {
        let mut tables = self.tables.hold();
        tables.announced.remove(&file);
        let open = tables.open.remove(&file);
        drop(tables);
        // Closing can take its time (NFS); not under the lock.
        drop(open);
    }

    /// Closes all.
    pub(super) fn clear(&self) {
        let tables = std::mem::take(&mut *self.tables.hold());
        drop(tables);
    }
}
