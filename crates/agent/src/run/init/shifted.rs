//! The user namespace of commands whose agent is root: the ids of the client stand for ids of the host that nobody there
//! has. Called by [`super::namespace`] and, within, by [`super::first`].
//!
//! Without one the user 1000 of the client would be the user 1000 of the host, who could then reach the client's files by
//! way of /proc/PID/root, read the environment, send signals and own the terminal.

use std::fs;

use remotely_proto::exec::{Identity, Step};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::subordinate::{self, Mapper};
use crate::run::order::{Failure, IdRanges};
use crate::run::passwd;
use crate::sys;

/// What id 0 stands for: above the ids that systemd, directory services and containers give to anybody.
pub(super) const FIRST: u32 = 0x7000_0000;
/// As many as there are from there on, without the one that means nobody at all.
pub(super) const COUNT: u32 = u32::MAX - FIRST;

/// Why no such namespace can be had, if so.
pub(super) fn obstacle(identity: &Identity) -> Option<String> {
    if [identity.uid, identity.gid].iter().any(|id| *id >= COUNT) {
        return Some(format!("user {} or group {} cannot be mapped", identity.uid, identity.gid));
    }
    if !["/proc/self/uid_map", "/proc/self/gid_map"].iter().all(|path| has_all(path)) {
        return Some(format!("the ids from {FIRST} on do not exist in this container"));
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    // The first that lets FUSE be mounted in one.
    (version(&release) < (4, 18)).then(|| format!("Linux {release} is older than 4.18"))
}

fn has_all(path: &str) -> bool {
    let Ok(map) = fs::read_to_string(path) else { return false };
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(first)), Some(_), Some(Ok(count))) => {
                first <= FIRST && u64::from(first) + u64::from(count) >= u64::from(FIRST) + u64::from(COUNT)
            }
            _ => false,
        }
    })
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A process that stays outside and maps the ids of this one.
pub(super) fn fork_mapper() -> std::io::Result<Mapper> {
    subordinate::fork(|target| (write_map(target, "uid_map"), write_map(target, "gid_map")))
}

fn write_map(target: Pid, name: &str) -> bool {
    fs::write(format!("/proc/{}/{name}", target.as_raw_nonzero()), format!("0 {FIRST} {COUNT}")).is_ok()
}

/// The ids that exist inside.
pub(super) fn ids() -> IdRanges {
    IdRanges { uids: vec![(0, COUNT)], gids: vec![(0, COUNT)] }
}

/// Allows this process what only root may give to commands: inside, nobody is root enough.
pub(super) fn raise_limits() {
    let open_max = fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    for resource in 0..16 {
        let Ok((soft, _)) = sys::limit(resource) else { continue };
        let hard = if resource == libc::RLIMIT_NOFILE { open_max.unwrap_or(soft) } else { u64::MAX };
        // The namespace as a whole gets no more than these, and niceness is decided by the limit in force.
        let whole = [libc::RLIMIT_MEMLOCK, libc::RLIMIT_MSGQUEUE, libc::RLIMIT_SIGPENDING, libc::RLIMIT_NICE];
        let soft = if whole.contains(&resource) { hard } else { soft };
        let _ = sys::set_limit(resource, soft, hard);
    }
}

/// Becomes root of the namespace that this process is in. Until then it is root of the host to files, with no power over
/// anything but what belongs to the namespace: it may open what only root may.
pub(super) fn become_root() -> Result<(), Failure> {
    let failed = |error: Errno| Failure::new(Step::Privilege, error, "become root of the user namespace");
    set_thread_groups(&[]).map_err(failed)?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(failed)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(failed)?;
    // Its files in /proc are its own again, and those of what it forks, which writes to them.
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(failed)
}

/// Where there is no user namespace for root: whether a command may have this number on the host itself. Not if it is
/// that of somebody else there. `why`: what is in the way of one.
pub(super) fn check_number(identity: &Identity, why: &str) -> Result<(), Failure> {
    let sudoer = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    let Some(account) = passwd::by_uid(identity.uid).filter(|_| identity.uid != 0 && sudoer != Some(identity.uid))
    else {
        return Ok(());
    };
    let what = format!(
        "run the command as user {}: that is {} on the host, who could reach the files of here by way of it, and root \
         has no user namespace there to tell them apart ({why})",
        identity.uid,
        crate::run::order::show(&account.name),
    );
    Err(Failure::new(Step::Privilege, Errno::PERM, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("6.1.0-13-amd64"), (6, 1));
        assert_eq!(version("4.18.0-553.el8"), (4, 18));
        assert!(version("3.10.0-1160.el7.x86_64") < (4, 18) && version("") < (4, 18));
    }

    #[test]
    fn a_number_of_somebody_else_is_refused() {
        let identity = |uid| Identity { uid, gid: uid, groups: vec![], hostname: b"x".to_vec().into() };
        assert!(check_number(&identity(0), "").is_ok());
        assert!(check_number(&identity(61_234), "").is_ok());
        let failure = check_number(&identity(1), "a reason").unwrap_err();
        assert!(
            failure.is(Errno::PERM) && failure.what.contains("that is daemon") && failure.what.contains("a reason")
        );
    }
}
