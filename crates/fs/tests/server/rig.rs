//! A served directory and the mount's end of the lanes, without a mount. Used by all tests of the server.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use remotely_fs::server::{Config, Lanes, Server};
use remotely_proto::fs::{
    Attr, Binding, Entry, File, Lane, Lock, LockKind, Make, Node, Notice, Reply, Request, ToMount, ToServer,
};
use remotely_session::{
    Class, Incoming, Link, LinkBuilder, MessageReceiver, MessageSender, Pipe, Role, Service, Settings,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Long enough for anything that is going to happen.
const SOON: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) seen: u64,
    pub(crate) reply: Reply,
    pub(crate) payload: Bytes,
}

type Waiting = Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Answer>>>>;

/// See the file's head.
pub(crate) struct Rig {
    pub(crate) dir: PathBuf,
    pub(crate) server: Server,
    query: tokio::sync::Mutex<MessageSender>,
    change: tokio::sync::Mutex<MessageSender>,
    waiting: Waiting,
    notices: tokio::sync::Mutex<mpsc::UnboundedReceiver<(u64, Notice, Bytes)>>,
    next: AtomicU64,
    sent_changes: AtomicU64,
    links: Mutex<Option<(Link, Link, Incoming)>>,
}

impl Rig {
    /// Serves a new empty directory.
    pub(crate) async fn new() -> Self {
        Self::with(|_, _| {}).await
    }

    /// The same, prepared and configured.
    pub(crate) async fn with(prepare: impl FnOnce(&Path, &mut Config)) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("remotely-server-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut config = Config { root: dir.clone(), hide: Vec::new(), read_only: false, threads: 4 };
        prepare(&dir, &mut config);
        Self::serve(dir, config).await
    }

