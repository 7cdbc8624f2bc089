//! Answers and news that overtake each other: whatever the order, nothing old is shown for good.

use std::collections::HashSet;

use remotely_proto::ByteVec;
use remotely_proto::fs::{Attr, Entry, Node, Time};

use super::{Age, Name, Table};
use crate::mount::invalidate::Invalid;

const ROOT: Node = Node::ROOT;

fn attr(ino: u64, size: u64) -> Attr {
    let (mode, time) = (if ino == 1 { libc::S_IFDIR | 0o755 } else { libc::S_IFREG | 0o644 }, Time { sec: 1, nsec: 0 });
    Attr {
        dev: 1,
        ino,
        mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size,
        blocks: 0,
        blksize: 4096,
        atime: time,
        mtime: Time { sec: size as i64, nsec: 0 },
        ctime: Time { sec: size as i64, nsec: 0 },
        btime: time,
        access: 7,
        flags: 0,
    }
}

fn directory(name: &str, ino: u64) -> Entry {
    Entry { attr: Attr { mode: libc::S_IFDIR | 0o755, ..attr(ino, 0) }, ..entry(name, ino, 0) }
}

fn entry(name: &str, ino: u64, size: u64) -> Entry {
    Entry { name: name.as_bytes().to_vec().into(), attr: attr(ino, size), target: None }
}

/// The number under which the root has to be listed.
fn ask(table: &mut Table) -> u64 {
    table.whole(ROOT).unwrap().and_then(|listing| listing.first).expect("it is neither known nor asked for")
}

fn listed(table: &mut Table, entries: Vec<Entry>) {
    let number = ask(table);
    let age = Age { seen: 0, asked: table.answered };
    table.listed(ROOT, number, entries, age, true, false);
}

fn is(table: &mut Table, name: &str) -> Option<Node> {
    match table.name(ROOT, name.as_bytes()).unwrap() {
        Name::Is(node) => Some(node),
        Name::Absent => None,
        Name::List(_) | Name::Ask => panic!("{name} is not known"),
    }
}

fn must_be_asked(table: &mut Table, name: &str) -> bool {
    matches!(table.name(ROOT, name.as_bytes()).unwrap(), Name::List(_) | Name::Ask)
}

#[test]
fn attributes_of_before_our_change_do_not_replace_those_of_after() {
    let mut table = Table::new(attr(1, 0));
    listed(&mut table, vec![entry("f", 2, 10)]);
    let node = is(&mut table, "f").unwrap();
    let asked = table.answered;
    table.own(node, attr(2, 20), 0);
    table.found(node, attr(2, 10), Age { seen: 0, asked });
    assert_eq!(table.inode(node).unwrap().attr.size, 20);
    assert!(table.inode(node).unwrap().stale, "asked again rather than kept");
    let age = Age { seen: 0, asked: table.answered };
    table.found(node, attr(2, 30), age);
    assert!(table.inode(node).unwrap().is_fresh());
}

#[test]
fn a_push_of_before_our_change_is_not_taken() {
    let mut table = Table::new(attr(1, 0));
    let _ = table.whole(ROOT);
    let node = table.fresh();
    table.made(ROOT, entry("new", 5, 0), None, 0, node);
    table.pushed(&[], vec![entry("old", 2, 10)], 0, true);
    assert_eq!(is(&mut table, "new"), Some(node));
    assert!(must_be_asked(&mut table, "old"));
}

#[test]
fn a_listing_that_was_overtaken_by_forgetting_is_asked_for_again() {
    for forget in [|table: &mut Table| table.forget_directory(ROOT, 7), |table: &mut Table| table.forget_all(7)] {
        let mut table = Table::new(attr(1, 0));
        let number = ask(&mut table);
        forget(&mut table);
        table.listed(ROOT, number, vec![entry("gone", 2, 10)], Age { seen: 6, asked: 0 }, true, false);
        let number = ask(&mut table);
        table.listed(ROOT, number, vec![entry("new", 3, 10)], Age { seen: 7, asked: 0 }, true, false);
        assert!(is(&mut table, "new").is_some() && is(&mut table, "gone").is_none());
    }
}

#[test]
fn only_the_last_question_counts() {
    let mut table = Table::new(attr(1, 0));
    let first = ask(&mut table);
    // A push is quicker, then all is forgotten, and asked for again.
    table.pushed(&[], vec![entry("a", 2, 10)], 0, true);
    table.forget_directory(ROOT, 1);
    let second = ask(&mut table);
    table.listed(ROOT, first, vec![entry("a", 2, 10)], Age { seen: 1, asked: 0 }, true, false);
    assert!(must_be_asked(&mut table, "a"));
    table.listed(ROOT, second, vec![entry("b", 3, 10)], Age { seen: 1, asked: 0 }, true, false);
    assert!(is(&mut table, "a").is_none() && is(&mut table, "b").is_some());
}

