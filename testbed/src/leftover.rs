//! What is running, mounted or lying about: read from a /proc and compared with a baseline. `Host` and `Client` use it for
//! their leak checks.

use std::fmt;
use std::fs;
use std::path::Path;

/// One process, as a /proc shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Running {
    /// Process id in the pid namespace of that /proc.
    pub pid: u32,
    /// Parent.
    pub parent: u32,
    /// Process group.
    pub group: u32,
    /// Start time in clock ticks since boot: with `pid` a name for the process.
    pub start: u64,
    /// State letter of proc_pid_stat(5).
    pub state: char,
    /// Real user id.
    pub uid: u32,
    /// Name of the program.
    pub name: String,
    /// Its arguments, separated by spaces.
    pub arguments: String,
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, parent, state, uid, name, arguments, .. } = self;
        write!(f, "pid {pid} parent {parent} state {state} uid {uid} ({name}) {arguments}")
    }
}

/// All processes in a /proc; those that end meanwhile are left out.
pub fn processes(proc: &Path) -> Vec<Running> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let mut all: Vec<_> = pids.filter_map(|pid| process(proc, pid)).collect();
    all.sort();
    all
}

fn process(proc: &Path, pid: u32) -> Option<Running> {
    let dir = proc.join(pid.to_string());
    let stat = String::from_utf8_lossy(&fs::read(dir.join("stat")).ok()?).into_owned();
    let (head, tail) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = tail.split(' ').collect();
    let status = String::from_utf8_lossy(&fs::read(dir.join("status")).ok()?).into_owned();
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:\t"))?.split('\t').next()?.parse().ok()?;
    let arguments = fs::read(dir.join("cmdline")).unwrap_or_default();
    Some(Running {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
        state: fields.first()?.chars().next()?,
        uid,
        name: head.split_once('(')?.1.to_owned(),
        arguments: String::from_utf8_lossy(&arguments).replace('\0', " ").trim_end().to_owned(),
    })
}

/// Mount points of a mountinfo text, each with its type: `/home ext4`. Sorted; one that is mounted twice shows twice.
pub fn mounts(mountinfo: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        Some(format!("{} {}", left.split(' ').nth(4)?, right.split(' ').next()?))
    };
    let mut all: Vec<_> = mountinfo.lines().filter_map(of_line).collect();
    all.sort();
    all
}

/// What is in `now` and not in `before`, counting repetitions.
pub fn added(before: &[String], now: &[String]) -> Vec<String> {
    let mut before = before.to_vec();
    let known = |one: &String| {
        let found = before.iter().position(|b| b == one).map(|at| before.swap_remove(at));
        found.is_some()
    };
    let mut known = known;
    now.iter().filter(|one| !known(one)).cloned().collect()
}

/// All paths below `dirs` on the same file system, without entering those for which `keep_out` holds. Links are not followed.
pub fn files(root: &Path, dirs: &[&str], keep_out: &dyn Fn(&Path) -> bool) -> Vec<String> {
    fn walk(root: &Path, dir: &Path, keep_out: &dyn Fn(&Path) -> bool, found: &mut Vec<String>) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let shown = Path::new("/").join(path.strip_prefix(root).unwrap_or(&path));
            if keep_out(&shown) {
                continue;
            }
            found.push(shown.to_string_lossy().into_owned());
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                walk(root, &path, keep_out, found);
            }
        }
    }
    let mut found = Vec::new();
    for dir in dirs {
        walk(root, &root.join(dir.trim_start_matches('/')), keep_out, &mut found);
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::{added, mounts, processes};
    use std::path::Path;

    #[test]
    fn sees_itself() {
        let me = processes(Path::new("/proc")).into_iter().find(|p| p.pid == std::process::id());
        let me = me.expect("this process is in /proc");
        assert_eq!((me.uid, me.state == 'Z'), (rustix::process::getuid().as_raw(), false));
    }

    #[test]
    fn a_second_mount_on_the_same_place_counts() {
        let one = "21 1 0:20 / /proc rw,nosuid shared:5 - proc proc rw\n";
        let before = mounts(one);
        assert_eq!(added(&before, &mounts(&one.repeat(2))), ["/proc proc"]);
        assert!(added(&before, &before).is_empty());
    }
}
