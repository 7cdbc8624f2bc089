//! Container engines, a Slurm cluster, and named networks for tests, each in namespaces of its own, started by hand and
//! without a registry. They end when dropped or when this process ends, with everything that runs in them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::scratch::Scratch;
use crate::spawn::{Process, command};

const SCRIPT: &str = include_str!("engine.sh");

/// Around the namespaces: what the kernel keeps when all processes are gone is removed here, for they may all be killed.
const AROUND: &str = "unshare --mount --pid --net --uts --fork --kill-child=KILL --propagation private \
    sh -c \"$SCRIPT\" testbed \"$1\"
    find /sys/fs/cgroup -depth -type d -path '*/remotely-testbed-*' -exec rmdir {} + 2>/dev/null
    find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} + 2>/dev/null";

/// What is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// dockerd. Containers `box`, `stopped` and `naked` (no shell), images `localhost/box:1` and `localhost/naked:1`.
    Docker,
    /// The same for podman, which has no daemon.
    Podman,
    /// Nodes `n0` and `n1`, and an allocation of `n1` with the number 1.
    Slurm,
    /// A network namespace `blue`.
    Netns,
}

/// Something that runs until it is dropped.
#[derive(Debug)]
pub struct Engine {
    kind: Kind,
    init: u32,
    around: Child,
    scratch: Scratch,
}

impl Engine {
    /// Starts it and waits until it can be used.
    ///
    /// # Panics
    /// When it can't be started; the text has its log.
    pub fn start(kind: Kind) -> Self {
        let scratch = Scratch::new();
        let mut around = command("setsid");
        around.args(["sh", "-c", AROUND, "testbed", &format!("{kind:?}").to_lowercase()]);
        around.env_clear().env("PATH", PATH).env("SCRIPT", SCRIPT).env("ROOM", scratch.path());
        let log = File::create(scratch.path().join("errors")).expect("testbed: create a log");
        around.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).current_dir("/").process_group(0);
        let mut around = around.spawn().unwrap_or_else(|e| panic!("testbed: start {kind:?}: {e}"));
        let mut line = String::new();
        let said = BufReader::new(around.stdout.take().expect("stdout is a pipe")).read_line(&mut line);
        let init = line.strip_prefix("ready ").and_then(|rest| rest.split(' ').next()?.parse().ok());
        let Some(init) = init else {
            let read = |name: &str| std::fs::read_to_string(scratch.path().join(name)).unwrap_or_default();
            panic!("testbed: {kind:?} does not start: {said:?} {line:?}\n{}\n{}", read("errors"), read("log"));
        };
        scratch.directory("home", 0o700, 0);
        let engine = Self { kind, init, around, scratch };
        let inside = |namespaces: &str, program: &str| {
            // A client that is killed takes the one inside along, as if it were itself; salloc asks for a signal of its own.
            let signal = if program.ends_with("salloc") { "TERM" } else { "KILL" };
            let died = format!("setpriv --pdeathsig {signal} --");
            let text = format!("#!/bin/sh\nexec nsenter --target {init} {namespaces} {died} {program} \"$@\"\n");
            let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
            engine.program(&name, &text);
        };
        match kind {
            // Its socket is seen from here.
            Kind::Docker => {}
            Kind::Podman => inside("--mount --pid --net", "/usr/bin/podman"),
            Kind::Slurm => ["srun", "salloc", "squeue", "scontrol"]
                .iter()
                .for_each(|name| inside("--mount --net --uts", &format!("/usr/bin/{name}"))),
            Kind::Netns => inside("--mount --pid", "/usr/sbin/ip"),
        }
        engine
    }

    /// Process id of its init, as seen from here.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// Its directory.
    pub fn room(&self) -> PathBuf {
        self.scratch.path().to_owned()
    }

    /// Puts a program into the directory that is first in the PATH of [`command`](Self::command).
    ///
    /// # Panics
    /// When that fails.
    pub fn program(&self, name: &str, text: &str) {
        self.scratch.write(&format!("bin/{name}"), 0o755, 0, text.as_bytes());
    }

    /// A command of root on this machine that finds this engine, with a small clean environment and a home of its own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut started = command(program);
        let room = self.room();
        let at = |name: &str| room.join(name);
        let path = format!("{}:{PATH}", at("bin").display());
        started.env_clear().env("HOME", at("home")).env("USER", "root").env("LANG", "C.UTF-8").env("PATH", path);
        match self.kind {
            Kind::Docker => started.env("DOCKER_HOST", format!("unix://{}", at("docker.sock").display())),
            Kind::Podman => {
                started.env("CONTAINERS_CONF", at("containers.conf")).env("CONTAINERS_STORAGE_CONF", at("storage.conf"))
            }
            Kind::Slurm => started.env("SLURM_CONF", at("slurm.conf")),
            Kind::Netns => &mut started,
        };
        started.current_dir("/");
        started
    }

    /// What a command of it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn ask(&self, words: &[&str]) -> String {
        let mut asked = self.command(words[0]);
        Process::start(asked.args(&words[1..]), b"").wait(Duration::from_secs(30)).success().text()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The end of its stdin ends init, and init's end everything in it.
        drop(self.around.stdin.take());
        let _ = self.around.wait();
    }
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
