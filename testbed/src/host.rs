//! A host: an sshd in network, mount, pid, uts and ipc namespaces with an overlay root, made within a second, reachable from
//! this machine over a veth. It ends when dropped or when this process ends, and takes everything in it along.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cache::{self, Slot};
use crate::image::Image;
use crate::leftover::{self, Running};
use crate::scratch::Scratch;
use crate::spawn::{Process, command, must};

const SCRIPT: &str = include_str!("host.sh");

/// What a host is like. The default: user `dev` (uid 3007) with bash, no sudo, everything usable.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Its name.
    pub name: String,
    /// Login name of its user.
    pub user: String,
    /// User and group id; different from that of the client on purpose.
    pub uid: u32,
    /// `/bin/bash`, `/bin/sh`, `/bin/csh`, `/usr/bin/fish`, or `/opt/busybox/sh`.
    pub login_shell: String,
    /// Whether the user may `sudo` without a password.
    pub sudo: bool,
    /// Whether the user has a range of subordinate ids for newuidmap(1).
    pub subordinate_ids: bool,
    /// Its home directory.
    pub home: Home,
    /// Other places that are restricted: path and `ro`, `noexec` or `size=N`.
    pub restricted: Vec<(String, String)>,
    /// Bytes that `.bashrc`, `.cshrc` and `config.fish` print before anything else.
    pub noise: usize,
    /// /dev/fuse.
    pub fuse: Fuse,
    /// Whether user namespaces can be made.
    pub user_namespaces: bool,
    /// Whether only the tools of busybox are in the user's PATH.
    pub busybox: bool,
    /// More options of sshd_config(5), each as `Name=value` without spaces.
    pub sshd: Vec<String>,
    /// Debian packages that it has besides those of every host.
    pub packages: Vec<String>,
    /// Files that it has: path, mode, owner, content.
    pub files: Vec<(String, u32, u32, Vec<u8>)>,
}

/// What the home directory of the user is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// Writable, programs can be run.
    Usable,
    /// On a read-only mount.
    ReadOnly,
    /// Mounted noexec.
    Noexec,
    /// An empty file system with room for this many bytes, rounded up to a page.
    Room(u64),
}

/// What /dev/fuse is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fuse {
    /// Everybody may open it.
    Usable,
    /// Only root may.
    Forbidden,
    /// It does not exist.
    Missing,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            name: "far".into(),
            user: "dev".into(),
            uid: 3007,
            login_shell: "/bin/bash".into(),
            sudo: false,
            subordinate_ids: false,
            home: Home::Usable,
            restricted: Vec::new(),
            noise: 0,
            fuse: Fuse::Usable,
            user_namespaces: true,
            busybox: false,
            sshd: vec!["MaxSessions=500".into()],
            packages: Vec::new(),
            files: Vec::new(),
        }
    }
}

/// A running host.
#[derive(Debug)]
pub struct Host {
    options: HostOptions,
    namespaces: Child,
    init: u32,
    address: SocketAddr,
    link: String,
    scratch: Scratch,
    own: BTreeSet<(u32, u64)>,
    mounts: Vec<String>,
    files: Vec<String>,
    _slot: Slot,
}

impl Host {
    /// Starts it and waits until its sshd listens.
    ///
    /// # Panics
    /// When it can't be made; the text says at which step.
    pub fn start(options: HostOptions) -> Self {
        let image = Image::get();
        let slot = Slot::take();
        let scratch = Scratch::new();
        let root = image.root_with(&options.packages);
        write_layer(&scratch, &options, image, &root);
        let room = cache::directory().join("room");
        fs::create_dir_all(&room).unwrap_or_else(|e| panic!("testbed: create {}: {e}", room.display()));
        let log = File::create(scratch.path().join("log")).expect("testbed: create the host's log");
        let mut namespaces = command("unshare");
        namespaces
            .args(["--mount", "--propagation", "private", "sh", "-c", "eval \"$SCRIPT\"", "testbed", "devices"])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("SCRIPT", SCRIPT)
            .env("ROOM", &room)
            .env("LOWER", format!("{}:{}", scratch.path().join("layer").display(), root.display()))
            .env("FUSE", format!("{:?}", options.fuse).to_lowercase())
            .env("USERNS", if options.user_namespaces { "machine" } else { "own" })
            .env("NAME", &options.name)
            .env("MOUNTS", restrictions(&options))
            .env("SSHD_OPTIONS", options.sshd.iter().map(|o| format!("-o{o}")).collect::<Vec<_>>().join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .current_dir("/");
        // Out of this process group: a signal to the test must not reach it before the test could say anything.
        std::os::unix::process::CommandExt::process_group(&mut namespaces, 0);
        let mut namespaces = namespaces.spawn().unwrap_or_else(|e| panic!("testbed: start unshare: {e}"));
        let mut output = BufReader::new(namespaces.stdout.take().expect("stdout is a pipe"));
        let said = |output: &mut BufReader<_>, step: &str| {
            let mut line = String::new();
            let read = output.read_line(&mut line);
            if line.is_empty() {
                let log = fs::read_to_string(scratch.path().join("log")).unwrap_or_default();
                panic!("testbed: host {}: {step} failed ({read:?})\n{log}", options.name);
            }
            line
        };
        let line = said(&mut output, "namespaces");
        let init = line.trim().strip_prefix("pid ").and_then(|p| p.parse().ok());
        let init: u32 = init.unwrap_or_else(|| panic!("testbed: host script said {line:?}"));
        let (outer, inner) = slot.addresses();
        let link = format!("rt{}", slot.number());
        connect(&link, init, &outer);
        // A write that fails shows as the missing answer.
        let stdin = namespaces.stdin.as_mut().expect("stdin is a pipe");
        let _ = stdin.write_all(format!("{inner}/30 {outer}\n").as_bytes());
        said(&mut output, "root and sshd");
        let address = SocketAddr::new(inner.parse().expect("an address"), 22);
        let mut host = Self {
            options,
            namespaces,
            init,
            address,
            link,
            scratch,
            own: BTreeSet::new(),
            mounts: Vec::new(),
            files: Vec::new(),
            _slot: slot,
        };
        host.own = host.all_processes().into_iter().map(|p| (p.pid, p.start)).collect();
        host.mounts = leftover::mounts(&host.mountinfo());
        host.files = host.temporary_files();
        host
    }

    /// What it was started with.
    pub fn options(&self) -> &HostOptions {
        &self.options
    }

    /// Where its sshd listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its root directory as seen from here.
    pub fn root(&self) -> PathBuf {
        format!("/proc/{}/root", self.init).into()
    }

    /// Process id of its init, as seen from here.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// Path of its user's home, within the host.
    pub fn home(&self) -> PathBuf {
        Path::new("/home").join(&self.options.user)
    }

    /// A command inside it, as root. Its processes count in the leak check until they end.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut inside = command("nsenter");
        inside.args(["--target", &self.init.to_string(), "--all", "--root", "--wd=/"]).arg("--").arg(program);
        inside
    }

