//! Content: read, write, fsync, and what moves or finds data.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use remotely_proto::fs::{DATA_MAX, File, Lane, Node, Reply, Request as Ask};
use rustix::io::Errno;

use crate::mount::content::{Ask as Fetch, Content, GRANULE};
use crate::mount::fs::Fs;
use crate::mount::fuse::{Answer, open_flag};
use crate::mount::invalidate::Invalid;
use crate::mount::receive::unexpected;

/// How long content that the server promised to push is waited for before it is asked for.
const PATIENCE: Duration = Duration::from_millis(250);

impl Fs {
    pub(super) async fn read(
        self: &Arc<Self>,
        node: Node,
        file: u64,
        offset: u64,
        size: u32,
        flags: u32,
    ) -> Result<Answer, Errno> {
        if flags & libc::O_DIRECT as u32 != 0 {
            return self.read_direct(node, file, offset, size).await;
        }
        if let Some(data) = self.with(|table| Ok(table.inode(node)?.written_pages(offset, size.into())))? {
            return Ok(Answer::data(vec![data]));
        }
        loop {
            self.settle(node).await?;
            let (written, doubtful) = self.with(|table| {
                let inode = table.inode(node)?;
                Ok((inode.writes > 0, inode.is_doubtful()))
            })?;
            if written {
                // It is written on and on: where it ends is known to the server alone.
                return self.read_there(node, file, offset, size).await;
            }
            if doubtful {
                self.refresh(node, Some(file)).await?;
            }
            let (taken, plan, event) = self.with(|table| {
                let event = table.event(node)?;
                let id = self.fresh_content();
                let inode = table.inode(node)?;
                let total = inode.attr.size;
                let content = inode.content.get_or_insert_with(|| Box::new(Content::new(id)));
                let plan = content.plan(offset, size.into(), total);
                let taken = content.take(offset, size.into(), total)?;
                let id = content.id;
                if taken.is_some() && offset < total {
                    inode.used(offset, u64::from(size).min(total - offset));
                }
                Ok((taken, (id, plan), event.notified_owned()))
            })?;
            let (id, asks) = plan;
            if !asks.is_empty() {
                let file = self.open_there(file).await.ok().filter(|_| self.is_readable(file));
                for ask in asks {
                    tokio::spawn(self.clone().fetch(node, file, id, ask));
                }
            }
            if let Some((pieces, freed)) = taken {
                self.freed(freed);
                return Ok(Answer::data(pieces));
            }
            if tokio::time::timeout(PATIENCE, event).await.is_err() {
                // What the server is going to push may be behind much else.
                self.with(|table| {
                    if let Some(content) = &mut table.inode(node)?.content {
                        content.despair(offset, size.into());
                    }
                    Ok::<_, Errno>(())
                })?;
            }
        }
    }

    /// Data goes past all caches: O_DIRECT.
    async fn read_direct(self: &Arc<Self>, node: Node, file: u64, offset: u64, size: u32) -> Result<Answer, Errno> {
        self.settle(node).await?;
        self.read_there(node, file, offset, size).await
    }

    async fn read_there(self: &Arc<Self>, node: Node, file: u64, offset: u64, size: u32) -> Result<Answer, Errno> {
        let file = self.open_there(file).await.ok().filter(|_| self.is_readable(file));
        let len = size.min(DATA_MAX as u32);
        let answered = self.ask(Lane::Query, &[node], Ask::Read { node, file, offset, len }, Bytes::new()).await?;
        Ok(Answer::data(vec![answered.payload]))
    }

    fn is_readable(&self, file: u64) -> bool {
        self.handle(file).is_ok_and(|handle| handle.flags & libc::O_ACCMODE as u32 != libc::O_WRONLY as u32)
    }

    /// Brings granules of a file; whoever waits for one is woken.
    async fn fetch(self: Arc<Self>, node: Node, file: Option<File>, content: u64, ask: Fetch) {
        let request = Ask::Read { node, file, offset: ask.first * GRANULE, len: (ask.count * GRANULE) as u32 };
        let answered = self.ask(Lane::Query, &[node], request, Bytes::new()).await;
        let kept = self.with(|table| {
            let mut torn = false;
            let inode = table.inode(node).ok()?;
            let (known, noticed) = (inode.attr.stamp(), inode.noticed);
            let quiet = inode.writes == 0 && !inode.stale;
            let kept = match &mut inode.content {
                // News of it have come since this was read: it may be older.
                Some(current)
                    if current.id == content && answered.as_ref().is_ok_and(|answered| answered.seen < noticed) =>
                {
                    current.forget(ask);
                    Vec::new()
                }
                Some(current) if current.id == content => match answered {
                    Ok(answered) => match answered.reply {
                        Reply::Data { stamp } => {
                            if quiet && (stamp.size, stamp.mtime) != (known.size, known.mtime) {
                                // It changed since its attributes were told. Content and size that do not belong
                                // together are never shown: those that came with this content count now.
                                current.clear();
                                (inode.attr.size, inode.attr.mtime, inode.attr.ctime) =
                                    (stamp.size, stamp.mtime, stamp.ctime);
                                inode.shown_size = stamp.size;
                                torn = true;
                            }
                            current.fill(ask, &answered.payload)
                        }
                        _ => {
                            current.fail(ask, Errno::PROTO);
                            Vec::new()
                        }
                    },
                    Err(errno) => {
                        current.fail(ask, errno);
                        Vec::new()
                    }
                },
                _ => Vec::new(),
            };
            if torn {
                table.invalid.push(Invalid::Inode(node));
            }
            table.wake(node);
            Some(kept)
        });
        self.keep(node, content, kept.unwrap_or_default());
    }

