//! What the mount knows of the client's files: inodes, directories, and which of it may be shown without asking. Holds no
//! lock and does no I/O; `Fs` keeps it behind one mutex and never awaits with it.

mod inode;
mod name;
mod path;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use remotely_proto::ByteVec;
use remotely_proto::fs::{Attr, Binding, Entry, Lane, Node, UsedInode};
use rustix::io::Errno;
use tokio::sync::Notify;

pub(super) use self::inode::{Inode, UNWATCHED};
use self::name::{Directory, Known};
pub(super) use self::name::{Listing, Name};
use super::invalidate::Invalid;

/// Where somebody else replaced a file, another one is likely to be replaced for so long.
const MOTION: Duration = Duration::from_secs(2);

/// How old an answer is. What comes over three lanes may overtake each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Age {
    /// It is not older than the notice with this number.
    pub(super) seen: u64,
    /// It is not older than the changes of our own that had been answered by then, as the table counts them.
    pub(super) asked: u64,
}

impl Age {
    /// Of a notice, or of an answer to a change: nothing of our own is later.
    pub(super) fn latest(seen: u64) -> Self {
        Self { seen, asked: u64::MAX }
    }

    /// Of what nobody asked for.
    pub(super) fn pushed(seen: u64) -> Self {
        Self { seen, asked: 0 }
    }
}

/// All inodes that were heard of and not forgotten.
pub(super) struct Table {
    /// Changes of our own that were answered.
    pub(super) answered: u64,
    /// Number of the last notice that events were lost: what was seen before counts for nothing.
    lost: u64,
    /// Directories that were not known here when there was news of them, and the number of that.
    overtaken: HashMap<Vec<ByteVec>, u64>,
    /// Nothing more is pushed that would have to be compared with those.
    pushed_all: bool,
    inodes: HashMap<Node, Inode>,
    identities: HashMap<(u64, u64), Node>,
    next: u64,
    /// News for the kernel, collected by the operations below; taken by the caller before it lets go of the table.
    pub(super) invalid: Vec<Invalid>,
    /// Nodes that are gone for good; the server is told.
    pub(super) forgotten: Vec<Node>,
}

impl Table {
    /// A table that knows the root.
    pub(super) fn new(root: Attr) -> Self {
        let mut inode = Inode::new(root.clone(), None);
        inode.bound = !0;
        inode.lookups = 1;
        Self {
            answered: 0,
            lost: 0,
            overtaken: HashMap::new(),
            pushed_all: false,
            inodes: HashMap::from([(Node::ROOT, inode)]),
            identities: HashMap::from([((root.dev, root.ino), Node::ROOT)]),
            next: Node::ROOT.0 + 1,
            invalid: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    /// A node id that was never used.
    pub(super) fn fresh(&mut self) -> Node {
        let node = Node(self.next);
        self.next += 1;
        node
    }

    /// An inode; ESTALE if it was forgotten, which the kernel never does to one it uses.
    pub(super) fn inode(&mut self, node: Node) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&node).ok_or(Errno::STALE)
    }

    /// The inode with this identity.
    pub(super) fn identity(&self, dev: u64, ino: u64) -> Option<Node> {
        self.identities.get(&(dev, ino)).copied()
    }

    /// What tells that something about this inode has changed. Take it before letting go of the table.
    pub(super) fn event(&mut self, node: Node) -> Result<Arc<Notify>, Errno> {
        Ok(self.inode(node)?.event.get_or_insert_default().clone())
    }

    /// Takes in an inode without a name (O_TMPFILE).
    pub(super) fn learn_nameless(&mut self, node: Node, attr: Attr) {
        let mut inode = Inode::new(attr, None);
        inode.bound = !0;
        self.identities.insert((inode.attr.dev, inode.attr.ino), node);
        self.inodes.insert(node, inode);
    }

