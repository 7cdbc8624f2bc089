//! The profile of one run, pushed in the next.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt};

use bytes::Bytes;
use remotely_fs::server::{Item, Profile, Wanted};
use remotely_proto::fs::{Lane, Node, Notice, Request, Stamp, UsedInode};

use crate::rig::Rig;

fn wanted(profile: &Profile) -> Vec<(String, bool, u32)> {
    let path =
        |item: &Item| item.path.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>();
    profile
        .items
        .iter()
        .map(|item| (path(item).join("/"), matches!(item.wanted, Wanted::Content { .. }), item.age))
        .collect()
}

fn tree(dir: &std::path::Path) {
    fs::create_dir_all(dir.join("usr/lib")).unwrap();
    fs::write(dir.join("usr/lib/big"), vec![7; 1_000_000]).unwrap();
    fs::write(dir.join("usr/small"), "small").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_is_pushed_the_next_time() {
    let first = Rig::new().await;
    tree(&first.dir);
    first.list(Node::ROOT).await.unwrap();
    let usr = first.node("usr").await;
    first.list(usr).await.unwrap();
    let small = first.find(usr, "small").await.unwrap().0;
    first.read(small, 0, 1 << 17).await.unwrap();
    let big = first.node("usr/lib/big").await;
    first.read(big, 300_000, 100_000).await.unwrap();
    first.read(big, 900_000, 1 << 17).await.unwrap();
    let profile = first.server.profile();
    let expected = [("", false, 0), ("usr", false, 0), ("usr/small", true, 0), ("usr/lib/big", true, 0)];
    assert_eq!(wanted(&profile), expected.map(|(path, content, age)| (path.to_owned(), content, age)));

    let dir = first.dir.clone();
    let second = Rig::with(move |_, config| config.root = dir).await;
    second.server.push(profile, 0);
    let mut listings = Vec::new();
    let mut stamps: HashMap<(u64, u64), Stamp> = HashMap::new();
    let mut data: HashMap<u64, Vec<(u64, usize)>> = HashMap::new();
    let big_ino = fs::metadata(first.path("usr/lib/big")).unwrap().ino();
    let (mut planned, mut ended) = (HashMap::new(), false);
    while listings.len() < 3 || planned.len() < 2 || !ended {
        match second.pushed().await {
            (Notice::PushListing { path, entries, last, watched, .. }, _) => {
                assert!(last && watched);
                listings.push(path.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>());
                stamps.extend(entries.iter().map(|entry| ((entry.attr.dev, entry.attr.ino), entry.attr.stamp())));
            }
            (Notice::PushData { dev, ino, offset, stamp }, payload) => {
                // The lanes are streams of their own, but both tell the same state.
                assert!(stamps.get(&(dev, ino)).is_none_or(|told| *told == stamp));
                assert_eq!(offset % (128 << 10), 0);
                data.entry(ino).or_default().push((offset, payload.len()));
            }
            (Notice::PushPlan { dev, ino, stamp, runs }, _) => {
                // Behind the listing that shows the file.
                assert_eq!(stamps[&(dev, ino)], stamp);
                planned.insert(ino, runs);
            }
            (Notice::PushPlanned, _) => {}
            (Notice::PushEnd, _) => ended = true,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(planned[&big_ino], [(262_144, 262_144), (786_432, 213_568)]);
    assert_eq!(listings, [vec![], vec!["usr".to_owned()], vec!["usr".to_owned(), "lib".to_owned()]]);
    assert_eq!(data[&big_ino], [(262_144, 262_144), (786_432, 213_568)]);
    // Nothing was asked for: all is one run older, and what was only pushed for the sake of others is in the list.
    let profile = second.server.profile();
    assert!(wanted(&profile).iter().all(|(_, _, age)| *age == 1));
    assert_eq!(profile.items.len(), 5);
    // What is asked for is young again, though it was pushed.
    second.list(Node::ROOT).await.unwrap();
    assert_eq!(wanted(&second.server.profile())[0], (String::new(), false, 0));
    // What the mount says that it used is young, and the rest is known not to be.
    let usr = fs::metadata(first.path("usr")).unwrap();
    let used = |inode: &fs::Metadata| UsedInode { dev: inode.dev(), ino: inode.ino(), runs: Vec::new() };
    second.tell(Lane::Change, Request::Used { inodes: vec![used(&usr)] }, Bytes::new()).await;
    second.applied().await;
    let ages = wanted(&second.server.profile()).into_iter().filter(|(_, content, _)| !content);
    assert_eq!(
        ages.map(|(path, _, age)| (path, age)).collect::<Vec<_>>(),
        [("", 1), ("usr", 0), ("usr/lib", 1)].map(|(path, age)| (path.to_owned(), age))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_never_asked_for_again_drops_out() {
    let rig = Rig::new().await;
    tree(&rig.dir);
    rig.read(rig.node("usr/small").await, 0, 10).await.unwrap();
    let mut profile = rig.server.profile();
    let mut runs = 0;
    while !profile.items.is_empty() {
        let dir = rig.dir.clone();
        let next = Rig::with(move |_, config| config.root = dir).await;
        next.server.push(profile, 0);
        while next.pushed().await.0 != Notice::PushEnd {}
        profile = next.server.profile();
        runs += 1;
        assert!(runs < 40);
    }
    assert!(runs >= 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_or_hidden_is_not_pushed() {
    let rig = Rig::new().await;
    tree(&rig.dir);
    let item = |path: &[&str], wanted| Item {
        path: path.iter().map(|name| name.as_bytes().to_vec().into()).collect(),
        wanted,
        age: 0,
    };
    let blocks = vec![remotely_fs::server::Blocks { start: 0, end: u64::MAX }];
    let content = || Wanted::Content { blocks: blocks.clone() };
    std::os::unix::fs::symlink("usr", rig.path("link")).unwrap();
    let profile = Profile {
        items: vec![
            item(&["gone"], Wanted::Listing),
            item(&["gone", "file"], content()),
            item(&["..", "etc"], Wanted::Listing),
            item(&["link", "lib"], Wanted::Listing),
            item(&[], content()),
            item(&["usr", "lib"], content()),
            item(&["usr", "small"], content()),
        ],
    };
    rig.server.push(profile, 0);
    let mut contents = 0;
    for notice in rig.notices().await {
        match notice {
            Notice::PushListing { path, .. } => assert!(path.is_empty() || path[0][..] == *b"usr", "{path:?}"),
            Notice::PushData { .. } => contents += 1,
            Notice::PushPlan { runs, .. } => assert_eq!(runs, [(0, 5)]),
            Notice::PushPlanned | Notice::PushEnd => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(contents, 1);
    assert_eq!(
        rig.server.profile().items.iter().filter(|item| matches!(item.wanted, Wanted::Content { .. })).count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_in_a_pushed_directory_is_told_by_path() {
    let rig = Rig::new().await;
    tree(&rig.dir);
    let item = Item { path: vec![b"usr".to_vec().into()], wanted: Wanted::Listing, age: 0 };
    rig.server.push(Profile { items: vec![item] }, 0);
    rig.notices().await;
    fs::write(rig.path("usr/new"), "").unwrap();
    fs::remove_file(rig.path("usr/small")).unwrap();
    let mut told = HashMap::new();
    let usr = fs::metadata(rig.path("usr")).unwrap();
    for notice in rig.notices().await {
        let Notice::ChangedAt { path, dev, ino, names } = notice else { panic!("{notice:?}") };
        assert_eq!((&path[..], dev, ino), (&[b"usr".to_vec().into()][..], usr.dev(), usr.ino()));
        told.extend(names.into_iter().map(|(name, entry)| (name.to_vec(), entry.map(|entry| entry.attr.size))));
    }
    assert_eq!(told, [(b"new".to_vec(), Some(0)), (b"small".to_vec(), None)].into());
    // Not for ever, if it never rests.
    for round in 0..48 {
        fs::write(rig.path(&format!("usr/{round}")), "").unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
    let notices = rig.notices().await;
    assert!(matches!(notices.last(), Some(Notice::StaleAt { .. })) && notices.len() < 48, "{}", notices.len());
    let usr = rig.node("usr").await;
    rig.list(usr).await.unwrap();
    rig.notices().await;
    // From now on by number.
    fs::write(rig.path("usr/newer"), "").unwrap();
    assert!(rig.changed("newer").await.is_some());
    rig.tell(Lane::Query, Request::Forget { nodes: vec![usr] }, Bytes::new()).await;
}
