//! Ranges of subordinate ids, where the host gives its user some: newuidmap(1), newgidmap(1), subuid(5). With them all
//! owners of the client's files exist in the user namespace, and groups can be taken. Called by [`super::namespace`].

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use remotely_proto::exec::Identity;
use rustix::process::{Pid, getegid, getpid};

use crate::run::passwd;
use crate::sys::{self, Fork};

/// Ids of the host that its user may map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    first: u32,
    /// How many.
    pub(crate) count: u32,
}

/// Both kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// User ids.
    pub(crate) users: Range,
    /// Group ids.
    pub(crate) groups: Range,
    host_uid: u32,
}

/// What got mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    /// User ids.
    pub(crate) users: bool,
    /// Group ids.
    pub(crate) groups: bool,
}

const DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin"];
const USERS_FAILED: i32 = 1;
const GROUPS_FAILED: i32 = 2;

/// The ranges of this user, if it has both and the host has the programs.
pub(crate) fn find(uid: u32) -> Option<Ranges> {
    program("newuidmap")?;
    program("newgidmap")?;
    let name = passwd::by_uid(uid).map(|entry| entry.name);
    let range = |path| fs::read(path).ok().and_then(|text| first_range(&text, name.as_deref(), uid));
    Some(Ranges { users: range("/etc/subuid")?, groups: range("/etc/subgid")?, host_uid: uid })
}

fn program(name: &str) -> Option<CString> {
    DIRS.iter()
        .map(|dir| format!("{dir}/{name}"))
        .find(|path| fs::metadata(path).is_ok())
        .and_then(|path| CString::new(path).ok())
}

/// The first line for this user, by name or number: `user:first:count`.
fn first_range(text: &[u8], name: Option<&[u8]>, uid: u32) -> Option<Range> {
    let number = uid.to_string();
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let user = fields.next()?;
        if Some(user) != name && user != number.as_bytes() {
            return None;
        }
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.trim().parse().ok();
        let (first, count): (u32, u32) = (number()?, number()?);
        (count > 0 && first.checked_add(count).is_some()).then_some(Range { first, count })
    })
}

/// The ids that exist inside when `id` is mapped to the user's own and the rest to a range of `count`.
pub(crate) fn inside(count: u32, id: u32) -> Vec<(u32, u32)> {
    let mut all: Vec<_> =
        extents(Range { first: 0, count }, id, 0).into_iter().map(|[inside, _, count]| (inside, count)).collect();
    all.sort_unstable();
    all
}

/// Lines of a map: inside, outside, count. `id` is `own` outside, the ids around it are of the range.
fn extents(range: Range, id: u32, own: u32) -> Vec<[u32; 3]> {
    let below = id.min(range.count);
    let above = range.count - below;
    let mut all = vec![[id, own, 1]];
    if below > 0 {
        all.push([0, range.first, below]);
    }
    if let Some(next) = id.checked_add(1).filter(|next| above > 0 && next.checked_add(above).is_some()) {
        all.push([next, range.first + below, above]);
    }
    all
}

/// A process that stays outside of the user namespace that init enters, and maps its ids.
pub(crate) struct Mapper {
    pid: Pid,
    go: OwnedFd,
}

/// Forks one that maps these ranges.
pub(crate) fn fork_mapper(ranges: &Ranges, identity: &Identity) -> io::Result<Mapper> {
    fork(|target| {
        let users = run("newuidmap", target, &extents(ranges.users, identity.uid, ranges.host_uid));
        let groups = run("newgidmap", target, &extents(ranges.groups, identity.gid, getegid().as_raw()));
        (users, groups)
    })
}

/// Forks it; it waits for [`Mapper::run`], and ends without a trace if that is never called. `map` is to map users and
/// groups of the process given, and says which it did.
pub(crate) fn fork(map: impl FnOnce(Pid) -> (bool, bool)) -> io::Result<Mapper> {
    let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let target = getpid();
    match sys::fork()? {
        Fork::Parent(pid) => Ok(Mapper { pid, go }),
        Fork::Child => {
            drop(go);
            let mut byte = [0];
            if !matches!(rustix::io::read(&wait, &mut byte), Ok(1)) {
                sys::exit_now(USERS_FAILED | GROUPS_FAILED);
            }
            let (users, groups) = map(target);
            sys::exit_now(if users { 0 } else { USERS_FAILED } | if groups { 0 } else { GROUPS_FAILED });
        }
    }
}

impl Mapper {
    /// There is nothing to map.
    pub(crate) fn cancel(self) {
        drop(self.go);
        let _ = sys::wait_end(self.pid);
    }

    /// Maps the ids of this process, which has entered its user namespace.
    pub(crate) fn run(self) -> io::Result<Done> {
        rustix::io::write(&self.go, &[1])?;
        let status = sys::wait_end(self.pid)?.status;
        let failed = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { USERS_FAILED | GROUPS_FAILED };
        Ok(Done { users: failed & USERS_FAILED == 0, groups: failed & GROUPS_FAILED == 0 })
    }
}

fn run(name: &str, target: Pid, extents: &[[u32; 3]]) -> bool {
    let Some(path) = program(name) else { return false };
    let numbers = [target.as_raw_nonzero().get() as u32].into_iter().chain(extents.iter().flatten().copied());
    let argv: Vec<CString> =
        [path.clone()].into_iter().chain(numbers.filter_map(|number| CString::new(number.to_string()).ok())).collect();
    match sys::fork() {
        Ok(Fork::Parent(pid)) => sys::wait_end(pid).is_ok_and(|waited| waited.status == 0),
        Ok(Fork::Child) => {
            sys::execve(&path, &argv, &[]);
            sys::exit_now(127);
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_id_lies_within_the_range() {
        let range = Range { first: 100_000, count: 65_536 };
        assert_eq!(extents(range, 1000, 501), [[1000, 501, 1], [0, 100_000, 1000], [1001, 101_000, 64_536]]);
        assert_eq!(extents(range, 0, 501), [[0, 501, 1], [1, 100_000, 65_536]]);
        assert_eq!(extents(range, 70_000, 501), [[70_000, 501, 1], [0, 100_000, 65_536]]);
        assert_eq!(extents(range, u32::MAX - 1, 5).len(), 2);
        assert_eq!(inside(65_536, 1000), [(0, 1000), (1000, 1), (1001, 64_536)]);
    }

    #[test]
    fn ranges_are_found_by_name_or_number() {
        let text = b"root:1:2\nsue:100000:65536\n1002:200000:10\nbad:x:y\n";
        assert_eq!(first_range(text, Some(b"sue"), 1001), Some(Range { first: 100_000, count: 65_536 }));
        assert_eq!(first_range(text, None, 1002), Some(Range { first: 200_000, count: 10 }));
        assert_eq!(first_range(text, Some(b"bad"), 7), None);
        assert_eq!(first_range(text, None, 1003), None);
    }
}
