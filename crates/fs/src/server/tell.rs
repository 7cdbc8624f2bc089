//! Tells the mount what others changed here: reads the events of the watches, looks at the state now, leaves out what the
//! mount did itself, and sends notices. Also closes what has not been used for a while.

use std::{
    collections::{HashMap, HashSet},
    mem::MaybeUninit,
    sync::Arc,
    time::{Duration, Instant},
};

use remotely_proto::ByteVec;
use remotely_proto::fs::{Entry, Node, Notice};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{
        Statx,
        inotify::{ReadFlags, Reader},
    },
    io::Errno,
};

use super::{
    StartError, attr,
    entry::Directory,
    name::Name,
    node::Key,
    open::Located,
    service::{Hold, Service},
    thread,
};

/// One saving of a file is several events; what comes within this time is looked at once.
const GATHER: Duration = Duration::from_millis(2);
/// Events taken at once; as many as the kernel queues by default.
const BATCH_MAX: usize = 16 << 10;
/// Names in one notice; above that the whole directory is called stale.
const NAMES_MAX: usize = 256;
/// How often idle descriptors and forgotten nodes are looked for, and what has come to be at hidden paths.
const SWEEP: Duration = Duration::from_secs(2);

/// Starts the thread.
pub(super) fn start(service: &Arc<Service>) -> Result<(), StartError> {
    let service = Arc::clone(service);
    thread::start("fs-watch", move || Watcher { service: &service }.run())
}

/// What happened in one directory.
#[derive(Debug, Default)]
struct Events {
    /// By name; true if what the name names may have changed, not only the inode.
    names: HashMap<Vec<u8>, bool>,
    /// Its own attributes.
    itself: bool,
    /// It is elsewhere, or nowhere.
    moved: bool,
    /// Its file system was unmounted.
    unmounted: bool,
}

/// A name, and what it names now.
type Told = (ByteVec, Option<Entry>);

struct Watcher<'a> {
    service: &'a Service,
}

