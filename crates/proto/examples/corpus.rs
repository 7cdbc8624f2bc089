//! Writes the seeds of the fuzz targets: `cargo run -p remotely-proto --example corpus -- fuzz/corpus`. Run it again when a
//! message changes, and commit what it writes.

use std::{collections::VecDeque, fs as files, io, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use minicbor::Encode;
use remotely_proto::{
    ByteVec, exec,
    exec::{
        Control, FdKind, FdOpen, FdSpec, Identity, Inherited, Modes, Program, Report, Rlimit, Step, Tty, View, Winsize,
    },
    fs,
    handshake::{Hello, Role, VERSIONS},
    message,
    mux::{Config, Mux},
    net,
    open::{Class, Service},
};

fn main() -> io::Result<()> {
    let Some(root) = std::env::args_os().nth(1) else {
        return Err(io::Error::other("usage: corpus DIRECTORY"));
    };
    let write = |target: &str, name: &str, data: &[u8]| {
        let directory = Path::new(&root).join(target);
        files::create_dir_all(&directory)?;
        files::write(directory.join(name), data)
    };
    let conversation = conversation();
    write("frame", "conversation", &conversation)?;
    write("mux_bytes", "conversation", &conversation)?;
    write("mux_frames", "life-of-a-stream", &life_of_a_stream())?;
    write("hello", "client", &hello(Role::Client).encode())?;
    write("hello", "other-version", &[0x82, 0x82, 0x07, 0x09, 0x60])?;
    for (target, name, seed) in net_seeds() {
        write(target, name, &seed)?;
    }
    let mut messages = Vec::new();
    for (name, request) in requests() {
        let head = fs::ToServer { id: 7, request };
        write("fs_to_server", name, &cbor(&head))?;
        let (front, payload) = message::encode(&head, Bytes::from_static(b"payload"));
        messages.extend_from_slice(&front);
        messages.extend_from_slice(&payload);
    }
    write("message", "requests", &messages)?;
    for (name, reply) in replies() {
        write("fs_to_mount", name, &cbor(&fs::ToMount::Reply { id: 7, seen: 3, reply }))?;
    }
    for (name, notice) in notices() {
        write("fs_to_mount", name, &cbor(&fs::ToMount::Notice { number: 4, notice }))?;
    }
    write("fs_lane", "bulk", &cbor(&fs::Lane::Bulk))?;
    write("exec_request", "command", &cbor(&exec_request()))?;
    write("exec_control", "signal", &cbor(&Control::Signal { signal: 15 }))?;
    write("exec_control", "resize", &cbor(&Control::Resize { size: SIZE }))?;
    write("exec_control", "announce", &cbor(&Control::Announce { polls: true }))?;
    let failed = Report::Failed { step: Step::Exec, errno: 2, what: "gcc".to_owned() };
    let exited = |mount| Report::Exited { status: 256, tag: 9, offsets: vec![(0, 100)], cpu: (1, 2), mount };
    let counts =
        fs::Counts { requests: vec![fs::Asked { opcode: 1, count: 8, hits: 7 }], bytes_read: 4096, bytes_written: 5 };
    let reports = [
        ("started", Report::Started),
        ("reads", Report::Reads { polls: true }),
        ("failed", failed),
        ("exited", exited(None)),
        ("exited-counted", exited(Some(counts))),
    ];
    for (name, report) in reports {
        write("exec_report", name, &cbor(&report))?;
    }
    write("exec_fd_open", "one", &cbor(&FdOpen { exec: 7, fd: 1 }))
}

const SIZE: Winsize = Winsize { rows: 24, cols: 80, xpixel: 0, ypixel: 0 };

fn cbor(value: &impl Encode<()>) -> Vec<u8> {
    let mut out = Vec::new();
    let Ok(()) = minicbor::encode(value, &mut out).map_err(|_| ()) else { unreachable!("a Vec takes all bytes") };
    out
}

fn bytes(text: &str) -> ByteVec {
    text.as_bytes().to_vec().into()
}

fn hello(role: Role) -> Hello {
    let (link, key) = ([1; 16], [2; 16]);
    Hello { versions: VERSIONS, features: 0, role, link, key, depth: 0, wall_ns: 3 }
}

/// What a client really sends: its first flight, and what follows when the agent has answered, with a pause in it.
fn conversation() -> Vec<u8> {
    let now = Duration::from_millis(1);
    let (mut client, mut agent) =
        (Mux::new(hello(Role::Client), Config::default()), Mux::new(hello(Role::Agent), Config::default()));
    let mut stream = || client.open(now, Service::FD, Class::Normal, Bytes::from_static(b"body")).unwrap_or_default();
    let (first, second) = (stream(), stream());
    _ = client.send(first, &mut Bytes::from_static(b"some data"));
    let mut all = client.first_flight(now).to_vec();
    agent.input(now, all.clone().into());
    let mut pieces = VecDeque::new();
    agent.output(now, usize::MAX, &mut pieces);
    pieces.drain(..).for_each(|piece| client.input(now, piece));
    client.hold();
    client.output(now, usize::MAX, &mut pieces);
    client.resume(now);
    client.finish(first);
    client.stop(first, 0);
    client.reset(second, 300);
    client.close(now);
    client.output(now, usize::MAX, &mut pieces);
    all.extend(pieces.into_iter().flatten());
    all
}

/// In the form of the target: kind, stream, length, choice, payload.
fn life_of_a_stream() -> Vec<u8> {
    let mut all = Vec::new();
    for (kind, stream, choice, payload) in [
        (1, 1, 1, &b"\x02\x00body"[..]),
        (2, 1, 0x10, b"data"),
        (3, 1, 0x14, &(1u64 << 20).to_le_bytes()),
        (1, 3, 0x2c, b"\x01\x00"),
        (0x33, 3, 0x2e, b"unknown"),
        (0x81, 0, 0x1e, b""),
        (0x83, 0, 20, &[0; 8]),
        (0x84, 0, 0x1e, b""),
        (4, 1, 0x18, b""),
        (5, 1, 0x1b, &[0; 4]),
        (6, 3, 0x1c, &[1, 0, 0, 0]),
        (7, 0, 0, &[0; 4]),
    ] {
        all.extend([kind, stream, payload.len() as u8, choice]);
        all.extend_from_slice(payload);
    }
    all
}

fn attr() -> fs::Attr {
    let time = fs::Time { sec: 1_700_000_000, nsec: 5 };
    fs::Attr {
        dev: 1,
        ino: 2,
        mode: 0o100_644,
        nlink: 1,
        uid: 1000,
        gid: 1000,
        rdev: 0,
        size: 5,
        blocks: 8,
        blksize: 4096,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        access: fs::access::READ,
        flags: fs::flag::NO_XATTR,
    }
}

fn entry() -> fs::Entry {
    fs::Entry { name: bytes("link"), attr: attr(), target: Some(bytes("target")) }
}

fn requests() -> Vec<(&'static str, fs::Request)> {
    let (node, file, parent, name) = (fs::Node(5), fs::File(6), fs::Node::ROOT, bytes("name"));
    let binding = fs::Binding { node, parent, name: name.clone(), dev: 1, ino: 2, btime: attr().btime };
    let make = fs::Make { parent, name: name.clone(), node, mode: 0o644, umask: 0o22, caller: (1000, 1000) };
    let lock = fs::Lock { owner: 1, start: 0, end: 9, kind: fs::LockKind::Write, flock: false, pid: 2 };
    let used = fs::UsedInode { dev: 1, ino: 2, runs: vec![(0, 2), (16, 17)] };
    let set = fs::SetAttr { size: Some(0), mtime: Some(fs::SetTime::Now), ..fs::SetAttr::default() };
    vec![
        ("bind", fs::Request::Bind { bindings: vec![binding] }),
        ("forget", fs::Request::Forget { nodes: vec![node] }),
        ("list", fs::Request::List { dir: parent, limit: 1000 }),
        ("read", fs::Request::Read { node, file: Some(file), offset: 0, len: 131_072 }),
        ("setlk", fs::Request::Setlk { file, lock, wait: true }),
        ("create", fs::Request::Create { make, flags: 0o101, file }),
        ("setattr", fs::Request::Setattr { node, file: None, set }),
        ("write", fs::Request::Write { file, offset: 7, kill_privileges: true, append: true }),
        ("used", fs::Request::Used { inodes: vec![used] }),
    ]
}

fn replies() -> Vec<(&'static str, fs::Reply)> {
    let listing = fs::Reply::Listing { entries: vec![entry()], last: true, truncated: false, watched: true };
    vec![
        ("failed", fs::Reply::Failed { errno: 2 }),
        ("attr", fs::Reply::Attr { attr: attr() }),
        ("found", fs::Reply::Found { entry: entry(), parent: None }),
        ("found-made", fs::Reply::Found { entry: entry(), parent: Some(attr()) }),
        ("listing", listing),
        ("data", fs::Reply::Data { stamp: attr().stamp() }),
        ("removed", fs::Reply::Removed { parent: attr() }),
    ]
}

fn notices() -> Vec<(&'static str, fs::Notice)> {
    let names = vec![(bytes("gone"), None), (bytes("link"), Some(entry()))];
    let (dev, ino, stamp, path) = (1, 2, attr().stamp(), vec![bytes("usr"), bytes("lib")]);
    let runs = vec![(0, 2 * fs::PUSH_BLOCK), (16 * fs::PUSH_BLOCK, 5)];
    let listing =
        fs::Notice::PushListing { path: path.clone(), entries: vec![entry()], last: true, seen: 3, watched: true };
    vec![
        ("changed", fs::Notice::Changed { dir: fs::Node::ROOT, names: names.clone() }),
        ("stale", fs::Notice::Stale { dir: fs::Node::ROOT }),
        ("overflow", fs::Notice::Overflow),
        ("push-listing", listing),
        ("push-data", fs::Notice::PushData { dev, ino, offset: fs::PUSH_BLOCK, stamp }),
        ("push-plan", fs::Notice::PushPlan { dev, ino, stamp, runs }),
        ("push-planned", fs::Notice::PushPlanned),
        ("push-end", fs::Notice::PushEnd),
        ("root", fs::Notice::Root { attr: attr() }),
        ("stale-at", fs::Notice::StaleAt { path: path.clone() }),
        ("changed-at", fs::Notice::ChangedAt { path, dev, ino, names }),
    ]
}

fn net_seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let [four, six] = [([10, 0, 0, 1], 80).into(), ([0xfd00, 0, 0, 0, 0, 0, 0, 1], 443).into()];
    let name = net::Place::Name { name: "wiki.corp.example".to_owned(), port: 443 };
    let (routes, search) =
        (vec![([10, 0, 0, 0].into(), 8), ([0xfd00, 0, 0, 0, 0, 0, 0, 0].into(), 64)], vec!["corp".into()]);
    let surroundings = net::Surroundings { routes, hosts: bytes("10.0.0.1 db\n"), search, default: (true, false) };
    let (mut datagrams, mut questions, mut replies) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
    net::Datagram::put(four, b"ping", &mut datagrams);
    net::Datagram::put(six, b"", &mut datagrams);
    let message = Bytes::from_static(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x00\x00\x01\x00\x01");
    net::Question { number: 7, long: true, message: message.clone() }.encode(&mut questions);
    net::Reply { number: 7, message }.encode(&mut replies);
    net::Reply { number: 8, message: Bytes::new() }.encode(&mut replies);
    vec![
        ("net_open", "address", cbor(&net::Open::Connect { to: net::Place::Address(four) })),
        ("net_open", "name", cbor(&net::Open::Connect { to: name })),
        ("net_open", "datagrams", cbor(&net::Open::Datagrams)),
        ("net_open", "names", cbor(&net::Open::Names { server: None })),
        ("net_open", "names-of", cbor(&net::Open::Names { server: Some(six) })),
        ("net_open", "echo", cbor(&net::Open::Echo)),
        ("net_open", "surroundings", cbor(&net::Open::Surroundings)),
        ("net_connected", "yes", cbor(&net::Connected::Yes { peer: Some(six) })),
        ("net_connected", "no", cbor(&net::Connected::No { errno: 111, why: "refused".to_owned() })),
        ("net_surroundings", "all", cbor(&surroundings)),
        ("net_datagrams", "both-families", datagrams.to_vec()),
        ("net_names", "question", questions.to_vec()),
        ("net_names", "replies", replies.to_vec()),
    ]
}

fn exec_request() -> exec::Request {
    let file = FdKind::File { path: bytes("/tmp/file"), flags: 0, offset: 3, dev: 1, ino: 2 };
    let modes = Modes { input: 1, output: 2, control: 3, local: 4, special: vec![0; 19].into() };
    exec::Request {
        program: Program::Command { argv: vec![bytes("gcc"), bytes("--version")] },
        env: vec![bytes("PATH=/bin")],
        cwd: bytes("/home/user"),
        identity: Identity { uid: 1000, gid: 1000, groups: vec![1000], hostname: bytes("here") },
        inherited: Inherited {
            umask: 0o22,
            rlimits: vec![Rlimit { resource: 7, soft: 1024, hard: u64::MAX }],
            nice: 0,
            blocked: 0,
            ignored: 1 << 12,
            oom_score_adj: 0,
        },
        fds: vec![FdSpec { fd: 0, kind: FdKind::Tty }, FdSpec { fd: 1, kind: file }],
        tty: Some(Tty { size: SIZE, modes: Some(modes), announce: true }),
        view: View { host_paths: vec![bytes("/opt")], read_only: false, strict: false, host_network: true },
        host_env: vec![bytes("DISPLAY")],
    }
}
