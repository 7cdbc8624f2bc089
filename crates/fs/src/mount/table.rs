//! What the mount knows of the client's files: inodes, directories, and which of it may be shown without asking. Holds no
//! lock and does no I/O; `Fs` keeps it behind one mutex and never awaits with it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use remotely_proto::ByteVec;
use remotely_proto::fs::{Attr, Binding, Entry, Lane, Node, Time, UNWATCHED_MS, UsedFile, flag};
use rustix::io::Errno;
use tokio::sync::Notify;

use super::content::{Content, GRANULE};
use super::invalidate::Invalid;
use super::partial::Partial;

/// The kernel keeps what is watched until it is told otherwise.
pub(super) const FOREVER: Duration = Duration::from_secs(365 * 86_400);
const UNWATCHED: Duration = Duration::from_millis(UNWATCHED_MS);

/// All inodes that were heard of and not forgotten.
pub(super) struct Table {
    inodes: HashMap<Node, Inode>,
    identities: HashMap<(u64, u64), Node>,
    next: u64,
    /// News for the kernel, collected by the operations below; taken by the caller before it lets go of the table.
    pub(super) invalid: Vec<Invalid>,
    /// Nodes that are gone for good; the server is told.
    pub(super) forgotten: Vec<Node>,
}

/// One inode of the client.
pub(super) struct Inode {
    pub(super) attr: Attr,
    /// Attributes must be asked for before they are shown.
    pub(super) stale: bool,
    /// They may not be trusted after this moment, because nobody watches.
    expires: Option<Instant>,
    pub(super) target: Option<ByteVec>,
    /// How often the kernel was told of it.
    pub(super) lookups: u64,
    /// Names it has in directories that are known.
    names: u32,
    /// Where the server finds it.
    place: Option<(Node, ByteVec)>,
    /// On which lanes the server was told that.
    bound: u8,
    /// Open files of the kernel.
    pub(super) opens: u32,
    /// Writes that the server has not answered.
    pub(super) writes: u32,
    /// A write that failed after its caller had gone on.
    pub(super) error: Option<Errno>,
    /// What the kernel takes for its size.
    pub(super) shown_size: u64,
    /// Locks were taken on it.
    pub(super) locked: bool,
    /// Number of the last notice about it.
    noticed: u64,
    event: Option<Arc<Notify>>,
    pub(super) directory: Option<Box<Directory>>,
    pub(super) content: Option<Box<Content>>,
    /// Pages that the command wrote a part of.
    partial: Partial,
    /// A bit for each granule that the kernel has been given.
    used: Vec<u64>,
    /// It was made or written by the command.
    written: bool,
}

/// Granules of a file whose use is noted: 128 GiB.
const USED_MAX: u64 = 1 << 20;

/// Symbolic links followed in one path, as in path_resolution(7).
const LINKS_MAX: usize = 40;

/// The names in a directory.
#[derive(Default)]
pub(super) struct Directory {
    state: Known,
    names: HashMap<Vec<u8>, Option<Node>>,
    expires: Option<Instant>,
    noticed: u64,
    /// Notices that arrived while the listing was under way, to be laid over it.
    meanwhile: Vec<(u64, ByteVec, Option<Entry>)>,
    /// Names that we changed ourselves while the listing was under way: it may be older.
    touched: HashSet<Vec<u8>>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing, or single names.
    #[default]
    Nothing,
    /// A listing is under way.
    Asked,
    /// Every name that is there.
    Whole,
    /// Too large, or not readable: single names only.
    Single,
}

/// What is known of a name.
pub(super) enum Name {
    /// It names this, and the kernel may keep that.
    Is(Node),
    /// It is not there.
    Absent,
    /// The directory must be listed first; the event tells when that is over. `first` is for whoever must ask.
    List { first: bool, done: Arc<Notify> },
    /// This name must be asked for.
    Ask,
}

