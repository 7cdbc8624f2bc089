//! Order: changes in the order of the lane, questions behind the changes they are about, and knowing when all is applied.

use std::{fs, time::Duration};

use bytes::Bytes;
use remotely_proto::fs::{File, Lane, Node, Reply, Request, SetAttr};

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_sent_without_waiting() {
    let rig = Rig::new().await;
    let dir = rig.make(Node::ROOT, "d", libc::S_IFDIR | 0o755);
    let (make, file) = (rig.make(dir.node, "tmp", 0o644), File(rig.number()));
    let (d, node) = (dir.node, make.node);
    let name = |name: &str| name.as_bytes().to_vec().into();
    rig.tell(Lane::Change, Request::Mknod { make: dir, rdev: 0 }, Bytes::new()).await;
    rig.tell(Lane::Change, Request::Create { make, flags: libc::O_RDWR as u32, file }, Bytes::new()).await;
    for part in 0..100_u64 {
        let request = Request::Write { file, offset: part * 1000, kill_privileges: false, append: false };
        rig.tell(Lane::Change, request, vec![part as u8; 1000]).await;
    }
    let rename = Request::Rename {
        parent: d,
        name: name("tmp"),
        new_parent: Node::ROOT,
        new_name: name("final"),
        flags: 0,
        keep: None,
    };
    rig.tell(Lane::Change, rename, Bytes::new()).await;
    let set = SetAttr { mode: Some(0o400), ..SetAttr::default() };
    rig.tell(Lane::Change, Request::Setattr { node, file: None, set }, Bytes::new()).await;
    rig.tell(Lane::Change, Request::ReleaseWrite { file }, Bytes::new()).await;
    rig.tell(
        Lane::Change,
        Request::Unlink { parent: Node::ROOT, name: name("d"), dir: true, keep: None },
        Bytes::new(),
    )
    .await;
    rig.applied().await;
    assert_eq!(rig.server.failures(), []);
    let content = fs::read(rig.path("final")).unwrap();
    assert!(content.len() == 100_000 && content.iter().enumerate().all(|(at, byte)| *byte == (at / 1000) as u8));
    assert!(!rig.path("d").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_come_behind_the_changes_they_are_about() {
    let rig = Rig::new().await;
    fs::write(rig.path("other"), "other").unwrap();
    let other = rig.node("other").await;
    let (node, file) = rig.create(Node::ROOT, "a").await.unwrap();
    for round in 1..50_u64 {
        let mut answers = Vec::new();
        for part in 0..8 {
            let request =
                Request::Write { file, offset: (round * 8 + part) << 17, kill_privileges: false, append: false };
            answers.push(rig.start(Lane::Change, request, vec![round as u8; 1 << 17]).await.1);
        }
        // The lanes are streams of their own; the first answer says that the changes are there.
        answers[0].recv().await.unwrap();
        let attr = rig.attr_of(Lane::Query, Request::Getattr { node, file: None }, Bytes::new()).await.unwrap();
        assert!(attr.size > (round * 8) << 17);
        assert_eq!(&rig.read(other, 0, 10).await.unwrap()[..], b"other");
    }
    rig.applied().await;
    let attr = rig.attr_of(Lane::Query, Request::Getattr { node, file: None }, Bytes::new()).await.unwrap();
    assert_eq!(attr.size, (50 * 8) << 17);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_more_than_there_will_be_ends_with_the_lanes() {
    let rig = Rig::new().await;
    assert!(rig.server.applied(0).await);
    rig.create(Node::ROOT, "a").await.unwrap();
    rig.applied().await;
    let future = rig.server.applied(1_000_000);
    tokio::pin!(future);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut future).await.is_err());
    rig.cut();
    rig.server.stop();
    assert!(!tokio::time::timeout(Duration::from_secs(30), future).await.unwrap());
    tokio::time::timeout(Duration::from_secs(30), rig.server.ended()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_come_in_is_applied_after_a_stop() {
    let rig = Rig::new().await;
    let (_, file) = rig.create(Node::ROOT, "a").await.unwrap();
    for part in 0..200_u64 {
        let request = Request::Write { file, offset: part << 16, kill_privileges: false, append: false };
        rig.tell(Lane::Change, request, vec![1; 1 << 16]).await;
    }
    let (_, mut last) = rig.start(Lane::Change, Request::ReleaseWrite { file }, Bytes::new()).await;
    last.recv().await.unwrap();
    rig.server.stop();
    tokio::time::timeout(Duration::from_secs(30), rig.server.ended()).await.unwrap();
    assert_eq!(fs::metadata(rig.path("a")).unwrap().len(), 200 << 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_answers_come_after_the_mount_has_said_its_last() {
    let rig = Rig::new().await;
    let (_, file) = rig.create(Node::ROOT, "a").await.unwrap();
    let mut answers = Vec::new();
    for part in 0..300_u64 {
        let request = Request::Write { file, offset: part << 16, kill_privileges: false, append: false };
        answers.push(rig.start(Lane::Change, request, vec![1; 1 << 16]).await.1);
    }
    rig.finish().await;
    for mut answer in answers {
        assert!(matches!(answer.recv().await.unwrap().reply, Reply::Attr { .. }));
    }
    tokio::time::timeout(Duration::from_secs(30), rig.server.ended()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_the_wrong_lane_are_refused() {
    let rig = Rig::new().await;
    let make = rig.make(Node::ROOT, "d", libc::S_IFDIR | 0o755);
    assert_eq!(rig.query(Request::Mknod { make, rdev: 0 }).await, crate::rig::failed(libc::EINVAL));
    assert!(!rig.path("d").exists());
    let request = Request::Getattr { node: Node::ROOT, file: None };
    assert_eq!(rig.change(request).await, crate::rig::failed(libc::EINVAL));
}

#[tokio::test(flavor = "multi_thread")]
async fn random_messages_break_nothing() {
    let rig = Rig::new().await;
    fs::create_dir_all(rig.path("d/e")).unwrap();
    let (_, file) = rig.create(Node::ROOT, "a").await.unwrap();
    let mut seed = 12345_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..3000 {
        let node = Node(random(6));
        let parent = Node(random(6));
        let file = if random(2) == 0 { file } else { File(random(10)) };
        let index = random(7) as usize;
        let name: remotely_proto::ByteVec = [&b"a"[..], b"d", b"e", b"..", b"", b"a/b", b"\xff"][index].to_vec().into();
        let (number, name) = (random(u64::MAX), name);
        let (lane, request) = match random(14) {
            0 => (Lane::Query, Request::Lookup { parent, name }),
            1 => (
                Lane::Query,
                Request::Read { node, file: Some(file), offset: number << random(32), len: number as u32 },
            ),
            2 => (Lane::Query, Request::Seek { file, offset: number << random(40), hole: random(2) == 0 }),
            3 => (Lane::Query, Request::Forget { nodes: vec![node, parent] }),
            4 => (Lane::Change, Request::Write { file, offset: random(1 << 20), kill_privileges: true, append: false }),
            5 => (Lane::Change, Request::Unlink { parent, name, dir: random(2) == 0, keep: Some(node) }),
            6 => {
                let new_parent = Node(random(6));
                let new_name = b"d".to_vec().into();
                (
                    Lane::Change,
                    Request::Rename { parent, name, new_parent, new_name, flags: random(8) as u32, keep: Some(node) },
                )
            }
            7 => {
                let set = SetAttr { uid: Some(number as u32), size: Some(number), ..SetAttr::default() };
                (Lane::Change, Request::Setattr { node, file: Some(file), set })
            }
            8 => {
                let mut make = rig.make(parent, &name[..], number as u32);
                make.node = node;
                (Lane::Change, Request::Mknod { make, rdev: number })
            }
            9 => {
                let binding = remotely_proto::fs::Binding {
                    node,
                    parent,
                    name,
                    dev: random(3),
                    ino: random(20),
                    btime: remotely_proto::fs::Time::default(),
                };
                (Lane::Query, Request::Bind { bindings: vec![binding] })
            }
            10 => {
                let lock = remotely_proto::fs::Lock {
                    start: number,
                    end: random(u64::MAX),
                    ..Rig::record_lock(random(4), remotely_proto::fs::LockKind::Read)
                };
                (Lane::Query, Request::Setlk { file, lock, wait: random(2) == 0 })
            }
            11 => (
                Lane::Change,
                Request::Fallocate { file, offset: random(1 << 20), len: random(1 << 20), mode: random(256) as u32 },
            ),
            12 => (Lane::Change, Request::OpenWrite { node, file, flags: number as u32 }),
            _ => (Lane::Change, Request::Setxattr { node, name, flags: random(4) as u32 }),
        };
        rig.tell(lane, request, Bytes::from_static(b"payload")).await;
    }
    rig.applied().await;
    assert!(matches!(rig.query(Request::Getattr { node: Node::ROOT, file: None }).await, Reply::Attr { .. }));
}
