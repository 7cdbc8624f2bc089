//! Notices: changes made here by others are told, those of the mount are not.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    sync::Arc,
};

use bytes::Bytes;
use remotely_proto::fs::{Lane, Node, Notice, Reply, Request, SetAttr};

use crate::rig::{Rig, blocking};

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_is_told() {
    let rig = Rig::new().await;
    fs::write(rig.path("before"), "1").unwrap();
    rig.list(Node::ROOT).await.unwrap();
    fs::write(rig.path("new"), "12345").unwrap();
    let entry = rig.changed("new").await.unwrap();
    assert_eq!((entry.attr.ino, entry.attr.size), (fs::metadata(rig.path("new")).unwrap().ino(), 5));
    fs::write(rig.path("before"), "222").unwrap();
    assert_eq!(rig.changed("before").await.unwrap().attr.size, 3);
    fs::set_permissions(rig.path("before"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(rig.changed("before").await.unwrap().attr.mode & 0o777, 0o600);
    fs::rename(rig.path("before"), rig.path("after")).unwrap();
    let mut seen = [rig.notice().await, rig.notice().await];
    seen.sort_by_key(|notice| matches!(notice, Notice::Stale { .. }));
    let Notice::Changed { dir, names } = &seen[0] else { panic!("{seen:?}") };
    let mut names: Vec<_> = names.iter().map(|(name, entry)| (name.to_vec(), entry.is_some())).collect();
    names.sort();
    assert_eq!((*dir, names), (Node::ROOT, vec![(b"after".to_vec(), true), (b"before".to_vec(), false)]));
    symlink("somewhere", rig.path("link")).unwrap();
    assert_eq!(&rig.changed("link").await.unwrap().target.unwrap()[..], b"somewhere");
    fs::remove_file(rig.path("link")).unwrap();
    assert_eq!(rig.changed("link").await, None);
    // An answer says which notices it is not older than.
    rig.notices().await;
    let answer = rig.ask_with(Lane::Query, Request::Getattr { node: Node::ROOT, file: None }, Bytes::new()).await;
    assert!(answer.seen > 0 && answer.seen == rig.server.stats().notices);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_known_by_two_numbers_is_told_by_both() {
    let rig = Rig::new().await;
    fs::create_dir(rig.path("d")).unwrap();
    let (first, second) = (rig.node("d").await, rig.node("d").await);
    rig.list(first).await.unwrap();
    fs::write(rig.path("d/x"), "").unwrap();
    let mut told = std::collections::HashSet::new();
    let mut parent_told = false;
    for notice in rig.notices().await {
        let Notice::Changed { dir, names } = notice else { panic!("{notice:?}") };
        if dir == Node::ROOT {
            parent_told = names[0].0[..] == *b"d" && names[0].1.is_some();
        } else {
            told.insert(dir);
        }
    }
    assert_eq!(told, [first, second].into());
    assert!(parent_told, "the times of the directory itself have changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_names_make_a_directory_stale() {
    let rig = Rig::new().await;
    rig.list(Node::ROOT).await.unwrap();
    let dir = rig.dir.clone();
    blocking(move || {
        for index in 0..5000 {
            fs::File::create(dir.join(index.to_string())).unwrap();
        }
    })
    .await;
    let notices = rig.notices().await;
    assert!(notices.contains(&Notice::Stale { dir: Node::ROOT }), "{} notices", notices.len());
    assert!(notices.len() < 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_mount_does_is_not_told() {
    let rig = Rig::new().await;
    fs::create_dir(rig.path("d")).unwrap();
    for index in 0..50 {
        fs::write(rig.path("d").join(format!("old{index}")), "old").unwrap();
    }
    rig.list(Node::ROOT).await.unwrap();
    let d = rig.node("d").await;
    rig.list(d).await.unwrap();
    rig.notices().await;
    for round in 0..300 {
        let name = format!("f{round}");
        let (node, file) = rig.create(d, &name).await.unwrap();
        for part in 0..3 {
            rig.write(file, part * 10, &b"0123456789"[..]).await.unwrap();
        }
        let set = SetAttr { mode: Some(0o600), size: Some(25), ..SetAttr::default() };
        rig.attr_of(Lane::Change, Request::Setattr { node, file: Some(file), set }, Bytes::new()).await.unwrap();
        rig.tell(Lane::Change, Request::ReleaseWrite { file }, Bytes::new()).await;
        let name = || name.as_bytes().to_vec().into();
        let rename = Request::Rename {
            parent: d,
            name: name(),
            new_parent: Node::ROOT,
            new_name: name(),
            flags: if round % 2 == 0 { 0 } else { libc::RENAME_NOREPLACE },
            keep: None,
        };
        assert_eq!(rig.change(rename).await, Reply::Done);
        if round % 3 == 0 {
            let unlink = Request::Unlink { parent: Node::ROOT, name: name(), dir: false, keep: None };
            rig.removed(unlink).await;
        }
        let make = rig.make(d, format!("dir{round}"), libc::S_IFDIR | 0o755);
        let dir = make.node;
        rig.attr_of(Lane::Change, Request::Mknod { make, rdev: 0 }, Bytes::new()).await.unwrap();
        rig.list(dir).await.unwrap();
        rig.create(dir, "x").await.unwrap();
        if round < 50 {
            // What was there before, and told by the listing.
            let (old, _) = rig.find(d, format!("old{round}")).await.unwrap();
            let file = rig.open_write(old, libc::O_WRONLY | libc::O_TRUNC).await.unwrap();
            rig.write(file, 0, &b"new content"[..]).await.unwrap();
        }
    }
    assert_eq!(rig.notices().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_at_once_leave_the_mount_with_the_truth() {
    let rig = Arc::new(Rig::new().await);
    rig.list(Node::ROOT).await.unwrap();
    // Somebody here and the mount write, remove and make the same few names.
    let dir = rig.dir.clone();
    let here = std::thread::spawn(move || {
        for round in 0..600_usize {
            let path = dir.join(format!("n{}", round % 7));
            match round % 5 {
                0 => drop(fs::remove_file(path)),
                1 => drop(fs::rename(path, dir.join(format!("n{}", round % 3)))),
                _ => drop(fs::write(path, vec![b'h'; round])),
            }
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
    });
    for round in 0..300_usize {
        let name = format!("n{}", round % 7);
        match round % 3 {
            0 => {
                let name = name.into_bytes().into();
                rig.change(Request::Unlink { parent: Node::ROOT, name, dir: false, keep: None }).await;
            }
            1 => {
                if let Ok((_, file)) = rig.create(Node::ROOT, &name).await {
                    rig.write(file, 0, vec![b'm'; round]).await.unwrap();
                    rig.tell(Lane::Change, Request::ReleaseWrite { file }, Bytes::new()).await;
                }
            }
            _ => {
                if let Ok((node, _)) = rig.find(Node::ROOT, &name).await
                    && let Ok(file) = rig.open_write(node, libc::O_WRONLY).await
                {
                    let _ = rig.write(file, 0, vec![b'w'; round]).await;
                    rig.tell(Lane::Change, Request::ReleaseWrite { file }, Bytes::new()).await;
                }
            }
        }
    }
    here.join().unwrap();
    rig.notices().await;
    // After the storm: one more change here of each name is told, and what is told is the truth.
    for index in 0..7 {
        let path = rig.path(&format!("n{index}"));
        if index % 2 == 0 {
            fs::write(&path, vec![b'x'; 5000 + index]).unwrap();
            // It may be seen between its truncation and the write.
            while rig.changed(&format!("n{index}")).await.unwrap().attr.size != 5000 + index as u64 {}
        } else if fs::remove_file(&path).is_ok() {
            assert_eq!(rig.changed(&format!("n{index}")).await, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_others_just_before_one_of_the_mount_is_told() {
    let rig = Rig::new().await;
    let (_, file) = rig.create(Node::ROOT, "a").await.unwrap();
    rig.write(file, 0, &b"mine"[..]).await.unwrap();
    rig.list(Node::ROOT).await.unwrap();
    rig.notices().await;
    for round in 0..50 {
        use std::os::unix::fs::FileExt;
        fs::File::options().write(true).open(rig.path("a")).unwrap().write_all_at(b"theirs", 100 * round).unwrap();
        // At once, before the event of that can have been looked at.
        rig.write(file, 0, &b"mine"[..]).await.unwrap();
        while rig.changed("a").await.unwrap().attr.size != 100 * round + 6 {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_made_by_others_and_looked_into_is_watched_too() {
    let rig = Rig::new().await;
    rig.list(Node::ROOT).await.unwrap();
    fs::create_dir_all(rig.path("x/y")).unwrap();
    assert!(rig.changed("x").await.is_some());
    let y = rig.node("x/y").await;
    assert_eq!(rig.find(y, "file").await.map(|found| found.0), Err(libc::ENOENT));
    fs::write(rig.path("x/y/file"), "").unwrap();
    assert!(rig.changed("file").await.is_some(), "a name that was asked for singly");
}
