//! Names in directories: which are known, which are known not to be there, and when a directory must be asked for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use remotely_proto::ByteVec;
use remotely_proto::fs::{Attr, Entry, Node};
use rustix::io::Errno;
use tokio::sync::Notify;

use super::inode::{UNWATCHED, remaining};
use super::{Age, Table};
use crate::mount::invalidate::Invalid;

/// The names in a directory.
#[derive(Default)]
pub(in super::super) struct Directory {
    pub(super) state: Known,
    pub(super) names: HashMap<Vec<u8>, Option<Node>>,
    pub(super) expires: Option<Instant>,
    /// Number of the last notice about it.
    pub(super) noticed: u64,
    /// Number of the last notice that told to forget it.
    pub(super) forgotten: u64,
    /// What was named in it before it was forgotten: likely to be there still, with all that is known beneath.
    pub(super) former: Vec<Node>,
    /// We have changed names in it: what is pushed may be older.
    pub(super) changed: bool,
    /// When somebody else last changed what a name in it names.
    pub(super) replaced: Option<Instant>,
    /// The command has looked for names in it.
    pub(super) searched: bool,
    /// How often it was asked for: an answer to another question than the last does not count.
    asked: u64,
    /// Notices that arrived while the listing was under way, to be laid over it.
    pub(super) meanwhile: Vec<(u64, ByteVec, Option<Entry>)>,
    /// Names that we changed ourselves while the listing was under way: it may be older.
    pub(super) touched: HashSet<Vec<u8>>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
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
pub(in super::super) enum Name {
    /// It names this, and the kernel may keep that.
    Is(Node),
    /// It is not there.
    Absent,
    /// The directory must be listed first.
    List(Listing),
    /// This name must be asked for.
    Ask,
}

/// A listing that has to come first.
pub(in super::super) struct Listing {
    /// For whoever must ask for it: under this number.
    pub(in super::super) first: Option<u64>,
    /// Tells when it is over.
    pub(in super::super) done: Arc<Notify>,
}

impl Table {
    /// Looks a name up in what is known.
    pub(in super::super) fn name(&mut self, parent: Node, name: &[u8]) -> Result<Name, Errno> {
        let inode = self.inode(parent)?;
        let event = inode.event.get_or_insert_default().clone();
        let directory = inode.directory.get_or_insert_default();
        directory.searched = true;
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
            (None, Known::Asked) => Name::List(Listing { first: None, done: event }),
            (None, Known::Nothing) => Name::List(Listing { first: Some(directory.ask()), done: event }),
        })
    }

    /// Like [`name`](Self::name) for all names at once: `None` if the directory is known as a whole.
    pub(in super::super) fn whole(&mut self, dir: Node) -> Result<Option<Listing>, Errno> {
        let inode = self.inode(dir)?;
        let event = inode.event.get_or_insert_default().clone();
        let directory = inode.directory.get_or_insert_default();
        directory.searched = true;
        directory.expire();
        Ok(match directory.state {
            Known::Whole => None,
            Known::Asked => Some(Listing { first: None, done: event }),
            Known::Nothing | Known::Single => Some(Listing { first: Some(directory.ask()), done: event }),
        })
    }

    /// A directory that was removed has no names any more.
    pub(super) fn emptied(&mut self, dir: Node) {
        let Some(inode) = self.inodes.get_mut(&dir).filter(|inode| inode.is_directory()) else { return };
        let directory = inode.directory.get_or_insert_default();
        directory.state = Known::Whole;
        directory.expires = None;
        directory.names.clear();
    }

    /// A listing that comes unasked would be news, and right.
    fn wants_push(&self, dir: Node, seen: u64) -> bool {
        let known = |dir: &Directory| dir.state == Known::Whole || dir.changed || seen < dir.noticed;
        self.inodes.get(&dir).is_some_and(|inode| !inode.directory.as_ref().is_some_and(|dir| known(dir)))
    }

    /// How long the kernel may keep that this name names `node`, or that it is not there. Not at all if that is not what is
    /// known here.
    pub(in super::super) fn name_valid(&self, parent: Node, name: &[u8], node: Option<Node>) -> Duration {
        let directory = self.inodes.get(&parent).and_then(|inode| inode.directory.as_ref());
        let known = directory.filter(|directory| directory.names.get(name) == Some(&node));
        known.map_or(Duration::ZERO, |directory| remaining(directory.expires))
    }

    /// The names of a directory, for reading it.
    pub(in super::super) fn names(&self, dir: Node) -> Vec<(ByteVec, Node)> {
        let Some(directory) = self.inodes.get(&dir).and_then(|inode| inode.directory.as_ref()) else {
            return Vec::new();
        };
        directory.names.iter().filter_map(|(name, node)| Some((name.clone().into(), (*node)?))).collect()
    }

    /// Takes in a listing that nobody asked for, if it is of use: the directory is known, and nothing newer of it.
    pub(in super::super) fn pushed(&mut self, path: &[ByteVec], entries: Vec<Entry>, seen: u64, watched: bool) {
        let overtaken = self.overtaken.get(path).is_some_and(|news| seen < *news);
        if let Some(dir) = self.find(path).filter(|dir| !overtaken && self.wants_push(*dir, seen)) {
            self.take_listing(dir, entries, Age::pushed(seen), watched, false);
        }
    }

    /// News of a directory that is not known here: a listing of it that is still on its way may be older.
    pub(in super::super) fn news_of_unknown(&mut self, path: Vec<ByteVec>, number: u64) {
        if !self.pushed_all {
            self.overtaken.insert(path, number);
        }
    }

    /// No more listings come that nobody asked for.
    pub(in super::super) fn pushed_all(&mut self) {
        self.pushed_all = true;
        self.overtaken = HashMap::new();
    }

    /// Takes in the listing that was asked for under this number: complete, or as far as it came, if `truncated`.
    pub(in super::super) fn listed(
        &mut self,
        dir: Node,
        number: u64,
        entries: Vec<Entry>,
        age: Age,
        watched: bool,
        truncated: bool,
    ) {
        if self.is_asked(dir, number) {
            self.take_listing(dir, entries, age, watched, truncated);
        }
        self.wake(dir);
    }

    /// This question is the last one, and it is still open.
    fn is_asked(&self, dir: Node, number: u64) -> bool {
        let directory = self.inodes.get(&dir).and_then(|inode| inode.directory.as_ref());
        directory.is_some_and(|directory| directory.state == Known::Asked && directory.asked == number)
    }

    fn take_listing(&mut self, dir: Node, entries: Vec<Entry>, age: Age, watched: bool, truncated: bool) {
        let lost = self.lost;
        let Some(directory) = self.inodes.get_mut(&dir).map(|inode| inode.directory.get_or_insert_default()) else {
            return;
        };
        if age.seen < directory.forgotten.max(lost) {
            // Older than the news that it must be asked for anew: whoever waits does that.
            directory.state = Known::Nothing;
            return self.wake(dir);
        }
        let mut now: HashMap<Vec<u8>, Option<Node>> =
            entries.into_iter().map(|entry| (entry.name.to_vec(), Some(self.learn_inode(dir, entry, age)))).collect();
        let Some(directory) = self.inodes.get_mut(&dir).map(|inode| inode.directory.get_or_insert_default()) else {
            return;
        };
        let before = std::mem::take(&mut directory.names);
        for name in std::mem::take(&mut directory.touched) {
            if let Some(&node) = before.get(&name) {
                now.insert(name, node);
            }
        }
        let (mut dropped, mut doubtful) = (Vec::new(), Vec::new());
        for (name, &old) in &before {
            if truncated && !now.contains_key(name) {
                now.insert(name.clone(), old);
            }
            if now.get(name).copied().flatten() != old {
                dropped.extend(old);
                doubtful.push((name.clone(), old));
            }
        }
        let added: Vec<Node> =
            now.iter().filter(|&(name, node)| before.get(name) != Some(node)).filter_map(|(_, node)| *node).collect();
        directory.names = now;
        directory.state = if truncated { Known::Single } else { Known::Whole };
        directory.expires = (!watched).then(|| Instant::now() + UNWATCHED);
        let meanwhile = std::mem::take(&mut directory.meanwhile);
        dropped.append(&mut directory.former);
        for (name, old) in doubtful {
            if self.may_be_cached(old) {
                self.invalid.push(Invalid::Entry(dir, name.into()));
            }
        }
        added.into_iter().for_each(|node| self.name_added(node));
        dropped.into_iter().for_each(|node| self.name_dropped(node));
        for (number, name, entry) in meanwhile {
            if number > age.seen {
                self.changed(dir, name, entry, number);
            }
        }
        self.wake(dir);
    }

    /// A listing failed: names are asked for singly if the directory only cannot be read.
    pub(in super::super) fn list_failed(&mut self, dir: Node, number: u64, single: bool) {
        if self.is_asked(dir, number)
            && let Some(directory) = self.inodes.get_mut(&dir).and_then(|inode| inode.directory.as_mut())
        {
            directory.state = if single { Known::Single } else { Known::Nothing };
            directory.expires = single.then(|| Instant::now() + UNWATCHED);
        }
        self.wake(dir);
    }

    /// Takes in an answer about one name, and says what it names.
    pub(in super::super) fn learn(&mut self, parent: Node, entry: Entry, age: Age) -> Node {
        let name = entry.name.clone();
        let node = self.learn_inode(parent, entry, age);
        self.answer_name(parent, name, Some(node), age.seen);
        node
    }

    /// Takes in that a name is not there (any more).
    pub(in super::super) fn absent(&mut self, parent: Node, name: ByteVec, seen: u64) {
        self.answer_name(parent, name, None, seen);
    }

    /// Takes in what a name names. If there was news of the directory since, that may have been about this name.
    fn answer_name(&mut self, parent: Node, name: ByteVec, node: Option<Node>, seen: u64) {
        let directory = self.inodes.get(&parent).and_then(|inode| inode.directory.as_ref());
        let crossed = seen < directory.map_or(0, |directory| directory.noticed).max(self.lost);
        if !crossed {
            self.set_name(parent, name, node);
        } else if directory.and_then(|directory| directory.names.get(&**name)) != Some(&node) {
            self.unset_name(parent, &name);
        }
    }

    /// An inode that we made under `node` became known: the server has it bound.
    pub(in super::super) fn made(
        &mut self,
        parent: Node,
        entry: Entry,
        directory: Option<Attr>,
        seen: u64,
        node: Node,
    ) -> Node {
        let known = self.same(&entry.attr);
        if known.is_none() {
            self.insert(node, parent, &entry, !0);
        }
        let learnt = self.learn(parent, entry, Age::latest(seen));
        if learnt != node {
            self.forgotten.push(node);
        }
        self.parent_changed(parent, directory, seen);
        learnt
    }

    /// A name moved, as renameat2(2) with these flags.
    pub(in super::super) fn renamed(&mut self, from: (Node, ByteVec), to: (Node, ByteVec), flags: u32) {
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
    pub(in super::super) fn known_name(&self, parent: Node, name: &[u8]) -> Option<Node> {
        self.inodes.get(&parent)?.directory.as_ref()?.names.get(name).copied().flatten()
    }

    pub(super) fn set_name(&mut self, parent: Node, name: ByteVec, node: Option<Node>) {
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

    /// What a name names is not known any more.
    pub(in super::super) fn unset_name(&mut self, parent: Node, name: &[u8]) {
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

    pub(super) fn move_place(&mut self, node: Node, to: &(Node, ByteVec)) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            // The server moved its own binding with the rename; one that it does not have yet is made from here.
            inode.place = Some(to.clone());
        }
    }

    pub(super) fn name_added(&mut self, node: Node) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.names += 1;
        }
    }

    pub(super) fn name_dropped(&mut self, node: Node) {
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.names = inode.names.saturating_sub(1);
        }
        self.drop_unused(node);
    }
}

impl Directory {
    fn ask(&mut self) -> u64 {
        self.state = Known::Asked;
        self.asked += 1;
        self.meanwhile.clear();
        self.touched.clear();
        self.asked
    }

    pub(super) fn expire(&mut self) {
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
