//! The ways to run a command of here on a host: our own, and those of others, set up as their users do it. A peer that is
//! missing on this machine shows as failed in the table, with the reason.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use testbed::spawn::{command as plain, must};
use testbed::{Client, Fuse, HostOptions, Outcome, Pair, Process, Wire};

use crate::Plan;
use crate::table::Cell;

/// A way to run a command on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Here.
    Native,
    /// `ssh host true`: what no way over ssh can beat.
    Ssh,
    /// Ours, the agent being there.
    Remotely,
    /// Ours, the agent being sent first.
    RemotelyCold,
    /// The files of here mounted there by sshfs over one ssh, and chroot.
    Sshfs,
    /// outrun of PyPI, its caches being there.
    Outrun,
    /// The tree copied there, the command run by the tools of there, the tree copied back.
    Rsync,
}

impl Peer {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Native, "native"),
        (Self::Ssh, "ssh"),
        (Self::Remotely, "remotely"),
        (Self::RemotelyCold, "remotely-cold"),
        (Self::Sshfs, "sshfs"),
        (Self::Outrun, "outrun"),
        (Self::Rsync, "rsync"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(peer, _)| *peer == self).map_or("", |(_, name)| name)
    }

    pub(crate) fn is_name(name: &str) -> bool {
        Self::ALL.iter().any(|(_, of)| *of == name)
    }

    /// The host that it needs: without compilers, except where they must be there.
    fn host(self) -> HostOptions {
        let packages: &[&str] = match self {
            Self::Sshfs => &["sshfs", "fuse3"],
            Self::Outrun => &["python3", "fuse3", "file"],
            Self::Rsync => &["rsync", "gcc", "libc6-dev", "make"],
            _ => &[],
        };
        let packages = packages.iter().map(|&name| name.to_owned()).collect();
        let mut files = Vec::new();
        if self == Self::Outrun {
            let launcher = outrun_program("/opt/outrun");
            files.push(("/usr/local/bin/outrun".to_owned(), 0o755, 0, launcher.into_bytes()));
            // It looks for the kernel's module by a tool that is not there, though /dev/fuse works.
            for tool in ["lsmod", "modprobe"] {
                files.push((format!("/usr/local/bin/{tool}"), 0o755, 0, b"#!/bin/sh\necho fuse 1 1\n".to_vec()));
            }
        }
        HostOptions { packages, files, fuse: Fuse::Usable, ..HostOptions::default() }
    }

    /// A client and a host on which it works.
    pub(crate) fn pair(self, wire: Wire) -> Result<Pair, String> {
        let needed = match self {
            Self::Sshfs => Some("/usr/lib/openssh/sftp-server"),
            Self::Rsync => Some("/usr/bin/rsync"),
            _ => None,
        };
        if let Some(needed) = needed.filter(|path| !std::path::Path::new(path).exists()) {
            return Err(format!("{needed} is missing here"));
        }
        let client = match self {
            Self::Remotely | Self::RemotelyCold => Client::start(),
            _ => Client::start_bare(),
        };
        let outrun = if self == Self::Outrun { Some(outrun_modules()?) } else { None };
        let pair = Pair::of(client, self.host(), wire);
        if let Some(modules) = outrun {
            let copy = format!("{}/opt/outrun", pair.host.root().display());
            must(plain("cp").arg("-r").args([modules.as_os_str(), copy.as_ref()]));
            pair.client.program("outrun", outrun_program(&modules.display().to_string()));
        }
        Ok(pair)
    }

    /// What runs `words` in `directory` of the client on the pair's host. `None` for those that take no command of here.
    pub(crate) fn start(self, pair: &Pair, directory: &str, words: &[&str]) -> Option<Command> {
        let target = pair.target();
        let client = &pair.client;
        let words = words.iter().copied();
        let mut started = match self {
            Self::Native => client.command_in(directory.as_ref(), "env"),
            Self::Ssh => {
                let mut ssh = client.command_in(directory.as_ref(), "ssh");
                ssh.args([target.as_str(), "true"]);
                return Some(ssh);
            }
            Self::Remotely | Self::RemotelyCold => {
                let mut ours = client.command_in(directory.as_ref(), "remotely");
                ours.args([target.as_str(), "--"]);
                ours
            }
            Self::Sshfs => {
                let mut both = client.command_in(directory.as_ref(), "bash");
                let words = words.collect::<Vec<_>>().join(" ");
                both.args(["-c", SSHFS, "sshfs", &there(client.uid(), directory, &words)]);
                return Some(both);
            }
            Self::Outrun => {
                let mut outrun = client.command_in(directory.as_ref(), "outrun");
                outrun.arg("root@far");
                outrun
            }
            Self::Rsync => return None,
        };
        started.args(words);
        Some(started)
    }
}

