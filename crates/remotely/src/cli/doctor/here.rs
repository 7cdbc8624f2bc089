//! What doctor finds on this machine: programs, kernel and limits. Reads /proc; changes nothing.

use std::fs;

use super::Finding;
use crate::options::ConnectOptions;
use crate::transport;

pub(super) fn examine(options: &ConnectOptions) -> Vec<Finding> {
    let uname = rustix::system::uname();
    let mut found = vec![kernel(&uname.release().to_string_lossy())];
    let first = options.target.hops().iter().find_map(transport::program);
    if let Some(name) = first {
        let mend =
            transport::package(name.as_ref()).unwrap_or_else(|| "is the name right, and its directory in PATH?".into());
        found.push(program(name, &mend));
    }
    found.push(watches());
    found.push(descriptors());
    found
}

/// The fs server resolves paths with openat2(2).
fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 6) {
        Finding::ok(format!("Linux {release}"))
    } else {
        Finding::fail(format!("Linux {release} is too old to serve files"), "Linux 5.6 or later is needed (openat2)")
    }
}

fn program(name: &str, mend: &str) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let executable = |at: &std::path::PathBuf| rustix::fs::access(at, rustix::fs::Access::EXEC_OK).is_ok();
    match std::env::split_paths(&path).map(|directory| directory.join(name)).find(executable) {
        Some(at) => Finding::ok(format!("{name} is {}", at.display())),
        None => Finding::fail(format!("there is no {name} in PATH"), mend),
    }
}

/// Each directory that the command touches is watched for changes, with one watch.
fn watches() -> Finding {
    const WANTED: u64 = 65_536;
    match number("/proc/sys/fs/inotify/max_user_watches") {
        Some(limit) if limit < WANTED => Finding::warn(
            format!("{limit} directories can be watched for changes; beyond that, caches live only briefly"),
            format!("sysctl fs.inotify.max_user_watches={WANTED}"),
        ),
        Some(limit) => Finding::ok(format!("{limit} directories can be watched for changes")),
        None => Finding::warn("directories cannot be watched for changes", "the kernel needs CONFIG_INOTIFY_USER"),
    }
}

fn descriptors() -> Finding {
    const WANTED: u64 = 1024;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if limit < WANTED {
        Finding::warn(format!("only {limit} files can be open at once"), format!("ulimit -Hn {WANTED} (limits.conf)"))
    } else {
        Finding::ok(format!("{limit} files can be open at once"))
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn kernels_are_told_apart() {
        let table = [
            ("4.19.0-25-amd64", Verdict::Fail),
            ("5.5.9", Verdict::Fail),
            ("5.6.0", Verdict::Ok),
            ("6.1", Verdict::Ok),
        ];
        for (release, verdict) in table {
            assert_eq!(kernel(release).verdict, verdict, "{release}");
        }
    }
}
