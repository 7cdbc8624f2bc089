//! The node table: which inode the mount means by a number, and under which names to look for it. No system calls here;
//! `open` turns an entry into a descriptor and checks that it is still the same inode.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use remotely_proto::fs::{Binding, Node, Time};

use super::name::{self, Name};

/// More nodes than this are not remembered: what the peer can make grow ends here.
const NODES_MAX: usize = 2 << 20;
/// Names remembered for one inode.
const PLACES_MAX: usize = 4;
/// Sum of the lengths of all names remembered, in bytes.
const NAME_BYTES_MAX: usize = 256 << 20;
/// Nodes of one inode. One, for as long as a file lives; but a file system may give its number to a new one at once, and
/// then the nodes before it are still being forgotten.
const ALIASES_MAX: usize = 256;
/// How long a forgotten node is still answered: the forget may overtake what was said on the other lane.
const GRAVE: Duration = Duration::from_secs(5);
/// Deepest path in components.
pub(super) const DEPTH_MAX: usize = 1024;

/// An inode of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Device, `makedev` encoding.
    pub(super) dev: u64,
    /// Inode number.
    pub(super) ino: u64,
}

/// A name of an inode: where to look for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Directory.
    pub(super) parent: Node,
    /// Name in it.
    pub(super) name: Name,
}

/// What is known of a node.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    /// What must be found.
    pub(super) key: Key,
    /// With this birth time, if that is known.
    pub(super) born: Time,
    /// Where, best guess first.
    pub(super) places: Vec<Place>,
    /// A descriptor, for the root and for what has no name any more.
    pub(super) pin: Option<Arc<OwnedFd>>,
    life: Life,
}

/// How far a node is from being dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Used,
    /// The mount gave it up, but may still speak of it on another lane.
    Forgotten,
    /// To be dropped as soon as nothing refers to it.
    Due,
}

/// All nodes.
#[derive(Debug)]
pub(super) struct NodeTable {
    nodes: HashMap<Node, Inode>,
    by_key: HashMap<Key, Vec<Node>>,
    children: HashMap<Node, HashMap<Name, Vec<Node>>>,
    graves: VecDeque<(Instant, Node)>,
    /// What is left of [`NAME_BYTES_MAX`].
    name_bytes: isize,
}

impl NodeTable {
    /// A table that knows the root only.
    pub(super) fn new(root: Key, descriptor: Arc<OwnedFd>) -> Self {
        let inode =
            Inode { key: root, born: Time::default(), places: Vec::new(), pin: Some(descriptor), life: Life::Used };
        Self {
            nodes: HashMap::from([(Node::ROOT, inode)]),
            by_key: HashMap::from([(root, vec![Node::ROOT])]),
            children: HashMap::new(),
            graves: VecDeque::new(),
            name_bytes: NAME_BYTES_MAX as isize,
        }
    }

    /// Takes a binding of the mount. What is no valid binding is left out, so that its use gives ESTALE.
    pub(super) fn bind(&mut self, binding: Binding) {
        if name::check(&binding.name).is_ok() {
            let key = Key { dev: binding.dev, ino: binding.ino };
            self.insert(
                binding.node,
                (key, binding.btime),
                Some(Place { parent: binding.parent, name: Vec::from(binding.name).into() }),
            );
        }
    }

