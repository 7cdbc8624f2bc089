//! A host for the tests of the bootstrap: a program named `ssh` that gives the command line to a login shell, in a mount
//! namespace where every place for the agent is a directory of the test.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The login shells that the bootstrap must work under.
pub(crate) const SHELLS: &[&str] = &["sh", "dash", "bash", "busybox sh", "csh", "fish"];

/// See above. Removed when dropped.
pub(crate) struct Host {
    directory: tempfile::TempDir,
    /// The login shell.
    pub(crate) shell: String,
    /// `PATH` there.
    pub(crate) path: String,
    /// Shell code that runs as root in the host's mount namespace before the login shell.
    pub(crate) prepare: String,
    /// What is put before the login shell, reading its standard input: a filter that ends in `|`, or nothing.
    pub(crate) filter: String,
    /// The cache directory of here. One for all tests unless told otherwise: compressing the executable takes seconds.
    pub(crate) cache_here: PathBuf,
}

impl Host {
    pub(crate) fn new() -> Self {
        // Not below /tmp, which the host has for itself.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for name in ["home", "var-tmp", "tmp", "shm", "bin", "here"] {
            let at = directory.path().join(name);
            fs::create_dir(&at).unwrap();
            // As /tmp is.
            fs::set_permissions(&at, fs::Permissions::from_mode(0o1777)).unwrap();
        }
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        let cache_here = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
        Self { directory, shell: "sh".into(), path, prepare: String::new(), filter: String::new(), cache_here }
    }

    pub(crate) fn with_shell(shell: &str) -> Self {
        Self { shell: shell.into(), ..Self::new() }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.at("home")
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The directory for programs of this host alone, put first in its `PATH`.
    pub(crate) fn with_program(&mut self, name: &str, script: &str) {
        executable(&self.at("bin").join(name), script);
        let bin = self.at("bin");
        if !self.path.starts_with(bin.to_str().unwrap()) {
            self.path = format!("{}:{}", bin.display(), self.path);
        }
    }

    /// Only these programs are there.
    pub(crate) fn with_only(&mut self, programs: &[&str]) {
        let only = self.at("only");
        fs::create_dir(&only).unwrap();
        for program in programs {
            let found = ["/usr/bin", "/bin", "/usr/sbin"].iter().map(|dir| Path::new(dir).join(program));
            symlink(found.into_iter().find(|path| path.exists()).unwrap(), only.join(program)).unwrap();
        }
        self.path = only.to_str().unwrap().into();
    }

    /// Whatever there is of the agent in a place: names, sorted.
    pub(crate) fn files(&self, place: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.at(place)) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// `remotely doctor` with this host as every host.
    pub(crate) fn doctor(&self) -> Output {
        self.doctor_of("host", &[])
    }

    pub(crate) fn doctor_of(&self, target: &str, options: &[&str]) -> Output {
        let started = self.start(target, options, &self.ssh());
        started.wait_with_output().unwrap()
    }

    /// The same, not waited for.
    pub(crate) fn start_doctor(&self) -> Child {
        self.start("host", &[], &self.ssh())
    }

    /// The same, with another program as `ssh`.
    pub(crate) fn doctor_with_ssh(&self, ssh: &str, options: &[&str]) -> Child {
        self.start("host", options, ssh)
    }

    #[expect(clippy::disallowed_methods, reason = "the place where these tests start the program under test")]
    fn start(&self, target: &str, options: &[&str], ssh: &str) -> Child {
        executable(&self.at("here").join("ssh"), ssh);
        let mut command = Command::new(env!("CARGO_BIN_EXE_remotely"));
        command.arg("doctor").arg(target).args(options);
        command.env("XDG_CACHE_HOME", &self.cache_here);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.at("here").display()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// The text of a program that is an ssh to this host.
    fn ssh(&self) -> String {
        let Self { shell, path, prepare, filter, .. } = self;
        let at = |name: &str| self.at(name).display().to_string();
        let places = [("var-tmp", "/var/tmp"), ("tmp", "/tmp"), ("shm", "/dev/shm")];
        let mounts: String = places.iter().map(|(from, to)| format!("mount --bind {} {to}\n", at(from))).collect();
        let home = at("home");
        // Where a hop goes on from the host by ssh, it finds this program again, already in the namespace.
        format!(
            "#!/bin/sh\n\
             if [ \"$1\" != --inside ]; then exec unshare --mount --propagation private \"$0\" --inside \"$@\"; fi\n\
             for line; do :; done\n\
             set -e\nif [ ! \"$REMOTELY_FAKE\" ]; then\n{mounts}{prepare}\nfi\ncd /\n\
             {filter} env -i REMOTELY_FAKE=1 HOME={home} PATH={path} SSH_CLIENT=x {shell} -c \"$line\"\n"
        )
    }
}

fn executable(at: &Path, script: &str) {
    // Written aside and renamed: another thread that forks meanwhile would make it busy.
    let new = at.with_extension("new");
    fs::write(&new, script).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, at).unwrap();
}

/// What a doctor said, for assertions.
pub(crate) trait Said {
    fn text(&self) -> String;
    fn is_linked(&self) -> bool;
    fn has_uploaded(&self) -> bool;
}

impl Said for Output {
    fn text(&self) -> String {
        let code = self.status.code();
        format!("{}{}({code:?})", String::from_utf8_lossy(&self.stdout), String::from_utf8_lossy(&self.stderr))
    }

    fn is_linked(&self) -> bool {
        self.text().contains("the agent answered")
    }

    fn has_uploaded(&self) -> bool {
        self.text().contains("it was sent first")
    }
}