impl Watcher<'_> {
    fn run(self) {
        let mut swept = Instant::now();
        while !self.service.is_ending() {
            let rest = SWEEP.saturating_sub(swept.elapsed());
            if self.wait(rest) {
                std::thread::sleep(GATHER);
                self.tell();
            }
            let now = Instant::now();
            if now.duration_since(swept) >= SWEEP {
                swept = now;
                self.sweep(now);
            }
        }
    }

    /// True if there are events.
    fn wait(&self, time: Duration) -> bool {
        let watches = &self.service.watches;
        let mut descriptors: Vec<_> = [watches.events(), watches.waker()]
            .into_iter()
            .flatten()
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        // An interrupted wait is one that brought nothing.
        let ready = poll(&mut descriptors, Some(&time)).unwrap_or(0) > 0;
        ready && watches.events().is_some() && descriptors[0].revents().contains(PollFlags::IN)
    }

    fn sweep(&self, now: Instant) {
        self.service.directories.sweep(now);
        self.service.readers.sweep(now);
        self.service.hidden.look_again();
        let gone = self.service.nodes.hold().sweep(now);
        for key in gone {
            if self.service.pushed.find(key).is_none() {
                self.service.watches.remove(key);
            }
        }
    }

    fn tell(&self) {
        let (overflow, mut batch) = self.gather();
        if overflow {
            self.service.notices.push(Notice::Overflow);
        }
        let unmounted: Vec<Key> = batch.iter().filter(|(_, events)| events.unmounted).map(|(key, _)| *key).collect();
        for key in unmounted {
            // The directory above hears nothing of it, though its name means something else now.
            for (above, name) in self.unmounted(key) {
                batch.entry(above).or_default().names.insert(name.to_vec(), true);
            }
        }
        let mut inodes = HashSet::new();
        for (key, events) in batch {
            if events.moved {
                self.service.directories.drop_one(key);
            }
            let foreign = !events.names.is_empty() && self.tell_names(key, events.names);
            if foreign || events.itself {
                inodes.insert(key);
            }
        }
        // What is in a directory has changed, so its times have, and they are shown where its own name is.
        for key in inodes {
            self.tell_directory(key);
        }
    }

    /// What was on the file system is gone. Returns where it was mounted.
    fn unmounted(&self, key: Key) -> Vec<(Key, Name)> {
        let service = self.service;
        service.directories.drop_one(key);
        let table = service.nodes.hold();
        let nodes = table.nodes_of(key).to_vec();
        let places = nodes.iter().filter_map(|node| table.get(*node)?.places.first());
        let above = places.filter_map(|place| Some((table.get(place.parent)?.key, Name::clone(&place.name)))).collect();
        drop(table);
        tell_stale(service, &nodes);
        above
    }

    fn gather(&self) -> (bool, HashMap<Key, Events>) {
        let (mut overflow, mut batch) = (false, HashMap::<Key, Events>::new());
        let watches = &self.service.watches;
        let Some(descriptor) = watches.events() else { return (overflow, batch) };
        let mut buffer = [MaybeUninit::uninit(); 64 << 10];
        let mut reader = Reader::new(descriptor, &mut buffer);
        for _ in 0..BATCH_MAX {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => break,
            };
            let what = event.events();
            overflow |= what.contains(ReadFlags::QUEUE_OVERFLOW);
            let Some(key) = watches.find(event.wd()) else { continue };
            let events = batch.entry(key).or_default();
            if what.intersects(ReadFlags::IGNORED | ReadFlags::UNMOUNT) {
                watches.dropped(event.wd());
                events.moved = true;
                events.unmounted |= what.contains(ReadFlags::UNMOUNT);
            }
            match event.file_name() {
                Some(name) => {
                    let appeared = ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
                    *events.names.entry(name.to_bytes().to_vec()).or_default() |= what.intersects(appeared);
                }
                None => {
                    events.itself |= what.contains(ReadFlags::ATTRIB);
                    events.moved |= what.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF);
                }
            }
        }
        // Events that the reader holds already would be lost with it.
        while !reader.is_buffer_empty() {
            overflow |= reader.next().is_ok();
        }
        (overflow, batch)
    }

    /// True if somebody else changed something.
    fn tell_names(&self, key: Key, names: HashMap<Vec<u8>, bool>) -> bool {
        let service = self.service;
        let nodes = service.nodes.hold().nodes_of(key).to_vec();
        if nodes.is_empty() {
            self.tell_early(key, names);
            return false;
        }
        service.pushed.remove(key);
        // From looking to numbering the notice, no change of the mount's own may come in between.
        let _turn = service.turn.hold();
        let located = nodes.iter().find_map(|node| service.locate_dir(*node).ok());
        let Some(found) = located else {
            tell_stale(service, &nodes);
            return true;
        };
        let dir = service.directory(&found, false);
        match news(service, &dir, names) {
            Some(news) if news.is_empty() => return false,
            Some(news) => {
                let names: Vec<_> = news.into_iter().map(|(name, stat)| settle(service, &dir, name, stat)).collect();
                for node in nodes {
                    service.notices.push(Notice::Changed { dir: node, names: names.clone() });
                }
            }
            None => tell_stale(service, &nodes),
        }
        true
    }

    /// A directory changed for which the mount has no number: it is named by its path.
    fn tell_early(&self, key: Key, names: HashMap<Vec<u8>, bool>) {
        let service = self.service;
        let Some(path) = service.pushed.find(key) else { return service.watches.remove(key) };
        let _turn = service.turn.hold();
        let there = service.walk(&path).ok().filter(|found| found.key() == key);
        let told = there.as_ref().filter(|_| service.pushed.is_worth_news(key)).and_then(|found| {
            let dir = service.directory(found, false);
            let news = news(service, &dir, names)?;
            Some(news.into_iter().map(|(name, stat)| settle(service, &dir, name, stat)).collect::<Vec<_>>())
        });
        let path = path.iter().map(|name| name.to_vec().into()).collect();
        if told.is_none() {
            service.pushed.remove(key);
            if service.nodes.hold().nodes_of(key).is_empty() {
                service.watches.remove(key);
            }
        }
        match told {
            Some(names) if names.is_empty() => {}
            Some(names) => service.notices.push(Notice::ChangedAt { path, dev: key.dev, ino: key.ino, names }),
            None if there.is_some() => service.notices.push(Notice::StaleAt { path }),
            // It was moved, and where to is not known here.
            None => service.notices.push(Notice::Overflow),
        }
    }

    /// Tells the attributes of a directory, if they are news, where its name is.
    fn tell_directory(&self, key: Key) {
        let service = self.service;
        let _turn = service.turn.hold();
        let (nodes, places) = {
            let table = service.nodes.hold();
            let nodes = table.nodes_of(key).to_vec();
            let places: HashSet<(Node, Name)> = nodes
                .iter()
                .filter_map(|node| table.get(*node)?.places.first())
                .map(|place| (place.parent, Name::clone(&place.name)))
                .collect();
            (nodes, places)
        };
        let Some(found) = nodes.iter().find_map(|node| service.locate_dir(*node).ok()) else { return };
        let Ok(stat) = attr::stat(&found.descriptor) else { return };
        {
            let mut known = service.known.hold();
            if known.is_settled(&stat) {
                return;
            }
            known.settle(&stat);
        }
        if nodes.contains(&Node::ROOT) {
            service.notices.push(Notice::Stale { dir: Node::ROOT });
        }
        for (parent, name) in places {
            if let Some(entry) = directory_entry(service, parent, &name, &found) {
                let names = vec![(name.to_vec().into(), Some(entry))];
                service.notices.push(Notice::Changed { dir: parent, names });
            }
        }
    }
}