    /// Makes a node known, or one more name of it.
    pub(super) fn insert(&mut self, node: Node, (key, born): (Key, Time), place: Option<Place>) {
        if node == Node::ROOT || (self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&node)) {
            return;
        }
        if self.nodes.get(&node).is_some_and(|inode| inode.key != key || !inode.born.same_birth(born)) {
            self.remove(node);
        }
        if place.as_ref().is_some_and(|place| place.name.len() as isize > self.name_bytes)
            || (!self.nodes.contains_key(&node) && !self.make_room(key))
        {
            return;
        }
        let inode = self.nodes.entry(node).or_insert_with(|| {
            self.by_key.entry(key).or_default().push(node);
            Inode { key, born, places: Vec::new(), pin: None, life: Life::Used }
        });
        inode.life = Life::Used;
        let Some(place) = place else { return };
        if inode.places.contains(&place) {
            return;
        }
        // A binding says what the mount knew when it sent it; a rename on the other lane may have been newer. So what
        // is known already is tried first.
        inode.places.push(place.clone());
        self.name_bytes -= place.name.len() as isize;
        let surplus = (inode.places.len() > PLACES_MAX).then(|| inode.places.remove(0));
        self.children.entry(place.parent).or_default().entry(place.name).or_default().push(node);
        if let Some(surplus) = surplus {
            self.name_bytes += surplus.name.len() as isize;
            if self.unlist(node, &surplus) {
                self.bury_childless(surplus.parent);
            }
        }
    }

    /// True if there may be one more node of this inode: the oldest one that was given up goes, if need be.
    fn make_room(&mut self, key: Key) -> bool {
        let nodes = self.nodes_of(key);
        if nodes.len() < ALIASES_MAX {
            return true;
        }
        let given_up = |node: &&Node| {
            self.nodes.get(node).is_some_and(|inode| inode.life != Life::Used) && !self.children.contains_key(node)
        };
        let oldest = nodes.iter().find(given_up).copied();
        oldest.inspect(|node| self.remove(*node)).is_some()
    }

    /// What is known of a node.
    pub(super) fn get(&self, node: Node) -> Option<&Inode> {
        self.nodes.get(&node)
    }

    /// The nodes that stand for an inode.
    pub(super) fn nodes_of(&self, key: Key) -> &[Node] {
        self.by_key.get(&key).map_or(&[], Vec::as_slice)
    }

    /// The nodes that were last known under a name of a directory.
    pub(super) fn nodes_at(&self, dir: Key, name: &[u8]) -> Vec<Node> {
        self.nodes_of(dir).iter().flat_map(|parent| self.listed(*parent, name)).copied().collect()
    }

    fn listed(&self, parent: Node, name: &[u8]) -> &[Node] {
        self.children.get(&parent).and_then(|names| names.get(name)).map_or(&[], Vec::as_slice)
    }

    /// Keeps a descriptor for what is about to lose its name.
    pub(super) fn pin(&mut self, node: Node, descriptor: Arc<OwnedFd>) {
        if let Some(inode) = self.nodes.get_mut(&node) {
            inode.pin = Some(descriptor);
        }
    }

    /// A place turned out right: it is looked for there first from now on.
    pub(super) fn confirm(&mut self, node: Node, place: &Place) {
        if let Some(inode) = self.nodes.get_mut(&node)
            && let Some(index) = inode.places.iter().position(|known| known == place)
        {
            inode.places.swap(0, index);
        }
    }

    /// A name was removed by the mount.
    pub(super) fn removed(&mut self, parent: Node, name: &[u8]) {
        for (node, place) in self.take_all(parent, name) {
            self.drop_place(node, &place);
        }
    }

    /// The mount renamed something. Whatever is below moves along by itself, because it refers to its parent's number.
    pub(super) fn renamed(&mut self, from: (Node, &[u8]), to: (Node, &[u8]), exchange: bool) {
        let moved = self.take_all(from.0, from.1);
        let replaced = self.take_all(to.0, to.1);
        for (node, place) in moved {
            self.move_place(node, &place, to);
        }
        for (node, place) in replaced {
            if exchange {
                self.move_place(node, &place, from);
            } else {
                self.drop_place(node, &place);
            }
        }
    }

    /// Empties the list of children under one name, in every number that the directory has.
    fn take_all(&mut self, parent: Node, name: &[u8]) -> Vec<(Node, Place)> {
        let Some(key) = self.nodes.get(&parent).map(|inode| inode.key) else { return Vec::new() };
        let aliases = self.nodes_of(key).to_vec();
        let mut taken = Vec::new();
        for alias in aliases {
            let Some(names) = self.children.get_mut(&alias) else { continue };
            if let Some((name, nodes)) = names.remove_entry(name) {
                taken.extend(nodes.into_iter().map(|node| (node, Place { parent: alias, name: name.clone() })));
            }
            if names.is_empty() {
                self.children.remove(&alias);
                self.bury_childless(alias);
            }
        }
        taken
    }

    fn drop_place(&mut self, node: Node, place: &Place) {
        if let Some(inode) = self.nodes.get_mut(&node) {
            let before = bytes(&inode.places);
            inode.places.retain(|known| known != place);
            self.name_bytes += before - bytes(&inode.places);
        }
    }

    fn move_place(&mut self, node: Node, place: &Place, to: (Node, &[u8])) {
        let new = Place { parent: to.0, name: to.1.into() };
        if let Some(inode) = self.nodes.get_mut(&node) {
            let before = bytes(&inode.places);
            inode.places.retain(|known| known != place && *known != new);
            inode.places.insert(0, new.clone());
            // Below zero if need be: it is true that the name was moved.
            self.name_bytes += before - bytes(&inode.places);
            let nodes = self.children.entry(new.parent).or_default().entry(new.name).or_default();
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
    }

    /// The mount uses these no more. They go a little later, see [`NodeTable::sweep`].
    pub(super) fn forget(&mut self, nodes: impl IntoIterator<Item = Node>, now: Instant) {
        for node in nodes {
            if node != Node::ROOT
                && let Some(inode) = self.nodes.get_mut(&node)
                && inode.life == Life::Used
            {
                inode.life = Life::Forgotten;
                self.graves.push_back((now, node));
            }
        }
    }

    /// Drops what was forgotten a while ago. Returns the inodes that no node stands for any more.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Key> {
        let mut gone = Vec::new();
        while let Some(&(since, node)) = self.graves.front() {
            if now.duration_since(since) < GRAVE {
                break;
            }
            self.graves.pop_front();
            if let Some(inode) = self.nodes.get_mut(&node).filter(|inode| inode.life == Life::Forgotten) {
                let key = inode.key;
                inode.pin = None;
                inode.life = Life::Due;
                self.bury_childless(node);
                if self.nodes_of(key).is_empty() {
                    gone.push(key);
                }
            }
        }
        gone
    }

    /// A forgotten directory stays as long as something refers to it.
    fn bury_childless(&mut self, node: Node) {
        if self.nodes.get(&node).is_some_and(|inode| inode.life == Life::Due) && !self.children.contains_key(&node) {
            self.remove(node);
        }
    }

    /// Drops a node, and those of its ancestors that waited for that. A loop: the peer decides how deep the chain is.
    fn remove(&mut self, node: Node) {
        let mut leaving = vec![node];
        while let Some(node) = leaving.pop() {
            let Some(inode) = self.nodes.remove(&node) else { continue };
            if let Some(nodes) = self.by_key.get_mut(&inode.key) {
                nodes.retain(|known| *known != node);
                if nodes.is_empty() {
                    self.by_key.remove(&inode.key);
                }
            }
            self.name_bytes += bytes(&inode.places);
            for place in inode.places {
                let childless = self.unlist(node, &place);
                if childless && self.nodes.get(&place.parent).is_some_and(|parent| parent.life == Life::Due) {
                    leaving.push(place.parent);
                }
            }
        }
    }

    /// Takes a node off the list of children. True if none are left there.
    fn unlist(&mut self, node: Node, place: &Place) -> bool {
        let Some(names) = self.children.get_mut(&place.parent) else { return false };
        if let Some(nodes) = names.get_mut(&place.name) {
            nodes.retain(|known| *known != node);
            if nodes.is_empty() {
                names.remove(&place.name);
            }
        }
        let childless = names.is_empty();
        if childless {
            self.children.remove(&place.parent);
        }
        childless
    }

    /// The path of a node from the root, as last known.
    pub(super) fn path(&self, node: Node) -> Option<Vec<Name>> {
        let mut names = Vec::new();
        let mut at = node;
        while at != Node::ROOT {
            let place = self.nodes.get(&at)?.places.first()?;
            names.push(place.name.clone());
            at = place.parent;
            if names.len() > DEPTH_MAX {
                return None;
            }
        }
        names.reverse();
        Some(names)
    }
}

