//! A served directory mounted on this machine: fs server and mount with a link between them, in one process. Needs root and
//! /dev/fuse.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use remotely_fs::mount::{IdMaps, Mount, MountConfig};
use remotely_fs::server::{Config, Lanes, Server};
use remotely_proto::exec::Identity;
use remotely_proto::fs::Lane;
use remotely_session::{Class, LinkBuilder, Pipe, Role, Service, Settings, Stream};

/// What of a mount a test may choose.
#[derive(Default)]
pub(crate) struct Choice {
    pub(crate) read_only: bool,
    pub(crate) strict: bool,
    pub(crate) hide: Vec<&'static str>,
    /// What is served is a file system of its own with room for so many bytes.
    pub(crate) room: Option<u64>,
}

/// `here` is what is served, `there` the mount of it.
pub(crate) struct Mounted {
    pub(crate) here: PathBuf,
    pub(crate) there: PathBuf,
    pub(crate) server: Server,
    pub(crate) mount: Mount,
    base: PathBuf,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Mounted {
    pub(crate) fn new() -> Self {
        Self::with(Choice::default())
    }

    pub(crate) fn with(choice: Choice) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("remotely-mount-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let base = std::env::temp_dir().join(name);
        let (here, there) = (base.join("here"), base.join("there"));
        std::fs::create_dir_all(&here).unwrap();
        if let Some(room) = choice.room {
            let data = CString::new(format!("size={room}")).unwrap();
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("small", &here, "tmpfs", flags, Some(data.as_c_str())).expect("mounting as root");
        }
        Self::at(base, here, there, choice)
    }

    /// A second mount of the same directory.
    pub(crate) fn again(&self) -> Self {
        let base = self.base.with_extension("again");
        let there = base.join("there");
        Self::at(base, self.here.clone(), there, Choice::default())
    }

    fn at(base: PathBuf, here: PathBuf, there: PathBuf, choice: Choice) -> Self {
        std::fs::create_dir_all(&there).unwrap();
        let fuse = mount_fuse(&there);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (server, mount) = runtime.block_on(connect(&here, fuse, choice));
        Self { here, there, server, mount, base, runtime: Some(runtime) }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.there, rustix::mount::UnmountFlags::DETACH);
        self.server.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        // Nothing to do where it is no file system of its own.
        let _ = rustix::mount::unmount(&self.here, rustix::mount::UnmountFlags::DETACH);
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

fn mount_fuse(at: &Path) -> OwnedFd {
    let fuse: OwnedFd = std::fs::File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse").into();
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", fuse.as_raw_fd());
    let data = CString::new(data).unwrap();
    use rustix::mount::MountFlags;
    rustix::mount::mount("remotely", at, "fuse", MountFlags::NOSUID | MountFlags::NODEV, Some(data.as_c_str()))
        .expect("mounting as root");
    fuse
}

async fn connect(here: &Path, fuse: OwnedFd, choice: Choice) -> (Server, Mount) {
    let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
    let pipe = |stream: std::os::unix::net::UnixStream| Pipe {
        reader: stream.try_clone().unwrap().into(),
        writer: stream.into(),
    };
    let mut client = LinkBuilder::new(Settings { role: Role::Client, ..Settings::default() });
    let mut open = |lane, class| client.open(Service::FS, class, Bytes::from(minicbor::to_vec(lane).unwrap()));
    let lanes = Lanes {
        query: open(Lane::Query, Class::Normal),
        change: open(Lane::Change, Class::Bulk),
        bulk: open(Lane::Bulk, Class::Bulk),
    };
    let flight = client.first_flight();
    rustix::io::write(&a, &flight).unwrap();
    let (_client, _) = client.attach(pipe(a), Bytes::new());
    let (_agent, mut incoming) =
        LinkBuilder::new(Settings { role: Role::Agent, ..Settings::default() }).attach(pipe(b), Bytes::new());
    let hide = choice.hide.iter().map(|name| here.join(name).into_os_string().into_encoded_bytes()).collect();
    let server =
        Server::start(Config { root: here.to_owned(), hide, read_only: choice.read_only, threads: 4 }, lanes).unwrap();
    let mut offered: Vec<Stream> = Vec::new();
    for _ in 0..3 {
        offered.push(incoming.next().await.expect("a lane").stream);
    }
    let mut offered = offered.into_iter();
    let mut next = || offered.next().unwrap();
    let mount = Mount::start(MountConfig {
        fuse,
        lanes: (next(), next(), next()),
        identity: Identity { uid: 0, gid: 0, groups: vec![], hostname: b"here".to_vec().into() },
        id_maps: IdMaps::default(),
        read_only: choice.read_only,
        strict: choice.strict,
        default_permissions: false,
        covered: vec![],
    })
    .await
    .unwrap();
    (server, mount)
}

/// Waits until it holds; the news of a change takes its way.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(3), "not within 3 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