    /// A directory got or lost a name by our own doing: times, size and links of it are these now, or must be asked for.
    pub(super) fn parent_changed(&mut self, parent: Node, attr: Option<Attr>, seen: u64) {
        if let Some(directory) = self.inodes.get_mut(&parent).and_then(|inode| inode.directory.as_mut()) {
            directory.changed = true;
        }
        match attr {
            Some(attr) => self.own(parent, attr, seen),
            None => {
                if let Some(inode) = self.inodes.get_mut(&parent) {
                    inode.stale = true;
                }
            }
        }
    }

    /// Attributes after an operation of our own: content that the kernel has is still right.
    pub(super) fn own(&mut self, node: Node, attr: Attr, seen: u64) {
        let Some(inode) = self.inodes.get_mut(&node) else { return };
        self.answered += 1;
        inode.answered = self.answered;
        inode.by_us = true;
        if seen < inode.noticed.max(self.lost) || inode.writes > 0 {
            inode.stale = true;
            return;
        }
        if attr.size != inode.shown_size && attr.mode & libc::S_IFMT == libc::S_IFREG {
            // Somebody else wrote too: what the kernel has is not what is there.
            inode.drop_content();
            inode.shown_size = attr.size;
            self.invalid.push(Invalid::Inode(node));
        }
        inode.set_attr(attr);
    }

