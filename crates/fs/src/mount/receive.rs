//! What comes from the fs server: answers go to who waits for them, notices and pushes into the table.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use remotely_proto::fs::{Attr, Notice, Reply, ToMount};
use remotely_proto::message::MessageDecoder;
use remotely_session::RecvStream;
use rustix::io::Errno;

use super::content::{Ask, Content, GRANULE};
use super::fs::{Answered, Fs, Waiter, errno_of};
use remotely_proto::ByteVec;
use remotely_proto::fs::Node;

/// The receiving halves of the lanes.
pub(super) struct Receivers {
    query: Receiver,
    change: Receiver,
    bulk: Receiver,
    /// Messages that came before the root.
    early: Vec<(ToMount, Bytes)>,
}

struct Receiver {
    stream: RecvStream,
    decoder: MessageDecoder,
}

impl Receivers {
    pub(super) fn new(query: RecvStream, change: RecvStream, bulk: RecvStream) -> Self {
        let receiver = |stream| Receiver { stream, decoder: MessageDecoder::default() };
        Self { query: receiver(query), change: receiver(change), bulk: receiver(bulk), early: Vec::new() }
    }

    /// Waits for the attributes of the root, which the server says first.
    pub(super) async fn root(&mut self) -> std::io::Result<Attr> {
        loop {
            match self.query.next().await? {
                Some((ToMount::Notice { notice: Notice::Root { attr }, .. }, _)) => return Ok(attr),
                Some(early) => self.early.push(early),
                None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Starts a task for each lane.
    pub(super) fn spawn(self, fs: &Arc<Fs>) {
        for (message, payload) in self.early {
            fs.receive(message, payload);
        }
        for (mut receiver, apart) in [(self.query, false), (self.change, true), (self.bulk, true)] {
            let fs = fs.clone();
            tokio::spawn(async move {
                loop {
                    match receiver.next().await {
                        Ok(Some((message, payload))) => {
                            if apart {
                                fs.catch_up(&message).await;
                            }
                            fs.receive(message, payload);
                        }
                        Ok(None) => break,
                        Err(error) => {
                            tracing::debug!(%error, "a lane of the mount ends");
                            break;
                        }
                    }
                }
                fs.end();
            });
        }
    }
}

impl Receiver {
    async fn next(&mut self) -> std::io::Result<Option<(ToMount, Bytes)>> {
        loop {
            if let Some(message) = self.decoder.next().map_err(std::io::Error::other)? {
                return Ok(Some(message));
            }
            match self.stream.recv().await.map_err(|error| std::io::Error::other(error.to_string()))? {
                Some(chunk) => self.decoder.push(&chunk),
                None => return Ok(None),
            }
        }
    }
}

impl Fs {
    /// Waits for what comes over the query lane and counts before this message of another.
    async fn catch_up(&self, message: &ToMount) {
        // The senders live as long as `self`.
        let _ = match *message {
            ToMount::Reply { seen, .. } => self.noticed.subscribe().wait_for(|noticed| *noticed >= seen).await.is_ok(),
            ToMount::Notice { .. } => self.planned.subscribe().wait_for(|planned| *planned).await.is_ok(),
        };
    }

    fn receive(self: &Arc<Self>, message: ToMount, payload: Bytes) {
        match message {
            ToMount::Reply { id, seen, reply } => match self.waiter(id) {
                Some(Waiter::Once(waiter)) => {
                    if let Reply::Listing { last: false, .. } = reply {
                        self.part(id, waiter, reply, seen);
                    } else {
                        let _ = waiter.send(self.whole(id, Answered::new(reply, payload, seen)));
                    }
                }
                Some(Waiter::Write { node, len }) => self.written(node, len, reply, seen),
                None => tracing::debug!(id, "an answer that nobody waits for"),
            },
            ToMount::Notice { number, notice } => {
                self.notice(number, notice, payload);
                self.noticed.send_if_modified(|noticed| number > std::mem::replace(noticed, number.max(*noticed)));
            }
        }
    }

    /// The end of a write that its caller did not wait for.
    fn written(self: &Arc<Self>, node: Node, len: usize, reply: Reply, seen: u64) {
        self.budget.add_permits(len);
        self.with(|table| {
            if let Ok(inode) = table.inode(node) {
                inode.writes = inode.writes.saturating_sub(1);
            }
            match reply {
                Reply::Attr { attr } => table.own(node, attr, seen),
                Reply::Failed { errno } => {
                    if let Ok(inode) = table.inode(node) {
                        inode.late.fail(errno_of(errno));
                        inode.drop_content();
                    }
                    // The kernel has pages that never reached the disk.
                    table.stale(node);
                }
                _ => table.stale(node),
            }
            table.wake(node);
            table.drop_unused(node);
        });
    }

    fn notice(self: &Arc<Self>, number: u64, notice: Notice, payload: Bytes) {
        match notice {
            Notice::Changed { dir, names } => self.with(|table| {
                for (name, entry) in names {
                    table.changed(dir, name, entry, number);
                }
            }),
            Notice::Stale { dir } => self.with(|table| table.forget_directory(dir, number)),
            Notice::Overflow => self.with(|table| table.forget_all(number)),
            Notice::PushListing { path, entries, last, seen, watched } => {
                self.pushed_listing(path, entries, last, seen, watched);
            }
            Notice::PushPlan { dev, ino, stamp, runs } => self.with(|table| {
                // Asked under the lock of the table: `PushEnd` releases under it what was promised before.
                if self.push_over.load(Ordering::SeqCst) {
                    return;
                }
                let Some(node) = table.identity(dev, ino) else { return };
                let id = self.fresh_content();
                let Ok(inode) = table.inode(node) else { return };
                if inode.attr.stamp() != stamp || inode.writes > 0 {
                    return;
                }
                let content = inode.content.get_or_insert_with(|| Box::new(Content::new(id)));
                for (start, len) in runs {
                    let end = start.saturating_add(len).min(inode.attr.size).div_ceil(GRANULE);
                    content.promise(start / GRANULE..end);
                }
                super::fs::lock(&self.promised).push(node);
            }),
            Notice::StaleAt { path } => self.with(|table| match table.find(&path) {
                Some(dir) => table.forget_directory(dir, number),
                None => table.news_of_unknown(path, number),
            }),
            Notice::ChangedAt { path, dev, ino, names } => self.with(|table| match table.find(&path) {
                Some(dir) if table.identity(dev, ino) == Some(dir) => {
                    for (name, entry) in names {
                        table.changed(dir, name, entry, number);
                    }
                }
                _ => table.news_of_unknown(path, number),
            }),
            Notice::PushPlanned => {
                self.with(|table| table.pushed_all());
                self.planned.send_replace(true);
            }
            Notice::Root { .. } => {}
            Notice::PushEnd => {
                self.with(|table| {
                    self.push_over.store(true, Ordering::SeqCst);
                    for node in std::mem::take(&mut *super::fs::lock(&self.promised)) {
                        if let Ok(inode) = table.inode(node)
                            && let Some(content) = &mut inode.content
                        {
                            content.release();
                        }
                        table.wake(node);
                    }
                });
            }
            Notice::PushData { dev, ino, offset, stamp } => {
                let kept = self.with(|table| {
                    let node = table.identity(dev, ino)?;
                    let id = self.fresh_content();
                    let inode = table.inode(node).ok()?;
                    if inode.attr.stamp() != stamp || inode.writes > 0 || !offset.is_multiple_of(GRANULE) {
                        // It changed meanwhile: what was promised of it must be asked for.
                        if let Some(content) = &mut inode.content {
                            content.release();
                        }
                        table.wake(node);
                        return None;
                    }
                    let content = inode.content.get_or_insert_with(|| Box::new(Content::new(id)));
                    let count = (payload.len() as u64).div_ceil(GRANULE);
                    let kept = content.fill(Ask { first: offset / GRANULE, count }, &payload);
                    let id = content.id;
                    table.wake(node);
                    Some((node, id, kept))
                });
                if let Some((node, id, kept)) = kept {
                    self.keep(node, id, kept);
                }
            }
        }
    }

    /// A directory that nobody asked for. Of use only if every directory above it is known.
    fn pushed_listing(
        self: &Arc<Self>,
        path: Vec<ByteVec>,
        entries: Vec<remotely_proto::fs::Entry>,
        last: bool,
        seen: u64,
        watched: bool,
    ) {
        let mut pushed = super::fs::lock(&self.pushed);
        let slot = pushed.get_or_insert_with(|| (path.clone(), Vec::new()));
        if slot.0 != path {
            *slot = (path, Vec::new());
        }
        slot.1.extend(entries);
        if !last {
            return;
        }
        let Some((path, entries)) = pushed.take() else { return };
        drop(pushed);
        self.with(|table| table.pushed(&path, entries, seen, watched));
    }

    /// One part of a listing: kept until the last one is here.
    fn part(&self, id: u64, waiter: tokio::sync::oneshot::Sender<Answered>, reply: Reply, seen: u64) {
        let Reply::Listing { entries, .. } = reply else { return };
        super::fs::lock(&self.parts).entry(id).or_insert_with(|| (Vec::new(), seen)).0.extend(entries);
        self.wait_again(id, Waiter::Once(waiter));
    }

    /// Puts the parts of a listing before its last one. The listing is as old as its first part.
    fn whole(&self, id: u64, mut answered: Answered) -> Answered {
        if let Reply::Listing { entries, .. } = &mut answered.reply
            && let Some((mut all, seen)) = super::fs::lock(&self.parts).remove(&id)
        {
            all.append(entries);
            *entries = all;
            answered.seen = seen;
        }
        answered
    }
}

/// For operations: an answer of another kind than the question asks for is the server's mistake.
pub(super) fn unexpected<T>() -> Result<T, Errno> {
    Err(Errno::PROTO)
}
