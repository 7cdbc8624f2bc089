//! Open files of the mount: who is told of writes that failed late, what locks bring and when they go, and that what is open
//! there stays open whatever happens to its name here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(dead_code, reason = "the support has more than this needs")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use support::{Choice, Mounted, eventually};

fn both(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// A lock of the open file description on all of it.
fn ofd(file: &File, command: i32, kind: i32) -> Result<(), i32> {
    let range = libc::flock { l_type: kind as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    // SAFETY: the descriptor is open and `range` is what the command takes.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &range) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap()),
    }
}

fn lock(file: &File) {
    ofd(file, libc::F_OFD_SETLKW, libc::F_WRLCK).unwrap();
}

fn unlock(file: &File) {
    ofd(file, libc::F_OFD_SETLK, libc::F_UNLCK).unwrap();
}

/// close(2) of one descriptor, with what it says.
fn close(file: File) -> Result<(), i32> {
    // SAFETY: the descriptor is the file's own, which has let go of it.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap()),
    }
}

fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().map(|error| error.raw_os_error().unwrap())
}

/// A mount of a full file system, and a write to `f` there that failed after it was answered, through the first of three
/// open files: two for writing, one for reading.
fn failed_late(m: &Mounted) -> [File; 3] {
    fs::write(m.here.join("f"), b"").unwrap();
    let fill = File::create(m.here.join("fill")).unwrap();
    while fill.write_at(&[1; 4096], fill.metadata().unwrap().len()).is_ok() {}
    let path = m.there.join("f");
    let files = [both(&path), both(&path), File::open(&path).unwrap()];
    // One page, which the kernel gives in one piece.
    files[0].write_all_at(&[2; 4096], 0).unwrap();
    // All that was sent has been answered after it.
    fs::set_permissions(m.there.join("fill"), fs::Permissions::from_mode(0o600)).unwrap();
    files
}

const FULL: Option<i32> = Some(libc::ENOSPC);

#[test]
fn everyone_who_had_the_file_open_is_told_once_of_a_late_error() {
    let m = Mounted::with(Choice { room: Some(1 << 20), ..Choice::default() });
    let [writer, other, reader] = failed_late(&m);
    assert_eq!(errno(writer.write_at(b"x", 0)), FULL, "the next write");
    fs::remove_file(m.here.join("fill")).unwrap();
    assert_eq!(errno(writer.write_at(b"x", 0)), None, "which is told once");
    assert_eq!(errno(writer.sync_all()), FULL, "and what was written is not there all the same");
    assert_eq!(errno(writer.sync_all()), None);
    assert_eq!(close(writer), Ok(()));
    let late = both(&m.there.join("f"));
    assert_eq!(errno(late.sync_all()), None, "opened when somebody had been told");
    assert_eq!(errno(other.sync_all()), FULL, "another open file");
    assert_eq!(errno(other.sync_all()), None, "which is told once");
    assert_eq!(errno(reader.sync_all()), FULL, "a reader who asks for it");
    assert_eq!(close(other), Ok(()));
}

#[test]
fn a_close_that_nobody_looks_at_takes_no_error_from_others() {
    let m = Mounted::with(Choice { room: Some(1 << 20), ..Choice::default() });
    let [writer, other, reader] = failed_late(&m);
    assert_eq!(close(reader), Ok(()), "a reader lost nothing");
    // As at the end of a process that was forked.
    let copy = writer.try_clone().unwrap();
    assert_eq!(close(copy), Err(libc::ENOSPC));
    assert_eq!(close(other), Err(libc::ENOSPC));
    assert_eq!(errno(writer.sync_all()), FULL);
    assert_eq!(close(writer), Ok(()), "told by fsync");
}