impl Table {
    /// A table that knows the root.
    pub(super) fn new(root: Attr) -> Self {
        let mut inode = Inode::new(root.clone(), None);
        inode.bound = !0;
        inode.lookups = 1;
        Self {
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

    /// Looks a name up in what is known.
    pub(super) fn name(&mut self, parent: Node, name: &[u8]) -> Result<Name, Errno> {
        let inode = self.inode(parent)?;
        let event = inode.event.get_or_insert_default().clone();
        let directory = inode.directory.get_or_insert_default();
        directory.expire();
        Ok(match (directory.names.get(name), directory.state) {
            (Some(Some(node)), _) => Name::Is(*node),
            (Some(None), _) => Name::Absent,
            (None, Known::Whole) => {
                // Written down, because the kernel keeps it: if all of this directory is forgotten, so must this be.
                directory.names.insert(name.to_vec(), None);
                Name::Absent
            }
            (None, Known::Single) => Name::Ask,
            (None, Known::Asked) => Name::List { first: false, done: event },
            (None, Known::Nothing) => {
                directory.ask();
                Name::List { first: true, done: event }
            }
        })
    }

    /// Like [`name`](Self::name) for all names at once: `None` if the directory is known as a whole.
    pub(super) fn whole(&mut self, dir: Node) -> Result<Option<(bool, Arc<Notify>)>, Errno> {
        let inode = self.inode(dir)?;
        let event = inode.event.get_or_insert_default().clone();
        let directory = inode.directory.get_or_insert_default();
        directory.expire();
        Ok(match directory.state {
            Known::Whole => None,
            Known::Asked => Some((false, event)),
            Known::Nothing | Known::Single => {
                directory.ask();
                Some((true, event))
            }
        })
    }

    /// A listing that comes unasked would be news.
    pub(super) fn wants_push(&self, dir: Node) -> bool {
        self.inodes.get(&dir).is_some_and(|inode| inode.directory.as_ref().is_none_or(|dir| dir.state != Known::Whole))
    }

    /// What is known to be at a path from the root.
    pub(super) fn find(&self, path: &[ByteVec]) -> Option<Node> {
        path.iter().try_fold(Node::ROOT, |dir, name| self.known_name(dir, name))
    }

    /// A name in a directory is where one of these absolute paths leads.
    pub(super) fn is_at(&self, dir: Node, name: &[u8], paths: &[Vec<u8>]) -> bool {
        paths.iter().any(|path| self.resolve(path).is_some_and(|(parent, last)| parent == dir && last == name))
    }

    /// Directory and name that an absolute path leads to, symbolic links followed, as far as they are known.
    fn resolve(&self, path: &[u8]) -> Option<(Node, Vec<u8>)> {
        let mut rest: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
        let mut above = vec![Node::ROOT];
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let dir = *above.last()?;
            if name == b".." {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            let node = self.known_name(dir, &name);
            let target = node.and_then(|node| self.inodes.get(&node)?.target.as_ref());
            if let Some(target) = target {
                links += 1;
                if links > LINKS_MAX {
                    return None;
                }
                if target.starts_with(b"/") {
                    above.truncate(1);
                }
                rest.extend(components(target).rev().map(<[u8]>::to_vec));
            } else if rest.is_empty() {
                return Some((dir, name));
            } else {
                above.push(node?);
            }
        }
        None
    }

    /// How long the kernel may keep a name of this directory, or that it is not there.
    pub(super) fn name_valid(&self, parent: Node) -> Duration {
        let expires = self.inodes.get(&parent).and_then(|inode| inode.directory.as_ref()).and_then(|dir| dir.expires);
        remaining(expires)
    }

    /// The names of a directory, for reading it.
    pub(super) fn names(&self, dir: Node) -> Vec<(ByteVec, Node)> {
        let Some(directory) = self.inodes.get(&dir).and_then(|inode| inode.directory.as_ref()) else {
            return Vec::new();
        };
        directory.names.iter().filter_map(|(name, node)| Some((name.clone().into(), (*node)?))).collect()
    }

    /// Takes in a listing that is complete (or as far as it came, if `truncated`).
    pub(super) fn listed(&mut self, dir: Node, entries: Vec<Entry>, seen: u64, watched: bool, truncated: bool) {
        let mut now: HashMap<Vec<u8>, Option<Node>> =
            entries.into_iter().map(|entry| (entry.name.to_vec(), Some(self.learn_inode(dir, entry, seen)))).collect();
        let Some(directory) = self.inodes.get_mut(&dir).map(|inode| inode.directory.get_or_insert_default()) else {
            return;
        };
        let before = std::mem::take(&mut directory.names);
        for name in std::mem::take(&mut directory.touched) {
            if let Some(&node) = before.get(&name) {
                now.insert(name, node);
            }
        }
        let mut dropped = Vec::new();
        for (name, &old) in &before {
            if truncated && !now.contains_key(name) {
                now.insert(name.clone(), old);
            }
            if now.get(name).copied().flatten() != old {
                dropped.extend(old);
                self.invalid.push(Invalid::Entry(dir, name.clone().into()));
            }
        }
        let added: Vec<Node> =
            now.iter().filter(|&(name, node)| before.get(name) != Some(node)).filter_map(|(_, node)| *node).collect();
        directory.names = now;
        directory.state = if truncated { Known::Single } else { Known::Whole };
        directory.expires = (!watched).then(|| Instant::now() + UNWATCHED);
        let meanwhile = std::mem::take(&mut directory.meanwhile);
        added.into_iter().for_each(|node| self.name_added(node));
        dropped.into_iter().for_each(|node| self.name_dropped(node));
        for (number, name, entry) in meanwhile {
            if number > seen {
                self.changed(dir, name, entry, number);
            }
        }
        self.wake(dir);
    }

    /// A listing failed: names are asked for singly if the directory only cannot be read.
    pub(super) fn list_failed(&mut self, dir: Node, single: bool) {
        if let Some(directory) = self.inodes.get_mut(&dir).and_then(|inode| inode.directory.as_mut()) {
            directory.state = if single { Known::Single } else { Known::Nothing };
            directory.expires = single.then(|| Instant::now() + UNWATCHED);
        }
        self.wake(dir);
    }

    /// Takes in an answer about one name, and says what it names.
    pub(super) fn learn(&mut self, parent: Node, entry: Entry, seen: u64) -> Node {
        let name = entry.name.clone();
        let node = self.learn_inode(parent, entry, seen);
        self.set_name(parent, name, Some(node));
        node
    }

    /// Takes in that a name is not there (any more).
    pub(super) fn absent(&mut self, parent: Node, name: ByteVec) {
        self.set_name(parent, name, None);
    }

    /// Takes in an inode without a name (O_TMPFILE).
    pub(super) fn learn_nameless(&mut self, node: Node, attr: Attr) {
        let mut inode = Inode::new(attr, None);
        inode.bound = !0;
        self.identities.insert((inode.attr.dev, inode.attr.ino), node);
        self.inodes.insert(node, inode);
    }

    /// An inode that we made under `node` became known: the server has it bound.
    pub(super) fn made(&mut self, parent: Node, entry: Entry, directory: Option<Attr>, seen: u64, node: Node) -> Node {
        let known = self.same(&entry.attr);
        if known.is_none() {
            self.insert(node, parent, &entry, !0);
        }
        let learnt = self.learn(parent, entry, seen);
        if learnt != node {
            self.forgotten.push(node);
        }
        self.parent_changed(parent, directory, seen);
        learnt
    }

    /// A name moved, as renameat2(2) with these flags.
    pub(super) fn renamed(&mut self, from: (Node, ByteVec), to: (Node, ByteVec), flags: u32) {
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        let source = self.known_name(from.0, &from.1);
        let target = self.known_name(to.0, &to.1);
        if let Some(node) = source {
            // Counted up first, so that it does not look nameless in between.
            self.name_added(node);
            self.set_name(to.0, to.1.clone(), Some(node));
            self.name_dropped(node);
            self.move_place(node, &to);
        } else {
            self.unset_name(to.0, &to.1);
        }
        match target {
            Some(node) if exchange => {
                self.set_name(from.0, from.1.clone(), Some(node));
                self.move_place(node, &from);
            }
            _ if flags & libc::RENAME_WHITEOUT != 0 => self.unset_name(from.0, &from.1),
            _ => self.set_name(from.0, from.1, None),
        }
        for node in [source, target].into_iter().flatten() {
            if let Some(inode) = self.inodes.get_mut(&node) {
                inode.stale = true;
            }
        }
        self.parent_changed(from.0, None, 0);
        self.parent_changed(to.0, None, 0);
    }

    /// What a name is known to name.
    pub(super) fn known_name(&self, parent: Node, name: &[u8]) -> Option<Node> {
        self.inodes.get(&parent)?.directory.as_ref()?.names.get(name).copied().flatten()
    }

    /// A directory got or lost a name by our own doing: times, size and links of it are these now, or must be asked for.
    pub(super) fn parent_changed(&mut self, parent: Node, attr: Option<Attr>, seen: u64) {
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
        if seen < inode.noticed || inode.writes > 0 {
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

    /// Attributes as they were found: what differs in content was somebody else's doing.
    pub(super) fn found(&mut self, node: Node, attr: Attr, seen: u64) {
        let Some(inode) = self.inodes.get_mut(&node) else { return };
        if seen < inode.noticed || inode.writes > 0 {
            inode.stale = true;
            return;
        }
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

    /// A notice: somebody else changed what is under this name.
    pub(super) fn changed(&mut self, dir: Node, name: ByteVec, entry: Option<Entry>, number: u64) {
        let Some(directory) = self.inodes.get_mut(&dir).and_then(|inode| inode.directory.as_mut()) else { return };
        directory.noticed = number;
        if directory.state == Known::Asked {
            directory.meanwhile.push((number, name.clone(), entry.clone()));
        }
        let before = directory.names.get(&**name).copied();
        let now = entry.map(|entry| {
            let stamp = entry.attr.stamp();
            let known = self.same(&entry.attr).and_then(|node| self.inodes.get_mut(&node).map(|inode| (node, inode)));
            if let Some((node, inode)) = known
                && inode.attr.stamp() != stamp
            {
                // Even with writes of our own under way: what is told here was not one of them.
                inode.drop_content();
                self.invalid.push(Invalid::Inode(node));
            }
            let node = self.learn_inode(dir, entry, number);
            if let Some(inode) = self.inodes.get_mut(&node) {
                inode.noticed = number;
            }
            node
        });
        if before != Some(now) {
            self.set_name(dir, name.clone(), now);
            self.invalid.push(Invalid::Entry(dir, name));
            self.stale(dir);
        }
    }

    /// A notice: nothing that was known of a directory and what is in it may be shown any more.
    pub(super) fn forget_directory(&mut self, dir: Node, number: u64) {
        let Some(directory) = self.inodes.get_mut(&dir).and_then(|inode| inode.directory.as_mut()) else { return };
        directory.noticed = number;
        if directory.state != Known::Asked {
            directory.state = Known::Nothing;
        }
        for (name, node) in std::mem::take(&mut directory.names) {
            self.invalid.push(Invalid::Entry(dir, name.into()));
            if let Some(node) = node {
                if let Some(inode) = self.inodes.get_mut(&node) {
                    inode.noticed = number;
                    inode.drop_content();
                    self.invalid.push(Invalid::Inode(node));
                }
                self.stale(node);
                self.name_dropped(node);
            }
        }
        self.stale(dir);
    }

    /// A notice: events were lost.
    pub(super) fn forget_all(&mut self, number: u64) {
        let dirs: Vec<Node> =
            self.inodes.iter().filter(|(_, inode)| inode.directory.is_some()).map(|(&node, _)| node).collect();
        for dir in dirs {
            self.forget_directory(dir, number);
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

    /// It lost a name: the number of its links is another.
    pub(super) fn stale_links(&mut self, node: Node) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.stale = true;
        }
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
            chain.push(Binding { node: at, parent, name, dev: inode.attr.dev, ino: inode.attr.ino });
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
        for child in inode.directory.into_iter().flat_map(|dir| dir.names.into_values()).flatten() {
            self.name_dropped(child);
        }
    }

    /// Which files were read, and what of them; not those that the command wrote itself.
    pub(super) fn used_files(&self) -> Vec<UsedFile> {
        let used = self.inodes.values().filter(|inode| !inode.used.is_empty() && !inode.written);
        used.map(|inode| UsedFile { dev: inode.attr.dev, ino: inode.attr.ino, runs: inode.used_runs() }).collect()
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
        let born = known.btime == attr.btime || known.btime == Time::default() || attr.btime == Time::default();
        (born && known.mode & libc::S_IFMT == attr.mode & libc::S_IFMT).then_some(node)
    }

    fn learn_inode(&mut self, parent: Node, entry: Entry, seen: u64) -> Node {
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
        self.found(node, entry.attr, seen);
        node
    }

    fn insert(&mut self, node: Node, parent: Node, entry: &Entry, bound: u8) {
        let mut inode = Inode::new(entry.attr.clone(), Some((parent, entry.name.clone())));
        inode.target = entry.target.clone();
        inode.bound = bound;
        self.identities.insert((entry.attr.dev, entry.attr.ino), node);
        self.inodes.insert(node, inode);
    }

    fn set_name(&mut self, parent: Node, name: ByteVec, node: Option<Node>) {
        let Some(directory) = self.inodes.get_mut(&parent).map(|inode| inode.directory.get_or_insert_default()) else {
            return;
        };
        if directory.state == Known::Asked {
            directory.touched.insert(name.to_vec());
        }
        if node.is_none() && directory.state == Known::Nothing {
            // Nobody watches yet: that a name is not there cannot be kept.
            if let Some(Some(old)) = directory.names.remove(&**name) {
                self.name_dropped(old);
            }
            return;
        }
        let before = directory.names.insert(name.into(), node).flatten();
        if before != node {
            if let Some(node) = node {
                self.name_added(node);
            }
            if let Some(before) = before {
                self.name_dropped(before);
            }
        }
    }

    fn unset_name(&mut self, parent: Node, name: &[u8]) {
        let before = self
            .inodes
            .get_mut(&parent)
            .and_then(|inode| inode.directory.as_mut())
            .and_then(|directory| {
                if directory.state == Known::Whole {
                    directory.state = Known::Nothing;
                }
                directory.names.remove(name)
            })
            .flatten();
        if let Some(node) = before {
            self.name_dropped(node);
        }
    }

    fn move_place(&mut self, node: Node, to: &(Node, ByteVec)) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            // The server moved its own binding with the rename; one that it does not have yet is made from here.
            inode.place = Some(to.clone());
        }
    }

    fn name_added(&mut self, node: Node) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.names += 1;
        }
    }

    fn name_dropped(&mut self, node: Node) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.names = inode.names.saturating_sub(1);
        }
        self.drop_unused(node);
    }
}

