//! Gives the mount what the command is going to ask for, going by the profile of its last run: directories on
//! [`Lane::Query`], content on [`Lane::Bulk`], both behind whatever is asked for meanwhile.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, atomic::Ordering},
};

use bytes::Bytes;
use remotely_proto::{
    fs::{Lane, Notice, ToMount},
    message,
};
use rustix::{
    fs::{FileType, OFlags},
    io::Errno,
};

use super::{
    StartError, attr,
    name::{self, Name},
    node::Key,
    out::{Batch, PUSHES},
    profile::{BLOCK, Blocks, Item, Profile, Wanted},
    service::{Hold, Service},
    thread,
};

/// File data pushed in one run, in bytes.
const DATA_BUDGET: u64 = 256 << 20;
/// Bytes in one piece of pushed data: little enough for an answer not to wait long behind it.
const PIECE: u64 = 2 * BLOCK;
/// How often news is told of one that the mount may never look at.
const NEWS_MAX: u32 = 32;
/// Larger directories are not pushed.
const ENTRIES_MAX: u32 = 20_000;

/// The directories that the mount was given without having asked, and where they are. It has no number for them until it
/// uses them; what changes in one before, it is told by path.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    directories: Mutex<HashMap<Key, Place>>,
}

#[derive(Debug)]
struct Place {
    path: Arc<[Name]>,
    /// How often there was news.
    news: u32,
}

impl Pushed {
    pub(super) fn find(&self, key: Key) -> Option<Arc<[Name]>> {
        self.directories.hold().get(&key).map(|place| Arc::clone(&place.path))
    }

    pub(super) fn remove(&self, key: Key) {
        self.directories.hold().remove(&key);
    }

    /// Whether news of it is to be told: not for ever.
    pub(super) fn is_worth_news(&self, key: Key) -> bool {
        self.directories.hold().get_mut(&key).is_some_and(|place| {
            place.news += 1;
            place.news <= NEWS_MAX
        })
    }

    fn add(&self, key: Key, path: &[Name]) {
        self.directories.hold().insert(key, Place { path: path.into(), news: 0 });
    }
}

/// Starts pushing.
pub(super) fn start(service: &Arc<Service>, profile: Profile, first: u64) -> Result<(), StartError> {
    let pushing = Arc::clone(service);
    service.introduced.send_replace(false);
    let started = thread::start("fs-push", move || {
        let service = &*pushing;
        let mut run = Run { service, listed: HashSet::new(), files: Vec::new(), budget: DATA_BUDGET, first };
        // All names and the plan first: they are little, and whoever needs planned data waits instead of asking.
        let introduced = profile.items.into_iter().all(|item| run.item(item));
        if run.planned() && introduced {
            run.pushed(0);
            let files = std::mem::take(&mut run.files);
            let _ = files.into_iter().all(|plan| run.content(plan));
        }
        service.introduced.send_replace(true);
        let end = message::encode(&ToMount::Notice { number: 0, notice: Notice::PushEnd }, Bytes::new());
        service.out.push(Lane::Bulk, vec![end]);
    });
    if started.is_err() {
        service.introduced.send_replace(true);
    }
    started
}

struct Run<'a> {
    service: &'a Service,
    listed: HashSet<Vec<Name>>,
    files: Vec<Planned>,
    budget: u64,
    /// Bytes of content that are still waited for.
    first: u64,
}

/// A file of which these bytes will be pushed: (position, length).
struct Planned {
    path: Vec<Name>,
    key: Key,
    runs: Vec<(u64, u64)>,
}

