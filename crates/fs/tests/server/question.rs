//! Questions: what the server says of files is what stat, read and readdir say here.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    },
    path::Path,
};

use bytes::Bytes;
use remotely_proto::fs::{Attr, DATA_MAX, File, Lane, Node, Reply, Request, Stamp, access, flag};

use crate::rig::{Rig, failed};

fn assert_same(attr: &Attr, path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap();
    assert_eq!(
        (attr.dev, attr.ino, attr.mode, u64::from(attr.nlink), attr.uid, attr.gid, attr.rdev, attr.size, attr.blocks),
        (
            meta.dev(),
            meta.ino(),
            meta.mode(),
            meta.nlink(),
            meta.uid(),
            meta.gid(),
            meta.rdev(),
            meta.size(),
            meta.blocks()
        ),
        "{path:?}"
    );
    assert_eq!(
        [(attr.mtime.sec, attr.mtime.nsec), (attr.ctime.sec, attr.ctime.nsec)],
        [(meta.mtime(), meta.mtime_nsec() as u32), (meta.ctime(), meta.ctime_nsec() as u32)],
        "{path:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_tells_all_types_and_names() {
    let rig = Rig::new().await;
    let odd = OsString::from_vec(b"bad\xff\xfe name\n".to_vec());
    fs::write(rig.dir.join(&odd), "odd").unwrap();
    fs::write(rig.path("file"), "12345").unwrap();
    fs::create_dir(rig.path("dir")).unwrap();
    symlink("some/where", rig.path("link")).unwrap();
    symlink(OsString::from_vec(vec![b'\xe9'; 4000]), rig.path("long")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        rig.path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(rig.path("socket")).unwrap();
    let entries = rig.list(Node::ROOT).await.unwrap();
    let names: HashMap<_, _> = entries.iter().map(|entry| (entry.name.to_vec(), entry)).collect();
    assert_eq!(names.len(), 7);
    for (name, entry) in &names {
        let path = rig.dir.join(std::ffi::OsStr::from_bytes(name));
        assert_same(&entry.attr, &path);
        let target = fs::read_link(&path).ok().map(|target| target.into_os_string().into_vec());
        assert_eq!(entry.target.as_ref().map(|target| target.to_vec()), target);
        assert_eq!(entry.attr.flags, flag::NO_XATTR, "{path:?}");
    }
    assert!(entries.iter().all(|entry| entry.attr.btime.sec > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_attributes_or_several_names_says_so() {
    let rig = Rig::new().await;
    fs::write(rig.path("plain"), "").unwrap();
    fs::write(rig.path("extended"), "").unwrap();
    rustix::fs::setxattr(rig.path("extended"), "user.a", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    fs::hard_link(rig.path("plain"), rig.path("second")).unwrap();
    let (_, extended) = rig.find(Node::ROOT, "extended").await.unwrap();
    assert_eq!(extended.attr.flags, 0);
    let (_, second) = rig.find(Node::ROOT, "second").await.unwrap();
    assert_eq!((second.attr.flags, second.attr.nlink), (flag::NO_XATTR | flag::UNWATCHED, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernels_own_files_are_not_to_be_trusted_for_long_nor_opened() {
    let rig = Rig::with(|_, config| config.root = "/proc".into()).await;
    let (node, entry) = rig.find(Node::ROOT, "version").await.unwrap();
    assert_eq!(entry.attr.flags & flag::UNWATCHED, flag::UNWATCHED);
    assert_eq!(rig.read(node, 0, 10).await, Err(libc::EACCES));
    let (myself, _) = rig.find(Node::ROOT, std::process::id().to_string()).await.unwrap();
    // A magic link is a link, not a way out.
    let (root, _) = rig.find(myself, "root").await.unwrap();
    assert_eq!(rig.find(root, "etc").await.map(|found| found.0), Err(libc::ENOTDIR));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_entries_come_in_pieces_or_not_at_all() {
    const COUNT: usize = 100_000;
    let rig = Rig::new().await;
    fs::create_dir(rig.path("big")).unwrap();
    for index in 0..COUNT {
        fs::File::create(rig.path("big").join(index.to_string())).unwrap();
    }
    let big = rig.node("big").await;
    let entries = rig.list(big).await.unwrap();
    let names: std::collections::HashSet<_> = entries.iter().map(|entry| entry.name.to_vec()).collect();
    assert_eq!((entries.len(), names.len()), (COUNT, COUNT));
    let (some, truncated) = rig.list_up_to(big, 1000).await.unwrap();
    assert_eq!((some.len(), truncated), (1000, true));
    let (all, truncated) = rig.list_up_to(big, COUNT as u32).await.unwrap();
    assert_eq!((all.len(), truncated), (COUNT, false));
    assert!(rig.find(big, "99999").await.is_ok());
    assert_eq!(rig.find(big, "100000").await.map(|found| found.0), Err(libc::ENOENT));
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_whole_and_beyond_4_gib() {
    const FAR: u64 = 5 << 30;
    let rig = Rig::new().await;
    let file = fs::File::create(rig.path("sparse")).unwrap();
    let data: Vec<u8> = (0..DATA_MAX + 1000).map(|at| at as u8 ^ (at >> 8) as u8).collect();
    file.write_all_at(&data, FAR).unwrap();
    let node = rig.node("sparse").await;
    let read = rig.read(node, FAR, u32::MAX).await.unwrap();
    assert!(read[..] == data[..DATA_MAX], "one read is bounded");
    assert!(rig.read(node, FAR + DATA_MAX as u64, u32::MAX).await.unwrap()[..] == data[DATA_MAX..]);
    assert!(rig.read(node, FAR - 10, 20).await.unwrap()[..] == [&[0; 10][..], &data[..10]].concat());
    assert_eq!(rig.read(node, FAR * 2, 10).await.unwrap(), Bytes::new());
    assert_eq!(rig.read(node, u64::MAX - 5, 10).await.unwrap(), Bytes::new());

    let open = File(rig.number());
    rig.tell(Lane::Query, Request::Open { node, file: open }, Bytes::new()).await;
    let seek = |offset, hole| rig.query(Request::Seek { file: open, offset, hole });
    assert_eq!(seek(0, false).await, Reply::Offset { offset: FAR });
    assert_eq!(seek(0, true).await, Reply::Offset { offset: 0 });
    assert_eq!(seek(FAR * 2, false).await, failed(libc::ENXIO));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_says_which_state_of_the_file_it_comes_from() {
    let rig = Rig::new().await;
    fs::write(rig.path("a"), "content").unwrap();
    let (node, entry) = rig.find(Node::ROOT, "a").await.unwrap();
    let request = Request::Read { node, file: None, offset: 3, len: 100 };
    let answer = rig.ask_with(Lane::Query, request, Bytes::new()).await;
    assert_eq!((answer.reply, &answer.payload[..]), (Reply::Data { stamp: entry.attr.stamp() }, &b"tent"[..]));
    assert_ne!(entry.attr.stamp(), Stamp::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_outlives_its_name() {
    let rig = Rig::new().await;
    fs::write(rig.path("a"), "still here").unwrap();
    let node = rig.node("a").await;
    let file = File(rig.number());
    assert!(rig.attr_of(Lane::Query, Request::Open { node, file }, Bytes::new()).await.is_ok());
    fs::remove_file(rig.path("a")).unwrap();
    assert_eq!(&rig.read_file(node, Some(file), 0, 100).await.unwrap()[..], b"still here");
    let attr = rig.attr_of(Lane::Query, Request::Getattr { node, file: Some(file) }, Bytes::new()).await.unwrap();
    assert_eq!(attr.nlink, 0);
    rig.tell(Lane::Query, Request::Release { file }, Bytes::new()).await;
    assert_eq!(rig.attr_of(Lane::Query, Request::Getattr { node, file: None }, Bytes::new()).await, Err(libc::ESTALE));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_inode_under_the_name_is_stale() {
    let rig = Rig::new().await;
    fs::create_dir(rig.path("d")).unwrap();
    fs::write(rig.path("d/a"), "old").unwrap();
    let node = rig.node("d/a").await;
    fs::write(rig.path("d/new"), "new").unwrap();
    fs::rename(rig.path("d/new"), rig.path("d/a")).unwrap();
    assert_eq!(rig.read(node, 0, 10).await, Err(libc::ESTALE));
    assert_eq!(rig.read(Node(777_777), 0, 10).await, Err(libc::ESTALE));
    // The same inode under a name that the mount was told of later.
    fs::write(rig.path("d/b"), "b").unwrap();
    let (node, mut entry) = rig.find(rig.node("d").await, "b").await.unwrap();
    fs::rename(rig.path("d/b"), rig.path("c")).unwrap();
    entry.name = b"c".to_vec().into();
    let bindings = vec![remotely_proto::fs::Binding {
        node,
        parent: Node::ROOT,
        name: entry.name,
        dev: entry.attr.dev,
        ino: entry.attr.ino,
        btime: entry.attr.btime,
    }];
    rig.tell(Lane::Query, Request::Bind { bindings }, Bytes::new()).await;
    assert_eq!(&rig.read(node, 0, 10).await.unwrap()[..], b"b");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_inode_of_the_same_number_is_stale() {
    let rig = Rig::new().await;
    let path = rig.path("a");
    let (mut make, mut again): (fn(&Path), _) = (|path| fs::write(path, "").unwrap(), 0);
    for kind in ["file", "directory"] {
        make(&path);
        // File systems like to give a number that has just become free.
        let node = loop {
            let (node, entry) = rig.find(Node::ROOT, "a").await.unwrap();
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
            make(&path);
            if fs::metadata(&path).unwrap().ino() == entry.attr.ino {
                break node;
            }
            again += 1;
            assert!(again < 1000, "this file system does not");
        };
        let attr = rig.attr_of(Lane::Query, Request::Getattr { node, file: None }, Bytes::new()).await;
        assert_eq!(attr, Err(libc::ESTALE), "{kind}");
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        make = |path| fs::create_dir(path).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_values_and_figures() {
    let rig = Rig::new().await;
    symlink("/target", rig.path("link")).unwrap();
    fs::write(rig.path("a"), "").unwrap();
    rustix::fs::setxattr(rig.path("a"), "user.one", b"\0\xff", rustix::fs::XattrFlags::empty()).unwrap();
    let (link, a) = (rig.node("link").await, rig.node("a").await);
    assert_eq!(rig.query(Request::Readlink { node: link }).await, Reply::Target { target: b"/target".to_vec().into() });
    assert_eq!(rig.query(Request::Readlink { node: a }).await, failed(libc::EINVAL));
    let name = b"user.one".to_vec().into();
    let answer = rig.ask_with(Lane::Query, Request::Getxattr { node: a, name }, Bytes::new()).await;
    assert_eq!((answer.reply, &answer.payload[..]), (Reply::Value, &b"\0\xff"[..]));
    let answer = rig.ask_with(Lane::Query, Request::Listxattr { node: a }, Bytes::new()).await;
    assert_eq!((answer.reply, &answer.payload[..]), (Reply::Value, &b"user.one\0"[..]));
    let name = b"user.two".to_vec().into();
    assert_eq!(rig.query(Request::Getxattr { node: a, name }).await, failed(libc::ENODATA));
    let here = rustix::fs::statvfs(&rig.dir).unwrap();
    match rig.query(Request::Statfs { node: Node::ROOT }).await {
        Reply::Statfs { statfs } => {
            assert_eq!((statfs.blocks, u64::from(statfs.frsize)), (here.f_blocks, here.f_frsize))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_may_do_all_but_execute_what_nobody_may() {
    assert!(rustix::process::geteuid().is_root(), "these tests run as root");
    let rig = Rig::new().await;
    for (name, mode) in [("secret", 0o000), ("tool", 0o001)] {
        fs::write(rig.path(name), "").unwrap();
        fs::set_permissions(rig.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let (_, secret) = rig.find(Node::ROOT, "secret").await.unwrap();
    let (_, tool) = rig.find(Node::ROOT, "tool").await.unwrap();
    assert_eq!(secret.attr.access, access::READ | access::WRITE);
    assert_eq!(tool.attr.access, access::READ | access::WRITE | access::EXEC);
}