#[test]
fn a_write_that_comes_back_short_has_told_nothing() {
    let m = Mounted::with(Choice { room: Some(1 << 20), ..Choice::default() });
    let path = m.there.join("f");
    File::create(&path).unwrap();
    for _ in 0..10 {
        let writer = both(&path);
        // It may fail at its first, second or third part, or when it is over.
        let outcome = match writer.write_at(&[1; 3 << 20], 0) {
            Ok(len) if len < 3 << 20 => writer.write_at(b"go on", len as u64),
            whole => whole,
        };
        let told = errno(outcome).or_else(|| errno(writer.sync_all()));
        assert_eq!(told, FULL);
        writer.set_len(0).unwrap();
    }
}

#[test]
fn a_close_after_much_waits_for_its_own_writes_again() {
    let m = Mounted::with(Choice { room: Some(1 << 20), ..Choice::default() });
    let path = m.there.join("f");
    File::create(&path).unwrap();
    let (writer, bystander) = (both(&path), both(&path));
    // Whatever that says itself: with a buffer that is not in memory yet, the kernel cuts it in many parts.
    let written = writer.write_at(&[1; 3 << 20], 0);
    let _ = close(bystander);
    assert_eq!(close(writer), Err(libc::ENOSPC), "{written:?}");
}

#[test]
fn a_lock_shows_what_its_last_holder_wrote() {
    let m = Mounted::new();
    fs::write(m.here.join("f"), vec![b'0'; 8192]).unwrap();
    let (here, there) = (both(&m.here.join("f")), both(&m.there.join("f")));
    for kind in ["record", "flock"] {
        for round in 0..200u32 {
            let text = format!("{kind} {round:08}");
            if kind == "record" {
                lock(&here)
            } else {
                flock(&here, FlockOperation::LockExclusive).unwrap()
            };
            here.write_all_at(text.as_bytes(), 5000).unwrap();
            if kind == "record" {
                unlock(&here)
            } else {
                flock(&here, FlockOperation::Unlock).unwrap()
            };
            if kind == "record" {
                lock(&there)
            } else {
                flock(&there, FlockOperation::LockShared).unwrap()
            };
            let mut seen = vec![0; text.len()];
            there.read_exact_at(&mut seen, 5000).unwrap();
            assert_eq!(String::from_utf8_lossy(&seen), text);
            if kind == "record" {
                unlock(&there)
            } else {
                flock(&there, FlockOperation::Unlock).unwrap()
            };
        }
    }
    // One that got longer, too.
    for round in 0..50u64 {
        lock(&here);
        here.write_all_at(b"more", 8192 + 4 * round).unwrap();
        unlock(&here);
        lock(&there);
        assert_eq!(there.metadata().unwrap().len(), 8196 + 4 * round);
        let mut end = [0; 9];
        assert_eq!(there.read_at(&mut end, 8192 + 4 * round).unwrap(), 4);
        unlock(&there);
    }
}

