//! The state of a mount and its way to the server. The operations on it are in `op`, what comes from the server in `receive`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use remotely_proto::ByteVec;
use remotely_proto::exec::Identity;
use remotely_proto::fs::{Attr, Binding, Entry, Lane, Node, Reply, Request as Ask, ToServer};
use remotely_proto::message;
use remotely_session::{SendStream, Stream};
use rustix::io::Errno;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

use super::MountError;
use super::count::Counters;
use super::fuse::{Answer, Device};
pub(super) use super::handle::{Handle, Opened};
use super::interrupt::Interrupts;
use super::invalidate::{Invalid, Invalidator};
use super::receive::Receivers;
use super::show::{IdMaps, Show};
use super::table::{Age, Table};

/// Messages that wait for a lane.
const QUEUE: usize = 256;
/// Bytes of writes that the server has not answered: enough for 1 Gbit/s at 60 ms, and who looks at a file that is being
/// written has to wait for no more than these.
pub(super) const WRITES_MAX: usize = 8 << 20;
/// Nodes in one message that gives them up: more than enough, and far below what a message holds.
const FORGET_NODES: usize = 64 << 10;
/// Bytes of content kept for the kernel.
const CONTENT_MAX: usize = 512 << 20;

/// How the mount behaves.
pub(super) struct Options {
    pub(super) read_only: bool,
    pub(super) strict: bool,
    pub(super) default_permissions: bool,
    pub(super) covered: Vec<Vec<u8>>,
}

/// One mount.
pub(super) struct Fs {
    pub(super) device: Arc<Device>,
    pub(super) invalidator: Arc<Invalidator>,
    pub(super) options: Options,
    pub(super) show: Show,
    table: Mutex<Table>,
    pub(super) files: Mutex<HashMap<u64, Handle>>,
    next_file: AtomicU64,
    next_content: AtomicU64,
    query: mpsc::Sender<Outgoing>,
    change: mpsc::Sender<Outgoing>,
    pending: Mutex<HashMap<u64, Waiter>>,
    next_request: AtomicU64,
    /// Requests of the kernel that wait for a lock.
    pub(super) interrupts: Interrupts,
    pub(super) changes: Arc<AtomicU64>,
    pub(super) budget: Semaphore,
    kept: Mutex<Kept>,
    /// Listings that have come in part, with the age of their first part.
    pub(super) parts: Mutex<HashMap<u64, (Vec<Entry>, u64)>>,
    /// No pushed data follows: a plan that comes behind it, on the other lane, promises nothing.
    pub(super) push_over: AtomicBool,
    /// Files of which the server promised content.
    pub(super) promised: Mutex<Vec<Node>>,
    /// A pushed listing that has come in part.
    pub(super) pushed: Mutex<Option<(Vec<ByteVec>, Vec<Entry>)>>,
    /// Number of the last notice taken in.
    pub(super) noticed: watch::Sender<u64>,
    /// All names that are pushed are known, and what content will be.
    pub(super) planned: watch::Sender<bool>,
    over: AtomicBool,
    over_event: Notify,
    runtime: tokio::runtime::Handle,
    pub(super) counters: Counters,
}

/// A message on its way to a lane, behind the bindings that it needs.
struct Outgoing {
    bindings: Vec<Binding>,
    head: Bytes,
    payload: Bytes,
}

/// Who waits for an answer.
pub(super) enum Waiter {
    /// An operation.
    Once(oneshot::Sender<Answered>),
    /// Nobody: the kernel was told that this write is done.
    Write { node: Node, len: usize },
}

/// An answer of the server.
pub(super) struct Answered {
    pub(super) reply: Reply,
    pub(super) payload: Bytes,
    /// It is not older than the notice with this number.
    pub(super) seen: u64,
    /// See [`Age::asked`].
    asked: u64,
}

impl Answered {
    pub(super) fn new(reply: Reply, payload: Bytes, seen: u64) -> Self {
        Self { reply, payload, seen, asked: 0 }
    }

    pub(super) fn age(&self) -> Age {
        Age { seen: self.seen, asked: self.asked }
    }
}

/// Content kept, in the order in which it came.
#[derive(Default)]
struct Kept {
    bytes: usize,
    order: std::collections::VecDeque<(Node, u64, u64)>,
}

