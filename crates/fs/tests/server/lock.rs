//! Locks: those of the mount's processes and those of processes here see each other.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use remotely_proto::fs::{File, Lane, Lock, LockKind, Node, Reply, Request};
use rustix::fs::{FlockOperation, flock};

use crate::rig::{Rig, failed};

const EAGAIN: i32 = libc::EAGAIN;

async fn opened(rig: &Rig) -> File {
    fs::write(rig.path("a"), "content").unwrap();
    let node = rig.node("a").await;
    rig.open_write(node, libc::O_RDWR).await.unwrap()
}

fn setlk(file: File, lock: Lock, wait: bool) -> Request {
    Request::Setlk { file, lock, wait }
}

/// fcntl(2) with a range of this process's or description's.
fn fcntl(file: &fs::File, command: i32, kind: i32, start: i64, len: i64) -> Result<libc::flock, i32> {
    let mut range = libc::flock { l_type: kind as i16, l_whence: 0, l_start: start, l_len: len, l_pid: 0 };
    // SAFETY: the descriptor is open and `range` is what the command takes.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &mut range) } {
        0 => Ok(range),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap()),
    }
}

/// Another process that holds a record lock on bytes 0 to 9 until this is dropped.
struct Holder {
    pid: i32,
    _alive: OwnedFd,
}

