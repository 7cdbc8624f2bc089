//! Questions: requests of [`Lane::Query`]. The lane's reader hands each message to [`Service::take_query`], in order and
//! without waiting; the answers are found on the pool.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use remotely_proto::fs::{Binding, Entry, File, Lane, Node, Notice, Reply, Request, Statfs, ToServer};
use rustix::{
    fs::{FileType, SeekFrom, fstatvfs, getxattr, listxattr, readlinkat, seek},
    io::Errno,
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    attr::{self, proc_path},
    entry::Moment,
    gate::Subject,
    lock::Waiter,
    name,
    node::Key,
    pool::Task,
    service::{Hold, Service},
    stats,
};

/// Largest value and longest list of names of extended attributes (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const XATTR_MAX: usize = 64 << 10;

impl Service {
    /// Takes a message. `permit` is what bounds the number of questions at work.
    pub(super) fn take_query(self: &Arc<Self>, message: ToServer, permit: OwnedSemaphorePermit) {
        let ToServer { id, request } = message;
        self.counters.count(&request);
        match request {
            Request::Bind { bindings } => self.bind(bindings),
            Request::Forget { nodes } => self.nodes.hold().forget(nodes, Instant::now()),
            Request::Cancel { id } => self.locks.cancel(id),
            Request::Release { file } => {
                let task: Task = Box::new(move |service| {
                    service.files.remove(file);
                    drop(permit);
                });
                self.pool.push([task]);
            }
            Request::Getlk { .. } | Request::Setlk { .. } => {
                let waiter = self.locks.expect(id, &request);
                let task = Box::new(move |service: &Arc<Service>| {
                    service.answer_lock(id, request, waiter);
                    drop(permit);
                });
                self.pool.push(self.gate.admit_after_all(task));
            }
            request => {
                if let Request::Open { node, file } = request {
                    self.files.promise(file, node);
                }
                let subjects = self.question_subjects(&request);
                let task = Box::new(move |service: &Arc<Service>| {
                    service.answer(id, request);
                    drop(permit);
                });
                self.pool.push(self.gate.admit(&subjects, task));
            }
        }
    }

    /// Takes bindings of either lane.
    pub(super) fn bind(&self, bindings: Vec<Binding>) {
        let mut nodes = self.nodes.hold();
        bindings.into_iter().for_each(|binding| nodes.bind(binding));
    }