impl Inode {
    fn new(attr: Attr, place: Option<(Node, ByteVec)>) -> Self {
        let mut inode = Self {
            shown_size: attr.size,
            attr: attr.clone(),
            stale: false,
            expires: None,
            target: None,
            lookups: 0,
            names: 0,
            place,
            bound: 0,
            opens: 0,
            writes: 0,
            error: None,
            locked: false,
            noticed: 0,
            event: None,
            directory: None,
            content: None,
            partial: Partial::default(),
            used: Vec::new(),
            written: false,
        };
        inode.set_attr(attr);
        inode
    }

    fn set_attr(&mut self, attr: Attr) {
        self.expires = (attr.flags & flag::UNWATCHED != 0).then(|| Instant::now() + UNWATCHED);
        self.attr = attr;
        self.stale = false;
    }

    /// What was kept of its content is not what is there.
    pub(super) fn drop_content(&mut self) {
        self.content = None;
        self.partial = Partial::default();
    }

    /// We write this. Call before the size counts as shown.
    pub(super) fn wrote(&mut self, offset: u64, data: &[u8]) {
        self.content = None;
        self.written = true;
        self.partial.wrote(offset, data, self.shown_size);
        self.shown_size = self.shown_size.max(offset + data.len() as u64);
    }

    /// The kernel was given these bytes.
    pub(super) fn used(&mut self, offset: u64, len: u64) {
        let (first, last) = (offset / GRANULE, (offset + len.max(1)).div_ceil(GRANULE).min(USED_MAX));
        for index in first..last {
            let word = (index / 64) as usize;
            if self.used.len() <= word {
                self.used.resize(word + 1, 0);
            }
            self.used[word] |= 1 << (index % 64);
        }
    }

