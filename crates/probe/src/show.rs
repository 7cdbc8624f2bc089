//! Everything that this process was given, as one line of JSON. Opens nothing before it has looked at what is open.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{FileType, Stat};
use rustix::io::FdFlags;

use crate::json::{self, Object};

/// Prints it.
pub(crate) fn everything(argv: &[Vec<u8>]) -> Result<i32, String> {
    let mut all = Object::new();
    all.raw("fds", &fds());
    all.raw("argv", &json::list(argv.iter().map(|word| json::bytes(word))));
    all.raw("env", &environment());
    all.bytes("cwd", rustix::process::getcwd(Vec::new()).unwrap_or_default().as_bytes());
    terminal(&mut all);
    processes(&mut all);
    identity(&mut all);
    inherited(&mut all);
    crate::print(&(all.end() + "\n")).map(|()| 0)
}

fn fds() -> String {
    let mut numbers: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .map(|dir| dir.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
        .unwrap_or_default();
    numbers.sort_unstable();
    // The directory itself is closed by now, and fails here.
    json::list(numbers.into_iter().filter_map(fd))
}

fn fd(number: i32) -> Option<String> {
    // SAFETY: the number was in use a moment ago; if it is not any more the first call fails.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let stat = rustix::fs::fstat(fd).ok()?;
    let flags = rustix::io::fcntl_getfd(fd).ok()?;
    let mut object = Object::new();
    object.value("fd", number);
    object.raw("type", &format!("\"{}\"", kind(&stat)));
    object.optional("flags", rustix::fs::fcntl_getfl(fd).ok().map(|flags| flags.bits()));
    object.optional("offset", rustix::fs::tell(fd).ok());
    object.value("cloexec", flags.contains(FdFlags::CLOEXEC));
    object.value("dev", stat.st_dev).value("ino", stat.st_ino).value("rdev", stat.st_rdev);
    object.value("tty", rustix::termios::isatty(fd));
    let target = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default();
    object.bytes("target", std::os::unix::ffi::OsStrExt::as_bytes(target.as_os_str()));
    Some(object.end())
}

fn kind(stat: &Stat) -> &'static str {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "unknown",
    }
}

fn environment() -> String {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    let mut entries = Vec::new();
    // SAFETY: null, or a null-terminated array of C strings that nobody changes.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            entries.push(json::bytes(CStr::from_ptr(*next).to_bytes()));
            next = next.add(1);
        }
    }
    json::list(entries)
}

fn terminal(all: &mut Object) {
    // SAFETY: closed ones only make the calls fail.
    let standard = [0, 1, 2].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
    all.list("isatty", standard.map(rustix::termios::isatty));
    let terminal = standard.into_iter().find(|fd| rustix::termios::isatty(fd));
    let size = terminal.and_then(|fd| rustix::termios::tcgetwinsize(fd).ok());
    all.raw("size", &size.map_or("null".into(), |size| format!("[{},{}]", size.ws_row, size.ws_col)));
    let mut modes = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: filled in by tcgetattr if it succeeds.
    let modes = terminal.and_then(|fd| unsafe {
        (libc::tcgetattr(fd.as_raw_fd(), modes.as_mut_ptr()) == 0).then(|| modes.assume_init())
    });
    let text = modes.map_or("null".into(), |modes| {
        let mut object = Object::new();
        object.value("iflag", modes.c_iflag).value("oflag", modes.c_oflag);
        object.value("cflag", modes.c_cflag).value("lflag", modes.c_lflag);
        object.bytes("cc", &modes.c_cc[..19]);
        object.end()
    });
    all.raw("termios", &text);
    let foreground = terminal.and_then(|fd| rustix::termios::tcgetpgrp(fd).ok());
    all.optional("tpgid", foreground.map(|group| group.as_raw_pid()));
}

fn processes(all: &mut Object) {
    // Not rustix's: a group or session of another pid namespace has the number 0 here, which its `Pid` can't hold.
    // SAFETY: they take nothing, or a number.
    let (pid, ppid, pgid, sid) = unsafe { (libc::getpid(), libc::getppid(), libc::getpgrp(), libc::getsid(0)) };
    all.value("pid", pid).value("ppid", ppid).value("pgid", pgid).value("sid", sid);
}

fn identity(all: &mut Object) {
    let (mut uid, mut gid) = ([0u32; 3], [0u32; 3]);
    // SAFETY: both calls fill in three integers.
    unsafe {
        libc::getresuid(&mut uid[0], &mut uid[1], &mut uid[2]);
        libc::getresgid(&mut gid[0], &mut gid[1], &mut gid[2]);
    }
    all.list("uid", uid).list("gid", gid);
    let mut groups: Vec<u32> =
        rustix::process::getgroups().unwrap_or_default().into_iter().map(|group| group.as_raw()).collect();
    groups.sort_unstable();
    all.list("groups", groups);
    all.bytes("hostname", rustix::system::uname().nodename().to_bytes());
}

fn inherited(all: &mut Object) {
    let limits = (0..16).map(|resource| {
        let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: fills in the limit.
        unsafe { libc::prlimit64(0, resource, std::ptr::null(), &mut limit) };
        format!("[{},{}]", limit.rlim_cur, limit.rlim_max)
    });
    all.raw("rlimits", &json::list(limits));
    all.optional("nice", rustix::process::getpriority_process(None).ok());
    // SAFETY: plain system calls on this process; 1 is IOPRIO_WHO_PROCESS.
    let (ioprio, policy, dumpable) = unsafe {
        (libc::syscall(libc::SYS_ioprio_get, 1, 0), libc::sched_getscheduler(0), libc::prctl(libc::PR_GET_DUMPABLE))
    };
    all.value("ioprio", ioprio).value("sched", policy).value("dumpable", dumpable);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let number = |name: &str, radix| field(name).and_then(|text| u64::from_str_radix(text, radix).ok());
    all.optional("umask", number("Umask:", 8));
    all.optional("blocked", number("SigBlk:", 16));
    all.optional("ignored", number("SigIgn:", 16));
    all.optional("caught", number("SigCgt:", 16));
    all.optional("seccomp", number("Seccomp:", 10));
    all.optional("no_new_privs", number("NoNewPrivs:", 10));
    let adjustment = std::fs::read_to_string("/proc/self/oom_score_adj").ok();
    all.optional("oom_score_adj", adjustment.and_then(|text| text.trim().parse::<i32>().ok()));
}
