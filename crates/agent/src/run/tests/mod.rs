//! The agent driven over a link by a client of our own, as root and as an ordinary user. Its root is the host's own files,
//! brought in by the way that the client's take ([`Root::Bound`]): what runs is of here, and nothing needs a mount served.

mod bytes;
mod direct;
mod end;
mod fds;
mod inherit;
mod process;
mod reads;
mod terminal;

use std::collections::HashMap;
use std::future::Future;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ::bytes::{Buf, Bytes, BytesMut};
use remotely_proto::ByteVec;
use remotely_proto::exec::{
    Control, FdKind, FdOpen, FdSpec, Identity, Inherited, OutputHeader, Program, Report, Request, Tty, View,
};
use remotely_session::{
    Class, End, Incoming, Link, LinkBuilder, MessageReceiver, MessageSender, Pipe, RecvStream, Role, SendStream,
    Service, Settings, Stream,
};

use crate::run::init::{self, Init};
use crate::run::order::Root;
use crate::run::serve;
use crate::sys::{self, Fork};

/// An ordinary user, with whom no files and no processes of this machine are.
const USER: u32 = 61_234;

/// A link with an agent behind it.
struct Rig {
    link: Link,
    _incoming: Incoming,
    agent: Option<tokio::task::JoinHandle<std::io::Result<End>>>,
    /// The process of init.
    init: rustix::process::Pid,
    identity: Identity,
}

/// A command as its client sees it.
struct Session {
    reports: MessageReceiver,
    controls: MessageSender,
    into: HashMap<u32, SendStream>,
    from: HashMap<u32, Yield>,
}

/// Output of one descriptor.
struct Yield {
    stream: RecvStream,
    raw: BytesMut,
    /// What the terminal had yielded before the last block.
    screen: u64,
}

/// How a command ended.
#[derive(Debug, PartialEq)]
struct Ended {
    status: u32,
    offsets: HashMap<u32, u64>,
}

/// Runs a test as root and as an ordinary user.
fn for_both<F: Future<Output = ()>>(test: impl Fn(Rig) -> F) {
    for user in [None, Some(USER)] {
        run_as(user, &test);
    }
}

fn run_as<F: Future<Output = ()>>(user: Option<u32>, test: impl Fn(Rig) -> F) {
    run_with(user, || (), test);
}

/// The same, after `prepare` in the process that becomes the agent.
fn run_with<F: Future<Output = ()>>(user: Option<u32>, prepare: impl FnOnce(), test: impl Fn(Rig) -> F) {
    in_process(user, || {
        prepare();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let init = init::start(theirs.as_fd()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new(init, user, ours, theirs);
            let test = test(rig);
            tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test takes too long");
        });
        runtime.shutdown_background();
    });
}

/// Runs something in a process of its own: the agent is one, and one thread of it is its first.
fn in_process(user: Option<u32>, run: impl FnOnce()) {
    let pid = match sys::fork().unwrap() {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            // What the harness captures would be lost with this process.
            std::panic::set_hook(Box::new(|info| {
                let text = format!("{info}\n");
                let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
            }));
            if let Some(user) = user {
                become_user(user);
            }
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            sys::exit_now(outcome.is_err().into())
        }
    };
    let status = sys::wait_end(pid).unwrap().status;
    assert_eq!(status, 0, "as {user:?}");
}

fn become_user(id: u32) {
    use rustix::process::{DumpableBehavior, Gid, Uid, set_dumpable_behavior};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    set_thread_groups(&[]).unwrap();
    set_thread_res_gid(gid, gid, gid).unwrap();
    set_thread_res_uid(uid, uid, uid).unwrap();
    // A process that executes after that is; its /proc is its own, which it needs to map its ids.
    set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
}

impl Rig {
    fn new(init: Init, user: Option<u32>, ours: UnixStream, theirs: UnixStream) -> Self {
        let pid = init.pid;
        let pipe = |socket: UnixStream| Pipe { reader: socket.try_clone().unwrap().into(), writer: socket.into() };
        let agent = tokio::spawn(serve::serve(pipe(theirs), init, Root::Bound));
        let (link, incoming) =
            LinkBuilder::new(Settings { role: Role::Client, ..Settings::default() }).attach(pipe(ours), Bytes::new());
        let uid = user.unwrap_or(0);
        // The user's number here is another one than on the "host", to see that the local one counts.
        let identity = Identity {
            uid: if user.is_some() { 4321 } else { uid },
            gid: if user.is_some() { 1234 } else { 0 },
            groups: vec![],
            hostname: b"client-name".to_vec().into(),
        };
        Self { link, _incoming: incoming, agent: Some(agent), init: pid, identity }
    }

    fn request(&self, argv: &[&str]) -> Request {
        Request {
            program: Program::Command { argv: list(argv) },
            env: list(&["PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C"]),
            cwd: b"/".to_vec().into(),
            identity: self.identity.clone(),
            inherited: Inherited { umask: 0o022, rlimits: vec![], nice: 0, blocked: 0, ignored: 0, oom_score_adj: 0 },
            fds: vec![
                FdSpec { fd: 0, kind: FdKind::Null { flags: 0 } },
                FdSpec { fd: 1, kind: FdKind::PipeOut },
                FdSpec { fd: 2, kind: FdKind::PipeOut },
            ],
            tty: None,
            // No syncfs(2) at the end of each command: here it would be one of this machine's disk.
            view: View { host_paths: vec![], read_only: true, strict: false, host_network: false },
            host_env: vec![],
        }
    }

