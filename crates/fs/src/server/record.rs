//! Writes down what is asked for, and what was pushed, for the profile of the next run.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Mutex,
};

use remotely_proto::fs::{Node, UsedInode};

use super::{
    name::Name,
    node::Key,
    profile::{self, BLOCK, Blocks, Item, Profile, Wanted},
    service::{Hold, Service},
};

/// Directories and files in one profile.
const ITEMS_MAX: usize = 64 << 10;
/// Runs of blocks of one file.
const RUNS_MAX: usize = 256;
/// What was pushed so many times without having been asked for goes; spread over twice as many runs, so that not
/// everything has to be asked for again at the same time.
const AGE_MAX: u32 = 16;
/// The same where the mount has told what was used: a command may do something else for a few runs.
const UNUSED_MAX: u32 = 3;

/// Age of what was used in this run, until the profile is made.
const USED: u32 = u32::MAX;

/// The list so far.
#[derive(Debug, Default)]
pub(super) struct Record {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    items: Vec<Item>,
    listings: HashMap<Key, usize>,
    contents: HashMap<Key, usize>,
    /// The mount has told what was used.
    told: bool,
}

impl Record {
    /// A directory was asked for.
    pub(super) fn listed(&self, service: &Service, node: Node) {
        let Some((key, path)) = whereabouts(service, node) else { return };
        let mut inner = self.inner.hold();
        match inner.listings.get(&key).copied() {
            Some(index) => inner.items[index].age = 0,
            None => inner.add_listing(key, &path, 0),
        }
    }

    /// Part of a file was asked for.
    pub(super) fn read(&self, service: &Service, node: Node, offset: u64, len: usize) {
        if len == 0 {
            return;
        }
        let new = Blocks { start: offset / BLOCK, end: offset.saturating_add(len as u64).div_ceil(BLOCK) };
        let Some(key) = service.nodes.hold().get(node).map(|inode| inode.key) else { return };
        if self.inner.hold().add_content(key, new) {
            return;
        }
        let Some((key, path)) = whereabouts(service, node) else { return };
        self.inner.hold().add_file(key, &path, vec![new], 0);
    }

    /// A directory was pushed, which was in the profile with that age, or is pushed because of what is below it.
    pub(super) fn pushed_listing(&self, key: Key, path: &[Name], age: u32) {
        let mut inner = self.inner.hold();
        if !inner.listings.contains_key(&key) {
            inner.add_listing(key, path, age + 1);
        }
    }

    /// A file was pushed.
    pub(super) fn pushed_content(&self, key: Key, path: &[Name], blocks: Vec<Blocks>, age: u32) {
        let mut inner = self.inner.hold();
        if !inner.contents.contains_key(&key) {
            inner.add_file(key, path, blocks, age + 1);
        }
    }

    /// The mount tells where names were looked for and what was read of files: no more than that is worth pushing.
    pub(super) fn used(&self, inodes: Vec<UsedInode>) {
        let mut inner = self.inner.hold();
        inner.told = true;
        for file in inodes {
            let key = Key { dev: file.dev, ino: file.ino };
            if let Some(index) = inner.listings.get(&key).copied() {
                inner.items[index].age = USED;
            }
            let Some(index) = inner.contents.get(&key).copied() else { continue };
            let item = &mut inner.items[index];
            let runs = file.runs.into_iter().filter(|(start, end)| start < end).take(RUNS_MAX);
            item.wanted = Wanted::Content { blocks: runs.map(|(start, end)| Blocks { start, end }).collect() };
            item.age = USED;
        }
    }

    /// All, less what is too old.
    pub(super) fn profile(&self) -> Profile {
        let inner = self.inner.hold();
        let items = inner.items.iter().filter_map(|item| {
            let (age, most) = match item.wanted {
                _ if item.age == USED => (0, UNUSED_MAX),
                // Asked for in this run, and not read: guessed wrong.
                _ if inner.told => (item.age.max(1), UNUSED_MAX),
                _ => (item.age, AGE_MAX + spread(item)),
            };
            (age < most).then(|| Item { age, ..item.clone() })
        });
        Profile { items: items.collect() }
    }
}

impl Inner {
    fn add_listing(&mut self, key: Key, path: &[Name], age: u32) {
        if let Some(index) = self.add(path, Wanted::Listing, age) {
            self.listings.insert(key, index);
        }
    }

    fn add_file(&mut self, key: Key, path: &[Name], blocks: Vec<Blocks>, age: u32) {
        if let Some(index) = self.add(path, Wanted::Content { blocks }, age) {
            self.contents.insert(key, index);
        }
    }

    fn add(&mut self, path: &[Name], wanted: Wanted, age: u32) -> Option<usize> {
        let path = path.iter().map(|name| name.to_vec().into()).collect();
        (self.items.len() < ITEMS_MAX).then(|| {
            self.items.push(Item { path, wanted, age });
            self.items.len() - 1
        })
    }

    /// True if the file is in the list.
    fn add_content(&mut self, key: Key, new: Blocks) -> bool {
        let Some(index) = self.contents.get(&key).copied() else { return false };
        let item = &mut self.items[index];
        item.age = 0;
        if let Wanted::Content { blocks } = &mut item.wanted
            && (blocks.len() < RUNS_MAX || blocks.iter().any(|run| run.start <= new.end && new.start <= run.end))
        {
            profile::add(blocks, new);
        }
        true
    }
}

fn whereabouts(service: &Service, node: Node) -> Option<(Key, Vec<Name>)> {
    let nodes = service.nodes.hold();
    Some((nodes.get(node)?.key, nodes.path(node)?))
}

fn spread(item: &Item) -> u32 {
    let mut hasher = DefaultHasher::new();
    item.path.iter().for_each(|name| name.hash(&mut hasher));
    (hasher.finish() % u64::from(AGE_MAX)) as u32
}
