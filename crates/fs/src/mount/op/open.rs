//! Opening and closing files.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use remotely_proto::ByteVec;
use remotely_proto::fs::{File, Lane, Node, Reply, Request as Ask, SetAttr, access};
use rustix::io::Errno;

use crate::mount::content::Content;
use crate::mount::fs::{Fs, Opened, lock};
use crate::mount::fuse::{Answer, EntryOut, open_flag};
use crate::mount::receive::unexpected;

/// After writing so many bytes, closing waits until they have been applied: a full disk is told to the command itself, and
/// a round trip is little beside the time that they took.
const LARGE: u64 = 1 << 20;

/// A file that is open for no longer than this is not opened at the client unless it must be: a compiler opens each header
/// for some microseconds, and to tell that twice made `make` a third slower.
const BRIEF: Duration = Duration::from_millis(3);

impl Fs {
    pub(super) async fn open(self: &Arc<Self>, node: Node, flags: u32, open_flags: u32) -> Result<Answer, Errno> {
        let mode = flags & libc::O_ACCMODE as u32;
        let writes = mode != libc::O_RDONLY as u32 || flags & libc::O_TRUNC as u32 != 0;
        let reads = mode != libc::O_WRONLY as u32;
        let executes = flags & open_flag::EXEC != 0;
        if writes {
            self.permit_change()?;
        }
        let wanted = match (executes, reads, writes) {
            (true, ..) => access::EXEC,
            (_, true, false) => access::READ,
            (_, true, true) => access::READ | access::WRITE,
            _ => access::WRITE,
        };
        self.permit(node, wanted).await?;
        let file = self.fresh_file();
        if writes {
            let request = Ask::OpenWrite { node, file: File(file), flags };
            let answered = self.ask(Lane::Change, &[node], request, Bytes::new()).await?;
            let Reply::Attr { attr } = answered.reply else { return unexpected() };
            self.with(|table| {
                let inode = table.inode(node)?;
                if flags & libc::O_TRUNC as u32 != 0 {
                    inode.drop_content();
                    inode.shown_size = attr.size;
                }
                table.own(node, attr, answered.seen);
                Ok::<_, Errno>(())
            })?;
            if open_flags & open_flag::KILL_SUIDGID != 0 {
                self.kill_privileges(node, file).await?;
            }
        }
        self.with(|table| {
            let id = self.fresh_content();
            let inode = table.inode(node)?;
            inode.opens += 1;
            if executes {
                inode.content.get_or_insert_with(|| Box::new(Content::new(id))).expect_faults();
            }
            Ok::<_, Errno>(())
        })?;
        self.add_handle(file, node, flags, if writes { Opened::Change } else { Opened::Here });
        if !writes && self.with(|table| table.is_in_motion(node)) {
            self.open_now(node, file).await?;
        } else if !writes {
            tokio::spawn(self.clone().open_soon(file));
        }
        Ok(Answer::open(file, self.keep_cache(node)))
    }

    /// Whether the kernel may keep the pages that it has of a file which is opened: not if it is about to be told that they
    /// are old.
    fn keep_cache(&self, node: Node) -> u32 {
        if self.invalidator.is_pending(node) { 0 } else { open_flag::KEEP_CACHE }
    }

    /// A truncating open by somebody without CAP_FSETID takes set-id bits away.
    async fn kill_privileges(self: &Arc<Self>, node: Node, file: u64) -> Result<(), Errno> {
        let mode = self.with(|table| table.inode(node).map(|inode| inode.attr.mode))?;
        if mode & 0o6000 == 0 {
            return Ok(());
        }
        let set = SetAttr { mode: Some(mode & 0o1777), ..SetAttr::default() };
        let request = Ask::Setattr { node, file: Some(File(file)), set };
        let answered = self.ask(Lane::Change, &[node], request, Bytes::new()).await?;
        if let Reply::Attr { attr } = answered.reply {
            self.with(|table| table.own(node, attr, answered.seen));
        }
        Ok(())
    }

    pub(super) async fn create(
        self: &Arc<Self>,
        parent: Node,
        name: ByteVec,
        flags: u32,
        mode: (u32, u32),
        caller: (u32, u32),
    ) -> Result<Answer, Errno> {
        let make = self.make(parent, name, mode, caller)?;
        let file = self.fresh_file();
        let request = Ask::Create { make: make.clone(), flags, file: File(file) };
        let answered = self.ask(Lane::Change, &[parent], request, Bytes::new()).await?;
        let Reply::Found { entry, parent: directory } = answered.reply else { return unexpected() };
        let attr = entry.attr.clone();
        let (node, shown) = self.take_made(&make, entry, directory, answered.seen)?;
        self.with(|table| {
            if flags & libc::O_TRUNC as u32 != 0
                && let Ok(inode) = table.inode(node)
            {
                inode.drop_content();
                inode.shown_size = attr.size;
            }
            table.own(node, attr, answered.seen);
        });
        self.add_handle(file, node, flags, Opened::Change);
        Ok(Answer::created(&shown, file, self.keep_cache(node)))
    }