    /// Runs of granules that were used.
    fn used_runs(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let all =
            (0..self.used.len() as u64 * 64).filter(|index| self.used[(index / 64) as usize] >> (index % 64) & 1 != 0);
        for index in all {
            match runs.last_mut() {
                Some(run) if run.1 == index => run.1 += 1,
                _ => runs.push((index, index + 1)),
            }
        }
        runs
    }

    /// These bytes, if the command wrote them itself and the kernel did not keep them.
    pub(super) fn written_pages(&self, offset: u64, len: u64) -> Option<Bytes> {
        self.partial.read(offset, len, self.shown_size)
    }

    /// The attributes may be shown as they are.
    pub(super) fn is_fresh(&self) -> bool {
        !self.stale && self.writes == 0 && self.expires.is_none_or(|at| at > Instant::now())
    }

    /// How long the kernel may keep the attributes.
    pub(super) fn attr_valid(&self) -> Duration {
        if self.is_fresh() { remaining(self.expires) } else { Duration::ZERO }
    }

    pub(super) fn is_directory(&self) -> bool {
        self.attr.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

impl Directory {
    fn ask(&mut self) {
        self.state = Known::Asked;
        self.meanwhile.clear();
        self.touched.clear();
    }

    fn expire(&mut self) {
        if self.expires.is_some_and(|at| at <= Instant::now()) && self.state != Known::Asked {
            self.expires = None;
            if self.state == Known::Single {
                // Asked for one by one: every name anew.
                self.names.retain(|_, node| node.is_some());
            }
            self.state = Known::Nothing;
        }
    }
}

/// The names in a path.
fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

fn remaining(expires: Option<Instant>) -> Duration {
    expires.map_or(FOREVER, |at| at.saturating_duration_since(Instant::now()))
}
