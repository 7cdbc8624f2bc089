//! What a copy has of its source, both ways: content, names, attributes, links, holes; and where it goes.
#![allow(clippy::unwrap_used, reason = "in a test that is the finding")]

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use remotely_copy::{CopyError, Operation, Options, Reason, Report, fetch, put};
use support::{Random, assert_same, disk_bytes, drafts, mixed_tree, pair};

/// The same with put and with fetch: what leaves here, and what comes from there.
async fn both(source: &Path, to: impl Fn(&str) -> std::path::PathBuf, options: &Options) -> [Report; 2] {
    let pair = pair();
    let up = put(&pair.link, source, Some(&to("put")), options).await.unwrap();
    let down = fetch(&pair.link, source, Some(&to("fetch")), options).await.unwrap();
    assert_eq!((&up.local, &down.remote), (&source.to_owned(), &source.to_owned()));
    [up, down]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_arrives_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("source");
    mixed_tree(&source, &mut Random(7));
    for sync in [false, true] {
        let options = Options { sync, ..Options::default() };
        let reports = both(&source, |way| home.path().join(format!("{way}-{sync}")), &options).await;
        for (way, report) in ["put", "fetch"].iter().zip(&reports) {
            let copy = home.path().join(format!("{way}-{sync}"));
            assert_same(&copy, &source, true);
            assert_eq!(drafts(&copy), [] as [std::path::PathBuf; 0]);
            assert!(disk_bytes(&copy.join("sparse")) < 1 << 20, "holes are holes");
            for (a, b) in [("large", "a/linked"), ("small", "a/b/linked small")] {
                let inode = |name| fs::metadata(copy.join(name)).unwrap().ino();
                assert_eq!(inode(a), inode(b));
            }
            assert_eq!(report.files, 13, "{report:?}");
            assert_eq!(report.skipped, []);
            assert!(report.bytes > 64 << 20 && report.wire < 8 << 20, "{report:?}");
        }
        assert_eq!(reports[0].remote, home.path().join(format!("put-{sync}")));
        assert_eq!(reports[1].local, home.path().join(format!("fetch-{sync}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_its_hash() {
    let home = tempfile::tempdir().unwrap();
    let pair = pair();
    for len in [0, 1, 65536, 65537, 1 << 20, 9 << 20] {
        let content = Random(len + 1).bytes(len as usize);
        let source = home.path().join(format!("f{len}"));
        fs::write(&source, &content).unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o751)).unwrap();
        let report = put(&pair.link, &source, Some(&home.path().join("copy")), &Options::default()).await.unwrap();
        assert_eq!(fs::read(home.path().join("copy")).unwrap(), content);
        assert_eq!(fs::metadata(home.path().join("copy")).unwrap().mode() & 0o7777, 0o751);
        assert_eq!(report.hash.unwrap().0, *blake3::hash(&content).as_bytes());
        assert_eq!((report.files, report.bytes), (1, len));
        let mode = Options { mode: Some(0o600), ..Options::default() };
        let report = fetch(&pair.link, &source, Some(&home.path().join("back")), &mode).await.unwrap();
        assert_eq!(fs::read(home.path().join("back")).unwrap(), content);
        assert_eq!(fs::metadata(home.path().join("back")).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(report.hash.unwrap().0, *blake3::hash(&content).as_bytes());
        fs::remove_file(home.path().join("copy")).unwrap();
        fs::remove_file(home.path().join("back")).unwrap();
    }
    assert_eq!(drafts(home.path()), [] as [std::path::PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_are_those_of_cp() {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path);
    fs::create_dir_all(at("tree/sub")).unwrap();
    fs::write(at("tree/sub/f"), b"1").unwrap();
    fs::write(at("file"), b"2").unwrap();
    fs::create_dir(at("there")).unwrap();
    let pair = pair();
    let go = async |source: &str, destination: &str, parents| {
        let options = Options { parents, ..Options::default() };
        put(&pair.link, at(source), Some(&at(destination)), &options).await
    };
    let failed = |result: Result<Report, CopyError>| match result {
        Err(CopyError::Failed(failure)) => (failure.operation, failure.errno as i32),
        other => panic!("{other:?}"),
    };

    // A directory takes it under its name, else it is the name.
    assert_eq!(go("file", "there", false).await.unwrap().remote, at("there/file"));
    assert_eq!(go("file", "there/", false).await.unwrap().remote, at("there/file"));
    assert_eq!(go("file", "there/other", false).await.unwrap().remote, at("there/other"));
    assert_eq!(go("tree", "there", false).await.unwrap().remote, at("there/tree"));
    assert_eq!(go("tree/", "there", false).await.unwrap().remote, at("there/tree"));
    assert_eq!(go("tree", "new", false).await.unwrap().remote, at("new"));
    assert_eq!(fs::read(at("new/sub/f")).unwrap(), b"1");
    // Without a name, its content is meant.
    assert_eq!(go("tree/.", "there", false).await.unwrap().remote, at("there"));
    assert_eq!(fs::read(at("there/sub/f")).unwrap(), b"1");

    // What leads there is made on request only.
    assert_eq!(failed(go("file", "no/such/f", false).await), (Operation::Enter, libc_enoent()));
    assert_eq!(failed(go("file", "nodir/", false).await), (Operation::Enter, libc_enoent()));
    assert!(!at("no").exists() && !at("nodir").exists());
    assert_eq!(go("file", "no/such/f", true).await.unwrap().remote, at("no/such/f"));
    assert_eq!(go("file", "nodir/", true).await.unwrap().remote, at("nodir/file"));

    // A directory is not replaced by a file, nor the reverse.
    fs::create_dir(at("there/sub/g")).unwrap();
    fs::write(at("g"), b"3").unwrap();
    assert_eq!(failed(go("g", "there/sub", false).await).0, Operation::Rename);
    assert_eq!(failed(go("tree", "file", false).await).0, Operation::MakeDirectory);
    assert_eq!(failed(go("file", "file/", false).await).0, Operation::Look);

    // The user's own symbolic link to a file is kept, that to a directory followed.
    std::os::unix::fs::symlink("there/other", at("to-file")).unwrap();
    std::os::unix::fs::symlink("there", at("to-dir")).unwrap();
    std::os::unix::fs::symlink("nothing", at("to-nothing")).unwrap();
    assert_eq!(go("g", "to-file", false).await.unwrap().remote, at("there/other").canonicalize().unwrap());
    assert_eq!(fs::read(at("there/other")).unwrap(), b"3");
    assert!(fs::symlink_metadata(at("to-file")).unwrap().is_symlink());
    assert_eq!(go("g", "to-dir", false).await.unwrap().remote, at("to-dir/g"));
    assert_eq!(failed(go("g", "to-nothing", false).await).0, Operation::Create);
    assert_eq!(failed(go("g", "../../../../../../../dev/null", false).await).0, Operation::Type);

    // A source that is a symbolic link is followed; one that is none of both is refused.
    let report = fetch(&pair.link, at("to-file"), Some(&at("followed")), &Options::default()).await.unwrap();
    assert_eq!((report.local, fs::read(at("followed")).unwrap()), (at("followed"), b"3".to_vec()));
    assert_eq!(failed(go("missing", "x", false).await), (Operation::Open, libc_enoent()));
    let device = fetch(&pair.link, "/dev/zero", Some(&at("x")), &Options::default()).await;
    assert_eq!(failed(device).0, Operation::Type);
    assert!(!at("x").exists());
}

fn libc_enoent() -> i32 {
    rustix::io::Errno::NOENT.raw_os_error()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_destination_it_is_a_new_temporary_one() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("f"), b"content").unwrap();
    let pair = pair();
    let up = put(&pair.link, home.path().join("f"), None, &Options::default()).await.unwrap();
    let down = fetch(&pair.link, home.path().join("f"), None, &Options::default()).await.unwrap();
    for path in [up.remote, down.local] {
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(path.file_name().unwrap(), "f");
        let parent = path.parent().unwrap();
        assert_eq!(fs::metadata(parent).unwrap().mode() & 0o7777, 0o700);
        fs::remove_dir_all(parent).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_keeps_what_is_its_own() {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path);
    fs::create_dir_all(at("tree/sub")).unwrap();
    fs::write(at("tree/sub/f"), b"new").unwrap();
    fs::create_dir_all(at("copy/sub")).unwrap();
    fs::write(at("copy/sub/f"), b"old").unwrap();
    fs::write(at("copy/sub/other"), b"other").unwrap();
    fs::set_permissions(at("copy/sub"), fs::Permissions::from_mode(0o711)).unwrap();
    let pair = pair();
    let report = put(&pair.link, at("tree/."), Some(&at("copy")), &Options::default()).await.unwrap();
    assert_eq!(report.files, 1);
    assert_eq!(fs::read(at("copy/sub/f")).unwrap(), b"new");
    assert_eq!(fs::read(at("copy/sub/other")).unwrap(), b"other");
    assert_eq!(fs::metadata(at("copy/sub")).unwrap().mode() & 0o7777, 0o711);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_of_others_are_taken_over_on_request_only() {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path);
    fs::create_dir(at("tree")).unwrap();
    fs::write(at("tree/suid"), b"x").unwrap();
    std::os::unix::fs::chown(at("tree/suid"), Some(1234), Some(4321)).unwrap();
    fs::set_permissions(at("tree/suid"), fs::Permissions::from_mode(0o6755)).unwrap();
    let device = rustix::fs::makedev(1, 3);
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, at("tree/null"), rustix::fs::FileType::CharacterDevice, mode, device).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("tree/socket")).unwrap();
    let pair = pair();

    let report = fetch(&pair.link, at("tree"), Some(&at("plain")), &Options::default()).await.unwrap();
    let meta = fs::metadata(at("plain/suid")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (0, 0, 0o755));
    let mut reasons: Vec<_> = report.skipped.iter().map(|skipped| skipped.reason).collect();
    reasons.sort_by_key(|reason| *reason as u8);
    assert_eq!(reasons, [Reason::Socket, Reason::Device]);
    assert!(!at("plain/null").exists() && !at("plain/socket").exists());

    let owner = Options { owner: true, ..Options::default() };
    put(&pair.link, at("tree"), Some(&at("owned")), &owner).await.unwrap();
    let meta = fs::metadata(at("owned/suid")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1234, 4321, 0o6755));
    assert_eq!(fs::metadata(at("owned/null")).unwrap().rdev(), device);
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_attributes_travel_on_request() {
    use rustix::fs::{XattrFlags, getxattr, setxattr};
    // Not every temporary directory has them.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |path: &str| home.path().join(path);
    fs::create_dir(at("tree")).unwrap();
    fs::write(at("tree/f"), b"x").unwrap();
    setxattr(at("tree/f"), "user.origin", b"here\0there", XattrFlags::empty()).unwrap();
    setxattr(at("tree"), "user.dir", b"", XattrFlags::empty()).unwrap();
    // u::rw-, u:1234:r--, g::r--, m::r--, o::---
    let acl: Vec<u8> = [2_u32.to_le_bytes().to_vec()]
        .into_iter()
        .chain(
            [(1_u16, 6_u16, u32::MAX), (2, 4, 1234), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
                .map(|(tag, perm, id)| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()),
        )
        .flatten()
        .collect();
    setxattr(at("tree/f"), "system.posix_acl_access", &acl, XattrFlags::empty()).unwrap();
    let pair = pair();
    put(&pair.link, at("tree"), Some(&at("without")), &Options::default()).await.unwrap();
    put(&pair.link, at("tree"), Some(&at("with")), &Options { xattrs: true, ..Options::default() }).await.unwrap();
    let read = |path: &str, name: &str| {
        let mut value = vec![0; 1000];
        getxattr(at(path), name, value.as_mut_slice()).map(|len| value[..len].to_vec())
    };
    assert!(read("without/f", "user.origin").is_err());
    assert_eq!(read("with/f", "user.origin").unwrap(), b"here\0there");
    assert_eq!(read("with", "user.dir").unwrap(), b"");
    assert_eq!(read("with/f", "system.posix_acl_access").unwrap(), acl);
    assert_same(&at("with"), &at("tree"), true);
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_trees_and_empty_ones() {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path);
    fs::create_dir(at("empty")).unwrap();
    // Deeper than directories are kept open on either side.
    let mut path = at("deep");
    for level in 0..200 {
        fs::create_dir(&path).unwrap();
        fs::write(path.join("before"), format!("{level}")).unwrap();
        fs::write(path.join("zafter"), format!("{level}")).unwrap();
        path = path.join("d");
    }
    for source in ["empty", "deep"] {
        both(&at(source), |way| at(&format!("{source}-{way}")), &Options::default()).await;
        for way in ["put", "fetch"] {
            assert_same(&at(&format!("{source}-{way}")), &at(source), true);
        }
    }
}
