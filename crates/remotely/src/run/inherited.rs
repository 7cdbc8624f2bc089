//! What this process was given by whoever started it: signal dispositions, limits, environment, directory, identity.
//! Called by `run` before it changes anything of its own. Never changes anything itself.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use remotely_proto::ByteVec;
use remotely_proto::exec::{Identity, Inherited, Rlimit};
use rustix::io::Errno;
use thiserror::Error;

/// Number of resource limits that Linux has (`RLIM_NLIMITS`).
const RLIMITS: u32 = 16;

/// What the command there gets of this process.
#[derive(Debug)]
pub(super) struct Here {
    /// User, groups and host name.
    pub(super) identity: Identity,
    /// What survives execve(2).
    pub(super) inherited: Inherited,
    /// Raw entries, in order, with duplicates and entries without `=`.
    pub(super) env: Vec<ByteVec>,
    /// Physical working directory (getcwd(2)); the logical one is `PWD` in `env`.
    pub(super) cwd: ByteVec,
}

/// A part of what was inherited could not be read.
#[derive(Debug, Error)]
pub(super) enum InheritedError {
    /// The directory was removed, or is outside of the root.
    #[error("the working directory does not exist any more")]
    CwdGone,
    /// getcwd(2) failed.
    #[error("cannot find out the working directory")]
    Cwd(#[source] Errno),
    /// getgroups(2) failed.
    #[error("cannot read the groups of this process")]
    Groups(#[source] Errno),
}

/// Reads all of it.
pub(super) fn capture() -> Result<Here, InheritedError> {
    Ok(Here {
        identity: identity()?,
        inherited: Inherited {
            umask: umask(),
            rlimits: rlimits(),
            nice: nice(),
            blocked: AT_START.blocked.load(Ordering::Relaxed),
            ignored: AT_START.ignored.load(Ordering::Relaxed),
            oom_score_adj: oom_score_adj(),
        },
        env: environment(),
        cwd: cwd()?,
    })
}

/// Whether descriptor 0, 1 or 2 was closed when this process started. Rust's runtime has opened /dev/null there since.
pub(super) fn was_closed(fd: u32) -> bool {
    fd <= 2 && AT_START.closed.load(Ordering::Relaxed) & (1 << fd) != 0
}

/// What has to be read before Rust's runtime starts: it ignores SIGPIPE and opens /dev/null for closed descriptors.
struct AtStart {
    ignored: AtomicU64,
    blocked: AtomicU64,
    closed: AtomicU8,
}

static AT_START: AtStart = AtStart { ignored: AtomicU64::new(0), blocked: AtomicU64::new(0), closed: AtomicU8::new(0) };

// SAFETY: the section holds pointers to functions that libc calls, one after the other and before main, with argc, argv
// and envp, which a C function may leave alone.
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD: extern "C" fn() = record;

/// Only async-signal-safe calls and atomics: nothing of Rust's runtime is set up yet.
extern "C" fn record() {
    let mut ignored = 0;
    let mut blocked = 0u64;
    // The system calls themselves: libc hides two signals that it keeps for itself, which may be ignored all the same.
    // SAFETY: both calls only ask, and fill in as many bytes as they are told: the kernel's sigaction begins with the
    // handler and takes 32 bytes at most, its signal set has 64 bits.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, 0usize, &raw mut blocked, 8);
        for signal in 1..=64 {
            let mut action = [0usize; 8];
            let done = libc::syscall(libc::SYS_rt_sigaction, signal, 0usize, &raw mut action, 8);
            if done == 0 && action[0] == libc::SIG_IGN {
                ignored |= bit(signal);
            }
        }
    }
    let mut closed = 0;
    for fd in 0..3 {
        // SAFETY: F_GETFD takes no third argument and changes nothing.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            closed |= 1 << fd;
        }
    }
    AT_START.ignored.store(ignored, Ordering::Relaxed);
    AT_START.blocked.store(blocked, Ordering::Relaxed);
    AT_START.closed.store(closed, Ordering::Relaxed);
}