    /// A lock on it was granted: whatever is known of it may be older than what the last holder did.
    pub(super) fn granted(&mut self, node: Node) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            // What was asked for before the lock was had is too old.
            self.answered += 1;
            inode.answered = self.answered;
            inode.drop_content();
            inode.stale = true;
        }
    }

    /// Attributes as they were found: what differs in content was somebody else's doing.
    pub(super) fn found(&mut self, node: Node, attr: Attr, age: Age) {
        let Some(inode) = self.inodes.get_mut(&node) else { return };
        if age.seen < inode.noticed.max(self.lost) || age.asked < inode.answered || inode.writes > 0 {
            inode.stale = true;
            return;
        }
        inode.by_us = false;
        let before = &inode.attr;
        let regular = attr.mode & libc::S_IFMT == libc::S_IFREG;
        let content = before.size != attr.size || before.mtime != attr.mtime;
        let other = before.ctime != attr.ctime || before.mode != attr.mode || before.nlink != attr.nlink;
        let ours = inode.stale && !content;
        if content {
            inode.drop_content();
        }
        if inode.lookups > 0 && !ours {
            if content && regular {
                self.invalid.push(Invalid::Inode(node));
            } else if content || other {
                self.invalid.push(Invalid::Attr(node));
            }
        }
        inode.shown_size = attr.size;
        inode.set_attr(attr);
    }

    /// What is known of a directory, and be it nothing: news counts against what is still on its way.
    fn directory(&mut self, dir: Node) -> Option<&mut Directory> {
        let inode = self.inodes.get_mut(&dir).filter(|inode| inode.is_directory())?;
        Some(inode.directory.get_or_insert_default())
    }

    /// A notice: somebody else changed what is under this name.
    pub(super) fn changed(&mut self, dir: Node, name: ByteVec, entry: Option<Entry>, number: u64) {
        let Some(directory) = self.directory(dir) else { return };
        directory.noticed = directory.noticed.max(number);
        if directory.state == Known::Asked {
            directory.meanwhile.push((number, name.clone(), entry.clone()));
        }
        let before = directory.names.get(&**name).copied();
        let now = entry.map(|entry| {
            let stamp = entry.attr.stamp();
            let known = self.same(&entry.attr).and_then(|node| self.inodes.get_mut(&node).map(|inode| (node, inode)));
            if let Some((node, inode)) = known
                && (inode.attr.stamp() != stamp || inode.by_us)
            {
                // Even with writes of our own under way: what is told here was not one of them.
                inode.drop_content();
                self.invalid.push(Invalid::Inode(node));
            }
            let node = self.learn_inode(dir, entry, Age::latest(number));
            if let Some(inode) = self.inodes.get_mut(&node) {
                inode.noticed = inode.noticed.max(number);
            }
            node
        });
        if before != Some(now) {
            if let Some(old) = before.flatten() {
                // Open files show that it has a link less.
                self.stale(old);
            }
            if let Some(directory) = self.inodes.get_mut(&dir).and_then(|inode| inode.directory.as_mut()) {
                directory.replaced = Some(Instant::now());
            }
            self.set_name(dir, name.clone(), now);
            self.invalid.push(if before.is_some() { Invalid::Entry(dir, name) } else { Invalid::Doubt(dir, name) });
            self.stale(dir);
        }
    }

    /// A notice: nothing that was known of a directory and what is in it may be shown any more.
    pub(super) fn forget_directory(&mut self, dir: Node, number: u64) {
        let Some(directory) = self.directory(dir) else { return };
        directory.noticed = directory.noticed.max(number);
        directory.forgotten = directory.forgotten.max(number);
        if directory.state != Known::Asked {
            directory.state = Known::Nothing;
        }
        for (name, node) in std::mem::take(&mut directory.names) {
            if self.may_be_cached(node) {
                self.invalid.push(Invalid::Doubt(dir, name.into()));
            }
            if let Some(node) = node {
                if let Some(inode) = self.inodes.get_mut(&node) {
                    inode.noticed = inode.noticed.max(number);
                    inode.drop_content();
                    if inode.lookups > 0 {
                        self.invalid.push(Invalid::Inode(node));
                    }
                }
                self.stale(node);
                if let Some(directory) = self.inodes.get_mut(&dir).and_then(|inode| inode.directory.as_mut()) {
                    directory.former.push(node);
                }
            }
        }
        self.stale(dir);
    }

    /// The kernel may have a name of this node, or that there is none, from an answer of ours. A directory of which it has
    /// seen little can have thousands of others.
    fn may_be_cached(&self, node: Option<Node>) -> bool {
        node.is_none_or(|node| self.inodes.get(&node).is_some_and(|inode| inode.lookups > 0))
    }

    /// A notice: events were lost.
    pub(super) fn forget_all(&mut self, number: u64) {
        self.lost = number;
        let dirs: Vec<Node> =
            self.inodes.iter().filter(|(_, inode)| inode.directory.is_some()).map(|(&node, _)| node).collect();
        for dir in dirs {
            self.forget_directory(dir, number);
        }
    }

    /// Somebody else has just been changing what names name where this file is: it may have lost its own.
    pub(super) fn is_in_motion(&self, node: Node) -> bool {
        let place = self.inodes.get(&node).and_then(|inode| inode.place.as_ref());
        let directory = place.and_then(|(dir, _)| self.inodes.get(dir)).and_then(|inode| inode.directory.as_ref());
        directory.and_then(|directory| directory.replaced).is_some_and(|at| at.elapsed() < MOTION)
    }

    /// The server knows no such file any more: its name is asked for again.
    pub(super) fn gone(&mut self, node: Node) {
        if let Some((dir, name)) = self.inodes.get(&node).and_then(|inode| inode.place.clone()) {
            if self.known_name(dir, &name) == Some(node) {
                self.unset_name(dir, &name);
            }
            self.invalid.push(Invalid::Doubt(dir, name));
        }
    }

    /// The attributes must be asked for, by the kernel too.
    pub(super) fn stale(&mut self, node: Node) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.stale = true;
            if inode.lookups > 0 {
                self.invalid.push(Invalid::Attr(node));
            }
        }
    }

    /// It lost a name: the number of its links is another. A directory that did was empty, and stays so.
    pub(super) fn stale_links(&mut self, node: Node) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.stale = true;
        }
        self.emptied(node);
    }

    /// What the server must be told before `node` is used on `lane`, outermost first.
    pub(super) fn bind(&mut self, node: Node, lane: Lane, out: &mut Vec<Binding>) {
        let bit = if lane == Lane::Change { 2 } else { 1 };
        let mut chain = Vec::new();
        let mut at = node;
        while let Some(inode) = self.inodes.get_mut(&at) {
            if inode.bound & bit != 0 {
                break;
            }
            let Some((parent, name)) = inode.place.clone() else { break };
            inode.bound |= bit;
            let Attr { dev, ino, btime, .. } = inode.attr;
            chain.push(Binding { node: at, parent, name, dev, ino, btime });
            at = parent;
        }
        out.extend(chain.into_iter().rev());
    }

    /// The kernel forgot a node so many times.
    pub(super) fn unlook(&mut self, node: Node, count: u64) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.lookups = inode.lookups.saturating_sub(count);
        }
        self.drop_unused(node);
    }

    /// An open file of it is closed.
    pub(super) fn closed(&mut self, node: Node) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.opens = inode.opens.saturating_sub(1);
        }
        self.drop_unused(node);
    }

    /// Lets an inode go that nothing refers to any more.
    pub(super) fn drop_unused(&mut self, node: Node) {
        let Some(inode) = self.inodes.get(&node) else { return };
        if node == Node::ROOT || inode.lookups > 0 || inode.names > 0 || inode.opens > 0 || inode.writes > 0 {
            return;
        }
        let Some(inode) = self.inodes.remove(&node) else { return };
        let identity = (inode.attr.dev, inode.attr.ino);
        if self.identities.get(&identity) == Some(&node) {
            self.identities.remove(&identity);
        }
        if inode.bound != 0 {
            self.forgotten.push(node);
        }
        let Some(directory) = inode.directory else { return };
        for child in directory.names.into_values().flatten().chain(directory.former) {
            self.name_dropped(child);
        }
    }

    /// Which files were read, and what of them, and in which directories names were looked for; not what the command wrote
    /// itself.
    pub(super) fn used_inodes(&self) -> Vec<UsedInode> {
        let searched = |inode: &Inode| inode.directory.as_ref().is_some_and(|directory| directory.searched);
        let used = self.inodes.values().filter(|inode| searched(inode) || (!inode.used.is_empty() && !inode.written));
        used.map(|inode| UsedInode { dev: inode.attr.dev, ino: inode.attr.ino, runs: inode.used_runs() }).collect()
    }

    /// Wakes everyone who waits for news of this inode.
    pub(super) fn wake(&mut self, node: Node) {
        if let Some(event) = self.inodes.get(&node).and_then(|inode| inode.event.as_ref()) {
            event.notify_waiters();
        }
    }

    /// The node that already stands for the inode with these attributes. A number that was given to a new file after the
    /// old one went is another inode.
    fn same(&self, attr: &Attr) -> Option<Node> {
        let node = self.identity(attr.dev, attr.ino)?;
        let known = &self.inodes.get(&node)?.attr;
        (known.btime.same_birth(attr.btime) && known.mode & libc::S_IFMT == attr.mode & libc::S_IFMT).then_some(node)
    }

    fn learn_inode(&mut self, parent: Node, entry: Entry, age: Age) -> Node {
        let Some(node) = self.same(&entry.attr) else {
            let node = self.fresh();
            self.insert(node, parent, &entry, 0);
            return node;
        };
        let homeless = self.inodes.get(&node).is_some_and(|inode| {
            inode.place.as_ref().is_none_or(|(dir, name)| self.known_name(*dir, name) != Some(node))
        });
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.target = entry.target.or(inode.target.take());
            if homeless && node != Node::ROOT {
                // Where it was it is not any more: the server finds it here.
                let place = Some((parent, entry.name));
                if inode.place != place {
                    inode.place = place;
                    inode.bound = 0;
                }
            }
        }
        self.found(node, entry.attr, age);
        node
    }

    fn insert(&mut self, node: Node, parent: Node, entry: &Entry, bound: u8) {
        let mut inode = Inode::new(entry.attr.clone(), Some((parent, entry.name.clone())));
        inode.target = entry.target.clone();
        inode.bound = bound;
        self.identities.insert((entry.attr.dev, entry.attr.ino), node);
        self.inodes.insert(node, inode);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