    /// Runs shell text inside it as root and returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn sh(&self, script: &str) -> String {
        String::from_utf8_lossy(&must(self.command("sh").args(["-euc", script]))).into_owned()
    }

    /// Sends a signal (Linux number) to a process of it, by its pid there. A process that has ended gets none.
    pub fn signal(&self, pid: u32, signal: i32) {
        let mut kill = self.command("kill");
        Process::start(kill.arg(format!("-{signal}")).arg(pid.to_string()), b"").wait(Duration::from_secs(10));
    }

    /// What its sshd has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.scratch.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// All processes in it but its init and its listening sshd.
    pub fn processes(&self) -> Vec<Running> {
        let mut all = self.all_processes();
        all.retain(|p| !self.own.contains(&(p.pid, p.start)));
        all
    }

    /// Its listening sshd.
    ///
    /// # Panics
    /// When there is none any more.
    pub fn sshd(&self) -> Running {
        let listens = |p: &Running| p.parent == 1 && p.name == "sshd" && self.own.contains(&(p.pid, p.start));
        self.all_processes().into_iter().find(listens).expect("testbed: the host's sshd listens")
    }

    /// Mounts in the namespace of its init that were not there at the start.
    pub fn new_mounts(&self) -> Vec<String> {
        leftover::added(&self.mounts, &leftover::mounts(&self.mountinfo()))
    }

    /// Files in its temporary places and its home that were not there at the start, less the agents that bootstrap has cached.
    pub fn new_files(&self) -> Vec<String> {
        leftover::added(&self.files, &self.temporary_files())
    }

    /// Everything that a finished run has left, one line each.
    pub fn leftovers(&self) -> Vec<String> {
        let name = &self.options.name;
        let processes = self.processes().into_iter().map(|p| format!("{name}: process {p}"));
        let mounts = self.new_mounts().into_iter().map(|m| format!("{name}: mount {m}"));
        let cache = |f: &String| f.ends_with("/.cache") || f.contains("/remotely");
        let files = self.new_files().into_iter().filter(|f| !(cache(f) && self.is_directory(f)));
        let files = files.map(|f| format!("{name}: file {f}"));
        processes.chain(mounts).chain(files).collect()
    }

    /// Waits until a process whose name or arguments contain `text` runs in it.
    ///
    /// # Panics
    /// When none does within `limit`.
    pub fn wait_process(&self, text: &str, limit: Duration) -> Running {
        let deadline = Instant::now() + limit;
        loop {
            let all = self.processes();
            if let Some(found) = all.iter().find(|p| p.state != 'Z' && p.arguments.contains(text)) {
                return found.clone();
            }
            let shown: Vec<_> = all.iter().map(ToString::to_string).collect();
            assert!(Instant::now() < deadline, "no process {text:?} on {} in {limit:?}: {shown:#?}", self.options.name);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_directory(&self, path: &str) -> bool {
        self.root().join(path.trim_start_matches('/')).is_dir()
    }

    fn all_processes(&self) -> Vec<Running> {
        leftover::processes(&self.root().join("proc"))
    }

    fn mountinfo(&self) -> String {
        fs::read_to_string(format!("/proc/{}/mountinfo", self.init)).unwrap_or_default()
    }

    fn temporary_files(&self) -> Vec<String> {
        let home = self.home().to_string_lossy().into_owned();
        let places = ["/tmp", "/var/tmp", "/dev/shm", "/run", &home];
        leftover::files(&self.root(), &places, &|path| self.is_kept(path))
    }

    /// What bootstrap leaves on purpose. A part of an upload in the same directory is not.
    fn is_kept(&self, path: &Path) -> bool {
        let named = |path: &Path, prefix: &[u8]| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(prefix))
        };
        // And where sudo keeps the time of its last use.
        path == Path::new("/run/sudo")
            || (named(path, b"agent-") || named(path, b"hash-"))
                && path.parent().is_some_and(|dir| named(dir, b"remotely"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The end of its stdin ends init, and init's end everything in the host.
        drop(self.namespaces.stdin.take());
        let _ = self.namespaces.wait();
        // The kernel takes its time with network namespaces; the slot is for the next one now.
        Process::start(command("ip").args(["link", "delete", &self.link]), b"").wait(Duration::from_secs(10));
    }
}

/// The files that make this host different from the base, as an overlay layer of its own.
fn write_layer(scratch: &Scratch, options: &HostOptions, image: &Image, root: &Path) {
    let HostOptions { name, user, uid, login_shell, .. } = options;
    let read = |path: &str| {
        let path = root.join(path);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("testbed: read {}: {e}", path.display()))
    };
    let put =
        |path: &str, mode, owner, text: &str| scratch.write(&format!("layer/{path}"), mode, owner, text.as_bytes());
    let home = format!("home/{user}");
    scratch.directory("layer", 0o755, 0);
    // `*`, not `!`: sshd takes the latter for a locked account.
    put("etc/passwd", 0o644, 0, &format!("{}{user}:*:{uid}:{uid}::/{home}:{login_shell}\n", read("etc/passwd")));
    put("etc/group", 0o644, 0, &format!("{}{user}:x:{uid}:\n", read("etc/group")));
    put("etc/hostname", 0o644, 0, &format!("{name}\n"));
    // sudo is slow where its host's name is not known.
    put("etc/hosts", 0o644, 0, &format!("127.0.0.1 localhost {name}\n10.77.255.254 only-{name}.example\n"));
    put("etc/resolv.conf", 0o644, 0, &format!("# of {name}\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n"));
    let key = fs::read_to_string(image.key().with_extension("pub")).expect("testbed: read the public key");
    put(&format!("etc/ssh/keys/{user}"), 0o644, 0, &key);
    put("etc/ssh/keys/root", 0o644, 0, &key);
    if options.sudo {
        put("etc/sudoers.d/testbed", 0o440, 0, &format!("{user} ALL=(ALL:ALL) NOPASSWD: ALL\n"));
    }
    if options.subordinate_ids {
        put("etc/subuid", 0o644, 0, &format!("{user}:100000:65536\n"));
        put("etc/subgid", 0o644, 0, &format!("{user}:100000:65536\n"));
    }
    scratch.directory(&format!("layer/{home}"), 0o755, *uid);
    if login_shell.ends_with("/fish") {
        // It makes these at each login; they are no leftovers.
        for directory in [".config", ".config/fish", ".local", ".local/share", ".local/share/fish"] {
            scratch.directory(&format!("layer/{home}/{directory}"), 0o755, *uid);
        }
    }
    let mut shell = String::new();
    if options.noise > 0 {
        shell.push_str(&format!("head -c {} /dev/zero | tr '\\0' n; printf '\\n'\n", options.noise));
    }
    for file in [".bashrc", ".cshrc", ".config/fish/config.fish"] {
        if !shell.is_empty() {
            put(&format!("{home}/{file}"), 0o644, *uid, &shell);
        }
    }
    if options.busybox {
        put("etc/ssh/sshd_config.d/busybox.conf", 0o644, 0, "SetEnv PATH=/opt/busybox\n");
    }
    for (path, mode, owner, bytes) in &options.files {
        scratch.write(&format!("layer/{}", path.trim_start_matches('/')), *mode, *owner, bytes);
    }
}

fn restrictions(options: &HostOptions) -> String {
    let home = format!("/home/{}", options.user);
    let of_home = match options.home {
        Home::Usable => None,
        Home::ReadOnly => Some("ro".to_owned()),
        Home::Noexec => Some("noexec".to_owned()),
        // tmpfs takes size=0 for no limit.
        Home::Room(bytes) => Some(format!("size={}", bytes.max(1))),
    };
    let all = options.restricted.iter().cloned().chain(of_home.map(|option| (home, option)));
    all.map(|(path, option)| format!("{path} {option}\n")).collect()
}

fn connect(link: &str, init: u32, outer: &str) {
    // Left over when its host was killed a moment ago.
    Process::start(command("ip").args(["link", "delete", link]), b"").wait(Duration::from_secs(10));
    let init = init.to_string();
    must(command("ip").args(["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", &init]));
    must(command("ip").args(["address", "add", &format!("{outer}/30"), "dev", link]));
    must(command("ip").args(["link", "set", link, "up"]));
}
