//! The namespaces of a run: mount, pid, uts, and user, unless the agent and the client's user are root, or root has none.
//! Called by init, in a process with one thread, before pid 1 of the new pid namespace is forked.

use std::ffi::CString;
use std::fs;
use std::io;

use remotely_proto::exec::{Identity, Step};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use rustix::thread::UnshareFlags;

use super::shifted;
use super::subordinate::{self, Ranges};
use crate::run::order::{Failure, IdRanges};
use crate::sys;

/// What the namespaces allow.
pub(crate) struct Entered {
    /// Ids that exist in the user namespace made here; `None`: none was made.
    pub(crate) ids: Option<IdRanges>,
    /// setgroups(2) is allowed.
    pub(crate) groups: bool,
    /// Who commands are on the host, if not the agent's user.
    pub(crate) owner: Option<u32>,
    /// Pid 1 has yet to become root of the user namespace.
    pub(crate) shifted: bool,
}

const OURS: UnshareFlags = UnshareFlags::NEWNS.union(UnshareFlags::NEWPID).union(UnshareFlags::NEWUTS);

/// Makes and enters the namespaces, for commands of this user and group. The pid namespace is that of the next child.
pub(crate) fn enter(identity: &Identity) -> Result<Entered, Failure> {
    let mut tried = String::new();
    if geteuid().is_root() && mapped("/proc/self/uid_map", identity.uid) && mapped("/proc/self/gid_map", identity.gid) {
        // Root is the same one as the host's, who can do everything anyway; others are to be nobody there.
        if identity.uid != 0 {
            match enter_shifted(identity)? {
                Ok(entered) => return Ok(entered),
                Err(why) => shifted::check_number(identity, &why).map_err(|failure| explain("", failure))?,
            }
        }
        match sys::unshare(OURS) {
            Ok(()) => {
                return Ok(Entered { ids: None, groups: true, owner: Some(identity.uid), shifted: false });
            }
            // Root of a container: it may still be allowed a user namespace, in which it can have the others.
            Err(error) => tried = format!("unshare(mount, pid, uts) as root: {error}; "),
        }
    }
    enter_user(identity).map_err(|failure| explain(&tried, failure))
}

/// As root. The inner error says why there is no user namespace; nothing has changed then.
fn enter_shifted(identity: &Identity) -> Result<Result<Entered, String>, Failure> {
    if let Some(why) = shifted::obstacle(identity) {
        return Ok(Err(why));
    }
    let failed = |error: io::Error| Failure::new(Step::Privilege, error, "map the ids of the user namespace as root");
    let mapper = shifted::fork_mapper().map_err(failed)?;
    shifted::raise_limits();
    if let Err(error) = sys::unshare(OURS | UnshareFlags::NEWUSER) {
        mapper.cancel();
        return Ok(Err(format!("unshare(user, mount, pid, uts): {error}")));
    }
    let done = mapper.run().map_err(failed)?;
    if !(done.users && done.groups) {
        return Err(failed(Errno::PERM.into()));
    }
    let owner = Some(shifted::FIRST + identity.uid);
    Ok(Ok(Entered { ids: Some(shifted::ids()), groups: true, owner, shifted: true }))
}

fn enter_user(identity: &Identity) -> Result<Entered, Failure> {
    let (host_uid, host_gid) = (geteuid().as_raw(), getegid().as_raw());
    let helper = subordinate::find(host_uid)
        .and_then(|ranges| subordinate::fork_mapper(&ranges, identity).ok().map(|h| (ranges, h)));
    sys::unshare(OURS | UnshareFlags::NEWUSER)
        .map_err(|error| Failure::new(Step::Privilege, error, "unshare(user, mount, pid, uts)"))?;
    let mapped = helper.map(|(ranges, helper)| (ranges, helper.run()));
    let (uids, gids) = match &mapped {
        Some((ranges, Ok(done))) => (done.users.then_some(ranges), done.groups.then_some(ranges)),
        _ => (None, None),
    };
    if uids.is_none() {
        write_map("/proc/self/uid_map", identity.uid, host_uid)?;
    }
    if gids.is_none() {
        write("/proc/self/setgroups", b"deny")?;
        write_map("/proc/self/gid_map", identity.gid, host_gid)?;
    }
    let list = |ranges: Option<&Ranges>, of: fn(&Ranges) -> u32, id| match ranges {
        Some(ranges) => subordinate::inside(of(ranges), id),
        None => vec![(id, 1)],
    };
    Ok(Entered {
        ids: Some(IdRanges {
            uids: list(uids, |r| r.users.count, identity.uid),
            gids: list(gids, |r| r.groups.count, identity.gid),
        }),
        groups: gids.is_some(),
        owner: None,
        shifted: false,
    })
}

fn write_map(path: &str, inside: u32, outside: u32) -> Result<(), Failure> {
    write(path, format!("{inside} {outside} 1").as_bytes())
}

fn write(path: &str, text: &[u8]) -> Result<(), Failure> {
    // A file of /proc of an old kernel may lack: setgroups came with Linux 3.19.
    match fs::write(path, text) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.ends_with("setgroups") => Ok(()),
        other => other.map_err(|error| Failure::new(Step::Privilege, error, format!("write to {path}"))),
    }
}

/// Whether an id exists in the user namespace that this process is in.
pub(crate) fn mapped(path: &str, id: u32) -> bool {
    let Ok(map) = fs::read_to_string(path) else { return true };
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(first)), Some(_), Some(Ok(count))) => id >= first && id - first < count,
            _ => false,
        }
    })
}

/// Says what forbids namespaces here, and what an administrator could allow.
fn explain(tried: &str, failure: Failure) -> Failure {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let mut what = format!("{tried}{}", failure.what);
    let mut cure = Vec::new();
    for (path, forbids, allow) in [
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "an AppArmor profile with `userns`, or sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ] {
        if let Some(value) = read(path) {
            what += &format!("; {path} is {value}");
            if value == forbids {
                cure.push(allow);
            }
        }
    }
    if cure.is_empty() && failure.is(Errno::PERM) {
        // The kernel gives no user namespace to a process in a chroot, and container engines filter the call.
        cure.push("running it neither in a chroot nor in a container that filters unshare(2), or as root");
    }
    if failure.is(Errno::NOSPC) {
        cure.push("more user namespaces (sysctl user.max_user_namespaces)");
    }
    if !cure.is_empty() {
        what += &format!("; the administrator of the host could allow: {}", cure.join(", "));
    }
    Failure { step: Step::Privilege, what, ..failure }
}

/// Paths and arguments for the kernel: bytes without NUL.
pub(crate) fn c_string(bytes: &[u8], step: Step, what: &str) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::new(step, Errno::INVAL, format!("{what} has a NUL byte in it")))
}
