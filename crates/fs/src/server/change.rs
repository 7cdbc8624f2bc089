//! Changes: requests of [`Lane::Change`]. The lane's reader queues them; one thread applies them, one after another in the
//! order in which the command made them.

use std::sync::Arc;

use bytes::Bytes;
use remotely_proto::fs::{Attr, File, Lane, Make, Node, Reply, Request, SetAttr, Tag, ToServer};
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    StartError,
    alter::Place,
    attr,
    gate::Subject,
    pool::Task,
    service::{Hold, Service},
    stats, thread,
};

/// A change that has come in.
pub(super) struct Change {
    tag: Tag,
    id: u64,
    request: Request,
    payload: Bytes,
    subjects: Vec<Subject>,
    /// What bounds the bytes that wait.
    permit: OwnedSemaphorePermit,
}

/// Starts the thread. It ends when the queue is closed and empty.
pub(super) fn start(service: &Arc<Service>, mut queue: mpsc::Receiver<Change>) -> Result<(), StartError> {
    let service = Arc::clone(service);
    thread::start("fs-change", move || {
        while let Some(change) = queue.blocking_recv() {
            service.apply(change);
        }
        service.gate.end();
    })
}

impl Service {
    /// Numbers a message of the lane, so that questions after it wait for it.
    pub(super) fn take_change(&self, message: ToServer, payload: Bytes, permit: OwnedSemaphorePermit) -> Change {
        let ToServer { id, request } = message;
        self.counters.count(&request);
        if let Some((file, node)) = opens(&request) {
            self.files.announce(file, node);
        }
        let subjects = self.change_subjects(&request);
        Change { tag: self.gate.receive(&subjects), id, request, payload, subjects, permit }
    }

    /// Applies one.
    pub(super) fn apply(self: &Arc<Self>, change: Change) {
        let Change { tag, id, request, payload, subjects, permit } = change;
        let mut permit = Some(permit);
        let (seen, result) = match &request {
            Request::Fsync { node, file, data_only } => {
                self.hand_off_fsync(id, *node, *file, *data_only, permit.take());
                (0, None)
            }
            request => {
                // While this is held the watcher does not look: it must not see a change half done.
                let _turn = self.turn.hold();
                let seen = self.notices.last();
                let result = self.change(request, &payload);
                (seen, Some(result))
            }
        };
        if let Some(Err(errno)) = &result
            && (id == 0 || matches!(request, Request::Write { .. }))
        {
            self.note_failure(&request, *errno);
        }
        let released = self.gate.apply(tag, &subjects);
        self.pool.push(released);
        if let Some(result) = result {
            self.out.reply(Lane::Change, id, seen, result.map(|reply| (reply, Bytes::new())));
        }
    }

    fn change(&self, request: &Request, payload: &Bytes) -> Result<Reply, Errno> {
        match request {
            Request::Bind { bindings } => {
                self.bind(bindings.clone());
                return Ok(Reply::Done);
            }
            Request::ReleaseWrite { file } => {
                self.files.remove(*file);
                return Ok(Reply::Done);
            }
            Request::Used { inodes } => {
                self.record.used(inodes.clone());
                return Ok(Reply::Done);
            }
            // Changes nothing: with it the mount waits for the changes before (syncfs).
            Request::Setattr { node, file, set } if *set == SetAttr::default() => {
                return self.setattr(*node, *file, set).map(|attr| Reply::Attr { attr });
            }
            _ if self.read_only => return Err(Errno::ROFS),
            _ => {}
        }
        let found = |parent: Node| move |entry| Reply::Found { entry, parent: self.directory_attr(parent) };
        let told = |attr| Reply::Attr { attr };
        match request {
            Request::OpenWrite { node, file, flags } => self.open_write(*node, *file, *flags).map(told),
            Request::Create { make, flags, file } => self.create(make, *flags, *file).map(found(make.parent)),
            Request::Mknod { make, rdev } => self.mknod(make, *rdev).map(found(make.parent)),
            Request::Symlink { make, target } => self.symlink(make, target).map(found(make.parent)),
            Request::Tmpfile { make, flags, file } => self.tmpfile(make, *flags, *file).map(found(make.parent)),
            Request::Link { node, file, parent, name } => self.link(*node, *file, *parent, name).map(found(*parent)),
            Request::Unlink { parent, name, dir, keep } => {
                self.unlink(*parent, name, *dir, *keep)?;
                Ok(self.directory_attr(*parent).map_or(Reply::Done, |parent| Reply::Removed { parent }))
            }
            Request::Rename { parent, name, new_parent, new_name, flags, keep } => {
                self.rename((*parent, name), (*new_parent, new_name), *flags, *keep).map(|()| Reply::Done)
            }
            Request::Setattr { node, file, set } => self.setattr(*node, *file, set).map(told),
            Request::Write { file, offset, kill_privileges, append } => {
                let place = if *append { Place::End } else { Place::At(*offset) };
                self.write(*file, place, payload, *kill_privileges).map(told)
            }
            Request::Fallocate { file, offset, len, mode } => self.fallocate(*file, *offset, *len, *mode).map(told),
            Request::CopyRange { file, offset, to, to_offset, len } => {
                let copied = self.copy_range((*file, *offset), (*to, *to_offset), *len);
                copied.map(|(len, attr)| Reply::Copied { len, attr })
            }
            Request::Setxattr { node, name, flags } => self.setxattr(*node, name, payload, *flags).map(told),
            Request::Removexattr { node, name } => self.removexattr(*node, name).map(told),
            question => {
                tracing::debug!(request = stats::kind(question), "not a change");
                Err(Errno::INVAL)
            }
        }
    }