#[test]
fn a_counter_under_a_lock_loses_nothing() {
    let m = Mounted::new();
    fs::write(m.here.join("f"), b"00000000").unwrap();
    let rounds = 150;
    std::thread::scope(|scope| {
        for path in [m.here.join("f"), m.there.join("f"), m.there.join("f")] {
            scope.spawn(move || {
                let file = both(&path);
                for _ in 0..rounds {
                    lock(&file);
                    let mut digits = [0; 8];
                    file.read_exact_at(&mut digits, 0).unwrap();
                    let count: u32 = std::str::from_utf8(&digits).unwrap().parse().unwrap();
                    file.write_all_at(format!("{:08}", count + 1).as_bytes(), 0).unwrap();
                    unlock(&file);
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
        }
    });
    assert_eq!(fs::read_to_string(m.here.join("f")).unwrap(), format!("{:08}", 3 * rounds));
}

#[test]
fn locks_of_an_open_file_end_with_it() {
    let m = Mounted::new();
    fs::write(m.here.join("f"), b"text").unwrap();
    let path = m.there.join("f");
    for round in 0..100 {
        let file = both(&path);
        ofd(&file, libc::F_OFD_SETLK, libc::F_WRLCK).unwrap_or_else(|errno| panic!("round {round}: {errno}"));
        let other = both(&path);
        assert_eq!(ofd(&other, libc::F_OFD_SETLK, libc::F_RDLCK), Err(libc::EAGAIN));
        let copy = file.try_clone().unwrap();
        drop(file);
        assert_eq!(ofd(&other, libc::F_OFD_SETLK, libc::F_RDLCK), Err(libc::EAGAIN), "a descriptor is left");
        drop(copy);
    }
    let here = both(&m.here.join("f"));
    eventually("free here", || ofd(&here, libc::F_OFD_SETLK, libc::F_WRLCK).is_ok());
    unlock(&here);
    for round in 0..100 {
        let file = File::open(&path).unwrap();
        let taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
        taken.unwrap_or_else(|errno| panic!("flock, round {round}: {errno}"));
    }
}

extern "C" fn nothing(_: i32) {}

/// Wherever in the way of a request the signal comes: while it waits for writes, is sent, or waits there.
#[test]
fn who_waits_for_a_lock_is_interrupted_at_any_time() {
    // SAFETY: the handler does nothing; without SA_RESTART calls end with EINTR.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
    }
    let m = Mounted::new();
    fs::write(m.here.join("f"), b"text").unwrap();
    let holder = both(&m.here.join("f"));
    lock(&holder);
    let file = Arc::new(both(&m.there.join("f")));
    for round in 0..60 {
        let (about_to, over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let waiter = {
            let (file, about_to, over) = (file.clone(), about_to.clone(), over.clone());
            std::thread::spawn(move || {
                if round % 2 == 0 {
                    file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
                }
                // SAFETY: always succeeds.
                about_to.store(unsafe { libc::pthread_self() } as usize as u32 | 1, Ordering::SeqCst);
                let result = ofd(&file, libc::F_OFD_SETLKW, libc::F_WRLCK);
                over.store(true, Ordering::SeqCst);
                result
            })
        };
        while about_to.load(Ordering::SeqCst) == 0 {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_micros(round * 50));
        let start = Instant::now();
        while !over.load(Ordering::SeqCst) {
            // One may come before the call has begun; the kernel passes on only the first one of a call.
            // SAFETY: the thread has not been joined.
            unsafe { libc::pthread_kill(std::os::unix::thread::JoinHandleExt::as_pthread_t(&waiter), libc::SIGUSR1) };
            if start.elapsed() > Duration::from_secs(5) {
                unlock(&holder);
                panic!("round {round}: not interrupted");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(waiter.join().unwrap(), Err(libc::EINTR), "round {round}");
    }
    unlock(&holder);
    lock(&file);
}

#[test]
fn what_is_open_there_stays_whatever_happens_to_its_name_here() {
    let m = Mounted::new();
    for name in ["replaced", "removed"] {
        fs::write(m.here.join(name), format!("{name}, as it was")).unwrap();
    }
    let open = |name: &str| File::open(m.there.join(name)).unwrap();
    let (replaced, removed) = (open("replaced"), open("removed"));
    // The client hears of it one way later; until then this is a race that it may lose.
    std::thread::sleep(Duration::from_millis(100));
    fs::write(m.here.join("new"), b"new").unwrap();
    fs::rename(m.here.join("new"), m.here.join("replaced")).unwrap();
    fs::remove_file(m.here.join("removed")).unwrap();
    eventually("the new one there", || fs::read(m.there.join("replaced")).is_ok_and(|data| data == b"new"));
    eventually("none there", || !m.there.join("removed").exists());
    for (file, text) in [(replaced, "replaced, as it was"), (removed, "removed, as it was")] {
        let mut data = vec![0; 100];
        let len = file.read_at(&mut data, 0).unwrap();
        assert_eq!(String::from_utf8_lossy(&data[..len]), text);
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.nlink()), (text.len() as u64, 0));
        // What only attributes are asked for finds it, too.
        rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o640)).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o640);
    }
}