#[test]
fn a_name_is_not_kept_if_there_was_news_of_its_directory_since() {
    let mut table = Table::new(attr(1, 0));
    listed(&mut table, vec![entry("f", 2, 10)]);
    let before = is(&mut table, "f").unwrap();
    table.changed(ROOT, b"f".to_vec().into(), Some(entry("f", 9, 1)), 5);
    let after = is(&mut table, "f").unwrap();
    assert_ne!(before, after);
    // An answer of before that notice.
    table.learn(ROOT, entry("f", 2, 10), Age { seen: 4, asked: 0 });
    assert!(must_be_asked(&mut table, "f"));
    assert_eq!(table.name_valid(ROOT, b"f", Some(before)), std::time::Duration::ZERO);
    // And one of after it.
    let node = table.learn(ROOT, entry("f", 9, 1), Age { seen: 5, asked: 0 });
    assert_eq!(is(&mut table, "f"), Some(node));
    table.absent(ROOT, b"f".to_vec().into(), 4);
    assert!(must_be_asked(&mut table, "f"));
}

#[test]
fn news_of_a_file_that_we_changed_ourselves_is_news_of_its_content() {
    let mut table = Table::new(attr(1, 0));
    listed(&mut table, vec![entry("f", 2, 10)]);
    let node = is(&mut table, "f").unwrap();
    table.own(node, attr(2, 10), 0);
    table.invalid.clear();
    // The same state as ours: but somebody else wrote before we did.
    table.changed(ROOT, b"f".to_vec().into(), Some(entry("f", 2, 10)), 1);
    assert!(table.invalid.contains(&Invalid::Inode(node)));
    // Told once, it is known.
    table.invalid.clear();
    table.changed(ROOT, b"f".to_vec().into(), Some(entry("f", 2, 10)), 2);
    assert!(!table.invalid.contains(&Invalid::Inode(node)));
}

fn path(name: &str) -> Vec<ByteVec> {
    vec![name.as_bytes().to_vec().into()]
}

#[test]
fn a_push_that_was_overtaken_by_news_is_not_taken() {
    // Of a directory that is known, and of which nothing was known.
    let mut table = Table::new(attr(1, 0));
    table.changed(ROOT, b"gone".to_vec().into(), None, 5);
    table.pushed(&[], vec![entry("gone", 3, 10)], 4, true);
    assert!(must_be_asked(&mut table, "gone"));
    table.pushed(&[], vec![directory("d", 4)], 5, true);
    let d = is(&mut table, "d").unwrap();
    // Of one that is not known yet.
    table.news_of_unknown(path("e"), 7);
    table.forget_directory(ROOT, 8);
    table.pushed(&[], vec![directory("d", 4), directory("e", 5)], 8, true);
    assert_eq!(is(&mut table, "d"), Some(d));
    table.pushed(&path("d"), vec![entry("x", 6, 1)], 6, true);
    table.pushed(&path("e"), vec![entry("x", 7, 1)], 6, true);
    let e = is(&mut table, "e").unwrap();
    assert!(table.known_name(d, b"x").is_some() && table.known_name(e, b"x").is_none());
    table.pushed(&path("e"), vec![entry("x", 7, 1)], 7, true);
    assert!(table.known_name(e, b"x").is_some());
}

#[test]
fn what_the_kernel_was_never_told_is_not_taken_back() {
    let mut table = Table::new(attr(1, 0));
    listed(&mut table, vec![entry("looked", 2, 10), entry("not", 3, 10)]);
    let looked = is(&mut table, "looked").unwrap();
    table.inode(looked).unwrap().lookups = 1;
    assert_eq!(is(&mut table, "absent"), None);
    table.invalid.clear();
    table.forget_directory(ROOT, 1);
    let told: HashSet<Invalid> = table.invalid.drain(..).collect();
    let expected = [
        Invalid::Attr(ROOT),
        Invalid::Attr(looked),
        Invalid::Doubt(ROOT, b"absent".to_vec().into()),
        Invalid::Doubt(ROOT, b"looked".to_vec().into()),
        Invalid::Inode(looked),
    ];
    assert_eq!(told, expected.into());
}