impl Run<'_> {
    /// False if there is no point in going on.
    fn item(&mut self, item: Item) -> bool {
        let path: Vec<Name> = item.path.into_iter().map(|name| Vec::from(name).into()).collect();
        if path.iter().any(|name| name::check(name).is_err()) {
            return true;
        }
        let (dir, file) = match &item.wanted {
            Wanted::Listing => (&path[..], None),
            Wanted::Content { blocks } => match path.split_last() {
                Some((_, dir)) => (dir, Some(blocks)),
                None => return true,
            },
        };
        if !self.listings(dir, item.age) {
            return !self.service.is_ending();
        }
        match file {
            Some(blocks) => self.plan(path.clone(), blocks, item.age),
            None => true,
        }
    }

    /// Pushes a directory and those above it. False if one of them is not there.
    fn listings(&mut self, path: &[Name], age: u32) -> bool {
        (0..=path.len()).all(|depth| {
            let path = &path[..depth];
            if self.listed.contains(path) {
                return true;
            }
            let Ok((key, batch)) = self.service.listing_to_push(path) else { return false };
            self.service.record.pushed_listing(key, path, age);
            self.listed.insert(path.to_vec());
            self.service.out.push(Lane::Query, batch)
        })
    }

    /// Announces what will be pushed of a file. False if there is no point in going on.
    fn plan(&mut self, path: Vec<Name>, blocks: &[Blocks], age: u32) -> bool {
        let Ok(found) = self.service.walk(&path) else { return true };
        if found.kind() != FileType::RegularFile {
            return true;
        }
        let (key, size) = (found.key(), found.stat.stx_size);
        let mut runs = Vec::new();
        for run in blocks {
            let (start, end) = (run.start.saturating_mul(BLOCK), run.end.saturating_mul(BLOCK).min(size));
            let len = end.saturating_sub(start).min(self.budget / BLOCK * BLOCK);
            if len > 0 {
                self.budget -= len;
                runs.push((start, len));
            }
        }
        if runs.is_empty() {
            return true;
        }
        self.service.record.pushed_content(key, &path, blocks.to_vec(), age);
        let stamp = attr::stamp(&found.stat);
        let notice = Notice::PushPlan { dev: key.dev, ino: key.ino, stamp, runs: runs.clone() };
        self.files.push(Planned { path, key, runs });
        let message = message::encode(&ToMount::Notice { number: 0, notice }, Bytes::new());
        self.service.out.push(Lane::Query, vec![message])
    }

    /// Says that all is said, and waits until that is being written: the mount takes nothing from the other lane before. As many
    /// empty batches as the queue holds leave no place in it for what was before them.
    fn planned(&self) -> bool {
        let planned = message::encode(&ToMount::Notice { number: 0, notice: Notice::PushPlanned }, Bytes::new());
        let mut all = std::iter::once(vec![planned]).chain((0..PUSHES).map(|_| Batch::new()));
        all.all(|batch| self.service.out.push(Lane::Query, batch))
    }

    /// Pushes what was planned of a file. False if there is no point in going on.
    fn content(&mut self, plan: Planned) -> bool {
        let Ok(found) = self.service.walk(&plan.path) else { return true };
        if found.key() != plan.key {
            return true;
        }
        let Ok(descriptor) = self.service.reopen(&found, OFlags::RDONLY) else { return true };
        if let Some(name) = plan.path.last() {
            self.service.latest.pushed(name);
        }
        let pieces = plan.runs.iter().flat_map(|&(start, len)| {
            (start..start + len).step_by(PIECE as usize).map(move |offset| (offset, (start + len - offset).min(PIECE)))
        });
        for (offset, len) in pieces {
            if self.service.is_ending() {
                return false;
            }
            let Ok((stamp, data)) = self.service.read_consistent(&descriptor, offset, len as usize) else {
                return true;
            };
            self.service.counters.bytes_pushed.fetch_add(data.len() as u64, Ordering::Relaxed);
            let notice = Notice::PushData { dev: plan.key.dev, ino: plan.key.ino, offset, stamp };
            let message = message::encode(&ToMount::Notice { number: 0, notice }, data);
            let len = message.1.len() as u64;
            if !self.service.out.push(Lane::Bulk, vec![message]) {
                return false;
            }
            self.pushed(len);
        }
        true
    }

    /// So many bytes of content are on their lane: perhaps all that is waited for.
    fn pushed(&mut self, len: u64) {
        self.first = self.first.saturating_sub(len);
        if self.first == 0 {
            self.service.introduced.send_if_modified(|introduced| !std::mem::replace(introduced, true));
        }
    }
}

impl Service {
    /// The messages that push one directory, watched from before it is read.
    fn listing_to_push(&self, path: &[Name]) -> Result<(Key, Batch), Errno> {
        let found = self.walk(path)?;
        if found.kind() != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        let key = found.key();
        self.pushed.add(key, path);
        let dir = self.directory(&found, true);
        let moment = self.moment();
        let names: Vec<_> = path.iter().map(|name| name.to_vec().into()).collect();
        let (mut batch, mut truncated) = (Batch::new(), false);
        let listed = self.list(&dir, ENTRIES_MAX, |piece| {
            self.told(moment, piece.states());
            truncated = piece.truncated;
            let notice = Notice::PushListing {
                path: names.clone(),
                entries: piece.entries,
                last: piece.last,
                seen: moment.seen,
                watched: dir.watched,
            };
            batch.push(message::encode(&ToMount::Notice { number: 0, notice }, Bytes::new()));
            true
        });
        match listed {
            Ok(()) if !truncated => Ok((key, batch)),
            result => {
                self.pushed.remove(key);
                Err(result.err().unwrap_or(Errno::TOOBIG))
            }
        }
    }
}