/// The bit of a signal in [`Inherited::ignored`] and [`Inherited::blocked`].
pub(super) fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

fn identity() -> Result<Identity, InheritedError> {
    // Keeps the linker from leaving out the object that holds the recorder.
    std::hint::black_box(&RECORD);
    let groups = rustix::process::getgroups().map_err(InheritedError::Groups)?;
    Ok(Identity {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups: groups.into_iter().map(|group| group.as_raw()).collect(),
        hostname: rustix::system::uname().nodename().to_bytes().to_vec().into(),
    })
}

fn umask() -> u32 {
    // There is no call that only asks; /proc has it since Linux 4.7 and spares the moment with a wrong mask.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(mask) = status.lines().find_map(|line| line.strip_prefix("Umask:"))
        && let Ok(mask) = u32::from_str_radix(mask.trim(), 8)
    {
        return mask;
    }
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::umask(mask);
    mask.as_raw_mode()
}

fn rlimits() -> Vec<Rlimit> {
    (0..RLIMITS)
        .filter_map(|resource| {
            let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: fills in `limit`; an unknown resource is EINVAL.
            let failed = unsafe { libc::prlimit64(0, resource, std::ptr::null(), &mut limit) } != 0;
            (!failed).then_some(Rlimit { resource, soft: limit.rlim_cur, hard: limit.rlim_max })
        })
        .collect()
}

fn nice() -> i8 {
    rustix::process::getpriority_process(None).ok().and_then(|nice| i8::try_from(nice).ok()).unwrap_or(0)
}

fn oom_score_adj() -> i16 {
    std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn environment() -> Vec<ByteVec> {
    unsafe extern "C" {
        // environ(7); `std::env` leaves out entries without `=` and cannot tell of duplicates.
        static environ: *const *const libc::c_char;
    }
    let mut entries = Vec::new();
    // SAFETY: `environ` is null or a null-terminated array of C strings; nobody in this process changes the environment.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            entries.push(CStr::from_ptr(*next).to_bytes().to_vec().into());
            next = next.add(1);
        }
    }
    entries
}

fn cwd() -> Result<ByteVec, InheritedError> {
    let path = match rustix::process::getcwd(Vec::new()) {
        Ok(path) => path.into_bytes(),
        Err(Errno::NOENT) => return Err(InheritedError::CwdGone),
        Err(errno) => return Err(InheritedError::Cwd(errno)),
    };
    // The kernel says "(unreachable)/..." for a directory outside of the root.
    if path.first() != Some(&b'/') { Err(InheritedError::CwdGone) } else { Ok(path.into()) }
}

/// The value of an environment entry, the first if there are several, as getenv(3).
pub(super) fn variable<'e>(env: &'e [ByteVec], name: &str) -> Option<&'e OsStr> {
    env.iter().find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")).map(OsStr::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_this_process() {
        let here = capture().unwrap();
        assert_eq!(here.cwd.as_slice(), std::env::current_dir().unwrap().as_os_str().as_bytes());
        assert_eq!(here.inherited.rlimits.len(), RLIMITS as usize);
        assert_eq!(variable(&here.env, "PATH"), std::env::var_os("PATH").as_deref());
        assert!(here.inherited.umask <= 0o777);
        assert!(!here.identity.hostname.is_empty());
    }

    #[test]
    fn sigpipe_is_recorded_as_it_was_inherited_and_not_as_rust_sets_it() {
        // Cargo and nextest start tests with the default disposition, Rust's runtime has ignored it by now.
        assert_eq!(AT_START.ignored.load(Ordering::Relaxed) & bit(libc::SIGPIPE), 0);
    }

    #[test]
    fn first_of_duplicate_variables_counts() {
        let env = [b"A".to_vec().into(), b"AB=0".to_vec().into(), b"A=1".to_vec().into(), b"A=2".to_vec().into()];
        assert_eq!(variable(&env, "A"), Some(OsStr::new("1")));
        assert_eq!(variable(&env, "C"), None);
    }
}