    pub(super) async fn write(
        self: &Arc<Self>,
        node: Node,
        file: u64,
        offset: u64,
        (write_flags, flags): (u32, u32),
        data: Bytes,
    ) -> Result<Answer, Errno> {
        let len = data.len();
        let handle = self.handle(file)?;
        // Out of a mapping: through which open file is a guess, and the kernel itself notes what is answered.
        let mapped = write_flags & open_flag::WRITE_CACHE != 0;
        if !mapped {
            self.tell_late_to_write(node, file)?;
        }
        // The kernel tells the flags as fcntl(F_SETFL) has left them.
        let flags = if mapped { handle.flags } else { flags };
        let waits = self.options.strict || flags & (libc::O_DIRECT | libc::O_SYNC | libc::O_DSYNC) as u32 != 0;
        let kill_privileges = write_flags & open_flag::WRITE_KILL_SUIDGID != 0;
        // What is written back from a mapping has its place, whatever the descriptor.
        let append = !mapped && flags & libc::O_APPEND as u32 != 0;
        let request = Ask::Write { file: File(file), offset, kill_privileges, append };
        self.budget.acquire_many(len as u32).await.map_err(|_| Errno::IO)?.forget();
        let failed_before = self.with(|table| {
            let inode = table.inode(node)?;
            inode.writes += 1;
            inode.wrote(offset, &data);
            Ok::<_, Errno>(inode.late.last())
        })?;
        self.wrote_through(file, len as u64);
        self.send_write(node, request, data).await?;
        if waits {
            self.settle(node).await?;
            if !mapped {
                self.tell_late_to_write(node, file)?;
            } else if let Some(errno) =
                self.with(|table| Ok::<_, Errno>(table.inode(node)?.late.since(failed_before)))?
            {
                return Err(errno);
            }
        }
        Ok(Answer::count(len as u32))
    }

    pub(super) async fn fsync(
        self: &Arc<Self>,
        node: Node,
        file: Option<u64>,
        data_only: bool,
    ) -> Result<Answer, Errno> {
        if self.options.read_only {
            return Ok(Answer::done());
        }
        let opened = file.and_then(|file| self.opened(file));
        // A file opened on the other lane may not be open there yet: the node will do.
        let opened = opened.and_then(|(file, lane)| (lane == Lane::Change).then_some(file));
        let request = Ask::Fsync { node, file: opened, data_only };
        let synced = self.ask(Lane::Change, &[node], request, Bytes::new()).await;
        if let Some(file) = file {
            self.tell_late(node, file)?;
        }
        synced.map(|_| Answer::done())
    }

    pub(super) async fn fallocate(
        self: &Arc<Self>,
        node: Node,
        file: u64,
        (offset, len): (u64, u64),
        mode: u32,
    ) -> Result<Answer, Errno> {
        self.permit_change()?;
        let request = Ask::Fallocate { file: File(file), offset, len, mode };
        let answered = self.ask(Lane::Change, &[], request, Bytes::new()).await?;
        let Reply::Attr { attr } = answered.reply else { return unexpected() };
        self.with(|table| {
            if let Ok(inode) = table.inode(node) {
                inode.drop_content();
                inode.shown_size = attr.size;
            }
            table.own(node, attr, answered.seen);
            // Unlike after a write, the kernel does not know what is in it now.
            table.invalid.push(Invalid::Inode(node));
        });
        Ok(Answer::done())
    }

    /// lseek(2) for data and holes.
    pub(super) async fn seek(
        self: &Arc<Self>,
        node: Node,
        file: u64,
        offset: u64,
        whence: u32,
    ) -> Result<Answer, Errno> {
        let hole = match whence as i32 {
            libc::SEEK_DATA => false,
            libc::SEEK_HOLE => true,
            _ => return Err(Errno::INVAL),
        };
        self.settle(node).await?;
        let file = self.open_there(file).await?;
        let answered = self.ask(Lane::Query, &[node], Ask::Seek { file, offset, hole }, Bytes::new()).await?;
        let Reply::Offset { offset } = answered.reply else { return unexpected() };
        Ok(Answer::offset(offset))
    }

    pub(super) async fn copy_range(
        self: &Arc<Self>,
        from: (Node, u64, u64),
        to: (Node, u64, u64),
        len: u64,
    ) -> Result<Answer, Errno> {
        self.permit_change()?;
        self.settle(from.0).await?;
        let file = self.open_there(from.1).await?;
        if self.opened(from.1).is_some_and(|(_, lane)| lane == Lane::Query) {
            // It was opened on the other lane, which may be behind: an answer there says that it is open.
            self.ask(Lane::Query, &[from.0], Ask::Getattr { node: from.0, file: Some(file) }, Bytes::new()).await?;
        }
        let len = len.min(1 << 30);
        let request = Ask::CopyRange { file, offset: from.2, to: File(to.1), to_offset: to.2, len };
        let answered = self.ask(Lane::Change, &[], request, Bytes::new()).await?;
        let Reply::Copied { len, attr } = answered.reply else { return unexpected() };
        self.with(|table| {
            if let Ok(inode) = table.inode(to.0) {
                inode.drop_content();
                inode.shown_size = attr.size;
            }
            table.own(to.0, attr, answered.seen);
        });
        Ok(Answer::count(len.min(u32::MAX.into()) as u32))
    }
}