impl Holder {
    fn lock(path: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
        let (alive_read, alive) = rustix::pipe::pipe().unwrap();
        let (ready, ready_write) = rustix::pipe::pipe().unwrap();
        // SAFETY: between fork and _exit the child makes system calls only, on memory prepared before.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: as above.
            unsafe {
                libc::close(alive.as_raw_fd());
                let file = libc::open(path.as_ptr(), libc::O_RDWR);
                let mut range: libc::flock = std::mem::zeroed();
                (range.l_type, range.l_len) = (libc::F_WRLCK as i16, 10);
                let locked = libc::fcntl(file, libc::F_SETLK, &range);
                let mut byte = if locked == 0 { b'y' } else { b'n' };
                libc::write(ready_write.as_raw_fd(), (&raw const byte).cast(), 1);
                // Ends when the parent lets go, or dies.
                libc::read(alive_read.as_raw_fd(), (&raw mut byte).cast(), 1);
                libc::_exit(0);
            }
        }
        let mut byte = [0];
        rustix::io::read(&ready, &mut byte).unwrap();
        assert_eq!(&byte, b"y");
        Self { pid, _alive: alive }
    }

    fn release(self) {
        let pid = self.pid;
        drop(self);
        // SAFETY: waits for our own child; a null pointer means that the status is not wanted.
        assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn record_locks_are_seen_both_ways() {
    let rig = Rig::new().await;
    let file = opened(&rig).await;
    let here = fs::File::options().read(true).write(true).open(rig.path("a")).unwrap();
    let lock = Lock { start: 100, end: 199, ..Rig::record_lock(1, LockKind::Write) };
    assert_eq!(rig.query(setlk(file, lock, false)).await, Reply::Done);
    let seen = fcntl(&here, libc::F_GETLK, libc::F_WRLCK, 0, 0).unwrap();
    assert_eq!((i32::from(seen.l_type), seen.l_start, seen.l_len), (libc::F_WRLCK, 100, 100));
    assert_eq!(fcntl(&here, libc::F_OFD_SETLK, libc::F_RDLCK, 150, 1).unwrap_err(), EAGAIN);
    assert!(fcntl(&here, libc::F_OFD_SETLK, libc::F_WRLCK, 200, 1).is_ok());
    // Partly freed.
    let freed = Lock { start: 150, end: 199, ..Rig::record_lock(1, LockKind::Unlock) };
    assert_eq!(rig.query(setlk(file, freed, false)).await, Reply::Done);
    assert!(fcntl(&here, libc::F_OFD_SETLK, libc::F_WRLCK, 150, 1).is_ok());
    let tested = Lock { start: 0, end: i64::MAX as u64, ..Rig::record_lock(1, LockKind::Read) };
    match rig.query(Request::Getlk { file, lock: tested }).await {
        Reply::Lock { lock } => assert_eq!((lock.kind, lock.start, lock.end, lock.pid), (LockKind::Write, 150, 150, 0)),
        other => panic!("{other:?}"),
    }
    // A process here.
    let holder = Holder::lock(&rig.path("a"));
    let lock = Lock { end: 5, ..Rig::record_lock(1, LockKind::Read) };
    assert_eq!(rig.query(setlk(file, lock, false)).await, failed(EAGAIN));
    match rig.query(Request::Getlk { file, lock }).await {
        Reply::Lock { lock } => {
            assert_eq!((lock.kind, lock.start, lock.end, lock.pid), (LockKind::Write, 0, 9, holder.pid as u32));
        }
        other => panic!("{other:?}"),
    }
    let (_, mut waiting) = rig.start(Lane::Query, setlk(file, lock, true), Bytes::new()).await;
    holder.release();
    assert_eq!(waiting.recv().await.unwrap().reply, Reply::Done, "it waited until the process ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_there_exclude_each_other() {
    let rig = Rig::new().await;
    let file = opened(&rig).await;
    for flock in [false, true] {
        let lock = |owner, kind| Lock { flock, ..Rig::record_lock(owner, kind) };
        assert_eq!(rig.query(setlk(file, lock(1, LockKind::Read), false)).await, Reply::Done);
        assert_eq!(rig.query(setlk(file, lock(2, LockKind::Read), false)).await, Reply::Done);
        assert_eq!(rig.query(setlk(file, lock(2, LockKind::Write), false)).await, failed(EAGAIN));
        assert_eq!(rig.query(setlk(file, lock(1, LockKind::Unlock), false)).await, Reply::Done);
        assert_eq!(rig.query(setlk(file, lock(2, LockKind::Write), false)).await, Reply::Done);
        assert_eq!(rig.query(setlk(file, lock(1, LockKind::Read), false)).await, failed(EAGAIN));
        assert_eq!(rig.query(setlk(file, lock(2, LockKind::Unlock), false)).await, Reply::Done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_file_locks_are_seen_both_ways() {
    let rig = Rig::new().await;
    let file = opened(&rig).await;
    let here = fs::File::open(rig.path("a")).unwrap();
    let lock = |kind| Lock { flock: true, ..Rig::record_lock(1, kind) };
    assert_eq!(rig.query(setlk(file, lock(LockKind::Write), false)).await, Reply::Done);
    assert!(flock(&here, FlockOperation::NonBlockingLockShared).is_err());
    assert_eq!(rig.query(setlk(file, lock(LockKind::Unlock), false)).await, Reply::Done);
    flock(&here, FlockOperation::NonBlockingLockShared).unwrap();
    assert_eq!(rig.query(setlk(file, lock(LockKind::Write), false)).await, failed(EAGAIN));
    assert_eq!(rig.query(setlk(file, lock(LockKind::Read), false)).await, Reply::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_waited_for_can_be_withdrawn() {
    let rig = Rig::new().await;
    let file = opened(&rig).await;
    let lock = Rig::record_lock(1, LockKind::Write);
    assert_eq!(rig.query(setlk(file, lock, false)).await, Reply::Done);
    let other = Rig::record_lock(2, LockKind::Write);
    let (id, mut answers) = rig.start(Lane::Query, setlk(file, other, true), Bytes::new()).await;
    assert!(tokio::time::timeout(Duration::from_millis(200), answers.recv()).await.is_err(), "it waits");
    // Meanwhile other questions are answered.
    assert!(rig.list(Node::ROOT).await.is_ok());
    rig.tell(Lane::Query, Request::Cancel { id }, Bytes::new()).await;
    assert_eq!(answers.recv().await.unwrap().reply, failed(libc::EINTR));
    // At once withdrawn.
    let (id, mut answers) = rig.start(Lane::Query, setlk(file, other, true), Bytes::new()).await;
    rig.tell(Lane::Query, Request::Cancel { id }, Bytes::new()).await;
    assert_eq!(answers.recv().await.unwrap().reply, failed(libc::EINTR));
    // Of a file opened for reading only, a lock for writing is refused as here, and the one before is still held.
    assert_eq!(rig.query(setlk(file, other, false)).await, failed(EAGAIN));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_waiters_are_refused() {
    let rig = Rig::new().await;
    let file = opened(&rig).await;
    assert_eq!(rig.query(setlk(file, Rig::record_lock(1, LockKind::Write), false)).await, Reply::Done);
    let mut waiting = Vec::new();
    for owner in 2..258 {
        let lock = Rig::record_lock(owner, LockKind::Write);
        waiting.push(rig.start(Lane::Query, setlk(file, lock, true), Bytes::new()).await.1);
    }
    assert_eq!(rig.query(setlk(file, Rig::record_lock(999, LockKind::Write), true)).await, failed(libc::ENOLCK));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_freed_when_the_link_ends() {
    let rig = Rig::new().await;
    let file = opened(&rig).await;
    let here = fs::File::options().read(true).write(true).open(rig.path("a")).unwrap();
    assert_eq!(rig.query(setlk(file, Rig::record_lock(1, LockKind::Write), false)).await, Reply::Done);
    let (_, _answers) =
        rig.start(Lane::Query, setlk(file, Rig::record_lock(2, LockKind::Write), true), Bytes::new()).await;
    assert_eq!(fcntl(&here, libc::F_OFD_SETLK, libc::F_WRLCK, 0, 0).unwrap_err(), EAGAIN);
    rig.server.stop();
    tokio::time::timeout(Duration::from_secs(30), rig.server.ended()).await.unwrap();
    // A waiter has its description in use until it looks up.
    for _ in 0..100 {
        if fcntl(&here, libc::F_OFD_SETLK, libc::F_WRLCK, 0, 0).is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still locked");
}

/// Each lock that is waited for takes a thread here, and the peer chooses the numbers.
#[tokio::test(flavor = "multi_thread")]
async fn requests_with_the_same_number_do_not_wait_without_limit() {
    let rig = Rig::new().await;
    let file = opened(&rig).await;
    assert_eq!(rig.query(setlk(file, Rig::record_lock(1, LockKind::Write), false)).await, Reply::Done);
    let wait = |owner| setlk(file, Rig::record_lock(owner, LockKind::Write), true);
    let (id, mut answers) = rig.start(Lane::Query, wait(2), Bytes::new()).await;
    for owner in 3..100 {
        rig.send(Lane::Query, id, wait(owner), Bytes::new()).await;
    }
    for _ in 3..100 {
        assert_eq!(answers.recv().await.unwrap().reply, failed(libc::ENOLCK));
    }
    assert_eq!(threads("fs-lock"), 1);
    // The one that waits is still known: it can be withdrawn.
    rig.tell(Lane::Query, Request::Cancel { id }, Bytes::new()).await;
    assert_eq!(answers.recv().await.unwrap().reply, failed(libc::EINTR));
}

/// Threads of this process with that name.
fn threads(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|found| found.trim() == name).count()
}