fn tell_stale(service: &Service, nodes: &[Node]) {
    for node in nodes {
        service.notices.push(Notice::Stale { dir: *node });
    }
}

/// The names whose state the mount does not know, with their state. None if there are too many.
fn news(
    service: &Service,
    dir: &Directory<'_>,
    names: HashMap<Vec<u8>, bool>,
) -> Option<Vec<(Vec<u8>, Option<Statx>)>> {
    let mut news = Vec::new();
    for (name, appeared) in names {
        let state = match attr::stat_name(dir.descriptor, &name) {
            Ok(stat) if service.is_hidden(dir, &name, attr::key(&stat)) => continue,
            Ok(stat) => Some(stat),
            Err(_) if service.is_hidden_name(dir, &name) => continue,
            Err(Errno::NOENT) => None,
            Err(_) => return None,
        };
        if service.known.hold().is_news(dir.key, &name, appeared, state.as_ref()) {
            news.push((name, state));
        }
        if news.len() > NAMES_MAX {
            return None;
        }
    }
    Some(news)
}

/// Describes the state of a name for a notice, and remembers that it was told.
fn settle(service: &Service, dir: &Directory<'_>, name: Vec<u8>, stat: Option<Statx>) -> Told {
    let seat = attr::Seat::Name(dir.descriptor, &name);
    let told = stat.and_then(|stat| Some((stat, service.entry_of(dir, &name, seat, &stat).ok()?)));
    let key = told.as_ref().map(|(stat, _)| attr::key(stat));
    {
        let mut known = service.known.hold();
        if let Some((stat, _)) = &told {
            known.settle(stat);
        }
        known.settle_name(dir.key, &name, key);
    }
    // What was under this name need not be kept open for reading.
    let table = service.nodes.hold();
    let replaced: Vec<Key> = table
        .nodes_at(dir.key, &name)
        .into_iter()
        .filter_map(|node| table.get(node).map(|inode| inode.key))
        .filter(|old| Some(*old) != key)
        .collect();
    drop(table);
    replaced.into_iter().for_each(|old| service.readers.drop_one(old));
    (name.into(), told.map(|(_, entry)| entry))
}

fn directory_entry(service: &Service, parent: Node, name: &[u8], found: &Located) -> Option<Entry> {
    let above = service.locate_dir(parent).ok()?;
    let dir = service.directory(&above, false);
    let entry = service.entry(&dir, name).ok()?;
    let key = found.key();
    // Something else is there by now: another event.
    (entry.attr.dev == key.dev && entry.attr.ino == key.ino).then_some(entry)
}