    fn question_subjects(&self, request: &Request) -> Vec<Subject> {
        match request {
            Request::Lookup { parent: node, .. }
            | Request::List { dir: node, .. }
            | Request::Open { node, .. }
            | Request::Readlink { node }
            | Request::Getxattr { node, .. }
            | Request::Listxattr { node } => vec![Subject::Node(*node)],
            Request::Getattr { node, file } | Request::Read { node, file, .. } => {
                std::iter::once(Subject::Node(*node)).chain(file.map(Subject::File)).collect()
            }
            Request::Seek { file, .. } => {
                std::iter::once(Subject::File(*file)).chain(self.files.node(*file).map(Subject::Node)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn answer(self: &Arc<Self>, id: u64, request: Request) {
        let moment = self.moment();
        let reply = match request {
            Request::List { dir, limit } => return self.answer_list(id, dir, limit),
            Request::Lookup { parent, name } => {
                self.lookup(parent, &name, moment).map(|entry| (Reply::Found { entry, parent: None }, Bytes::new()))
            }
            Request::Getattr { node, file } => self.getattr(node, file, moment).map(plain),
            Request::Open { node, file } => self.open(node, file, moment).map(plain),
            Request::Read { node, file, offset, len } => self.read(node, file, offset, len),
            Request::Readlink { node } => self.readlink(node).map(plain),
            Request::Getxattr { node, name } => self.getxattr(node, &name),
            Request::Listxattr { node } => self.listxattr(node),
            Request::Statfs { node } => self.statfs(node).map(plain),
            Request::Seek { file, offset, hole } => self.seek(file, offset, hole).map(plain),
            ref change => {
                tracing::debug!(request = stats::kind(change), "not a question");
                Err(Errno::INVAL)
            }
        };
        self.out.reply(Lane::Query, id, moment.seen, reply);
    }

    fn lookup(&self, parent: Node, name: &[u8], moment: Moment) -> Result<Entry, Errno> {
        name::check(name)?;
        let found = self.locate_dir(parent)?;
        let dir = self.directory(&found, true);
        let entry = self.entry(&dir, name)?;
        self.told(moment, [(Key { dev: entry.attr.dev, ino: entry.attr.ino }, entry.attr.stamp())]);
        Ok(entry)
    }

    fn answer_list(&self, id: u64, node: Node, limit: u32) {
        let mut seen = self.notices.last();
        let listed = self.locate_dir(node).and_then(|found| {
            let dir = self.directory(&found, true);
            self.record.listed(self, node);
            let moment = self.moment();
            seen = moment.seen;
            self.list(&dir, limit, |piece| {
                self.told(moment, piece.states());
                let reply = Reply::Listing {
                    entries: piece.entries,
                    last: piece.last,
                    truncated: piece.truncated,
                    watched: dir.watched,
                };
                self.out.reply(Lane::Query, id, seen, Ok(plain(reply)));
                !self.is_ending()
            })
        });
        if let Err(errno) = listed {
            self.out.reply(Lane::Query, id, seen, Err(errno));
        }
    }

    /// Tells the mount what its root is, before anything else. If it cannot be read, the mount is told nothing and waits
    /// for the end of the link, which is the end of a client without a root.
    pub(super) fn tell_root(&self) {
        let moment = self.moment();
        match self.getattr(Node::ROOT, None, moment) {
            Ok(Reply::Attr { attr }) => self.out.first(Notice::Root { attr }),
            other => tracing::warn!(?other, "the root cannot be read"),
        }
    }

    fn getattr(&self, node: Node, file: Option<File>, moment: Moment) -> Result<Reply, Errno> {
        let open = file.and_then(|file| self.files.find(file).ok()).map(|open| open.descriptor(self)).transpose()?;
        let attr = match open {
            Some(descriptor) => self.node_attr(node, &descriptor, &attr::stat(&descriptor)?),
            None => {
                let found = self.locate(node)?;
                self.node_attr(node, found.as_fd(), &found.stat)
            }
        };
        self.told(moment, [(Key { dev: attr.dev, ino: attr.ino }, attr.stamp())]);
        Ok(Reply::Attr { attr })
    }

    fn open(&self, node: Node, file: File, moment: Moment) -> Result<Reply, Errno> {
        // It may have been closed again before its turn came.
        let Ok(open) = self.files.find(file) else { return self.getattr(node, None, moment) };
        open.descriptor(self)?;
        self.getattr(node, Some(file), moment)
    }

    fn readlink(&self, node: Node) -> Result<Reply, Errno> {
        let found = self.locate(node)?;
        if found.kind() != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let target = readlinkat(found.as_fd(), "", Vec::new())?.into_bytes();
        Ok(Reply::Target { target: target.into() })
    }

    fn getxattr(&self, node: Node, name: &[u8]) -> Result<(Reply, Bytes), Errno> {
        let found = self.locate(node)?;
        let mut value = Vec::with_capacity(XATTR_MAX);
        getxattr(proc_path(found.as_fd()), name, rustix::buffer::spare_capacity(&mut value))?;
        Ok((Reply::Value, value.into()))
    }

    fn listxattr(&self, node: Node) -> Result<(Reply, Bytes), Errno> {
        let found = self.locate(node)?;
        let mut names = Vec::with_capacity(XATTR_MAX);
        listxattr(proc_path(found.as_fd()), rustix::buffer::spare_capacity(&mut names))?;
        Ok((Reply::Value, names.into()))
    }

    fn statfs(&self, node: Node) -> Result<Reply, Errno> {
        let found = self.locate(node)?;
        let statvfs = fstatvfs(found.as_fd())?;
        let narrow = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX);
        let statfs = Statfs {
            blocks: statvfs.f_blocks,
            bfree: statvfs.f_bfree,
            bavail: statvfs.f_bavail,
            files: statvfs.f_files,
            ffree: statvfs.f_ffree,
            bsize: narrow(statvfs.f_bsize),
            frsize: narrow(statvfs.f_frsize),
            namelen: narrow(statvfs.f_namemax),
        };
        Ok(Reply::Statfs { statfs })
    }

    fn seek(&self, file: File, offset: u64, hole: bool) -> Result<Reply, Errno> {
        let descriptor = self.files.find(file)?.descriptor(self)?;
        let offset = i64::try_from(offset).map(|_| offset).map_err(|_| Errno::NXIO)?;
        // Two at once on the same file do not disturb each other: each answer is the call's own, and nothing else uses
        // the position.
        let found = seek(&descriptor, if hole { SeekFrom::Hole(offset) } else { SeekFrom::Data(offset) })?;
        Ok(Reply::Offset { offset: found })
    }

    fn answer_lock(self: &Arc<Self>, id: u64, request: Request, waiter: Option<Arc<Waiter>>) {
        let moment = self.moment();
        let reply = match request {
            Request::Getlk { file, lock } => self.getlk(file, lock).map(|lock| Reply::Lock { lock }),
            Request::Setlk { file, lock, wait } => match self.setlk(id, file, lock, wait, waiter) {
                // It answers when it has the lock.
                Ok(false) => return,
                result => result.map(|_| Reply::Done),
            },
            _ => Err(Errno::INVAL),
        };
        self.out.reply(Lane::Query, id, moment.seen, reply.map(plain));
    }
}

fn plain(reply: Reply) -> (Reply, Bytes) {
    (reply, Bytes::new())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::{super::Config, super::out::Out, super::pool::Pool, *};

    /// The peer sends faster than the pool closes: what waits must be bounded.
    #[test]
    fn every_task_holds_its_permit_until_it_is_done() {
        let config = Config { root: "/".into(), hide: Vec::new(), read_only: false, threads: 1 };
        let service = Arc::new(Service::new(&config, Out::new().0).unwrap());
        let room = Arc::new(Semaphore::new(2));
        let permit = || Arc::clone(&room).try_acquire_owned().unwrap();
        service.take_query(ToServer { id: 0, request: Request::Release { file: File(1) } }, permit());
        let request = Request::Fsync { node: Node::ROOT, file: None, data_only: false };
        let change = service.take_change(ToServer { id: 0, request }, Bytes::new(), permit());
        service.apply(change);
        assert_eq!(room.available_permits(), 0);
        Pool::start(&service, 1).unwrap();
        while room.available_permits() < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        service.end();
    }
}