    /// What a directory is after a change in it, so that the mount need not ask.
    fn directory_attr(&self, dir: Node) -> Option<Attr> {
        let found = self.locate_dir(dir).ok()?;
        let stat = attr::stat(&found.descriptor).ok()?;
        Some(self.node_attr(dir, &found.descriptor, &stat))
    }

    /// Waiting for a disk must not hold up the changes after it.
    fn hand_off_fsync(
        &self,
        id: u64,
        node: Node,
        file: Option<File>,
        data_only: bool,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        // Found now: the file may be released before the disk is done.
        let open = file.and_then(|file| self.files.find(file).ok());
        let task: Task = Box::new(move |service: &Arc<Service>| {
            let seen = service.notices.last();
            let result = service.fsync(node, open, data_only);
            if let (Err(errno), 0) = (&result, id) {
                service.failures.add("fsync", service.nodes.hold().path(node), *errno);
            }
            service.out.reply(Lane::Change, id, seen, result.map(|()| (Reply::Done, Bytes::new())));
            drop(permit);
        });
        self.pool.push([task]);
    }

    fn note_failure(&self, request: &Request, errno: Errno) {
        let written = match request {
            Request::Write { file, .. } | Request::Fallocate { file, .. } | Request::CopyRange { to: file, .. } => {
                self.files.node(*file)
            }
            _ => None,
        };
        let nodes = self.nodes.hold();
        let below = |parent: Node, name: &[u8]| {
            let mut path = nodes.path(parent)?;
            path.push(name.into());
            Some(path)
        };
        let path = match request {
            Request::Create { make, .. } | Request::Mknod { make, .. } | Request::Symlink { make, .. } => {
                below(make.parent, &make.name)
            }
            Request::Tmpfile { make, .. } => nodes.path(make.parent),
            Request::Link { parent, name, .. } | Request::Unlink { parent, name, .. } => below(*parent, name),
            Request::Rename { parent, name, .. } => below(*parent, name),
            Request::Setattr { node, .. }
            | Request::OpenWrite { node, .. }
            | Request::Setxattr { node, .. }
            | Request::Removexattr { node, .. } => nodes.path(*node),
            _ => written.and_then(|node| nodes.path(node)),
        };
        drop(nodes);
        self.failures.add(stats::kind(request), path, errno);
    }

    /// What a change is about, the directories that show its effect included.
    fn change_subjects(&self, request: &Request) -> Vec<Subject> {
        let mut subjects = Vec::new();
        let mut about = |node: Node| subjects.push(Subject::Node(node));
        match request {
            Request::Create { make, .. }
            | Request::Mknod { make, .. }
            | Request::Symlink { make, .. }
            | Request::Tmpfile { make, .. } => [make.parent, make.node].into_iter().for_each(about),
            Request::Link { node, parent, .. } => [*node, *parent].into_iter().for_each(about),
            Request::Unlink { parent, name, keep, .. } => {
                about(*parent);
                keep.iter().chain(&self.named(*parent, name)).copied().for_each(about);
            }
            Request::Rename { parent, name, new_parent, new_name, keep, .. } => {
                let named = [self.named(*parent, name), self.named(*new_parent, new_name)];
                [*parent, *new_parent].iter().chain(keep).chain(named.iter().flatten()).copied().for_each(about);
            }
            Request::OpenWrite { node, .. }
            | Request::Setattr { node, .. }
            | Request::Setxattr { node, .. }
            | Request::Removexattr { node, .. } => self.with_parents(*node).into_iter().for_each(about),
            Request::Write { file, .. } | Request::Fallocate { file, .. } | Request::CopyRange { to: file, .. } => {
                let node = self.files.node(*file);
                node.map(|node| self.with_parents(node)).into_iter().flatten().for_each(about);
            }
            _ => {}
        }
        if let Some((file, _)) = opens(request) {
            subjects.push(Subject::File(file));
        }
        subjects
    }

    fn named(&self, parent: Node, name: &[u8]) -> Vec<Node> {
        let nodes = self.nodes.hold();
        nodes.get(parent).map(|inode| nodes.nodes_at(inode.key, name)).unwrap_or_default()
    }

    fn with_parents(&self, node: Node) -> Vec<Node> {
        let nodes = self.nodes.hold();
        let parents = nodes.get(node).into_iter().flat_map(|inode| inode.places.iter().map(|place| place.parent));
        std::iter::once(node).chain(parents).collect()
    }
}

fn opens(request: &Request) -> Option<(File, Node)> {
    match request {
        Request::OpenWrite { node, file, .. } => Some((*file, *node)),
        Request::Create { make: Make { node, .. }, file, .. }
        | Request::Tmpfile { make: Make { node, .. }, file, .. } => Some((*file, *node)),
        _ => None,
    }
}
