//! A client: an ordinary user of this machine with a home, an ssh key, an ssh configuration and the executable in its PATH.
//! It lives in a mount namespace of its own, where /etc/passwd knows it; the machine's /etc stays as it is.

use std::ffi::{CString, OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{Gid, Mode, Uid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_gid, set_thread_groups, set_thread_uid};

use crate::cache::Slot;
use crate::executable::Executables;
use crate::image::Image;
use crate::leftover::{self, Running};
use crate::scratch::Scratch;
use crate::spawn::{Process, command, must, send_signal};

/// Extra groups of the user, and ids that exist nowhere else: nothing of the host maps them.
pub const GROUPS: [u32; 2] = [24_001, 24_002];

/// Makes the mounts of the namespace and stays until it was entered. $0: directory of its files, $1: home.
const SCRIPT: &str = "set -eu
for file in passwd group; do mount --bind \"$0/etc/$file\" /etc/$file; done
if [ -e \"$0/etc/sudoers.d\" ]; then mount --bind \"$0/etc/sudoers.d\" /etc/sudoers.d; fi
mount -t tmpfs -o size=1M,mode=777 small \"$1/small\"
echo ready; cat";

/// An ordinary user of this machine.
#[derive(Debug)]
pub struct Client {
    namespace: File,
    /// A network of its own; that of the machine, if it has none.
    network: Option<File>,
    home: PathBuf,
    work: PathBuf,
    search_path: OsString,
    uid: u32,
    config: String,
    files: Vec<String>,
    scratch: Scratch,
    _slot: Slot,
}

impl Client {
    /// Makes the user `dev`, who may not use sudo.
    ///
    /// # Panics
    /// When that fails, or the executables under test don't build.
    pub fn start() -> Self {
        Self::make(false, Executables::get().all())
    }

    /// Makes the user `dev` without the executables under test: for what is compared with them, and for tests of the rig.
    ///
    /// # Panics
    /// When that fails.
    pub fn start_bare() -> Self {
        Self::make(false, &[])
    }

    /// Makes the user `dev`, who may use sudo without a password.
    ///
    /// # Panics
    /// When that fails.
    pub fn start_with_sudo() -> Self {
        Self::make(true, Executables::get().all())
    }

    fn make(sudo: bool, executables: &[PathBuf]) -> Self {
        let (slot, scratch, image) = (Slot::take(), Scratch::new(), Image::get());
        let uid = slot.uid();
        let home = scratch.directory("home/dev", 0o755, uid);
        scratch.directory("home/dev/small", 0o755, uid);
        let work = scratch.directory("home/dev/work", 0o755, uid);
        scratch.directory("home/dev/.ssh", 0o700, uid);
        let key = fs::read(image.key()).expect("testbed: read the key");
        scratch.write("home/dev/.ssh/id_ed25519", 0o600, uid, &key);
        let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|e| panic!("testbed: read {path}: {e}"));
        let passwd = format!("{}dev:*:{uid}:{uid}::{}:/bin/bash\n", read("/etc/passwd"), home.display());
        scratch.write("etc/passwd", 0o644, 0, passwd.as_bytes());
        let [first, second] = GROUPS;
        let group = format!("{}dev:x:{uid}:\nfirst:x:{first}:dev\nsecond:x:{second}:dev\n", read("/etc/group"));
        scratch.write("etc/group", 0o644, 0, group.as_bytes());
        if sudo {
            scratch.write("etc/sudoers.d/testbed", 0o440, 0, b"dev ALL=(ALL:ALL) NOPASSWD: ALL\n");
        }
        let config = scratch.path().join("ssh_config");
        let wrapper = format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", config.display());
        scratch.write("bin/ssh", 0o755, 0, wrapper.as_bytes());
        for program in executables {
            let name = program.file_name().unwrap_or_default();
            let copied = fs::copy(program, scratch.path().join("bin").join(name));
            copied.unwrap_or_else(|e| panic!("testbed: copy {}: {e}", program.display()));
        }
        let mut search_path = scratch.path().join("bin").into_os_string();
        search_path.push(":/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin");
        let namespace = mount_namespace(scratch.path(), &home);
        let mut client = Self {
            namespace,
            network: None,
            home,
            work,
            search_path,
            uid,
            config: String::new(),
            files: Vec::new(),
            scratch,
            _slot: slot,
        };
        client.end_processes();
        client.files = client.temporary_files();
        client.name_host("*", None);
        client
    }

    /// Lets `ssh NAME` of this client go to `address`, with the key it has. `localhost:PORT` of a relay, usually.
    pub fn reach(&mut self, name: &str, address: SocketAddr) {
        self.name_host(name, Some(address));
    }

    fn name_host(&mut self, name: &str, address: Option<SocketAddr>) {
        // ssh takes the first value it finds: names go in front of the star.
        let mut entry = format!("Host {name}\n");
        match address {
            Some(address) => {
                let _ = writeln!(entry, "  HostName {}\n  Port {}", address.ip(), address.port());
            }
            None => {
                let key = self.home.join(".ssh/id_ed25519");
                let _ = writeln!(
                    entry,
                    "  User dev\n  IdentityFile {}\n  IdentitiesOnly yes\n  BatchMode yes\n  StrictHostKeyChecking no\n  \
                     UserKnownHostsFile /dev/null\n  GlobalKnownHostsFile /dev/null\n  LogLevel ERROR",
                    key.display()
                );
            }
        }
        self.config = format!("{entry}{}", self.config);
        self.scratch.write("ssh_config", 0o644, 0, self.config.as_bytes());
    }

    /// Has it live in this network namespace from here on.
    pub fn live_in(&mut self, network: File) {
        self.network = Some(network);
    }

    /// Its user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its home directory, `$HOME`. `small` in it is a file system with room for 1 MiB.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The working directory of its commands.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Removes everything in [`work`](Self::work).
    ///
    /// # Panics
    /// When that fails.
    pub fn empty_work(&self) {
        // rm, since modes and depth of what tests leave there are no obstacle to it.
        must(command("sh").args(["-c", "cd \"$0\" && find . -mindepth 1 -delete"]).arg(&self.work));
    }

    /// Writes a file into [`work`](Self::work), owned by the user, and returns its path.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        self.scratch.write(&format!("home/dev/work/{name}"), 0o755, self.uid, bytes.as_ref())
    }

    /// Puts a program into the directory that is first in its PATH.
    ///
    /// # Panics
    /// When that fails.
    pub fn program(&self, name: &str, text: impl AsRef<[u8]>) {
        self.scratch.write(&format!("bin/{name}"), 0o755, 0, text.as_ref());
    }

    /// The directory that is first in its PATH.
    pub fn programs(&self) -> PathBuf {
        self.scratch.path().join("bin")
    }

    /// The file for `ssh -F`.
    pub fn ssh_config(&self) -> PathBuf {
        self.scratch.path().join("ssh_config")
    }

    /// A descriptor of its mount namespace, for setns(2).
    pub fn namespace_fd(&self) -> i32 {
        self.namespace.as_raw_fd()
    }

    /// A command of this user in [`work`](Self::work), with a small clean environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_in(&self.work, program)
    }

    /// A command of this user in the directory `dir`.
    ///
    /// # Panics
    /// When `dir` has a NUL in it.
    pub fn command_in(&self, dir: &Path, program: impl AsRef<OsStr>) -> Command {
        let mut started = command(program);
        started
            .env_clear()
            .env("HOME", &self.home)
            .env("USER", "dev")
            .env("LOGNAME", "dev")
            .env("SHELL", "/bin/bash")
            .env("PATH", &self.search_path)
            .env("LANG", "C.UTF-8")
            .env("PWD", dir);
        self.enter(&mut started, dir, Some(self.uid));
        started
    }

    /// Makes a command run in the namespace and directory, as that user or as root.
    fn enter(&self, started: &mut Command, dir: &Path, uid: Option<u32>) {
        let namespace = self.namespace.try_clone().expect("testbed: duplicate a descriptor");
        let network = self.network.as_ref().map(|file| file.try_clone().expect("testbed: duplicate a descriptor"));
        let dir = CString::new(dir.as_os_str().as_bytes()).expect("testbed: a path has no NUL");
        let groups = GROUPS.map(Gid::from_raw);
        let enter = move || {
            // Away from the terminal that the tests may have been started on.
            rustix::process::setsid()?;
            if let Some(network) = &network {
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            }
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
            if let Some(uid) = uid {
                set_thread_groups(&groups)?;
                set_thread_gid(Gid::from_raw(uid))?;
                set_thread_uid(Uid::from_raw(uid))?;
            }
            rustix::process::umask(Mode::WGRP | Mode::WOTH);
            rustix::process::chdir(dir.as_c_str())?;
            Ok(())
        };
        // SAFETY: the closure makes plain system calls with values made before the fork; it allocates nothing and takes no lock.
        unsafe { started.pre_exec(enter) };
    }

    /// `remotely` with these arguments.
    pub fn remotely<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut started = self.command("remotely");
        started.args(arguments);
        started
    }

    /// A command of `remotely` for many hosts, the first of `words`, with this configuration of ssh.
    ///
    /// # Panics
    /// When there are no words.
    pub fn fleet(&self, config: &Path, words: &[&str]) -> Command {
        let (subcommand, rest) = words.split_first().expect("testbed: a subcommand");
        let opts = format!("-F {}", config.display());
        let mut started = self.remotely([*subcommand, "--ssh-opts", &opts]);
        started.args(rest);
        started
    }

    /// A script for bash in its network, as root.
    ///
    /// # Panics
    /// When there is a NUL in the path of the working directory.
    pub fn as_root(&self, script: &str) -> Command {
        let mut started = command("bash");
        started.args(["-c", script]);
        self.enter(&mut started, &self.work, None);
        started
    }

    /// A script for bash in which `$RUN` stands for `run`, so that the same text can be run there (`run` is
    /// `remotely dev@far --`) and here (`run` is empty).
    pub fn bash(&self, script: &str, run: &str) -> Command {
        let mut started = self.command("bash");
        // Not exported: the environment of what runs is compared.
        started.arg("-c").arg(format!("export -n RUN\n{script}")).env("RUN", run);
        started
    }

    /// Processes of this user and others in its mount namespace.
    pub fn processes(&self) -> Vec<Running> {
        let own = self.namespace.metadata().map(|m| m.ino()).unwrap_or(0);
        let inside = |p: &Running| {
            p.uid == self.uid || fs::metadata(format!("/proc/{}/ns/mnt", p.pid)).is_ok_and(|m| m.ino() == own)
        };
        let mut all = leftover::processes(Path::new("/proc"));
        // Orphans that have ended are init's to wait for, and not every machine has one that does.
        all.retain(|process| inside(process) && !(process.state == 'Z' && process.parent == 1));
        all
    }

    /// Mounts of its namespace, as `/place type`.
    ///
    /// # Panics
    /// When they can't be read.
    pub fn mounts(&self) -> Vec<String> {
        let mut cat = command("cat");
        self.enter(cat.arg("/proc/self/mountinfo"), Path::new("/"), None);
        leftover::mounts(&Process::start(&mut cat, b"").wait(Duration::from_secs(10)).success().text())
    }

    /// Everything that a finished run has left here, one line each: processes, FUSE mounts, temporary files.
    pub fn leftovers(&self) -> Vec<String> {
        let processes = self.processes().into_iter().map(|p| format!("here: process {p}"));
        let mounts = self.mounts().into_iter().filter(|m| m.contains(" fuse")).map(|m| format!("here: mount {m}"));
        let files =
            leftover::added(&self.files, &self.temporary_files()).into_iter().map(|f| format!("here: file {f}"));
        processes.chain(mounts).chain(files).collect()
    }

    /// Ends what still runs: a test that failed must not disturb the next user of this id.
    fn end_processes(&self) {
        // A tree that forks meanwhile needs another turn.
        for _ in 0..20 {
            let all = self.processes();
            if all.is_empty() {
                return;
            }
            all.iter().for_each(|p| send_signal(p.pid, 9));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Files of this user in the machine's temporary places.
    fn temporary_files(&self) -> Vec<String> {
        let others = |path: &Path| fs::symlink_metadata(path).is_ok_and(|m| m.uid() != self.uid);
        leftover::files(Path::new("/"), &["/tmp", "/var/tmp", "/dev/shm", "/run"], &others)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end_processes();
    }
}

fn mount_namespace(files: &Path, home: &Path) -> File {
    let mut holder = command("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT])
        .args([files, home])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("testbed: start unshare: {e}"));
    let mut line = String::new();
    let output = holder.stdout.take().expect("stdout is a pipe");
    let _ = BufReader::new(output).read_line(&mut line);
    assert_eq!(line, "ready\n", "testbed: the mount namespace of the client could not be made");
    let path = format!("/proc/{}/ns/mnt", holder.id());
    let namespace = File::open(&path).unwrap_or_else(|e| panic!("testbed: open {path}: {e}"));
    drop(holder.stdin.take());
    let _ = holder.wait();
    namespace
}