/// A program that starts outrun from the directory into which pip has put it.
fn outrun_program(modules: &str) -> String {
    format!(
        "#!/usr/bin/python3\nimport sys\nsys.path.insert(0, '{modules}')\nfrom outrun.__main__ import main\nsys.exit(main())\n"
    )
}

/// Connects an sftp server of here with `ssh`: sshfs on the host speaks to it over standard input and output.
const SSHFS: &str = "coproc /usr/lib/openssh/sftp-server\nexec ssh root@far \"$1\" <&${COPROC[0]} >&${COPROC[1]}";

/// What sshfs needs to be as fast as it can be, and to be chrooted into at all (no_contain_symlinks, since Debian's
/// security update). The command's output goes to standard error, because the standard streams carry the files.
fn there(uid: u32, directory: &str, words: &str) -> String {
    let tuned = "slave,allow_other,no_contain_symlinks,kernel_cache,auto_cache,dcache_timeout=3600,dcache_max_size=1000000,\
                 entry_timeout=3600,attr_timeout=3600,negative_timeout=3600,dir_cache=yes,max_conns=1";
    format!(
        "mkdir -p /mnt/c; exec 3<&0 4>&1 1>&2 </dev/null; sshfs :/ /mnt/c -f -o {tuned} <&3 >&4 3<&- 4>&- & \
         until mountpoint -q /mnt/c; do sleep 0.01; done; \
         for d in proc sys dev; do mount --rbind /$d /mnt/c/$d; done; \
         chroot --userspec={uid}:{uid} /mnt/c env PATH=/usr/bin:/bin HOME=/tmp sh -c 'cd {directory} && {words}' 3<&- 4>&-; \
         code=$?; umount -R -l /mnt/c; exit $code"
    )
}

/// outrun and what it imports, put into the cache directory by pip; its path.
fn outrun_modules() -> Result<PathBuf, String> {
    let place = testbed::cache::directory().join("outrun");
    let _lock = testbed::cache::lock("outrun");
    if !place.exists() {
        let unfinished = place.with_extension("unfinished");
        let mut pip = plain("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--python-version", "3.11", "--only-binary=:all:", "--target"]);
        let outcome =
            Process::start(pip.arg(&unfinished).arg("outrun==1.1.0"), b"").wait(std::time::Duration::from_secs(300));
        if !outcome.status.success() {
            return Err(format!("pip install outrun: {}", outcome.errors().lines().last().unwrap_or_default()));
        }
        std::fs::rename(&unfinished, &place).map_err(|e| format!("rename to {}: {e}", place.display()))?;
    }
    Ok(place)
}

/// Times one run. The first line of what it says, if it fails.
pub(crate) fn time(plan: &Plan, command: &mut Command) -> Result<Outcome, Cell> {
    let started = Instant::now();
    let outcome = Process::start(command, b"")
        .finish(plan.limit)
        .map_err(|what| if started.elapsed() >= plan.limit { Cell::Stopped(plan.limit) } else { Cell::Failed(what) })?;
    if outcome.status.success() {
        return Ok(outcome);
    }
    let said = outcome.errors();
    Err(Cell::Failed(format!("{} {}", outcome.status, said.lines().last().unwrap_or_default())))
}

/// Runs a command so many times as the plan says, after two runs that warm what can be warm; each must say
/// what is expected of it.
pub(crate) fn command(peer: Peer, wire: Wire, plan: &Plan, words: &[&str], expected: &str) -> Vec<Cell> {
    let pair = match peer.pair(wire) {
        Ok(pair) => pair,
        Err(what) => return vec![Cell::Failed(what)],
    };
    let directory = OsString::from(pair.client.work()).into_string().unwrap_or_default();
    let mut cells = Vec::new();
    let warming = if peer == Peer::RemotelyCold { 0 } else { 2 };
    for turn in 0..plan.runs + warming {
        if peer == Peer::RemotelyCold {
            pair.host.sh("rm -rf /home/dev/.cache");
        }
        let Some(mut started) = peer.start(&pair, &directory, words) else { break };
        let measured = time(plan, &mut started);
        let said = |outcome: &Outcome| outcome.text() + &outcome.errors();
        let measured = measured.map(|outcome| (Cell::Value(outcome.took.as_secs_f64(), 1), said(&outcome)));
        match measured {
            Ok((_, said)) if peer != Peer::Ssh && !said.contains(expected) => {
                return vec![Cell::Failed(format!("it did not say {expected:?}"))];
            }
            Ok((cell, _)) if turn >= warming => cells.push(cell),
            Ok(_) => {}
            Err(cell) => return vec![cell],
        }
    }
    cells
}
