//! Names: lookup, create and remove, rename, link, readlink.

use std::sync::Arc;

use bytes::Bytes;
use remotely_proto::ByteVec;
use remotely_proto::fs::{Attr, Entry, Lane, Make, NAME_MAX, Node, Reply, Request as Ask, access};
use rustix::io::Errno;

use crate::mount::fs::{Fs, Opened, errno_of};
use crate::mount::fuse::{Answer, EntryOut};
use crate::mount::receive::unexpected;
use crate::mount::table::{Age, Listing, Name, Table};

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
                    let known = self.with(|table| self.show_known(table, parent, &name, node))?;
                    if let Some(answer) = known {
                        return Ok(answer);
                    }
                    match self.refresh(node, None).await {
                        Ok(attr) => {
                            return self.with(|table| {
                                self.show_entry(table, parent, &name, node, Some(attr)).map(|e| Answer::entry(&e))
                            });
                        }
                        // It went while we asked.
                        Err(Errno::STALE | Errno::NOENT) => self.with(|table| {
                            if table.known_name(parent, &name) == Some(node) {
                                table.unset_name(parent, &name);
                            }
                        }),
                        Err(errno) => return Err(errno),
                    }
                }
                Name::Absent => return Ok(self.with(|table| Answer::absent(table.name_valid(parent, &name, None)))),
                Name::List(listing) => {
                    let again = |table: &mut Table| match table.name(parent, &name) {
                        Ok(Name::List(listing)) => Some(listing),
                        _ => None,
                    };
                    self.list(parent, listing, LIST_MAX, again).await?;
                }
                Name::Ask => return self.look_single(parent, name).await,
            }
        }
    }

    /// Asks for one name, in a directory that is too large to be known or that cannot be read.
    async fn look_single(self: &Arc<Self>, parent: Node, name: ByteVec) -> Result<Answer, Errno> {
        let request = Ask::Lookup { parent, name: name.clone() };
        let answered = self.ask_for_any(Lane::Query, &[parent], request, Bytes::new(), |_| {}).await?;
        let age = answered.age();
        match answered.reply {
            Reply::Found { entry, .. } => self.with(|table| {
                let attr = entry.attr.clone();
                let node = table.learn(parent, entry, age);
                self.show_entry(table, parent, &name, node, Some(attr)).map(|entry| Answer::entry(&entry))
            }),
            Reply::Failed { errno } => match errno_of(errno) {
                Errno::NOENT => Ok(self.with(|table| {
                    table.absent(parent, name.clone(), age.seen);
                    Answer::absent(table.name_valid(parent, &name, None))
                })),
                errno => Err(errno),
            },
            _ => unexpected(),
        }
    }

    /// Fetches a directory, or waits until somebody else has; `again` tells what is still to be done by then.
    pub(super) async fn list(
        self: &Arc<Self>,
        dir: Node,
        listing: Listing,
        limit: u32,
        again: impl FnOnce(&mut Table) -> Option<Listing>,
    ) -> Result<(), Errno> {
        let number = match listing.first {
            Some(number) => number,
            None => {
                // Heard from now on; and it may have been over before.
                let done = listing.done.notified_owned();
                match self.with(again) {
                    Some(Listing { first: Some(number), .. }) => number,
                    Some(Listing { first: None, .. }) => {
                        done.await;
                        return Ok(());
                    }
                    None => return Ok(()),
                }
            }
        };
        let answered = self.ask(Lane::Query, &[dir], Ask::List { dir, limit }, Bytes::new()).await;
        let failed = match answered {
            Ok(answered) => {
                let age = answered.age();
                match answered.reply {
                    Reply::Listing { entries, truncated, watched, .. } => {
                        self.with(|table| table.listed(dir, number, entries, age, watched, truncated));
                        return Ok(());
                    }
                    _ => Errno::PROTO,
                }
            }
            Err(errno) => errno,
        };
        // A directory that may be searched but not read.
        let single = failed == Errno::ACCESS;
        self.with(|table| table.list_failed(dir, number, single));
        if single { Ok(()) } else { Err(failed) }
    }

    /// The answer to a lookup, if the attributes may be shown. Those of a directory may be old: the kernel asks again
    /// before it shows them.
    fn show_known(&self, table: &mut Table, parent: Node, name: &[u8], node: Node) -> Result<Option<Answer>, Errno> {
        let inode = table.inode(node)?;
        if !inode.is_fresh() && !inode.is_directory() {
            return Ok(None);
        }
        self.show_entry(table, parent, name, node, None).map(|entry| Some(Answer::entry(&entry)))
    }

    /// What the kernel is told of a name; counts as one lookup. `told` are attributes that the server has just told.
    pub(super) fn show_entry(
        &self,
        table: &mut Table,
        parent: Node,
        name: &[u8],
        node: Node,
        told: Option<Attr>,
    ) -> Result<EntryOut, Errno> {
        let entry_valid = table.name_valid(parent, name, Some(node));
        let inode = table.inode(node)?;
        inode.lookups += 1;
        let shown = inode.show(told);
        Ok(EntryOut { node: node.0, entry_valid, attr_valid: inode.attr_valid(), attr: self.show.attr(&shown) })
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
            let attr = entry.attr.clone();
            let node = table.made(make.parent, entry, directory, answered.seen, make.node);
            self.show_entry(table, make.parent, &make.name, node, Some(attr)).map(|entry| Answer::entry(&entry))
        })
    }

    pub(super) async fn link(self: &Arc<Self>, node: Node, parent: Node, name: ByteVec) -> Result<Answer, Errno> {
        self.permit_change()?;
        let file = self.any_change_file(node);
        let request = Ask::Link { node, file, parent, name };
        let answered = self.ask(Lane::Change, &[node, parent], request, Bytes::new()).await?;
        let Reply::Found { entry, parent: directory } = answered.reply else { return unexpected() };
        self.with(|table| {
            let (name, attr) = (entry.name.clone(), entry.attr.clone());
            let node = table.learn(parent, entry, Age::latest(answered.seen));
            table.own(node, attr.clone(), answered.seen);
            table.parent_changed(parent, directory, answered.seen);
            self.show_entry(table, parent, &name, node, Some(attr)).map(|entry| Answer::entry(&entry))
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
            table.absent(parent, name, answered.seen);
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
            let attr = entry.attr.clone();
            let node = table.made(make.parent, entry, directory, seen, make.node);
            table.inode(node)?.opens += 1;
            let entry = self.show_entry(table, make.parent, &make.name, node, Some(attr))?;
            Ok((node, entry))
        })
    }
}
