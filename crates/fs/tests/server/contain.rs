//! Nothing outside the root, and nothing that was not bound.

use std::{fs, os::unix::fs::symlink};

use bytes::Bytes;
use remotely_proto::fs::{Binding, File, Lane, Node, Reply, Request, SetAttr};

use crate::rig::{Rig, failed};

#[tokio::test(flavor = "multi_thread")]
async fn names_are_single_components() {
    let rig = Rig::new().await;
    fs::create_dir(rig.path("d")).unwrap();
    fs::write(rig.path("d/f"), "").unwrap();
    let long = "x".repeat(256);
    for (name, errno) in
        [("..", libc::EINVAL), (".", libc::EINVAL), ("", libc::EINVAL), ("d/f", libc::EINVAL), ("/etc", libc::EINVAL)]
    {
        assert_eq!(rig.find(Node::ROOT, name).await.map(|found| found.0), Err(errno), "{name:?}");
        assert_eq!(rig.create(Node::ROOT, name).await, Err(errno), "{name:?}");
    }
    assert_eq!(rig.find(Node::ROOT, b"a\0b").await.map(|found| found.0), Err(libc::EINVAL));
    assert_eq!(rig.find(Node::ROOT, &long).await.map(|found| found.0), Err(libc::ENAMETOOLONG));
    let rename = |new: &str| Request::Rename {
        parent: Node::ROOT,
        name: b"d".to_vec().into(),
        new_parent: Node::ROOT,
        new_name: new.as_bytes().to_vec().into(),
        flags: 0,
        keep: None,
    };
    assert_eq!(rig.change(rename("../out")).await, failed(libc::EINVAL));
    let request = Request::Unlink { parent: Node::ROOT, name: b"d/f".to_vec().into(), dir: false, keep: None };
    assert_eq!(rig.change(request).await, failed(libc::EINVAL));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_lead_nowhere() {
    let rig = Rig::new().await;
    symlink("/etc", rig.path("abs")).unwrap();
    symlink("..", rig.path("up")).unwrap();
    symlink("/etc/passwd", rig.path("file")).unwrap();
    for name in ["abs", "up"] {
        let node = rig.node(name).await;
        assert_eq!(rig.find(node, "passwd").await.map(|found| found.0), Err(libc::ENOTDIR));
        assert_eq!(rig.list(node).await.map(|list| list.len()), Err(libc::ENOTDIR));
        assert_eq!(rig.create(node, "x").await, Err(libc::ENOTDIR));
    }
    let file = rig.node("file").await;
    assert_eq!(rig.read(file, 0, 10).await, Err(libc::ELOOP));
    assert_eq!(rig.open_write(file, libc::O_WRONLY).await, Err(libc::ELOOP));
    let set = SetAttr { size: Some(0), ..SetAttr::default() };
    assert_eq!(rig.change(Request::Setattr { node: file, file: None, set }).await, failed(libc::ELOOP));
    // Creating "through" a link that dangles makes nothing.
    symlink(rig.dir.with_extension("escaped"), rig.path("dangling")).unwrap();
    let make = rig.make(Node::ROOT, "dangling", 0o644);
    let request = Request::Create { make, flags: libc::O_WRONLY as u32, file: File(rig.number()) };
    assert_eq!(rig.change(request).await, failed(libc::ELOOP));
    assert!(!rig.dir.with_extension("escaped").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_swapped_for_a_link_is_stale() {
    let rig = Rig::new().await;
    fs::create_dir_all(rig.path("d/e")).unwrap();
    fs::write(rig.path("d/e/f"), "inside").unwrap();
    let node = rig.node("d/e/f").await;
    let (dev, ino) = {
        let (_, entry) = rig.find(rig.node("d/e").await, "f").await.unwrap();
        (entry.attr.dev, entry.attr.ino)
    };
    fs::rename(rig.path("d"), rig.path("away")).unwrap();
    symlink("away", rig.path("d")).unwrap();
    // A new server knows no descriptors: only the names lead there, and they lead through a link.
    let other = Rig::with({
        let dir = rig.dir.clone();
        move |_, config| config.root = dir
    })
    .await;
    let (link, entry) = other.find(Node::ROOT, "d").await.unwrap();
    assert_eq!(entry.attr.mode & libc::S_IFMT, libc::S_IFLNK);
    let below = Node(other.number());
    let bindings = vec![
        Binding {
            node: below,
            parent: link,
            name: b"e".to_vec().into(),
            dev,
            ino: 1,
            btime: remotely_proto::fs::Time::default(),
        },
        Binding {
            node: Node(555),
            parent: below,
            name: b"f".to_vec().into(),
            dev,
            ino,
            btime: remotely_proto::fs::Time::default(),
        },
    ];
    other.tell(Lane::Query, Request::Bind { bindings }, Bytes::new()).await;
    assert_eq!(other.read(Node(555), 0, 10).await, Err(libc::ESTALE));
    let _ = node;
}

#[tokio::test(flavor = "multi_thread")]
async fn circles_of_bindings_end() {
    let rig = Rig::new().await;
    let bindings = (10..3000_u64)
        .map(|n| Binding {
            node: Node(n),
            parent: Node(n + 1),
            name: b"a".to_vec().into(),
            dev: 1,
            ino: n,
            btime: remotely_proto::fs::Time::default(),
        })
        .chain([Binding {
            node: Node(3000),
            parent: Node(10),
            name: b"a".to_vec().into(),
            dev: 1,
            ino: 3000,
            btime: remotely_proto::fs::Time::default(),
        }])
        .collect();
    rig.tell(Lane::Query, Request::Bind { bindings }, Bytes::new()).await;
    assert_eq!(rig.read(Node(10), 0, 10).await, Err(libc::ESTALE));
    // Many names on each level are not tried in every combination.
    for place in 0..4_u8 {
        let bindings = (4000..4500_u64)
            .map(|n| Binding {
                node: Node(n),
                parent: Node(n + 1),
                name: vec![b'a' + place].into(),
                dev: 1,
                ino: n,
                btime: remotely_proto::fs::Time::default(),
            })
            .collect();
        rig.tell(Lane::Query, Request::Bind { bindings }, Bytes::new()).await;
    }
    assert_eq!(rig.read(Node(4000), 0, 10).await, Err(libc::ESTALE));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_files_are_opened() {
    let rig = Rig::new().await;
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, rig.path("fifo"), fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
    let device = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        rig.path("zero"),
        device,
        rustix::fs::Mode::from_raw_mode(0o600),
        rustix::fs::makedev(1, 5),
    )
    .unwrap();
    for (name, errno) in [("fifo", libc::ENXIO), ("zero", libc::EINVAL)] {
        let node = rig.node(name).await;
        assert_eq!(rig.read(node, 0, 10).await, Err(errno));
        assert_eq!(rig.open_write(node, libc::O_RDWR).await, Err(errno));
    }
    assert_eq!(rig.read(Node::ROOT, 0, 10).await, Err(libc::EISDIR));
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_refuses_every_change() {
    let rig = Rig::with(|dir, config| {
        fs::write(dir.join("a"), "as it was").unwrap();
        config.read_only = true;
    })
    .await;
    let node = rig.node("a").await;
    assert_eq!(rig.create(Node::ROOT, "b").await, Err(libc::EROFS));
    assert_eq!(rig.open_write(node, libc::O_RDWR | libc::O_TRUNC).await, Err(libc::EROFS));
    let request = Request::Unlink { parent: Node::ROOT, name: b"a".to_vec().into(), dir: false, keep: None };
    assert_eq!(rig.change(request).await, failed(libc::EROFS));
    let set = SetAttr { mode: Some(0), ..SetAttr::default() };
    assert_eq!(rig.change(Request::Setattr { node, file: None, set }).await, failed(libc::EROFS));
    // syncfs(2) is none.
    let nothing = Request::Setattr { node: Node::ROOT, file: None, set: SetAttr::default() };
    assert!(rig.attr_of(Lane::Change, nothing, Bytes::new()).await.is_ok());
    assert_eq!(&rig.read(node, 0, 100).await.unwrap()[..], b"as it was");
    assert_eq!(rig.change(Request::Fsync { node, file: None, data_only: false }).await, Reply::Done);
}