fn bytes(places: &[Place]) -> isize {
    places.iter().map(|place| place.name.len() as isize).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> NodeTable {
        let root = Arc::new(OwnedFd::from(std::fs::File::open("/").unwrap()));
        NodeTable::new(Key { dev: 1, ino: 2 }, root)
    }

    fn bind(table: &mut NodeTable, node: u64, parent: u64, name: &[u8], ino: u64) {
        let name = name.to_vec().into();
        table.bind(Binding { node: Node(node), parent: Node(parent), name, dev: 1, ino, btime: Time::default() });
    }

    fn path(table: &NodeTable, node: u64) -> Option<String> {
        let names = table.path(Node(node))?;
        Some(names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>().join("/"))
    }

    #[test]
    fn children_move_with_their_directory() {
        let mut table = table();
        bind(&mut table, 2, 1, b"a", 10);
        bind(&mut table, 3, 2, b"x", 11);
        table.renamed((Node(1), b"a"), (Node(1), b"b"), false);
        assert_eq!(path(&table, 3).as_deref(), Some("b/x"));
    }

    #[test]
    fn a_late_binding_does_not_undo_a_rename() {
        let mut table = table();
        bind(&mut table, 2, 1, b"a", 10);
        table.renamed((Node(1), b"a"), (Node(1), b"b"), false);
        bind(&mut table, 2, 1, b"a", 10);
        assert_eq!(path(&table, 2).as_deref(), Some("b"));
    }

    #[test]
    fn exchange_swaps_and_replacement_takes_the_name_away() {
        let mut table = table();
        bind(&mut table, 2, 1, b"a", 10);
        bind(&mut table, 3, 1, b"b", 11);
        table.renamed((Node(1), b"a"), (Node(1), b"b"), true);
        assert_eq!((path(&table, 2).as_deref(), path(&table, 3).as_deref()), (Some("b"), Some("a")));
        table.renamed((Node(1), b"a"), (Node(1), b"b"), false);
        assert_eq!((path(&table, 2), path(&table, 3).as_deref()), (None, Some("b")));
    }

    #[test]
    fn aliases_of_a_directory_see_the_same_renames() {
        let mut table = table();
        bind(&mut table, 2, 1, b"d", 10);
        bind(&mut table, 3, 1, b"d", 10);
        bind(&mut table, 4, 3, b"x", 11);
        table.renamed((Node(2), b"x"), (Node(1), b"y"), false);
        assert_eq!(path(&table, 4).as_deref(), Some("y"));
        assert_eq!(table.nodes_of(Key { dev: 1, ino: 10 }), [Node(2), Node(3)]);
    }

    #[test]
    fn forgotten_nodes_go_after_a_while_and_parents_after_their_children() {
        let mut table = table();
        bind(&mut table, 2, 1, b"d", 10);
        bind(&mut table, 3, 2, b"x", 11);
        let now = Instant::now();
        table.forget([Node(2)], now);
        assert!(table.sweep(now).is_empty());
        assert!(table.sweep(now + GRAVE).is_empty(), "it has a child");
        assert_eq!(path(&table, 3).as_deref(), Some("d/x"));
        table.forget([Node(3)], now);
        assert_eq!(table.sweep(now + GRAVE), [Key { dev: 1, ino: 11 }]);
        assert!(table.get(Node(2)).is_none() && table.children.is_empty() && table.by_key.len() == 1);
    }

    #[test]
    fn a_circle_of_bindings_has_no_path() {
        let mut table = table();
        bind(&mut table, 2, 3, b"a", 10);
        bind(&mut table, 3, 2, b"b", 11);
        assert_eq!(table.path(Node(2)), None);
    }

    #[test]
    fn names_are_remembered_up_to_a_sum_of_bytes() {
        let mut table = table();
        let left = table.name_bytes;
        for node in 0..6 * PLACES_MAX as u64 {
            bind(&mut table, 2 + node % 3, 1, format!("name-{node:02}").as_bytes(), 10 + node % 3);
        }
        assert_eq!(table.name_bytes, left - 84);
        table.renamed((Node(1), b"name-23"), (Node(1), b"n"), false);
        assert_eq!(table.name_bytes, left - 78);
        table.removed(Node(1), b"n");
        table.name_bytes = 6;
        bind(&mut table, 2, 1, b"too long", 10);
        bind(&mut table, 9, 1, b"too long", 19);
        assert!(table.get(Node(9)).is_none() && path(&table, 2).is_some());
        table.name_bytes = left;
        table.forget([Node(2), Node(3), Node(4)], Instant::now());
        table.sweep(Instant::now() + GRAVE);
        assert_eq!(table.name_bytes, left + 77);
    }

    #[test]
    fn an_inode_has_so_many_nodes() {
        let mut table = table();
        for node in 0..2 * ALIASES_MAX as u64 {
            bind(&mut table, 2 + node, 1, b"f", 10);
        }
        assert_eq!(table.nodes_of(Key { dev: 1, ino: 10 }).len(), ALIASES_MAX);
        assert_eq!(table.nodes.len(), 1 + ALIASES_MAX);
        // Files that are made and deleted over and over have the same number.
        table.forget([Node(7)], Instant::now());
        bind(&mut table, 5000, 1, b"f", 10);
        assert!(table.get(Node(7)).is_none() && table.get(Node(5000)).is_some());
    }

    #[test]
    fn another_inode_replaces_the_binding() {
        let mut table = table();
        bind(&mut table, 2, 1, b"a", 10);
        bind(&mut table, 2, 1, b"b", 11);
        assert_eq!(table.get(Node(2)).unwrap().key.ino, 11);
        assert_eq!(path(&table, 2).as_deref(), Some("b"));
        assert!(table.nodes_of(Key { dev: 1, ino: 10 }).is_empty());
    }
}
