//! Changes: what the server does is what the same call does here.

use std::{
    fs,
    os::fd::AsRawFd,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
};

use bytes::Bytes;
use remotely_proto::fs::{File, Lane, Node, Reply, Request, SetAttr, SetTime, Time};

use crate::rig::{Rig, failed};

fn unlink(parent: Node, name: &str, dir: bool, keep: Option<Node>) -> Request {
    Request::Unlink { parent, name: name.as_bytes().to_vec().into(), dir, keep }
}

fn rename(from: &str, to: &str, flags: u32, keep: Option<Node>) -> Request {
    Request::Rename {
        parent: Node::ROOT,
        name: from.as_bytes().to_vec().into(),
        new_parent: Node::ROOT,
        new_name: to.as_bytes().to_vec().into(),
        flags,
        keep,
    }
}

fn set(node: Node, set: SetAttr) -> Request {
    Request::Setattr { node, file: None, set }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_written_read_and_truncated() {
    let rig = Rig::new().await;
    let (node, file) = rig.create(Node::ROOT, "a").await.unwrap();
    assert_eq!(rig.write(file, 0, &b"hello world"[..]).await.unwrap().size, 11);
    assert_eq!(rig.write(file, 6, &b"W"[..]).await.unwrap().size, 11);
    assert_eq!(fs::read(rig.path("a")).unwrap(), b"hello World");
    assert_eq!(&rig.read_file(node, Some(file), 6, 100).await.unwrap()[..], b"World");
    let request = set(node, SetAttr { size: Some(5), ..SetAttr::default() });
    assert_eq!(rig.attr_of(Lane::Change, request, Bytes::new()).await.unwrap().size, 5);
    assert_eq!(fs::read(rig.path("a")).unwrap(), b"hello");
    let second = rig.open_write(node, libc::O_WRONLY | libc::O_TRUNC).await.unwrap();
    assert_eq!(fs::read(rig.path("a")).unwrap(), b"");
    rig.write(second, 3, &b"x"[..]).await.unwrap();
    assert_eq!(fs::read(rig.path("a")).unwrap(), b"\0\0\0x");
    assert_eq!(&rig.read_file(node, Some(second), 3, 1).await.unwrap()[..], b"x", "opened for writing only");
    assert_eq!(rig.write(file, 6 << 30, &b"far"[..]).await.unwrap().size, (6 << 30) + 3);
    assert_eq!(rig.change(Request::Fsync { node, file: Some(file), data_only: true }).await, Reply::Done);
    assert_eq!(rig.change(Request::Fsync { node: Node::ROOT, file: None, data_only: false }).await, Reply::Done);
    rig.tell(Lane::Change, Request::ReleaseWrite { file }, Bytes::new()).await;
    assert_eq!(rig.write(file, 0, &b"x"[..]).await, Err(libc::EBADF));
}

#[tokio::test(flavor = "multi_thread")]
async fn appending_appends_to_what_is_there_by_then() {
    let rig = Rig::new().await;
    fs::write(rig.path("log"), "one\n").unwrap();
    let node = rig.node("log").await;
    let file = rig.open_write(node, libc::O_WRONLY | libc::O_APPEND).await.unwrap();
    fs::write(rig.path("log"), "one\ntwo\n").unwrap();
    let append = |append| Request::Write { file, offset: 4, kill_privileges: false, append };
    rig.attr_of(Lane::Change, append(true), &b"three\n"[..]).await.unwrap();
    assert_eq!(fs::read(rig.path("log")).unwrap(), b"one\ntwo\nthree\n");
    // The flag of the descriptor may be another one by now than when it was opened.
    rig.attr_of(Lane::Change, append(false), &b"2"[..]).await.unwrap();
    assert_eq!(fs::read(rig.path("log")).unwrap(), b"one\n2wo\nthree\n");
}

/// Something here has a lease on a file (Samba and NFS servers do): it is told, and the opening waits until it gives it up.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_waited_for() {
    const F_SETLEASE: i32 = 1024;
    const F_GETLEASE: i32 = 1025;
    let rig = Rig::new().await;
    fs::write(rig.path("leased"), "content").unwrap();
    let node = rig.node("leased").await;
    let holder = fs::OpenOptions::new().read(true).write(true).open(rig.path("leased")).unwrap();
    let lease = move |command, kind: i32| {
        // SAFETY: both commands take the open descriptor and an int.
        unsafe { libc::fcntl(holder.as_raw_fd(), command, kind) }
    };
    // SAFETY: the signal that tells of the wish to open is ignored; nothing is run for it.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    assert_eq!(lease(F_SETLEASE, libc::F_WRLCK), 0, "{}", std::io::Error::last_os_error());
    let giving_up = std::thread::spawn(move || {
        while lease(F_GETLEASE, 0) == libc::F_WRLCK {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(lease(F_SETLEASE, libc::F_UNLCK), 0);
    });
    assert_eq!(&rig.read(node, 0, 100).await.unwrap()[..], b"content");
    giving_up.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_what_exists_opens_it_unless_it_must_not_exist() {
    let rig = Rig::new().await;
    fs::write(rig.path("a"), "content").unwrap();
    fs::set_permissions(rig.path("a"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(rig.path("d")).unwrap();
    assert_eq!(rig.create(Node::ROOT, "a").await, Err(libc::EEXIST));
    let create = |name: &str, flags| {
        let make = rig.make(Node::ROOT, name, 0o644);
        Request::Create { make, flags: flags as u32, file: File(rig.number()) }
    };
    let attr = rig.attr_of(Lane::Change, create("a", libc::O_RDWR), Bytes::new()).await.unwrap();
    assert_eq!((attr.size, attr.mode & 0o777), (7, 0o600));
    let attr = rig.attr_of(Lane::Change, create("a", libc::O_RDWR | libc::O_TRUNC), Bytes::new()).await.unwrap();
    assert_eq!(attr.size, 0);
    assert_eq!(rig.change(create("d", libc::O_RDWR)).await, failed(libc::EISDIR));
    let create = Request::Create {
        make: rig.make(Node(4711), "x", 0o644),
        flags: libc::O_RDWR as u32,
        file: File(rig.number()),
    };
    assert_eq!(rig.change(create).await, failed(libc::ESTALE));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_types_are_made_with_the_callers_umask_and_user() {
    let rig = Rig::new().await;
    fs::set_permissions(&rig.dir, fs::Permissions::from_mode(0o777)).unwrap();
    let dev = rustix::fs::makedev(1, 3);
    for (name, kind) in
        [("dir", libc::S_IFDIR), ("file", libc::S_IFREG), ("fifo", libc::S_IFIFO), ("sock", libc::S_IFSOCK)]
    {
        let mut make = rig.make(Node::ROOT, name, kind | 0o777);
        (make.umask, make.caller) = (0o027, (1234, 5678));
        let node = make.node;
        let attr = rig.attr_of(Lane::Change, Request::Mknod { make, rdev: 0 }, Bytes::new()).await.unwrap();
        let meta = fs::symlink_metadata(rig.path(name)).unwrap();
        assert_eq!((meta.mode(), meta.uid(), meta.gid()), (kind | 0o750, 1234, 5678), "{name}");
        assert_eq!((attr.mode, attr.uid, attr.gid, attr.ino), (meta.mode(), 1234, 5678, meta.ino()));
        let again = rig.attr_of(Lane::Query, Request::Getattr { node, file: None }, Bytes::new()).await.unwrap();
        assert_eq!(again.ino, attr.ino, "the new node is bound");
    }
    let make = rig.make(Node::ROOT, "null", libc::S_IFCHR | 0o666);
    let attr = rig.attr_of(Lane::Change, Request::Mknod { make, rdev: dev }, Bytes::new()).await.unwrap();
    assert!(fs::symlink_metadata(rig.path("null")).unwrap().file_type().is_char_device());
    assert_eq!(attr.rdev, dev);
    let mut make = rig.make(Node::ROOT, "link", 0o777);
    make.caller = (1234, 5678);
    match rig.change(Request::Symlink { make, target: b"to/\xff".to_vec().into() }).await {
        Reply::Found { entry, .. } => assert_eq!((entry.attr.uid, &entry.target.unwrap()[..]), (1234, &b"to/\xff"[..])),
        other => panic!("{other:?}"),
    }
    // What the caller may not do here is refused, though this process may.
    fs::set_permissions(&rig.dir, fs::Permissions::from_mode(0o755)).unwrap();
    let mut make = rig.make(Node::ROOT, "forbidden", libc::S_IFDIR | 0o777);
    make.caller = (1234, 5678);
    assert_eq!(rig.change(Request::Mknod { make, rdev: 0 }).await, failed(libc::EACCES));
    assert!(rig.create(Node::ROOT, "ours").await.is_ok(), "and the thread is itself again");
    assert_eq!(fs::metadata(rig.path("ours")).unwrap().uid(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_acl_takes_the_place_of_the_umask() {
    let rig = Rig::new().await;
    // version 2; user::rwx group::rwx mask::rwx other::--- and user:1234:rw-
    let entry =
        |tag: u16, perm: u16, id: u32| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat();
    let acl = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 7, u32::MAX),
        entry(2, 6, 1234),
        entry(4, 7, u32::MAX),
        entry(0x10, 7, u32::MAX),
        entry(0x20, 0, u32::MAX),
    ]
    .concat();
    let name = || b"system.posix_acl_default".to_vec().into();
    let request = Request::Setxattr { node: Node::ROOT, name: name(), flags: 0 };
    assert!(rig.attr_of(Lane::Change, request, acl.clone()).await.is_ok());
    let mut make = rig.make(Node::ROOT, "f", 0o666);
    make.umask = 0o077;
    let request = Request::Create { make, flags: (libc::O_RDWR | libc::O_EXCL) as u32, file: File(rig.number()) };
    let attr = rig.attr_of(Lane::Change, request, Bytes::new()).await.unwrap();
    assert_eq!((attr.mode & 0o777, attr.flags), (0o660, 0), "not 0600: the ACL decides");
    let answer = rig.ask_with(Lane::Query, Request::Getxattr { node: Node::ROOT, name: name() }, Bytes::new()).await;
    assert_eq!(&answer.payload[..], acl);
    let request = Request::Removexattr { node: Node::ROOT, name: name() };
    assert!(rig.attr_of(Lane::Change, request, Bytes::new()).await.is_ok());
    let answer = rig.query(Request::Getxattr { node: Node::ROOT, name: name() }).await;
    assert_eq!(answer, failed(libc::ENODATA));
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_set_to_the_nanosecond() {
    let rig = Rig::new().await;
    fs::write(rig.path("a"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", rig.path("link")).unwrap();
    let at = |sec, nsec| Some(SetTime::At(Time { sec, nsec }));
    for name in ["a", "link"] {
        let node = rig.node(name).await;
        let request = set(
            node,
            SetAttr {
                uid: Some(11),
                gid: Some(12),
                atime: at(-5, 999_999_999),
                mtime: at(123_456_789, 12_345_678),
                ..SetAttr::default()
            },
        );
        assert!(rig.attr_of(Lane::Change, request, Bytes::new()).await.is_ok());
        let meta = fs::symlink_metadata(rig.path(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (11, 12));
        assert_eq!(
            (meta.atime(), meta.atime_nsec(), meta.mtime(), meta.mtime_nsec()),
            (-5, 999_999_999, 123_456_789, 12_345_678)
        );
    }
    let node = rig.node("a").await;
    let request = set(node, SetAttr { mode: Some(0o4711), ..SetAttr::default() });
    assert_eq!(rig.attr_of(Lane::Change, request, Bytes::new()).await.unwrap().mode, libc::S_IFREG | 0o4711);
    let request = set(node, SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() });
    assert!(rig.attr_of(Lane::Change, request, Bytes::new()).await.unwrap().mtime.sec > 1_700_000_000);
    let link = rig.node("link").await;
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    assert_eq!(rig.change(set(link, mode)).await, failed(libc::EOPNOTSUPP));
    let bad = SetAttr { mtime: at(1, 1_000_000_000), ..SetAttr::default() };
    assert_eq!(rig.change(set(node, bad)).await, failed(libc::EINVAL));
    // A writer that is not root there takes the set-user-id bit away, though this process is root.
    let file = rig.open_write(node, libc::O_WRONLY).await.unwrap();
    let request = Request::Write { file, offset: 0, kill_privileges: true, append: false };
    let attr = rig.attr_of(Lane::Change, request, &b"x"[..]).await.unwrap();
    assert_eq!(attr.mode & 0o7777, 0o711);
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_links_count() {
    let rig = Rig::new().await;
    let (node, file) = rig.create(Node::ROOT, "a").await.unwrap();
    fs::create_dir(rig.path("d")).unwrap();
    let d = rig.node("d").await;
    let request = Request::Link { node, file: None, parent: d, name: b"b".to_vec().into() };
    assert_eq!(rig.attr_of(Lane::Change, request.clone(), Bytes::new()).await.unwrap().nlink, 2);
    assert_eq!(rig.change(request).await, failed(libc::EEXIST));
    assert_eq!(fs::metadata(rig.path("a")).unwrap().ino(), fs::metadata(rig.path("d/b")).unwrap().ino());
    rig.removed(unlink(Node::ROOT, "a", false, None)).await;
    rig.write(file, 0, &b"x"[..]).await.unwrap();
    let attr = rig.attr_of(Lane::Query, Request::Getattr { node, file: None }, Bytes::new()).await.unwrap();
    assert_eq!((attr.nlink, attr.size), (1, 1), "found by its other name");
    // A link to a symbolic link is one to itself.
    std::os::unix::fs::symlink("nowhere", rig.path("link")).unwrap();
    let link = rig.node("link").await;
    let request = Request::Link { node: link, file: None, parent: d, name: b"l".to_vec().into() };
    assert_eq!(rig.attr_of(Lane::Change, request, Bytes::new()).await.unwrap().mode & libc::S_IFMT, libc::S_IFLNK);
}

#[tokio::test(flavor = "multi_thread")]
async fn renames_with_all_flags() {
    let rig = Rig::new().await;
    fs::create_dir(rig.path("d")).unwrap();
    fs::write(rig.path("d/x"), "x").unwrap();
    fs::write(rig.path("f"), "f").unwrap();
    let x = rig.node("d/x").await;
    assert_eq!(rig.change(rename("d", "e", 0, None)).await, Reply::Done);
    assert_eq!(&rig.read(x, 0, 9).await.unwrap()[..], b"x", "below a renamed directory");
    assert_eq!(rig.change(rename("f", "e", libc::RENAME_NOREPLACE, None)).await, failed(libc::EEXIST));
    assert_eq!(rig.change(rename("f", "e", libc::RENAME_EXCHANGE, None)).await, Reply::Done);
    assert_eq!(fs::read(rig.path("e")).unwrap(), b"f");
    assert_eq!(&rig.read(x, 0, 9).await.unwrap()[..], b"x", "below an exchanged one");
    assert_eq!(rig.change(rename("e", "g", libc::RENAME_WHITEOUT, None)).await, Reply::Done);
    assert!(fs::symlink_metadata(rig.path("e")).unwrap().file_type().is_char_device());
    assert_eq!(rig.change(rename("e", "g", 1 << 20, None)).await, failed(libc::EINVAL));
    assert_eq!(rig.change(rename("none", "g", 0, None)).await, failed(libc::ENOENT));
    // Two names of one inode: nothing happens.
    fs::hard_link(rig.path("g"), rig.path("h")).unwrap();
    let (g, h) = (rig.node("g").await, rig.node("h").await);
    assert_eq!(rig.change(rename("g", "h", 0, None)).await, Reply::Done);
    for node in [g, h] {
        assert_eq!(&rig.read(node, 0, 9).await.unwrap()[..], b"f");
    }
    assert!(rig.path("g").exists() && rig.path("h").exists());
    // Not into itself.
    let d = rig.node("f").await;
    let request = Request::Rename {
        parent: Node::ROOT,
        name: b"f".to_vec().into(),
        new_parent: d,
        new_name: b"self".to_vec().into(),
        flags: 0,
        keep: None,
    };
    assert_eq!(rig.change(request).await, failed(libc::EINVAL));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lost_its_name_lives_while_it_is_kept() {
    let rig = Rig::new().await;
    let (node, file) = rig.create(Node::ROOT, "a").await.unwrap();
    rig.write(file, 0, &b"content"[..]).await.unwrap();
    assert_eq!(rig.change(unlink(Node::ROOT, "a", true, Some(node))).await, failed(libc::ENOTDIR));
    rig.removed(unlink(Node::ROOT, "a", false, Some(node))).await;
    rig.tell(Lane::Change, Request::ReleaseWrite { file }, Bytes::new()).await;
    rig.applied().await;
    assert_eq!(&rig.read(node, 0, 100).await.unwrap()[..], b"content");
    let again = rig.open_write(node, libc::O_RDWR).await.unwrap();
    assert_eq!(rig.write(again, 7, &b"!"[..]).await.unwrap().nlink, 0);
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    assert!(rig.attr_of(Lane::Change, set(node, mode), Bytes::new()).await.is_ok());
    // Replaced by a rename.
    fs::write(rig.path("old"), "old").unwrap();
    fs::write(rig.path("new"), "new").unwrap();
    let (old, new) = (rig.node("old").await, rig.node("new").await);
    assert_eq!(rig.change(rename("new", "old", 0, Some(old))).await, Reply::Done);
    assert_eq!(&rig.read(old, 0, 100).await.unwrap()[..], b"old");
    assert_eq!(&rig.read(new, 0, 100).await.unwrap()[..], b"new");
    // A directory.
    fs::create_dir(rig.path("d")).unwrap();
    let d = rig.node("d").await;
    rig.removed(unlink(Node::ROOT, "d", true, Some(d))).await;
    assert_eq!(rig.list(d).await.unwrap(), []);
    assert_eq!(rig.create(d, "x").await, Err(libc::ENOENT));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_name_can_be_given_one() {
    let rig = Rig::new().await;
    let (make, file) = (rig.make(Node::ROOT, "", 0o640), File(rig.number()));
    let node = make.node;
    let request = Request::Tmpfile { make, flags: libc::O_RDWR as u32, file };
    assert_eq!(rig.attr_of(Lane::Change, request, Bytes::new()).await.unwrap().nlink, 0);
    rig.write(file, 0, &b"content"[..]).await.unwrap();
    assert_eq!(rig.list(Node::ROOT).await.unwrap(), []);
    let request = Request::Link { node, file: Some(file), parent: Node::ROOT, name: b"named".to_vec().into() };
    assert_eq!(rig.attr_of(Lane::Change, request, Bytes::new()).await.unwrap().nlink, 1);
    assert_eq!(fs::read(rig.path("named")).unwrap(), b"content");
    assert_eq!(fs::metadata(rig.path("named")).unwrap().mode() & 0o777, 0o640);
}

#[tokio::test(flavor = "multi_thread")]
async fn space_and_ranges() {
    let rig = Rig::new().await;
    let (_, a) = rig.create(Node::ROOT, "a").await.unwrap();
    let (_, b) = rig.create(Node::ROOT, "b").await.unwrap();
    let data: Vec<u8> = (0..1 << 20).map(|at: u32| at as u8).collect();
    rig.write(a, 0, data.clone()).await.unwrap();
    let request = Request::CopyRange { file: a, offset: 4096, to: b, to_offset: 0, len: u64::MAX / 2 };
    match rig.change(request).await {
        Reply::Copied { len, attr } => assert_eq!((len, attr.size), ((1 << 20) - 4096, (1 << 20) - 4096)),
        other => panic!("{other:?}"),
    }
    assert!(fs::read(rig.path("b")).unwrap() == data[4096..]);
    let mode = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
    let request = Request::Fallocate { file: a, offset: 0, len: 8192, mode };
    assert_eq!(rig.attr_of(Lane::Change, request, Bytes::new()).await.unwrap().size, 1 << 20);
    assert_eq!(rig.query(Request::Seek { file: a, offset: 0, hole: false }).await, Reply::Offset { offset: 8192 });
    let request = Request::Fallocate { file: a, offset: 0, len: 2 << 20, mode: 0 };
    assert_eq!(rig.attr_of(Lane::Change, request, Bytes::new()).await.unwrap().size, 2 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_failures_are_told_with_their_path() {
    let rig = Rig::new().await;
    fs::create_dir(rig.path("d")).unwrap();
    fs::write(rig.path("d/f"), "").unwrap();
    let d = rig.node("d").await;
    let (f, _) = rig.find(d, "f").await.unwrap();
    let file = rig.open_write(f, libc::O_WRONLY).await.unwrap();
    // Beyond what any file may have.
    let request = || Request::Write { file, offset: 1 << 60, kill_privileges: false, append: false };
    rig.tell(Lane::Change, request(), &b"too far"[..]).await;
    assert_eq!(rig.attr_of(Lane::Change, request(), &b"too far"[..]).await, Err(libc::EFBIG));
    rig.tell(Lane::Change, unlink(d, "none", false, None), Bytes::new()).await;
    // Asked for and answered: not late.
    assert_eq!(rig.change(unlink(d, "none", false, None)).await, failed(libc::ENOENT));
    rig.applied().await;
    let told: Vec<_> = rig.server.failures().into_iter().map(|f| (f.operation, f.path, f.errno as i32)).collect();
    assert_eq!(told, [("write", b"/d/f".to_vec(), libc::EFBIG), ("unlink", b"/d/none".to_vec(), libc::ENOENT)]);
    assert_eq!(rig.server.stats().failures, 3);
}