    async fn serve(dir: PathBuf, config: Config) -> Self {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let pipe = |fd: OwnedFd| Pipe { reader: fd.try_clone().unwrap(), writer: fd };
        let settings = |role| Settings { role, ..Settings::default() };
        let mut client = LinkBuilder::new(settings(Role::Client));
        let mut open = |class| client.open(Service::FS, class, Bytes::new());
        let lanes = Lanes { query: open(Class::Normal), change: open(Class::Bulk), bulk: open(Class::Bulk) };
        let (client, _) = client.attach(pipe(ours), Bytes::new());
        let (agent, mut offers) = LinkBuilder::new(settings(Role::Agent)).attach(pipe(theirs), Bytes::new());
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(timeout(SOON, offers.next()).await.unwrap().unwrap().stream);
        }
        let [query, change, bulk] = <[_; 3]>::try_from(streams).unwrap();
        let waiting = Waiting::default();
        let (notice, notices) = mpsc::unbounded_channel();
        for stream in [query.recv, change.recv, bulk.recv] {
            tokio::spawn(receive(MessageReceiver::new(stream), Arc::clone(&waiting), notice.clone()));
        }
        // The bulk lane's sending end has nothing to say, but its end would be the lane's.
        std::mem::forget(bulk.send);
        Self {
            dir,
            server: Server::start(config, lanes).unwrap(),
            query: tokio::sync::Mutex::new(MessageSender::new(query.send)),
            change: tokio::sync::Mutex::new(MessageSender::new(change.send)),
            waiting,
            notices: tokio::sync::Mutex::new(notices),
            next: AtomicU64::new(2),
            sent_changes: AtomicU64::new(0),
            links: Mutex::new(Some((client, agent, offers))),
        }
    }

    /// A number that was not used yet.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Sends a message of which no answer is wanted.
    pub(crate) async fn tell(&self, lane: Lane, request: Request, payload: impl Into<Bytes>) {
        self.send(lane, 0, request, payload.into()).await;
    }

    /// Sends a request under a number of the caller's; whoever started it gets the answers.
    pub(crate) async fn send(&self, lane: Lane, id: u64, request: Request, payload: Bytes) {
        let message = ToServer { id, request };
        let sender = match lane {
            Lane::Query => &self.query,
            Lane::Change => {
                self.sent_changes.fetch_add(1, Ordering::SeqCst);
                &self.change
            }
            Lane::Bulk => unreachable!("the mount says nothing there"),
        };
        timeout(SOON, sender.lock().await.send(&message, payload)).await.unwrap().unwrap();
    }

    /// Sends a request; the answers come out of the receiver.
    pub(crate) async fn start(
        &self,
        lane: Lane,
        request: Request,
        payload: impl Into<Bytes>,
    ) -> (u64, mpsc::UnboundedReceiver<Answer>) {
        let id = self.number();
        let (sender, answers) = mpsc::unbounded_channel();
        self.waiting.lock().unwrap().insert(id, sender);
        self.send(lane, id, request, payload.into()).await;
        (id, answers)
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask_with(&self, lane: Lane, request: Request, payload: impl Into<Bytes>) -> Answer {
        let (_, mut answers) = self.start(lane, request, payload).await;
        timeout(SOON, answers.recv()).await.expect("an answer").expect("an answer")
    }

    pub(crate) async fn query(&self, request: Request) -> Reply {
        self.ask_with(Lane::Query, request, Bytes::new()).await.reply
    }

    pub(crate) async fn change(&self, request: Request) -> Reply {
        self.ask_with(Lane::Change, request, Bytes::new()).await.reply
    }

    /// Removes a name, and looks at what is told of the directory.
    pub(crate) async fn removed(&self, request: Request) {
        match self.change(request).await {
            Reply::Removed { parent } => assert_eq!(parent.mode & libc::S_IFMT, libc::S_IFDIR),
            other => panic!("{other:?}"),
        }
    }

    /// Attributes from an answer that has them, or the errno.
    pub(crate) async fn attr_of(&self, lane: Lane, request: Request, payload: impl Into<Bytes>) -> Result<Attr, i32> {
        match self.ask_with(lane, request, payload).await.reply {
            Reply::Attr { attr } => Ok(attr),
            Reply::Found { entry, .. } => Ok(entry.attr),
            Reply::Failed { errno } => Err(errno as i32),
            other => panic!("{other:?}"),
        }
    }

    /// Looks a name up and binds a new number to what is found.
    pub(crate) async fn find(&self, parent: Node, name: impl AsRef<[u8]>) -> Result<(Node, Entry), i32> {
        let name = name.as_ref().to_vec();
        match self.query(Request::Lookup { parent, name: name.into() }).await {
            Reply::Found { entry, .. } => Ok((self.bind(parent, &entry).await, entry)),
            Reply::Failed { errno } => Err(errno as i32),
            other => panic!("{other:?}"),
        }
    }

    /// Binds a new number on both lanes.
    pub(crate) async fn bind(&self, parent: Node, entry: &Entry) -> Node {
        let node = Node(self.number());
        let (dev, ino) = (entry.attr.dev, entry.attr.ino);
        for lane in [Lane::Query, Lane::Change] {
            let bindings = vec![Binding { node, parent, name: entry.name.clone(), dev, ino, btime: entry.attr.btime }];
            self.tell(lane, Request::Bind { bindings }, Bytes::new()).await;
        }
        node
    }

    /// The node of a path from the root.
    pub(crate) async fn node(&self, path: &str) -> Node {
        let mut at = Node::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = self.find(at, name).await.unwrap_or_else(|errno| panic!("{name} of {path}: errno {errno}")).0;
        }
        at
    }

    /// A whole directory.
    pub(crate) async fn list(&self, dir: Node) -> Result<Vec<Entry>, i32> {
        Ok(self.list_up_to(dir, u32::MAX).await?.0)
    }

    /// A whole directory, and whether there was more than the limit.
    pub(crate) async fn list_up_to(&self, dir: Node, limit: u32) -> Result<(Vec<Entry>, bool), i32> {
        let (_, mut answers) = self.start(Lane::Query, Request::List { dir, limit }, Bytes::new()).await;
        let mut all = Vec::new();
        loop {
            match timeout(SOON, answers.recv()).await.expect("an answer").expect("an answer").reply {
                Reply::Listing { entries, last, truncated, watched } => {
                    assert!(entries.len() <= 256 && watched);
                    all.extend(entries);
                    if last {
                        return Ok((all, truncated));
                    }
                }
                Reply::Failed { errno } => return Err(errno as i32),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Reads by node.
    pub(crate) async fn read(&self, node: Node, offset: u64, len: u32) -> Result<Bytes, i32> {
        self.read_file(node, None, offset, len).await
    }

    pub(crate) async fn read_file(&self, node: Node, file: Option<File>, offset: u64, len: u32) -> Result<Bytes, i32> {
        let answer = self.ask_with(Lane::Query, Request::Read { node, file, offset, len }, Bytes::new()).await;
        match answer.reply {
            Reply::Data { .. } => Ok(answer.payload),
            Reply::Failed { errno } => Err(errno as i32),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn open_write(&self, node: Node, flags: i32) -> Result<File, i32> {
        let file = File(self.number());
        let request = Request::OpenWrite { node, file, flags: flags as u32 };
        self.attr_of(Lane::Change, request, Bytes::new()).await.map(|_| file)
    }

    /// What a new inode of the test's own user is made of.
    pub(crate) fn make(&self, parent: Node, name: impl AsRef<[u8]>, mode: u32) -> Make {
        let name = name.as_ref().to_vec().into();
        let caller = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Make { parent, name, node: Node(self.number()), mode, umask: 0o022, caller }
    }

    /// Creates and opens a file for reading and writing.
    pub(crate) async fn create(&self, parent: Node, name: impl AsRef<[u8]>) -> Result<(Node, File), i32> {
        let (make, file) = (self.make(parent, name, 0o644), File(self.number()));
        let node = make.node;
        let request = Request::Create { make, flags: (libc::O_RDWR | libc::O_EXCL) as u32, file };
        self.attr_of(Lane::Change, request, Bytes::new()).await.map(|_| (node, file))
    }

    pub(crate) async fn write(&self, file: File, offset: u64, data: impl Into<Bytes>) -> Result<Attr, i32> {
        self.attr_of(Lane::Change, Request::Write { file, offset, kill_privileges: false, append: false }, data).await
    }

    /// Waits for all changes sent so far.
    pub(crate) async fn applied(&self) {
        let tag = self.sent_changes.load(Ordering::SeqCst);
        assert!(timeout(SOON, self.server.applied(tag)).await.unwrap());
    }

    /// The next notice.
    pub(crate) async fn notice(&self) -> Notice {
        timeout(SOON, self.notices.lock().await.recv()).await.expect("a notice").expect("a notice").1
    }

    /// Pushes, with their payload.
    pub(crate) async fn pushed(&self) -> (Notice, Bytes) {
        let (number, notice, payload) = timeout(SOON, self.notices.lock().await.recv()).await.unwrap().unwrap();
        assert_eq!(number, 0);
        (notice, payload)
    }

    /// The entry that the next notice about this name tells, skipping others.
    pub(crate) async fn changed(&self, name: &str) -> Option<Entry> {
        loop {
            if let Notice::Changed { names, .. } = self.notice().await
                && let Some((_, entry)) = names.into_iter().find(|(changed, _)| changed[..] == *name.as_bytes())
            {
                return entry;
            }
        }
    }

    /// All that comes until it has been quiet for a good while.
    pub(crate) async fn notices(&self) -> Vec<Notice> {
        let mut notices = self.notices.lock().await;
        let mut all = Vec::new();
        while let Ok(Some((_, notice, _))) = timeout(Duration::from_millis(300), notices.recv()).await {
            all.push(notice);
        }
        all
    }

    /// The mount says no more, in order.
    pub(crate) async fn finish(&self) {
        self.query.lock().await.finish();
        self.change.lock().await.finish();
    }

    /// The link is lost.
    pub(crate) fn cut(&self) {
        self.links.lock().unwrap().take();
    }

    /// A record lock.
    pub(crate) fn record_lock(owner: u64, kind: LockKind) -> Lock {
        Lock { owner, start: 0, end: i64::MAX as u64, kind, flock: false, pid: 0 }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.server.stop();
        // A directory that a test has left unusable is the temporary directory's to clean.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn receive(mut stream: MessageReceiver, waiting: Waiting, notices: mpsc::UnboundedSender<(u64, Notice, Bytes)>) {
    while let Ok(Some((message, payload))) = stream.recv().await {
        match message {
            ToMount::Reply { id, seen, reply } => {
                let sender = waiting.lock().unwrap().get(&id).cloned().expect("an answer that was asked for");
                let _ = sender.send(Answer { seen, reply, payload });
            }
            ToMount::Notice { notice: Notice::Root { .. }, .. } => {}
            ToMount::Notice { number, notice } => {
                let _ = notices.send((number, notice, payload));
            }
        }
    }
}

/// Runs what blocks.
pub(crate) async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || drop(sender.send(run())));
    timeout(SOON, receiver).await.unwrap().unwrap()
}

/// A failed answer.
pub(crate) fn failed(errno: i32) -> Reply {
    Reply::Failed { errno: errno as u32 }
}
