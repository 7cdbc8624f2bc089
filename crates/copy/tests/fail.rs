//! What goes wrong on the way: it is named with its side, operation and path, what stood there stands there still, and
//! everything else is copied.
#![allow(clippy::unwrap_used, reason = "in a test that is the finding")]

mod support;

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use remotely_copy::{CopyError, Failure, Observer, Operation, Options, Progress, Report, Side, fetch, put};
use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount},
};
use support::{Random, Wire, drafts, pair, pair_over};

const NONE: [PathBuf; 0] = [];

fn failed(result: Result<Report, CopyError>) -> Failure {
    match result {
        Err(CopyError::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

fn incomplete(result: Result<Report, CopyError>) -> (Report, Vec<Failure>) {
    match result {
        Err(CopyError::Incomplete { report, failures, unnamed: 0 }) => (*report, failures),
        other => panic!("{other:?}"),
    }
}

fn told(failure: &Failure) -> (Side, Operation, &Path, Errno) {
    (failure.side, failure.operation, &failure.path, Errno::from_raw_os_error(failure.errno as i32))
}

/// A small file system of its own.
struct Small(tempfile::TempDir);

impl Small {
    fn new(size: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        mount("tmpfs", home.path(), "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        Self(home)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_left_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let small = Small::new("1m");
    let pair = pair();
    fs::write(home.path().join("large"), Random(1).bytes(12 << 20)).unwrap();
    fs::write(small.at("large"), b"older").unwrap();
    for options in [Options::default(), Options { sync: false, ..Options::default() }] {
        let up = put(&pair.link, home.path().join("large"), Some(&small.at("large")), &options).await;
        let failure = failed(up);
        assert_eq!(told(&failure), (Side::There, Operation::Write, &*small.at("large"), Errno::NOSPC));
        let down = fetch(&pair.link, home.path().join("large"), Some(&small.at("large")), &options).await;
        assert_eq!(failed(down).side, Side::Here);
        assert_eq!(fs::read(small.at("large")).unwrap(), b"older");
        assert_eq!(drafts(small.0.path()), NONE);
    }

    // What fits of a tree is there, what does not is named.
    fs::create_dir(home.path().join("tree")).unwrap();
    for (name, len) in [("a", 1000), ("b", 2 << 20), ("c", 100_000), ("d", 12 << 20), ("e", 1)] {
        fs::write(home.path().join("tree").join(name), Random(len).bytes(len as usize)).unwrap();
    }
    let result = put(&pair.link, home.path().join("tree"), Some(small.0.path()), &Options::default()).await;
    let (report, failures) = incomplete(result);
    let mut names: Vec<_> = failures.iter().map(told).collect();
    names.sort_by_key(|(_, _, path, _)| path.to_path_buf());
    let [b, d] = ["tree/b", "tree/d"].map(|name| small.at(name));
    assert_eq!(
        names,
        [
            (Side::There, Operation::Write, b.as_path(), Errno::NOSPC),
            (Side::There, Operation::Write, d.as_path(), Errno::NOSPC)
        ]
    );
    assert_eq!((report.files, report.bytes), (3, 101_001));
    // Of what did not fit, not all was sent.
    assert!(report.wire < 12 << 20, "{report:?}");
    assert_eq!(drafts(small.0.path()), NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_destination_is_named() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("tree")).unwrap();
    fs::write(home.path().join("tree/f"), b"x").unwrap();
    let small = Small::new("1m");
    fs::create_dir(small.at("tree")).unwrap();
    mount_remount(small.0.path(), MountFlags::RDONLY, c"").unwrap();
    let pair = pair();
    let failure = failed(put(&pair.link, home.path().join("tree/f"), Some(small.0.path()), &Options::default()).await);
    assert_eq!(told(&failure), (Side::There, Operation::Create, &*small.at("f"), Errno::ROFS));
    let failure =
        failed(fetch(&pair.link, home.path().join("tree"), Some(&small.at("new")), &Options::default()).await);
    assert_eq!(told(&failure), (Side::Here, Operation::MakeDirectory, &*small.at("new"), Errno::ROFS));
    let result = fetch(&pair.link, home.path().join("tree"), Some(small.0.path()), &Options::default()).await;
    assert_eq!(told(&incomplete(result).1[0]).3, Errno::ROFS);
    assert!(failure.to_string().ends_with("(here): Read-only file system (os error 30)"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_or_made_does_not_keep_the_rest() {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path);
    fs::create_dir_all(at("tree/file-here/below")).unwrap();
    fs::create_dir_all(at("tree/m")).unwrap();
    fs::write(at("tree/file-here/below/f"), b"1").unwrap();
    for name in ["a", "dir-here", "link-here", "m/n", "z"] {
        fs::write(at("tree").join(name), name).unwrap();
    }
    fs::create_dir(at("tree/dir-link")).unwrap();
    fs::write(at("tree/dir-link/f"), b"2").unwrap();
    // There, other things have these names.
    fs::create_dir_all(at("copy/dir-here/full")).unwrap();
    fs::write(at("copy/file-here"), b"file").unwrap();
    fs::create_dir(at("outside")).unwrap();
    fs::write(at("outside/kept"), b"kept").unwrap();
    symlink(at("outside"), at("copy/dir-link")).unwrap();
    symlink(at("outside/kept"), at("copy/link-here")).unwrap();
    let pair = pair();
    for up in [true, false] {
        let result = match up {
            true => put(&pair.link, at("tree/."), Some(&at("copy")), &Options::default()).await,
            false => fetch(&pair.link, at("tree/."), Some(&at("copy")), &Options::default()).await,
        };
        let (report, mut failures) = incomplete(result);
        failures.sort_by(|a, b| a.path.cmp(&b.path));
        let side = if up { Side::There } else { Side::Here };
        let [dir_here, dir_link, file_here] = ["copy/dir-here", "copy/dir-link", "copy/file-here"].map(at);
        assert_eq!(
            failures.iter().map(told).collect::<Vec<_>>(),
            [
                (side, Operation::Rename, dir_here.as_path(), Errno::ISDIR),
                (side, Operation::MakeDirectory, dir_link.as_path(), Errno::EXIST),
                (side, Operation::MakeDirectory, file_here.as_path(), Errno::EXIST),
            ]
        );
        assert_eq!(report.files, 4);
        assert_eq!(fs::read(at("copy/m/n")).unwrap(), b"m/n");
        assert_eq!(fs::read(at("copy/file-here")).unwrap(), b"file");
        // A symbolic link is replaced, never followed.
        assert_eq!(fs::read(at("copy/link-here")).unwrap(), b"link-here");
        assert_eq!(fs::read_dir(at("outside")).unwrap().count(), 1);
        assert_eq!(fs::read(at("outside/kept")).unwrap(), b"kept");
        assert_eq!(drafts(home.path()), NONE);
        fs::remove_file(at("copy/link-here")).unwrap();
        symlink(at("outside/kept"), at("copy/link-here")).unwrap();
    }
}

#[test]
fn permission_denied_in_the_middle() {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path);
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir_all(at("tree/closed")).unwrap();
    for name in ["a", "closed/in", "secret", "z"] {
        fs::write(at("tree").join(name), name).unwrap();
    }
    for (name, mode) in [("tree/closed", 0o000), ("tree/secret", 0o000), ("tree", 0o755)] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    // Root is denied nothing: threads of this test are somebody else, and those that they start.
    let denied = thread::spawn({
        let (tree, copy) = (at("tree"), at("copy"));
        move || {
            // SAFETY: the calls change the ids of this thread only, and of those that it starts.
            unsafe {
                assert_eq!(libc::syscall(libc::SYS_setresgid, 4242, 4242, 4242), 0);
                assert_eq!(libc::syscall(libc::SYS_setresuid, 4242, 4242, 4242), 0);
            }
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let pair = pair();
                put(&pair.link, &tree, Some(&copy), &Options { owner: true, ..Options::default() }).await
            })
        }
    });
    let (report, mut failures) = incomplete(denied.join().unwrap());
    failures.sort_by(|a, b| a.path.cmp(&b.path));
    let [closed, secret] = ["tree/closed", "tree/secret"].map(at);
    assert_eq!(
        failures.iter().map(told).collect::<Vec<_>>(),
        [
            (Side::Here, Operation::Open, closed.as_path(), Errno::ACCESS),
            (Side::Here, Operation::Open, secret.as_path(), Errno::ACCESS)
        ]
    );
    assert_eq!(report.files, 2);
    assert_eq!(report.skipped.len(), 1, "owners are not given: {report:?}");
    assert_eq!(fs::read(at("copy/z")).unwrap(), b"z");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_read_is_named() {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path);
    fs::create_dir(at("tree")).unwrap();
    fs::write(at("tree/steady"), b"steady").unwrap();
    fs::write(at("tree/log"), Random(1).bytes(7 << 20)).unwrap();
    fs::create_dir(at("copy")).unwrap();
    fs::write(at("copy/log"), b"older").unwrap();
    let (pair, _) = pair_over(&Wire { delay: Duration::from_millis(5), ..Wire::default() });
    for up in [true, false] {
        let done = AtomicBool::new(false);
        let result = thread::scope(|scope| {
            scope.spawn(|| {
                let mut log = fs::File::options().append(true).open(at("tree/log")).unwrap();
                while !done.load(Ordering::Relaxed) {
                    log.write_all(b"line\n").unwrap();
                    thread::sleep(Duration::from_micros(200));
                }
            });
            let result = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async {
                    match up {
                        true => put(&pair.link, at("tree/."), Some(&at("copy")), &Options::default()).await,
                        false => fetch(&pair.link, at("tree/."), Some(&at("copy")), &Options::default()).await,
                    }
                })
            });
            done.store(true, Ordering::Relaxed);
            result
        });
        let (report, failures) = incomplete(result);
        let side = if up { Side::Here } else { Side::There };
        let failures: Vec<_> = failures.iter().map(|f| (f.side, f.operation, f.path.clone(), f.errno)).collect();
        assert_eq!(failures, [(side, Operation::Changed, at("tree/log"), 0)]);
        assert_eq!(report.files, 1);
        assert_eq!(fs::read(at("copy/log")).unwrap(), b"older");
        assert_eq!(drafts(home.path()), NONE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_copies_no_files_says_so() {
    let (client, agent, _) = support::ends(&Wire::default());
    use remotely_session::{LinkBuilder, Role, Settings};
    let settings = |role| Settings { role, ..Settings::default() };
    let (link, _incoming) = LinkBuilder::new(settings(Role::Client)).attach(client, bytes::Bytes::new());
    let (_agent, mut offers) = LinkBuilder::new(settings(Role::Agent)).attach(agent, bytes::Bytes::new());
    tokio::spawn(async move { while offers.next().await.is_some() {} });
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("f"), Random(1).bytes(3 << 20)).unwrap();
    let refused = put(&link, home.path().join("f"), Some(Path::new("/nowhere")), &Options::default()).await;
    assert!(matches!(refused, Err(CopyError::Refused)), "{refused:?}");
    let refused = fetch(&link, "/etc/passwd", Some(&home.path().join("x")), &Options::default()).await;
    assert!(matches!(refused, Err(CopyError::Refused)), "{refused:?}");
    link.close();
    let over = put(&link, home.path().join("f"), None, &Options::default()).await;
    assert!(matches!(over, Err(CopyError::Cut { .. })), "{over:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_files_cost_two_round_trips() {
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let source = home.path().join("source");
    fs::create_dir(&source).unwrap();
    for group in 0..10 {
        let group = source.join(group.to_string());
        fs::create_dir(&group).unwrap();
        for file in 0..1000 {
            fs::write(group.join(file.to_string()), b"little").unwrap();
        }
    }
    let rtt = Duration::from_millis(200);
    let (pair, _) = pair_over(&Wire { delay: rtt / 2, ..Wire::default() });
    pair.link.linked().await.unwrap();
    let options = Options { sync: false, ..Options::default() };
    // What the same costs without a way is not what is tested.
    let near = support::pair();
    let start = Instant::now();
    put(&near.link, &source, Some(&home.path().join("near")), &options).await.unwrap();
    let work = start.elapsed();
    for (name, up) in [("put", true), ("fetch", false)] {
        let start = Instant::now();
        let report = match up {
            true => put(&pair.link, &source, Some(&home.path().join(name)), &options).await.unwrap(),
            false => fetch(&pair.link, &source, Some(&home.path().join(name)), &options).await.unwrap(),
        };
        let took = start.elapsed();
        assert_eq!(report.files, 10_000);
        assert!(took < rtt * 2 + work * 3 + Duration::from_millis(100), "{name} took {took:?}, {work:?} of them work");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told() {
    let home = tempfile::tempdir().unwrap();
    let len = 20 << 20;
    fs::write(home.path().join("f"), Random(1).bytes(len)).unwrap();
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let observer = Observer::new({
        let told = told.clone();
        move |progress: Progress| told.lock().unwrap().push(progress)
    });
    let options = Options { observer: Some(observer), ..Options::default() };
    let pair = pair();
    for up in [true, false] {
        match up {
            true => put(&pair.link, home.path().join("f"), Some(&home.path().join("g")), &options).await.unwrap(),
            false => fetch(&pair.link, home.path().join("f"), Some(&home.path().join("h")), &options).await.unwrap(),
        };
        let told = std::mem::take(&mut *told.lock().unwrap());
        assert!(told.is_sorted_by_key(|progress| progress.bytes));
        let total = Some(len as u64);
        assert_eq!(told.last(), Some(&Progress { files: 1, bytes: len as u64, total }), "{told:?}");
    }
}
