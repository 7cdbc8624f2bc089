//! Attributes: getattr, setattr, statfs.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use remotely_proto::fs::{Attr, File, Lane, Node, Reply, Request as Ask, SetAttr, SetTime, Time, access};
use rustix::io::Errno;

use crate::mount::fs::{Fs, Opened, lock};
use crate::mount::fuse::{Answer, SetattrIn, attr_set};
use crate::mount::invalidate::Invalid;
use crate::mount::receive::unexpected;
use crate::mount::table::{Table, UNWATCHED};

impl Fs {
    pub(super) async fn getattr(self: &Arc<Self>, node: Node, file: Option<u64>) -> Result<Answer, Errno> {
        let attr = self.refresh(node, file).await?;
        self.with(|table| self.show_attr(table, node, attr))
    }

    /// Attributes that may be shown: those that are known, or the server's once the writes so far have arrived there.
    pub(super) async fn refresh(self: &Arc<Self>, node: Node, file: Option<u64>) -> Result<Attr, Errno> {
        self.settle(node).await?;
        if let Some(attr) =
            self.with(|table| table.inode(node).map(|inode| inode.is_fresh().then(|| inode.attr.clone())))?
        {
            return Ok(attr);
        }
        let file = file.and_then(|file| self.opened(file)).map(|(file, _)| file);
        let answered = self.ask(Lane::Query, &[node], Ask::Getattr { node, file }, Bytes::new()).await?;
        let age = answered.age();
        let Reply::Attr { attr } = answered.reply else { return unexpected() };
        self.with(|table| {
            table.found(node, attr.clone(), age);
            let inode = table.inode(node)?;
            // It is written on and on: what the kernel wrote meanwhile is there for it.
            let size = if inode.writes > 0 { attr.size.max(inode.shown_size) } else { attr.size };
            Ok(Attr { size, ..attr })
        })
    }

    /// Starts to look now and then at open files that nobody watches: the kernel asks only when they are opened.
    pub(in super::super) fn look_after_unwatched(self: &Arc<Self>) {
        let fs = Arc::clone(self);
        tokio::spawn(async move {
            while tokio::time::timeout(UNWATCHED, fs.ended()).await.is_err() {
                for node in fs.unwatched() {
                    // What is not there any more tells by itself when it is used.
                    let _ = fs.refresh(node, None).await;
                }
            }
        });
    }

    /// Open files that nobody watches and that were not looked at for a while.
    fn unwatched(self: &Arc<Self>) -> HashSet<Node> {
        let mut nodes: HashSet<Node> = lock(&self.files).values().map(|handle| handle.node).collect();
        self.with(|table| {
            nodes.retain(|node| table.inode(*node).is_ok_and(|inode| !inode.is_directory() && inode.has_expired()));
        });
        nodes
    }

    /// Waits until the writes of our own to this file up to now are answered.
    pub(super) async fn settle(self: &Arc<Self>, node: Node) -> Result<(), Errno> {
        let mut until = None;
        loop {
            let event = self.with(|table| {
                let event = table.event(node)?;
                let (sent, answered) = table.inode(node)?.sent_and_answered();
                Ok((answered < *until.get_or_insert(sent)).then(|| event.notified_owned()))
            })?;
            match event {
                Some(event) => event.await,
                None => return Ok(()),
            }
        }
    }

    /// Waits until every change sent so far has been applied.
    pub(super) async fn settle_all(self: &Arc<Self>) -> Result<(), Errno> {
        // Changes are applied in order, so an answer to this one comes after all before it.
        self.ask(
            Lane::Change,
            &[],
            Ask::Setattr { node: Node::ROOT, file: None, set: SetAttr::default() },
            Bytes::new(),
        )
        .await
        .map(drop)
    }

    /// An open file as the server knows it, if it does.
    pub(super) fn opened(&self, file: u64) -> Option<(File, Lane)> {
        match self.handle(file).ok()?.at {
            Opened::Here => None,
            Opened::Query => Some((File(file), Lane::Query)),
            Opened::Change => Some((File(file), Lane::Change)),
        }
    }

    pub(super) async fn setattr(self: &Arc<Self>, node: Node, set: SetattrIn) -> Result<Answer, Errno> {
        self.permit_change()?;
        let has = |bit: u32| set.valid & bit != 0;
        let time = |at: (u64, u32)| SetTime::At(Time { sec: at.0 as i64, nsec: at.1.min(999_999_999) });
        let now_or = |now: u32, set: u32, at| {
            if has(now) { Some(SetTime::Now) } else { has(set).then(|| time(at)) }
        };
        let mut wanted = SetAttr {
            mode: has(attr_set::MODE).then_some(set.mode & 0o7777),
            uid: has(attr_set::UID).then_some(set.uid),
            gid: has(attr_set::GID).then_some(set.gid),
            size: has(attr_set::SIZE).then_some(set.size),
            atime: now_or(attr_set::ATIME_NOW, attr_set::ATIME, set.atime),
            mtime: now_or(attr_set::MTIME_NOW, attr_set::MTIME, set.mtime),
        };
        if has(attr_set::KILL_SUIDGID) && wanted.mode.is_none() {
            let mode = self.refresh(node, None).await?.mode;
            if mode & 0o6000 != 0 {
                wanted.mode = Some(mode & 0o7777 & !strip(mode));
            }
        }
        let file = has(attr_set::FH).then(|| self.opened(set.file)).flatten();
        // Only a file opened for writing may be named: a truncation needs that.
        let file = file.and_then(|(file, lane)| (lane == Lane::Change).then_some(file));
        let (resized, mode) = (wanted.size, wanted.mode);
        if resized.is_some() {
            self.with(|table| table.inode(node).map(|inode| inode.drop_content()))?;
        }
        let answered = self.ask(Lane::Change, &[node], Ask::Setattr { node, file, set: wanted }, Bytes::new()).await?;
        let Reply::Attr { attr } = answered.reply else { return unexpected() };
        self.with(|table| {
            let inode = table.inode(node)?;
            if let Some(size) = resized {
                inode.shown_size = size;
                inode.drop_content();
            }
            let searched = inode.attr.access & access::EXEC != 0;
            if mode.is_some() && inode.is_directory() && searched && attr.access & access::EXEC == 0 {
                // Names below that the kernel keeps would go on being found.
                let names = table.names(node);
                table.invalid.extend(names.into_iter().map(|(name, _)| Invalid::Doubt(node, name)));
            }
            table.own(node, attr.clone(), answered.seen);
            self.show_attr(table, node, attr)
        })
    }

    pub(super) async fn statfs(self: &Arc<Self>, node: Node) -> Result<Answer, Errno> {
        let answered = self.ask(Lane::Query, &[node], Ask::Statfs { node }, Bytes::new()).await?;
        let Reply::Statfs { statfs } = answered.reply else { return unexpected() };
        Ok(Answer::statfs(&statfs))
    }

    /// The answer: what is known now, or else these attributes.
    fn show_attr(&self, table: &mut Table, node: Node, attr: Attr) -> Result<Answer, Errno> {
        let inode = table.inode(node)?;
        let attr = inode.show(Some(attr));
        let valid = inode.attr_valid();
        Ok(Answer::attr(&self.show.attr(&attr), valid))
    }
}

/// The bits that a write takes away: set-user-id, and set-group-id where the group may execute (chown(2)).
fn strip(mode: u32) -> u32 {
    libc::S_ISUID | if mode & libc::S_IXGRP != 0 { libc::S_ISGID } else { 0 }
}