    fn sh(&self, script: &str) -> Request {
        self.request(&["/bin/sh", "-c", script])
    }

    async fn start(&self, request: &Request) -> Session {
        let Stream { id, send, recv } = self.link.open(Service::EXEC, Class::Control, Bytes::new()).unwrap();
        let mut controls = MessageSender::new(send);
        controls.send(request, Bytes::new()).await.unwrap();
        let mut session =
            Session { reports: MessageReceiver::new(recv), controls, into: HashMap::new(), from: HashMap::new() };
        let mut tty = false;
        for FdSpec { fd, kind } in &request.fds {
            let carried = match kind {
                FdKind::Tty => !std::mem::replace(&mut tty, true),
                FdKind::PipeIn | FdKind::PipeOut | FdKind::Socket => true,
                _ => false,
            };
            if carried {
                let body = minicbor::to_vec(FdOpen { exec: id, fd: *fd }).unwrap();
                let stream = self.link.open(Service::FD, Class::Normal, body.into()).unwrap();
                session.into.insert(*fd, stream.send);
                session.from.insert(*fd, Yield { stream: stream.recv, raw: BytesMut::new(), screen: 0 });
            }
        }
        session
    }

    /// Runs it to its end: status, and what it wrote to 1 and 2.
    async fn run(&self, request: &Request) -> (u32, String, String) {
        let mut session = self.start(request).await;
        assert_eq!(session.report().await, Report::Started);
        let mut out = session.from.remove(&1).unwrap();
        let mut err = session.from.remove(&2).unwrap();
        let (out, err) = tokio::join!(out.all(), err.all());
        let ended = session.ended().await;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (ended.status, text(out), text(err))
    }

    /// Closes the link and waits until the agent has ended everything.
    async fn close(mut self) -> End {
        self.link.close();
        self.agent.take().unwrap().await.unwrap().unwrap()
    }
}

impl Session {
    async fn report(&mut self) -> Report {
        self.reports.recv::<Report>().await.unwrap().expect("a report").0
    }

    async fn ended(&mut self) -> Ended {
        match self.report().await {
            Report::Exited { status, offsets, .. } => Ended { status, offsets: offsets.into_iter().collect() },
            other => panic!("{other:?} instead of an end"),
        }
    }

    async fn tell(&mut self, control: Control) {
        self.controls.send(&control, Bytes::new()).await.unwrap();
    }

    async fn write(&mut self, fd: u32, bytes: impl Into<Bytes>) {
        self.into.get_mut(&fd).unwrap().send(bytes.into()).await.unwrap();
    }

    async fn read_until(&mut self, fd: u32, end: &str) -> String {
        self.from.get_mut(&fd).unwrap().until(end).await
    }
}

impl Yield {
    /// The next block; `None` at the end.
    async fn block(&mut self) -> Option<Bytes> {
        loop {
            if let Some(header) = self.raw.first_chunk::<{ OutputHeader::SIZE }>() {
                let OutputHeader { screen, len, .. } = OutputHeader::decode(*header);
                let len = len as usize;
                if self.raw.len() >= OutputHeader::SIZE + len {
                    self.raw.advance(OutputHeader::SIZE);
                    self.screen = screen;
                    return Some(self.raw.split_to(len).freeze());
                }
            }
            match self.stream.recv().await.unwrap() {
                Some(bytes) => self.raw.extend_from_slice(&bytes),
                None => {
                    assert!(self.raw.is_empty(), "cut within a block");
                    return None;
                }
            }
        }
    }

    async fn all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(block) = self.block().await {
            all.extend_from_slice(&block);
        }
        all
    }

    /// Until the output ends with `end`.
    async fn until(&mut self, end: &str) -> String {
        let mut all = Vec::new();
        while !all.ends_with(end.as_bytes()) {
            match self.block().await {
                Some(block) => all.extend_from_slice(&block),
                None => panic!("ended with {:?}", String::from_utf8_lossy(&all)),
            }
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

fn list(words: &[&str]) -> Vec<ByteVec> {
    words.iter().map(|word| word.as_bytes().to_vec().into()).collect()
}

fn spec(fd: u32, kind: FdKind) -> FdSpec {
    FdSpec { fd, kind }
}

fn exit_code(status: u32) -> i32 {
    assert!(libc::WIFEXITED(status as i32), "status {status:#x}");
    libc::WEXITSTATUS(status as i32)
}

/// Processes of this machine whose command line holds `marker`.
fn alive(marker: &str) -> Vec<u32> {
    let own = std::process::id();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(marker.len()).any(|window| window == marker.as_bytes())
        })
        .collect()
}

/// Waits until no process has `marker` in its command line.
fn gone(marker: &str, within: Duration) -> bool {
    let start = std::time::Instant::now();
    while start.elapsed() < within {
        if alive(marker).is_empty() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn tty_of(rows: u16, cols: u16) -> Tty {
    Tty { size: remotely_proto::exec::Winsize { rows, cols, xpixel: 0, ypixel: 0 }, modes: None, announce: false }
}
