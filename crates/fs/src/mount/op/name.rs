//! Names: lookup, create and remove, rename, link, readlink.

use std::sync::Arc;

use bytes::Bytes;
use remotely_proto::ByteVec;
use remotely_proto::fs::{Attr, Entry, Lane, Make, NAME_MAX, Node, Reply, Request as Ask, access};
use rustix::io::Errno;

use crate::mount::fs::{Fs, Opened};
use crate::mount::fuse::{Answer, EntryOut};
use crate::mount::receive::unexpected;
use crate::mount::table::{Name, Table};

/// Directories with more names than this are asked name by name.
const LIST_MAX: u32 = 20_000;

impl Fs {
    pub(super) async fn lookup(self: &Arc<Self>, parent: Node, name: ByteVec) -> Result<Answer, Errno> {
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        self.permit(parent, access::EXEC).await?;
        loop {
            match self.with(|table| table.name(parent, &name))? {
                Name::Is(node) => {
                    let known = self.with(|table| self.show_known(table, parent, node))?;
                    if let Some(answer) = known {
                        return Ok(answer);
                    }
                    match self.refresh(node, None).await {
                        Ok(_) => {
                            if let Some(answer) = self.with(|table| self.show_known(table, parent, node))? {
                                return Ok(answer);
                            }
                        }
                        // It went while we asked: its directory is asked again.
                        Err(Errno::STALE | Errno::NOENT) => self.with(|table| table.forget_directory(parent, 0)),
                        Err(errno) => return Err(errno),
                    }
                }
                Name::Absent => return Ok(self.with(|table| Answer::absent(table.name_valid(parent)))),
                Name::List { first: true, .. } => self.list(parent, LIST_MAX).await?,
                Name::List { first: false, done } => {
                    let again = done.notified_owned();
                    if matches!(self.with(|table| table.name(parent, &name))?, Name::List { first: false, .. }) {
                        again.await;
                    }
                }
                Name::Ask => return self.look_single(parent, name).await,
            }
        }
    }

    /// Asks for one name, in a directory that is too large to be known or that cannot be read.
    async fn look_single(self: &Arc<Self>, parent: Node, name: ByteVec) -> Result<Answer, Errno> {
        let request = Ask::Lookup { parent, name: name.clone() };
        match self.ask(Lane::Query, &[parent], request, Bytes::new()).await {
            Ok(answered) => {
                let Reply::Found { entry, .. } = answered.reply else { return unexpected() };
                self.with(|table| {
                    let node = table.learn(parent, entry, answered.seen);
                    self.show_entry(table, parent, node).map(|entry| Answer::entry(&entry))
                })
            }
            Err(Errno::NOENT) => Ok(self.with(|table| {
                table.absent(parent, name);
                Answer::absent(table.name_valid(parent))
            })),
            Err(errno) => Err(errno),
        }
    }

    /// Fetches a directory. Whoever called this was told to by the table.
    pub(super) async fn list(self: &Arc<Self>, dir: Node, limit: u32) -> Result<(), Errno> {
        let answered = self.ask(Lane::Query, &[dir], Ask::List { dir, limit }, Bytes::new()).await;
        let failed = match answered {
            Ok(answered) => match answered.reply {
                Reply::Listing { entries, truncated, watched, .. } => {
                    self.with(|table| table.listed(dir, entries, answered.seen, watched, truncated));
                    return Ok(());
                }
                _ => Errno::PROTO,
            },
            Err(errno) => errno,
        };
        // A directory that may be searched but not read.
        let single = failed == Errno::ACCESS;
        self.with(|table| table.list_failed(dir, single));
        if single { Ok(()) } else { Err(failed) }
    }

    /// The answer to a lookup, if the attributes may be shown. Those of a directory may be old: the kernel asks again
    /// before it shows them.
    fn show_known(&self, table: &mut Table, parent: Node, node: Node) -> Result<Option<Answer>, Errno> {
        let inode = table.inode(node)?;
        if !inode.is_fresh() && !inode.is_directory() {
            return Ok(None);
        }
        self.show_entry(table, parent, node).map(|entry| Some(Answer::entry(&entry)))
    }

    /// What the kernel is told of a name; counts as one lookup.
    pub(super) fn show_entry(&self, table: &mut Table, parent: Node, node: Node) -> Result<EntryOut, Errno> {
        let entry_valid = table.name_valid(parent);
        let inode = table.inode(node)?;
        inode.lookups += 1;
        inode.shown_size = inode.attr.size;
        Ok(EntryOut { node: node.0, entry_valid, attr_valid: inode.attr_valid(), attr: self.show.attr(&inode.attr) })
    }

    pub(super) async fn readlink(self: &Arc<Self>, node: Node) -> Result<Answer, Errno> {
        if let Some(target) = self.with(|table| table.inode(node).map(|inode| inode.target.clone()))? {
            return Ok(Answer::data(vec![Vec::from(target).into()]));
        }
        let answered = self.ask(Lane::Query, &[node], Ask::Readlink { node }, Bytes::new()).await?;
        let Reply::Target { target } = answered.reply else { return unexpected() };
        self.with(|table| table.inode(node).map(|inode| inode.target = Some(target.clone())))?;
        Ok(Answer::data(vec![Vec::from(target).into()]))
    }

