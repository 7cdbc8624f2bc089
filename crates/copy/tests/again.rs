//! Copying what was copied before: nothing that is there is sent again, and what was cut goes on where it ended.
#![allow(clippy::unwrap_used, reason = "in a test that is the finding")]

mod support;

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use remotely_copy::{CopyError, Options, Report, Unchanged, fetch, put};
use support::{Content, Pair, Random, Wire, assert_same, drafts, mixed_tree, pair, pair_over, seen};

async fn copy(pair: &Pair, up: bool, from: &Path, to: &Path, options: &Options) -> Result<Report, CopyError> {
    match up {
        true => put(&pair.link, from, Some(to), options).await,
        false => fetch(&pair.link, from, Some(to), options).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unchanged_is_not_sent() {
    let home = tempfile::tempdir().unwrap();
    let pair = pair();
    for (round, unchanged) in [Unchanged::Stamp, Unchanged::Hash].into_iter().enumerate() {
        for up in [true, false] {
            let at = |name: &str| home.path().join(format!("{name}{round}{up}"));
            let source = at("source");
            mixed_tree(&source, &mut Random(3));
            copy(&pair, up, &source, &at("copy"), &Options::default()).await.unwrap();
            let options = Options { unchanged, ..Options::default() };
            let report = copy(&pair, up, &source.join("."), &at("copy"), &options).await.unwrap();
            assert_eq!((report.files, report.unchanged, report.bytes), (0, 13, 0), "{report:?}");
            assert!(report.wire < 16 << 10, "{report:?}");
            assert_same(&at("copy"), &source, true);

            // The same size and another content; another mode and time only.
            fs::write(source.join("small"), Random(99).bytes(4096)).unwrap();
            fs::set_permissions(source.join("edge"), fs::Permissions::from_mode(0o711)).unwrap();
            let report = copy(&pair, up, &source.join("."), &at("copy"), &options).await.unwrap();
            assert_eq!((report.files, report.unchanged, report.bytes), (1, 12, 4096), "{report:?}");
            // A name that was linked to a file that is replaced follows it.
            assert_same(&at("copy"), &source, false);
            let inode = |name| fs::metadata(at("copy").join(name)).unwrap().ino();
            assert_eq!(inode("small"), inode("a/b/linked small"));

            // Without a change of size or time, only the hash tells.
            let times = fs::metadata(source.join("edge")).unwrap().modified().unwrap();
            let file = fs::File::options().write(true).open(source.join("edge")).unwrap();
            file.write_all_at(b"changed", 1000).unwrap();
            file.set_modified(times).unwrap();
            let report = copy(&pair, up, &source.join("."), &at("copy"), &options).await.unwrap();
            assert_eq!(report.files, u64::from(unchanged == Unchanged::Hash));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_changed_blocks_travel() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let pair = pair();
    let options = Options { delta: true, ..Options::default() };
    let mut random = Random(5);
    let old = random.bytes(6 << 20);
    let inserted = [&old[..1 << 20], b"a few bytes more", &old[1 << 20..]].concat();
    let removed = [&old[..3 << 20], &old[(3 << 20) + 12345..]].concat();
    let swapped = [&old[3 << 20..], &old[..3 << 20]].concat();
    let mut changed = old.clone();
    changed[4_000_000] ^= 1;
    let grown = [&old[..], &random.bytes(1000)].concat();
    let zeros = [&old[..2 << 20], &vec![0; 4 << 20], &old[2 << 20..]].concat();
    let other = random.bytes(6 << 20);
    let cases = [
        ("same", old.clone(), 100 << 10),
        ("inserted", inserted, 100 << 10),
        ("removed", removed, 100 << 10),
        ("swapped", swapped, 100 << 10),
        ("changed", changed, 100 << 10),
        ("grown", grown, 100 << 10),
        ("cut", old[..100_000].to_vec(), 110 << 10),
        ("zeros", zeros, (4 << 20) + (200 << 10)),
        ("other", other, 7 << 20),
    ];
    for up in [true, false] {
        for (name, new, wire) in &cases {
            fs::write(at("new"), new).unwrap();
            fs::write(at("copy"), &old).unwrap();
            let report = copy(&pair, up, &at("new"), &at("copy"), &options).await.unwrap();
            assert!(fs::read(at("copy")).unwrap() == *new, "{name}");
            assert!(report.wire < *wire, "{name}: {report:?}");
            assert_eq!(report.hash.unwrap().0, *blake3::hash(new).as_bytes());
        }
    }
    assert_eq!(drafts(home.path()), [] as [std::path::PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_changes_arrive() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let pair = pair();
    let options = Options { delta: true, sync: false, ..Options::default() };
    for seed in 1..40 {
        let mut random = Random(seed);
        let len = (64 << 10) + random.below(1 << 20) as usize;
        // Few different bytes, so that many blocks are the same.
        let many = random.below(2) == 0;
        let old: Vec<u8> = random.bytes(len).into_iter().map(|byte| if many { byte } else { byte & 1 }).collect();
        let mut new = old.clone();
        for _ in 0..random.below(8) {
            let start = random.below(new.len() as u64) as usize;
            let end = (start + random.below(20_000) as usize).min(new.len());
            match random.below(4) {
                0 => drop(new.drain(start..end)),
                1 => drop(new.splice(start..start, random.bytes(777))),
                2 => new[start..end].fill(0),
                _ => new.extend_from_within(start..end),
            }
        }
        fs::write(at("new"), &new).unwrap();
        fs::write(at("copy"), &old).unwrap();
        copy(&pair, seed % 2 == 0, &at("new"), &at("copy"), &options).await.unwrap();
        assert!(fs::read(at("copy")).unwrap() == new, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_transfer_goes_on_where_it_ended() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let content = Random(8).bytes(24 << 20);
    fs::write(at("source"), &content).unwrap();
    for up in [true, false] {
        fs::write(at("copy"), b"older").unwrap();
        let cut = Some(13_u64 << 20);
        let wire = Wire { cut_up: cut.filter(|_| up), cut_down: cut.filter(|_| !up), ..Wire::default() };
        let (broken, _) = pair_over(&wire);
        let error = copy(&broken, up, &at("source"), &at("copy"), &Options::default()).await.unwrap_err();
        assert!(matches!(error, CopyError::Cut { .. }), "{error:?}");
        remotely_copy::idle().await;
        assert_eq!(fs::read(at("copy")).unwrap(), b"older");
        let left = drafts(home.path());
        let [left] = &left[..] else { panic!("{left:?}") };
        assert!(fs::metadata(left).unwrap().len() > 4 << 20);

        let report = copy(&pair(), up, &at("source"), &at("copy"), &Options::default()).await.unwrap();
        assert!(fs::read(at("copy")).unwrap() == content);
        assert_eq!(drafts(home.path()), [] as [std::path::PathBuf; 0]);
        assert!(report.wire < 20 << 20, "{report:?}");
        assert_eq!(report.hash.unwrap().0, *blake3::hash(&content).as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beginning_of_something_else_is_not_continued() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let wire = Wire { cut_up: Some(13 << 20), ..Wire::default() };
    fs::write(at("source"), Random(8).bytes(24 << 20)).unwrap();
    put(&pair_over(&wire).0.link, at("source"), Some(&at("copy")), &Options::default()).await.unwrap_err();
    remotely_copy::idle().await;
    assert_eq!(drafts(home.path()).len(), 1);
    for len in [24 << 20, 9 << 20, 100] {
        let content = Random(len as u64).bytes(len);
        fs::write(at("other"), &content).unwrap();
        put(&pair().link, at("other"), Some(&at("copy")), &Options::default()).await.unwrap();
        assert!(fs::read(at("copy")).unwrap() == content);
        assert_eq!(drafts(home.path()), [] as [std::path::PathBuf; 0], "{len}");
        put(&pair_over(&wire).0.link, at("source"), Some(&at("copy")), &Options::default()).await.unwrap_err();
        remotely_copy::idle().await;
    }
    // Who does not want it, does not leave it.
    let options = Options { resume: false, ..Options::default() };
    fs::remove_file(&drafts(home.path())[0]).unwrap();
    put(&pair_over(&wire).0.link, at("source"), Some(&at("copy")), &options).await.unwrap_err();
    remotely_copy::idle().await;
    assert_eq!(drafts(home.path()), [] as [std::path::PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_anywhere_leave_what_was_there() {
    let home = tempfile::tempdir().unwrap();
    let mut random = Random(21);
    let source = home.path().join("source");
    mixed_tree(&source, &mut random);
    fs::write(source.join("huge"), random.bytes(9 << 20)).unwrap();
    let total = 13 << 20;
    for round in 0..24 {
        let up = round % 2 == 0;
        let copy_to = home.path().join(format!("copy{up}"));
        if round < 2 {
            fs::create_dir(&copy_to).unwrap();
            fs::write(copy_to.join("huge"), b"older").unwrap();
        }
        let cut = Some(1 + random.below(total));
        let wire = Wire { cut_up: cut.filter(|_| up), cut_down: cut.filter(|_| !up), ..Wire::default() };
        let (broken, _) = pair_over(&wire);
        let options = Options { sync: false, ..Options::default() };
        let result = copy(&broken, up, &source.join("."), &copy_to, &options).await;
        remotely_copy::idle().await;
        let huge = fs::read(copy_to.join("huge")).unwrap();
        assert!(huge == b"older" || huge == fs::read(source.join("huge")).unwrap());
        for left in drafts(&copy_to) {
            let name = left.file_name().unwrap().to_str().unwrap().to_owned();
            let large = name.starts_with(".huge.") || name.starts_with(".sparse.");
            assert!(large, "{name}: only what is large is continued");
        }
        if let Err(error) = result {
            assert!(matches!(error, CopyError::Cut { .. }), "{error:?}");
        }
        // Every file that is there is complete.
        let (there, here) = (seen(&copy_to), seen(&source));
        for (name, file) in &there {
            let is_file = matches!(file.content, Content::File(..));
            if is_file && name != b"huge" && !name.windows(10).any(|part| part == b".remotely-") {
                assert_eq!(file, &here[name]);
            }
        }
    }
    for up in [true, false] {
        let copy_to = home.path().join(format!("copy{up}"));
        let options = Options { unchanged: Unchanged::Stamp, ..Options::default() };
        copy(&pair(), up, &source.join("."), &copy_to, &options).await.unwrap();
        assert_eq!(drafts(&copy_to), [] as [std::path::PathBuf; 0]);
        // Directories that a transfer made which was cut keep the mode that they were made with.
        let (mut there, mut here) = (seen(&copy_to), seen(&source));
        there.retain(|_, file| file.content != Content::Directory);
        here.retain(|_, file| file.content != Content::Directory);
        assert!(there == here);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_do_not_disturb_each_other() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let contents = [1, 2, 3].map(|seed| Random(seed).bytes(12 << 20));
    for (index, content) in contents.iter().enumerate() {
        fs::write(at(&format!("source{index}")), content).unwrap();
    }
    let (target, options) = (at("copy"), Options::default());
    let pair = pair();
    let one = |index: usize| put(&pair.link, at(&format!("source{index}")), Some(&target), &options);
    let (a, b, c) = tokio::join!(one(0), one(1), one(2));
    for report in [a, b, c] {
        report.unwrap();
    }
    let copy = fs::read(&target).unwrap();
    assert!(contents.contains(&copy));
    assert_eq!(drafts(home.path()), [] as [std::path::PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_leaves_nothing_half() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    fs::write(at("source"), Random(4).bytes(6 << 20)).unwrap();
    fs::write(at("copy"), b"older").unwrap();
    let (slow, _) = pair_over(&Wire { delay: Duration::from_millis(40), ..Wire::default() });
    for up in [true, false] {
        let (from, to, options) = (at("source"), at("copy"), Options::default());
        let going = copy(&slow, up, &from, &to, &options);
        assert!(tokio::time::timeout(Duration::from_millis(150), going).await.is_err());
        tokio::time::sleep(Duration::from_millis(200)).await;
        tokio::time::timeout(Duration::from_secs(10), remotely_copy::idle()).await.unwrap();
        assert_eq!(fs::read(at("copy")).unwrap(), b"older");
        assert_eq!(drafts(home.path()), [] as [std::path::PathBuf; 0]);
    }
}