    pub(super) async fn tmpfile(
        self: &Arc<Self>,
        parent: Node,
        flags: u32,
        mode: (u32, u32),
        caller: (u32, u32),
    ) -> Result<Answer, Errno> {
        let make = self.make(parent, Vec::new().into(), mode, caller)?;
        let file = self.fresh_file();
        let request = Ask::Tmpfile { make: make.clone(), flags, file: File(file) };
        let answered = self.ask(Lane::Change, &[parent], request, Bytes::new()).await?;
        let Reply::Found { entry, .. } = answered.reply else { return unexpected() };
        let shown = self.with(|table| {
            table.learn_nameless(make.node, entry.attr);
            let inode = table.inode(make.node)?;
            inode.lookups += 1;
            inode.opens += 1;
            let attr = self.show.attr(&inode.attr);
            Ok::<_, Errno>(EntryOut {
                node: make.node.0,
                entry_valid: Duration::ZERO,
                attr_valid: inode.attr_valid(),
                attr,
            })
        })?;
        self.add_handle(file, make.node, flags, Opened::Change);
        Ok(Answer::created(&shown, file, open_flag::KEEP_CACHE))
    }

    /// Has the server open what was opened here only.
    pub(super) async fn open_there(self: &Arc<Self>, file: u64) -> Result<File, Errno> {
        let node = {
            let mut files = lock(&self.files);
            let handle = files.get_mut(&file).ok_or(Errno::BADF)?;
            if handle.at != Opened::Here {
                return Ok(File(file));
            }
            handle.at = Opened::Query;
            handle.node
        };
        self.note(Lane::Query, &[node], Ask::Open { node, file: File(file) }).await?;
        Ok(File(file))
    }

    /// Opens a file at the client that may have been replaced there. If it was, the kernel looks its name up again (ESTALE).
    async fn open_now(self: &Arc<Self>, node: Node, file: u64) -> Result<(), Errno> {
        if let Some(handle) = lock(&self.files).get_mut(&file) {
            handle.at = Opened::Query;
        }
        let opened = self.ask(Lane::Query, &[node], Ask::Open { node, file: File(file) }, Bytes::new()).await;
        let Err(errno) = opened else { return Ok(()) };
        lock(&self.files).remove(&file);
        self.with(|table| {
            table.gone(node);
            table.closed(node);
        });
        Err(if errno == Errno::NOENT { Errno::STALE } else { errno })
    }

    /// What is open there stays so when its name here goes or names something else. Nobody waits for this, and what is closed
    /// again at once costs nothing.
    async fn open_soon(self: Arc<Self>, file: u64) {
        tokio::time::sleep(BRIEF).await;
        let opened = self.open_there(file).await.is_ok();
        if opened && self.handle(file).is_err() {
            // Closed meanwhile, and that may have been told first.
            let _ = self.note(Lane::Query, &[], Ask::Release { file: File(file) }).await;
        }
    }

    /// close(2) of one descriptor: locks of the owner go, and a write that failed meanwhile is told.
    pub(super) async fn flush(self: &Arc<Self>, node: Node, file: u64, owner: u64) -> Result<Answer, Errno> {
        let written = self.unreported(file);
        if self.options.strict || written >= LARGE {
            self.settle(node).await?;
            self.reported(file, written);
        }
        let unlocked = self.unlock_owner(node, file, owner).await;
        if self.opened(file).is_some_and(|(_, lane)| lane == Lane::Change) {
            self.mention_late(node, file)?;
        }
        unlocked.map(|()| Answer::done())
    }

    /// The last descriptor is closed. Whoever closed it does not wait for this.
    pub(super) async fn release(
        self: &Arc<Self>,
        node: Node,
        file: u64,
        flags: u32,
        owner: u64,
    ) -> Result<Answer, Errno> {
        self.end_locks(node, file, (flags & open_flag::RELEASE_FLOCK_UNLOCK != 0).then_some(owner)).await;
        let handle = lock(&self.files).remove(&file);
        match handle.map(|handle| handle.at) {
            Some(Opened::Query) => self.note(Lane::Query, &[], Ask::Release { file: File(file) }).await?,
            Some(Opened::Change) => self.note(Lane::Change, &[], Ask::ReleaseWrite { file: File(file) }).await?,
            Some(Opened::Here) | None => {}
        }
        self.with(|table| table.closed(node));
        Ok(Answer::done())
    }
}