    /// Where and for whom something is made.
    pub(super) fn make(
        self: &Arc<Self>,
        parent: Node,
        name: ByteVec,
        (mode, umask): (u32, u32),
        caller: (u32, u32),
    ) -> Result<Make, Errno> {
        self.permit_change()?;
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let node = self.with(Table::fresh);
        Ok(Make { parent, name, node, mode, umask, caller })
    }

    pub(super) async fn mknod(
        self: &Arc<Self>,
        parent: Node,
        name: ByteVec,
        mode: (u32, u32),
        rdev: u32,
        caller: (u32, u32),
    ) -> Result<Answer, Errno> {
        let make = self.make(parent, name, mode, caller)?;
        // new_encode_dev of the kernel.
        let rdev = libc::makedev((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xfff00));
        self.make_name(make.clone(), Ask::Mknod { make, rdev }).await
    }

    pub(super) async fn symlink(
        self: &Arc<Self>,
        parent: Node,
        name: ByteVec,
        target: ByteVec,
        caller: (u32, u32),
    ) -> Result<Answer, Errno> {
        let make = self.make(parent, name, (libc::S_IFLNK | 0o777, 0), caller)?;
        self.make_name(make.clone(), Ask::Symlink { make, target }).await
    }

    async fn make_name(self: &Arc<Self>, make: Make, request: Ask) -> Result<Answer, Errno> {
        let answered = self.ask(Lane::Change, &[make.parent], request, Bytes::new()).await?;
        let Reply::Found { entry, parent: directory } = answered.reply else { return unexpected() };
        self.with(|table| {
            let node = table.made(make.parent, entry, directory, answered.seen, make.node);
            self.show_entry(table, make.parent, node).map(|entry| Answer::entry(&entry))
        })
    }

    pub(super) async fn link(self: &Arc<Self>, node: Node, parent: Node, name: ByteVec) -> Result<Answer, Errno> {
        self.permit_change()?;
        let file = self.any_change_file(node);
        let request = Ask::Link { node, file, parent, name };
        let answered = self.ask(Lane::Change, &[node, parent], request, Bytes::new()).await?;
        let Reply::Found { entry, parent: directory } = answered.reply else { return unexpected() };
        self.with(|table| {
            let attr = entry.attr.clone();
            let node = table.learn(parent, entry, answered.seen);
            table.own(node, attr, answered.seen);
            table.parent_changed(parent, directory, answered.seen);
            self.show_entry(table, parent, node).map(|entry| Answer::entry(&entry))
        })
    }

    pub(super) async fn unlink(self: &Arc<Self>, parent: Node, name: ByteVec, dir: bool) -> Result<Answer, Errno> {
        self.permit_change()?;
        let keep = self.with(|table| self.keep_open(table, parent, &name));
        let nodes: Vec<Node> = [parent].into_iter().chain(keep).collect();
        let request = Ask::Unlink { parent, name: name.clone(), dir, keep };
        let answered = self.ask(Lane::Change, &nodes, request, Bytes::new()).await?;
        let directory = match answered.reply {
            Reply::Removed { parent } => Some(parent),
            _ => None,
        };
        self.with(|table| {
            if let Some(node) = table.known_name(parent, &name) {
                table.stale_links(node);
            }
            table.absent(parent, name);
            table.parent_changed(parent, directory, answered.seen);
        });
        Ok(Answer::done())
    }

    pub(super) async fn rename(
        self: &Arc<Self>,
        from: (Node, ByteVec),
        to: (Node, ByteVec),
        flags: u32,
    ) -> Result<Answer, Errno> {
        self.permit_change()?;
        if to.1.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let keep = self.with(|table| self.keep_open(table, to.0, &to.1));
        let nodes: Vec<Node> = [from.0, to.0].into_iter().chain(keep).collect();
        let request =
            Ask::Rename { parent: from.0, name: from.1.clone(), new_parent: to.0, new_name: to.1.clone(), flags, keep };
        self.ask(Lane::Change, &nodes, request, Bytes::new()).await?;
        self.with(|table| table.renamed(from, to, flags));
        Ok(Answer::done())
    }

    /// The node under a name that goes, if it is used further: open here, or under another name.
    fn keep_open(&self, table: &mut Table, parent: Node, name: &[u8]) -> Option<Node> {
        let node = table.known_name(parent, name)?;
        let inode = table.inode(node).ok()?;
        let used = inode.opens > 0 || inode.writes > 0 || (inode.attr.nlink > 1 && !inode.is_directory());
        used.then_some(node)
    }

    /// A file opened for writing of a node that may have no name (O_TMPFILE), to give it one.
    fn any_change_file(&self, node: Node) -> Option<remotely_proto::fs::File> {
        let files = crate::mount::fs::lock(&self.files);
        files
            .iter()
            .find(|(_, handle)| handle.node == node && handle.at == Opened::Change)
            .map(|(&file, _)| remotely_proto::fs::File(file))
    }

    /// Takes in an entry that was made together with an open file.
    pub(super) fn take_made(
        self: &Arc<Self>,
        make: &Make,
        entry: Entry,
        directory: Option<Attr>,
        seen: u64,
    ) -> Result<(Node, EntryOut), Errno> {
        self.with(|table| {
            let node = table.made(make.parent, entry, directory, seen, make.node);
            table.inode(node)?.opens += 1;
            let entry = self.show_entry(table, make.parent, node)?;
            Ok((node, entry))
        })
    }
}