impl Fs {
    /// Waits until the server has said what the root is, then is ready to serve.
    pub(super) async fn new(
        device: Arc<Device>,
        lanes: (Stream, Stream, Stream),
        identity: &Identity,
        id_maps: IdMaps,
        options: Options,
    ) -> Result<(Arc<Self>, Receivers), MountError> {
        let (query, change, bulk) = lanes;
        let mut receivers = Receivers::new(query.recv, change.recv, bulk.recv);
        let root: Attr = receivers.root().await.map_err(MountError::Root)?;
        let (query_out, query_in) = mpsc::channel(QUEUE);
        let (change_out, change_in) = mpsc::channel(QUEUE);
        tokio::spawn(send_lane(query.send, query_in));
        tokio::spawn(send_lane(change.send, change_in));
        let fs = Arc::new(Self {
            device,
            invalidator: Arc::default(),
            options,
            show: Show::new(id_maps, identity, root.dev),
            table: Mutex::new(Table::new(root)),
            files: Mutex::default(),
            next_file: AtomicU64::new(1),
            next_content: AtomicU64::new(1),
            query: query_out,
            change: change_out,
            pending: Mutex::default(),
            next_request: AtomicU64::new(2),
            interrupts: Interrupts::default(),
            changes: Arc::default(),
            budget: Semaphore::new(WRITES_MAX),
            kept: Mutex::default(),
            parts: Mutex::default(),
            push_over: AtomicBool::new(false),
            promised: Mutex::default(),
            pushed: Mutex::default(),
            noticed: watch::Sender::new(0),
            planned: watch::Sender::new(false),
            over: AtomicBool::new(false),
            over_event: Notify::new(),
            runtime: tokio::runtime::Handle::current(),
            counters: Counters::default(),
        });
        Ok((fs, receivers))
    }

    /// Works on the table; what the kernel and the server must hear of it is passed on.
    pub(super) fn with<R>(self: &Arc<Self>, work: impl FnOnce(&mut Table) -> R) -> R {
        let mut table = lock(&self.table);
        let result = work(&mut table);
        let mut invalid = std::mem::take(&mut table.invalid);
        // Dropping the name of a mount point would take away what the host has mounted there.
        invalid.retain(
            |item| !matches!(item, Invalid::Entry(dir, name) | Invalid::Doubt(dir, name) if table.is_at(*dir, name, &self.options.covered)),
        );
        let forgotten = std::mem::take(&mut table.forgotten);
        // Under the lock: who sees the new state can see, too, that the kernel has not been told of it.
        if !invalid.is_empty() {
            self.invalidator.tell(invalid);
        }
        drop(table);
        if !forgotten.is_empty() {
            let fs = self.clone();
            self.runtime.spawn(async move {
                for forget in forgets(&forgotten) {
                    if fs.note(Lane::Query, &[], forget).await.is_err() {
                        return;
                    }
                }
            });
        }
        result
    }

    /// Asks the server and waits for the answer. `nodes` are those that the request names.
    pub(super) async fn ask(
        &self,
        lane: Lane,
        nodes: &[Node],
        request: Ask,
        payload: Bytes,
    ) -> Result<Answered, Errno> {
        self.ask_numbered(lane, nodes, request, payload, |_| {}).await
    }

    /// Like [`ask`](Self::ask); tells the number of the request before it is sent.
    pub(super) async fn ask_numbered(
        &self,
        lane: Lane,
        nodes: &[Node],
        request: Ask,
        payload: Bytes,
        number: impl FnOnce(u64),
    ) -> Result<Answered, Errno> {
        let answered = self.ask_for_any(lane, nodes, request, payload, number).await?;
        match answered.reply {
            Reply::Failed { errno } => Err(errno_of(errno)),
            _ => Ok(answered),
        }
    }

    /// Like [`ask_numbered`](Self::ask_numbered); a failure of the server is an answer like others.
    pub(super) async fn ask_for_any(
        &self,
        lane: Lane,
        nodes: &[Node],
        request: Ask,
        payload: Bytes,
        number: impl FnOnce(u64),
    ) -> Result<Answered, Errno> {
        let (answer, answered) = oneshot::channel();
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        number(id);
        let asked = if lane == Lane::Change { u64::MAX } else { lock(&self.table).answered };
        self.send(lane, nodes, request, payload, Some((id, Waiter::Once(answer)))).await?;
        let answered = answered.await.map_err(|_| Errno::IO)?;
        Ok(Answered { asked, ..answered })
    }

    /// Sends a write whose answer nobody waits for.
    pub(super) async fn send_write(&self, node: Node, request: Ask, data: Bytes) -> Result<(), Errno> {
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        let waiter = Waiter::Write { node, len: data.len() };
        self.send(Lane::Change, &[], request, data, Some((id, waiter))).await
    }

    /// Tells the server something.
    pub(super) async fn note(&self, lane: Lane, nodes: &[Node], request: Ask) -> Result<(), Errno> {
        self.send(lane, nodes, request, Bytes::new(), None).await
    }

