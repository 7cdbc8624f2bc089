//! Nothing that is hidden, whatever the mount, or the user here, moves and links meanwhile.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use remotely_fs::server::Config;
use remotely_proto::fs::{Binding, File, Lane, Make, Node, Reply, Request};

use crate::rig::{Rig, failed};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_is_not_there_by_any_way() {
    let rig = Rig::with(|dir, config| {
        fs::create_dir_all(dir.join("home/.ssh")).unwrap();
        fs::write(dir.join("home/.ssh/id"), "private").unwrap();
        fs::write(dir.join("home/key"), "private too").unwrap();
        fs::write(dir.join("home/open"), "public").unwrap();
        symlink("home/key", dir.join("alias")).unwrap();
        fs::hard_link(dir.join("home/key"), dir.join("second")).unwrap();
        for path in ["home/.ssh", "alias", "later/secret"] {
            config.hide.push(dir.join(path).as_os_str().as_bytes().to_vec());
        }
    })
    .await;
    let home = rig.node("home").await;
    let listed = |list: Vec<remotely_proto::fs::Entry>| -> Vec<_> {
        let mut names: Vec<_> = list.into_iter().map(|entry| String::from_utf8(entry.name.to_vec()).unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(listed(rig.list(home).await.unwrap()), ["open"]);
    assert_eq!(listed(rig.list(Node::ROOT).await.unwrap()), ["home"]);
    for (parent, name) in [(home, ".ssh"), (home, "key"), (Node::ROOT, "alias"), (Node::ROOT, "second")] {
        assert_eq!(rig.find(parent, name).await.map(|found| found.0), Err(libc::ENOENT), "{name}");
        let refused = rig.create(parent, name).await;
        assert!(matches!(refused, Err(libc::EACCES | libc::EEXIST)), "{name}: {refused:?}");
        let request =
            Request::Unlink { parent, name: name.as_bytes().to_vec().into(), dir: name == ".ssh", keep: None };
        assert_eq!(rig.change(request).await, failed(libc::ENOENT), "{name}");
    }
    // Renamed by somebody here, it stays hidden; so does what takes its place.
    fs::rename(rig.path("home/key"), rig.path("moved")).unwrap();
    assert_eq!(rig.find(Node::ROOT, "moved").await.map(|found| found.0), Err(libc::ENOENT));
    fs::write(rig.path("home/key"), "a new one").unwrap();
    assert_eq!(rig.find(home, "key").await.map(|found| found.0), Err(libc::ENOENT));
    // The mount cannot bind its way in.
    let ssh = fs::metadata(rig.path("home/.ssh")).unwrap();
    let id = fs::metadata(rig.path("home/.ssh/id")).unwrap();
    use std::os::unix::fs::MetadataExt;
    let (dir, file) = (Node(rig.number()), Node(rig.number()));
    let bindings = vec![
        Binding {
            node: dir,
            parent: home,
            name: b".ssh".to_vec().into(),
            dev: ssh.dev(),
            ino: ssh.ino(),
            btime: remotely_proto::fs::Time::default(),
        },
        Binding {
            node: file,
            parent: dir,
            name: b"id".to_vec().into(),
            dev: id.dev(),
            ino: id.ino(),
            btime: remotely_proto::fs::Time::default(),
        },
    ];
    rig.tell(Lane::Query, Request::Bind { bindings }, Bytes::new()).await;
    assert_eq!(rig.read(file, 0, 10).await, Err(libc::ESTALE));
    assert_eq!(rig.list(dir).await.map(|list| list.len()), Err(libc::ESTALE));
    // Nor move something onto it, or it elsewhere.
    let rename = |from: &str, to: &str| Request::Rename {
        parent: home,
        name: from.as_bytes().to_vec().into(),
        new_parent: home,
        new_name: to.as_bytes().to_vec().into(),
        flags: 0,
        keep: None,
    };
    assert_eq!(rig.change(rename("open", "key")).await, failed(libc::EACCES));
    assert_eq!(rig.change(rename(".ssh", "visible")).await, failed(libc::ENOENT));
    // What did not exist at the start.
    fs::create_dir(rig.path("later")).unwrap();
    fs::write(rig.path("later/secret"), "x").unwrap();
    fs::write(rig.path("later/other"), "x").unwrap();
    let later = rig.node("later").await;
    assert_eq!(listed(rig.list(later).await.unwrap()), ["other"]);
    // No notice gives it away.
    rig.notices().await;
    fs::write(rig.path("home/key"), "changed").unwrap();
    fs::write(rig.path("later/secret"), "changed").unwrap();
    assert_eq!(rig.notices().await, []);
}

/// Hides paths beneath the served directory.
fn hide(dir: &Path, config: &mut Config, paths: &[&str]) {
    config.hide.extend(paths.iter().map(|path| dir.join(path).as_os_str().as_bytes().to_vec()));
}

fn rename(from: (Node, &str), to: (Node, &str), flags: u32) -> Request {
    let name = |name: &str| name.as_bytes().to_vec().into();
    let (parent, new_parent) = (from.0, to.0);
    Request::Rename { parent, name: name(from.1), new_parent, new_name: name(to.1), flags, keep: None }
}

async fn errno_of(rig: &Rig, parent: Node, name: &str) -> Option<i32> {
    rig.find(parent, name).await.err()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mount_does_not_move_what_leads_to_something_hidden() {
    let rig = Rig::with(|dir, config| {
        fs::create_dir_all(dir.join("here/keep")).unwrap();
        fs::create_dir_all(dir.join("data/real")).unwrap();
        fs::create_dir(dir.join("other")).unwrap();
        symlink("data/real", dir.join("link")).unwrap();
        hide(dir, config, &["here/keep/secret", "later/deep/secret", "link/secret"]);
    })
    .await;
    // As the mount makes it, somebody here fills it.
    let make = rig.make(Node::ROOT, "later", libc::S_IFDIR | 0o755);
    assert!(matches!(rig.change(Request::Mknod { make, rdev: 0 }).await, Reply::Found { .. }));
    fs::create_dir(rig.path("later/deep")).unwrap();
    for place in ["here/keep", "later/deep", "data/real"] {
        fs::write(rig.path(place).join("secret"), "x").unwrap();
    }
    let (root, busy) = (Node::ROOT, failed(libc::EBUSY));
    for path in ["here", "here/keep", "later", "later/deep", "data", "data/real", "link"] {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let above = rig.node(above).await;
        assert_eq!(rig.change(rename((above, name), (root, "away"), 0)).await, busy, "{path}");
        let exchange = libc::RENAME_EXCHANGE;
        assert_eq!(rig.change(rename((root, "other"), (above, name), exchange)).await, busy, "{path}");
    }
    let unlink =
        |name: &str, dir| Request::Unlink { parent: root, name: name.as_bytes().to_vec().into(), dir, keep: None };
    assert_eq!(rig.change(unlink("link", false)).await, busy);
    assert_eq!(rig.change(unlink("later", true)).await, busy);
    // All else is moved as ever.
    assert_eq!(rig.change(rename((root, "other"), (root, "keep"), 0)).await, Reply::Done);
    for path in ["here/keep", "later/deep", "data/real"] {
        let dir = rig.node(path).await;
        assert_eq!(errno_of(&rig, dir, "secret").await, Some(libc::ENOENT), "{path}");
    }
}

/// What does not exist yet could be made to lead to where the mount has files open.
#[tokio::test(flavor = "multi_thread")]
async fn the_mount_does_not_lay_the_way_to_something_hidden() {
    let rig = Rig::with(|dir, config| hide(dir, config, &["app/cache/token"])).await;
    let root = Node::ROOT;
    fs::create_dir_all(rig.path("mine/cache")).unwrap();
    assert_eq!(rig.change(rename((root, "mine"), (root, "app"), 0)).await, failed(libc::EBUSY));
    let link = |make: Make| Request::Symlink { make, target: b"mine".to_vec().into() };
    assert_eq!(rig.change(link(rig.make(root, "app", 0))).await, failed(libc::EBUSY));
    assert!(matches!(rig.change(link(rig.make(root, "else", 0))).await, Reply::Found { .. }));
    let node = rig.node("else").await;
    let request = Request::Link { node, file: None, parent: root, name: b"app".to_vec().into() };
    assert_eq!(rig.change(request).await, failed(libc::EBUSY));
    // Directories may be made there, but nothing put under the hidden name.
    let make = rig.make(root, "app", libc::S_IFDIR | 0o755);
    assert!(matches!(rig.change(Request::Mknod { make, rdev: 0 }).await, Reply::Found { .. }));
    let app = rig.node("app").await;
    assert_eq!(rig.change(link(rig.make(app, "cache", 0))).await, failed(libc::EBUSY));
    assert_eq!(rig.change(rename((rig.node("mine").await, "cache"), (app, "cache"), 0)).await, failed(libc::EBUSY));
    let make = rig.make(app, "cache", libc::S_IFDIR | 0o755);
    assert!(matches!(rig.change(Request::Mknod { make, rdev: 0 }).await, Reply::Found { .. }));
    let cache = rig.node("app/cache").await;
    assert_eq!(rig.create(cache, "token").await, Err(libc::EACCES));
    let (made, file) = (rig.make(cache, "", 0o600), File(rig.number()));
    let node = made.node;
    let flags = libc::O_RDWR as u32;
    let reply = rig.change(Request::Tmpfile { make: made, flags, file }).await;
    if let Reply::Found { .. } = reply {
        let name = b"token".to_vec().into();
        let request = Request::Link { node, file: Some(file), parent: cache, name };
        assert_eq!(rig.change(request).await, failed(libc::EACCES));
    }
    rig.create(cache, "planted").await.unwrap();
    assert_eq!(rig.change(rename((cache, "planted"), (cache, "token"), 0)).await, failed(libc::EACCES));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_to_be_at_a_hidden_path_is_hidden() {
    let rig = Rig::with(|dir, config| {
        fs::create_dir(dir.join("keep")).unwrap();
        fs::write(dir.join("keep/secret"), "first").unwrap();
        hide(dir, config, &["keep/secret", "later/secret", "linked/secret"]);
    })
    .await;
    // The directory is moved here, and another one takes its place, known to the mount under its old name or not.
    assert_eq!(errno_of(&rig, rig.node("keep").await, "secret").await, Some(libc::ENOENT));
    fs::rename(rig.path("keep"), rig.path("k2")).unwrap();
    fs::create_dir(rig.path("keep")).unwrap();
    fs::write(rig.path("keep/secret"), "second").unwrap();
    for path in ["keep", "k2"] {
        let dir = rig.node(path).await;
        assert_eq!(errno_of(&rig, dir, "secret").await, Some(libc::ENOENT), "{path}");
        assert!(rig.list(dir).await.unwrap().is_empty(), "{path}");
        assert_eq!(rig.create(dir, "secret").await, Err(libc::EACCES), "{path}");
    }
    // The mount has another name for it than the user: only the directory itself counts.
    fs::create_dir(rig.path("x")).unwrap();
    fs::write(rig.path("x/secret"), "third").unwrap();
    let x = rig.node("x").await;
    assert_eq!(errno_of(&rig, x, "secret").await, None);
    fs::rename(rig.path("x"), rig.path("later")).unwrap();
    assert_eq!(errno_of(&rig, x, "secret").await, Some(libc::ENOENT));
    fs::create_dir(rig.path("y")).unwrap();
    fs::write(rig.path("y/secret"), "fourth").unwrap();
    symlink("y", rig.path("linked")).unwrap();
    assert_eq!(errno_of(&rig, rig.node("y").await, "secret").await, Some(libc::ENOENT));
}

/// What came to be there after the start is known by its inode after a while, without having been asked for.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_hidden_stays_so_when_it_is_moved() {
    let rig = Rig::with(|dir, config| {
        fs::create_dir_all(dir.join("used/below")).unwrap();
        hide(dir, config, &["later/secret", "later/dir"]);
    })
    .await;
    let used = rig.node("used").await;
    assert_eq!(errno_of(&rig, used, "below").await, None);
    fs::create_dir_all(rig.path("later/dir")).unwrap();
    fs::write(rig.path("later/dir/key"), "x").unwrap();
    fs::write(rig.path("later/secret"), "x").unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    fs::rename(rig.path("later/secret"), rig.path("moved")).unwrap();
    fs::rename(rig.path("later"), rig.path("l2")).unwrap();
    assert_eq!(errno_of(&rig, Node::ROOT, "moved").await, Some(libc::ENOENT));
    let l2 = rig.node("l2").await;
    assert!(rig.list(l2).await.unwrap().is_empty());
    // A directory that the mount is using is moved onto the name.
    fs::create_dir(rig.path("later")).unwrap();
    fs::rename(rig.path("used"), rig.path("later/dir")).unwrap();
    let start = Instant::now();
    while rig.list(used).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_gets_no_new_name_once_it_is_hidden() {
    let rig = Rig::with(|dir, config| {
        fs::create_dir(dir.join("vault")).unwrap();
        for name in ["file", "inner"] {
            fs::write(dir.join(name), "x").unwrap();
        }
        hide(dir, config, &["key", "vault"]);
    })
    .await;
    for (name, goal) in [("file", "key"), ("inner", "vault/inner")] {
        let node = rig.node(name).await;
        let file = rig.open_write(node, libc::O_RDWR).await.unwrap();
        fs::rename(rig.path(name), rig.path(goal)).unwrap();
        let link = Request::Link { node, file: Some(file), parent: Node::ROOT, name: b"found".to_vec().into() };
        let start = Instant::now();
        // What is found under a hidden name is known by its inode from then on.
        while goal == "key" && errno_of(&rig, Node::ROOT, goal).await != Some(libc::ENOENT) {
            assert!(start.elapsed() < Duration::from_secs(5));
        }
        assert_eq!(rig.change(link).await, failed(libc::ENOENT), "{name}");
        assert!(!rig.path("found").exists());
    }
}

/// The mount can use up all descriptors; what cannot be looked at is not shown.
#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_hidden_names_stay_hidden() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let rig = Rig::with(|dir, config| hide(dir, config, &["later/secret"])).await;
    fs::create_dir(rig.path("later")).unwrap();
    fs::write(rig.path("later/open"), "x").unwrap();
    let later = rig.node("later").await;
    // Now it is open, and needs no other descriptor to be looked into.
    rig.list(later).await.unwrap();
    fs::write(rig.path("later/secret"), "x").unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).unwrap();
    let found = (errno_of(&rig, later, "secret").await, errno_of(&rig, later, "open").await);
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(found, (Some(libc::ENOENT), None));
}
