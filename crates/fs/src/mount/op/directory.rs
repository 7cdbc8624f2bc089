//! Reading directories.

use std::sync::Arc;

use remotely_proto::ByteVec;
use remotely_proto::fs::{Node, access};
use rustix::io::Errno;

use crate::mount::fs::{Fs, Opened, lock};
use crate::mount::fuse::{Answer, DirBuffer};
use crate::mount::table::Table;

impl Fs {
    pub(super) async fn opendir(self: &Arc<Self>, node: Node) -> Result<Answer, Errno> {
        self.permit(node, access::READ).await?;
        let file = self.fresh_file();
        self.with(|table| table.inode(node).map(|inode| inode.opens += 1))?;
        self.add_handle(file, node, 0, Opened::Here);
        Ok(Answer::open(file, 0))
    }

    pub(super) fn releasedir(self: &Arc<Self>, node: Node, file: u64) -> Answer {
        lock(&self.files).remove(&file);
        self.with(|table| table.closed(node));
        Answer::done()
    }

    /// getdents(2). The names are those of the moment when reading began (or began again), so that an offset means the same
    /// name whatever happens meanwhile.
    pub(super) async fn readdir(
        self: &Arc<Self>,
        node: Node,
        file: u64,
        offset: u64,
        size: u32,
        plus: bool,
    ) -> Result<Answer, Errno> {
        let names = match self.handle(file)?.names {
            Some(names) if offset != 0 => names,
            _ => {
                let names = Arc::new(self.all_names(node).await?);
                if let Some(handle) = lock(&self.files).get_mut(&file) {
                    handle.names = Some(names.clone());
                }
                names
            }
        };
        let mut buffer = DirBuffer::new(size);
        self.with(|table| {
            for index in offset.. {
                let next = index + 1;
                let name: &[u8] = match index {
                    0 => b".",
                    1 => b"..",
                    _ => match names.get(index as usize - 2) {
                        Some((name, _)) => name,
                        None => break,
                    },
                };
                let child = if index < 2 { node } else { names[index as usize - 2].1 };
                // A name that has gone since is left out.
                let Ok(inode) = table.inode(child) else { continue };
                let mode = inode.attr.mode;
                let shown = self.show.attr(&inode.attr);
                let fits = if plus && index >= 2 && inode.is_fresh() {
                    let entry = self.show_entry(table, node, name, child, None)?;
                    let fits = buffer.add(Some(Some(&entry)), shown.ino, next, mode, name);
                    if !fits {
                        table.inode(child)?.lookups -= 1;
                    }
                    fits
                } else {
                    buffer.add(plus.then_some(None), shown.ino, next, mode, name)
                };
                if !fits {
                    break;
                }
            }
            Ok::<_, Errno>(())
        })?;
        Ok(buffer.finish())
    }

    async fn all_names(self: &Arc<Self>, dir: Node) -> Result<Vec<(ByteVec, Node)>, Errno> {
        loop {
            match self.with(|table| table.whole(dir))? {
                None => return Ok(self.with(|table| table.names(dir))),
                Some(listing) => {
                    let again = |table: &mut Table| table.whole(dir).ok().flatten();
                    self.list(dir, listing, u32::MAX, again).await?;
                }
            }
        }
    }
}