    async fn send(
        &self,
        lane: Lane,
        nodes: &[Node],
        request: Ask,
        payload: Bytes,
        waiter: Option<(u64, Waiter)>,
    ) -> Result<(), Errno> {
        if self.over.load(Ordering::Relaxed) {
            return Err(Errno::IO);
        }
        let id = waiter.as_ref().map_or(0, |(id, _)| *id);
        let (head, payload) = message::encode(&ToServer { id, request }, payload);
        let sender = if lane == Lane::Change { &self.change } else { &self.query };
        let permit = sender.reserve().await.map_err(|_| Errno::IO)?;
        if let Some((id, waiter)) = waiter {
            self.counters.questions.fetch_add(1, Ordering::Relaxed);
            lock(&self.pending).insert(id, waiter);
        }
        // Bound and queued under one lock: whoever finds a node bound must come behind its binding.
        let mut table = lock(&self.table);
        let mut bindings = Vec::new();
        for &node in nodes {
            table.bind(node, lane, &mut bindings);
        }
        if lane == Lane::Change {
            self.changes.fetch_add(1 + u64::from(!bindings.is_empty()), Ordering::SeqCst);
        }
        permit.send(Outgoing { bindings, head, payload });
        Ok(())
    }

    /// Takes out who waits for this answer.
    pub(super) fn waiter(&self, id: u64) -> Option<Waiter> {
        lock(&self.pending).remove(&id)
    }

    /// More of this answer is to come.
    pub(super) fn wait_again(&self, id: u64, waiter: Waiter) {
        lock(&self.pending).insert(id, waiter);
    }

    /// A name for an open file that was never used.
    pub(super) fn fresh_file(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn fresh_content(&self) -> u64 {
        self.next_content.fetch_add(1, Ordering::Relaxed)
    }

    /// Remembers content that is kept, and lets the oldest go above the limit.
    pub(super) fn keep(self: &Arc<Self>, node: Node, content: u64, granules: Vec<(u64, usize)>) {
        let mut excess = Vec::new();
        {
            let mut kept = lock(&self.kept);
            for (index, len) in granules {
                kept.bytes += len;
                kept.order.push_back((node, content, index));
            }
            let mut over = kept.bytes.saturating_sub(CONTENT_MAX) as u64;
            // What was let go meanwhile still stands in the queue: it is cleared away from the front, too.
            while over > 0 || kept.order.len() > 4 * CONTENT_MAX / super::content::GRANULE as usize {
                let Some(oldest) = kept.order.pop_front() else { break };
                excess.push(oldest);
                over = over.saturating_sub(super::content::GRANULE);
            }
        }
        if excess.is_empty() {
            return;
        }
        let freed = self.with(|table| {
            let mut freed = 0;
            for (node, id, index) in excess {
                if let Ok(inode) = table.inode(node)
                    && let Some(content) = &mut inode.content
                    && content.id == id
                {
                    freed += content.evict(index);
                }
            }
            freed
        });
        self.freed(freed);
    }

    /// So many bytes of kept content were let go.
    pub(super) fn freed(&self, bytes: usize) {
        let mut kept = lock(&self.kept);
        kept.bytes = kept.bytes.saturating_sub(bytes);
    }

    /// Ends everything: who waits is told EIO.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        lock(&self.pending).clear();
        self.budget.close();
        // Whoever waits for one more waits for nothing.
        self.noticed.send_replace(u64::MAX);
        self.planned.send_replace(true);
        self.invalidator.close();
        self.over_event.notify_waiters();
    }

    pub(super) async fn ended(&self) {
        let event = self.over_event.notified();
        if !self.over.load(Ordering::SeqCst) {
            event.await;
        }
    }
}

fn forgets(nodes: &[Node]) -> impl Iterator<Item = Ask> + '_ {
    nodes.chunks(FORGET_NODES).map(|nodes| Ask::Forget { nodes: nodes.to_vec() })
}

/// What an operation comes to: an answer, or none for requests that want none.
pub(super) type Outcome = Result<Option<Answer>, Errno>;

/// errno of the server; anything that is none becomes EIO.
pub(super) fn errno_of(errno: u32) -> Errno {
    match i32::try_from(errno) {
        Ok(raw @ 1..=4095) => Errno::from_raw_os_error(raw),
        _ => Errno::IO,
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what is queued to a lane until the lane or the mount ends.
async fn send_lane(mut stream: SendStream, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(Outgoing { bindings, head, payload }) = queue.recv().await {
        let mut pieces = Vec::with_capacity(3);
        if !bindings.is_empty() {
            pieces.push(message::encode(&ToServer { id: 0, request: Ask::Bind { bindings } }, Bytes::new()).0);
        }
        pieces.extend([head, payload]);
        for piece in pieces {
            if !piece.is_empty() && stream.send(piece).await.is_err() {
                return;
            }
        }
    }
    stream.finish();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_nodes_is_given_up_in_messages_that_can_be_sent() {
        let nodes: Vec<Node> = (0..2 << 20).map(|index| Node(u64::MAX - index)).collect();
        let mut told = 0;
        for request in forgets(&nodes) {
            let Ask::Forget { nodes } = &request else { panic!("{request:?}") };
            told += nodes.len();
            message::encode(&ToServer { id: 0, request }, Bytes::new());
        }
        assert_eq!(told, nodes.len());
    }
}
