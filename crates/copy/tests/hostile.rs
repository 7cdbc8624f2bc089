//! A side that says what no sender or receiver of ours would: nothing is written outside the destination, nothing panics,
//! nothing grows, and the other side learns that something is wrong.
#![allow(clippy::unwrap_used, reason = "in a test that is the finding")]

mod support;

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use minicbor::Encode;
use remotely_copy::{CopyError, Operation, Options, Report, fetch, put};
use remotely_proto::{
    file::{Answer, Hash, Item, Meta, Request, Seat, Unchanged, Way},
    message,
};
use remotely_session::{
    Class, LinkBuilder, MessageReceiver, MessageSender, Offer, RecvMessageError, Role, Service, Settings, Stream,
};
use support::{Random, Wire, drafts, pair};

fn hash(content: &[u8]) -> Hash {
    (*blake3::hash(content).as_bytes()).into()
}

fn seat(directory: u32, name: &[u8]) -> Seat {
    Seat { directory, name: name.to_vec().into() }
}

fn root(name: Option<&[u8]>, size: Option<u64>) -> Item {
    Item::Root { path: b"/evil".to_vec().into(), name: name.map(|name| name.to_vec().into()), size }
}

fn directory(id: u32, parent: u32, name: &[u8]) -> Item {
    Item::Directory { id, seat: seat(parent, name), mode: 0o755 }
}

fn file(directory: u32, name: &[u8], content: &[u8]) -> (Item, Vec<u8>) {
    let (seat, meta) = (seat(directory, name), Meta { mode: 0o100_644, ..Meta::default() });
    (Item::File { seat, meta, size: content.len() as u32, hash: hash(content) }, content.to_vec())
}

fn symlink(directory: u32, name: &[u8], target: &[u8]) -> Item {
    Item::Symlink { seat: seat(directory, name), target: target.to_vec().into(), meta: Meta::default() }
}

/// One message of items and their content.
fn said(items: impl IntoIterator<Item = (Item, Vec<u8>)>) -> Bytes {
    let (items, content): (Vec<Item>, Vec<Vec<u8>>) = items.into_iter().unzip();
    encoded(&items, content.concat())
}

fn encoded(head: &impl Encode<()>, payload: Vec<u8>) -> Bytes {
    let (front, payload) = message::encode(head, payload.into());
    [front, payload].concat().into()
}

fn bare(item: Item) -> (Item, Vec<u8>) {
    (item, Vec::new())
}

/// A host that answers a fetch with these bytes.
async fn fetched(bytes: Bytes, to: &Path) -> Result<Report, CopyError> {
    let (client, agent, _) = support::ends(&Wire::default());
    let settings = |role| Settings { role, ..Settings::default() };
    let (link, _incoming) = LinkBuilder::new(settings(Role::Client)).attach(client, Bytes::new());
    let (_agent, mut offers) = LinkBuilder::new(settings(Role::Agent)).attach(agent, Bytes::new());
    tokio::spawn(async move {
        let Offer { mut stream, .. } = offers.next().await.unwrap();
        let _ = stream.send.send(bytes).await;
        stream.send.finish();
        while let Ok(Some(_)) = stream.recv.recv().await {}
    });
    let options = Options::default();
    let fetching = fetch(&link, "/evil", Some(to), &options);
    tokio::time::timeout(Duration::from_secs(60), fetching).await.expect("it ends")
}

/// A client that puts these bytes. What the agent answers, and whether it ended in order.
async fn taken(bytes: Bytes, to: &Path) -> (Vec<Answer>, Result<(), RecvMessageError>) {
    use std::os::unix::ffi::OsStrExt;
    let pair = pair();
    let stream = pair.link.open(Service::FILE, Class::Bulk, Bytes::new()).unwrap();
    let receiving =
        remotely_proto::file::Receiving { parents: false, owner: true, sync: false, resume: true, mode: None };
    let destination = Some(to.as_os_str().as_bytes().to_vec().into());
    let mut send = MessageSender::new(stream.send);
    send.send(&Request::Put { destination, receiving }, Bytes::new()).await.unwrap();
    let mut send = send.into_inner();
    let _ = send.send(bytes).await;
    send.finish();
    let (mut answers, mut recv) = (Vec::new(), MessageReceiver::new(stream.recv));
    loop {
        match tokio::time::timeout(Duration::from_secs(60), recv.recv::<Answer>()).await.expect("it ends") {
            Ok(Some((answer, _))) => answers.push(answer),
            Ok(None) => return (answers, Ok(())),
            Err(error) => return (answers, Err(error)),
        }
    }
}

/// A place with something beside it that must stay as it is.
fn place() -> (tempfile::TempDir, std::path::PathBuf) {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("outside")).unwrap();
    fs::write(home.path().join("outside/kept"), b"kept").unwrap();
    let inside = home.path().join("inside");
    fs::create_dir(&inside).unwrap();
    (home, inside)
}

fn untouched(home: &tempfile::TempDir) {
    let mut names: Vec<_> =
        fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["inside", "outside"]);
    assert_eq!(fs::read_dir(home.path().join("outside")).unwrap().count(), 1);
    assert_eq!(fs::read(home.path().join("outside/kept")).unwrap(), b"kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_elsewhere_are_refused() {
    let long = [b'x'; 256];
    let draft = b".a.remotely-".iter().copied().chain(*b"000000000000").collect::<Vec<_>>();
    let bad: [&[u8]; 9] = [b"..", b".", b"", b"/", b"../outside/kept", b"/etc/evil", b"a/b", b"nul\0", &long];
    for name in bad {
        let (home, inside) = place();
        let items = || {
            said([
                bare(root(Some(b"tree"), None)),
                bare(directory(1, 0, b"")),
                file(1, name, b"evil"),
                bare(directory(2, 1, name)),
                file(2, b"below", b"evil"),
                bare(symlink(1, name, b"/etc")),
                bare(Item::Special {
                    seat: seat(1, name),
                    meta: Meta { mode: 0o010_644, ..Meta::default() },
                    device: 0,
                }),
                file(1, b"good", b"good"),
                bare(Item::Finish),
            ])
        };
        let Err(CopyError::Incomplete { failures, report, .. }) = fetched(items(), &inside).await else { panic!() };
        assert!(failures.iter().all(|failure| failure.operation == Operation::Name), "{failures:?}");
        assert_eq!((failures.len(), report.files), (4, 1), "{name:?}");
        assert_eq!(fs::read(inside.join("tree/good")).unwrap(), b"good");
        assert_eq!(fs::read_dir(inside.join("tree")).unwrap().count(), 1);
        let (answers, end) = taken(items(), &inside).await;
        assert_eq!(answers.len(), 5, "{answers:?}");
        assert!(end.is_ok());
        untouched(&home);

        // The name of the root is the sender's, too.
        let result =
            fetched(said([bare(root(Some(name), Some(4))), file(0, b"", b"evil"), bare(Item::Finish)]), &inside).await;
        assert!(
            matches!(result, Err(CopyError::Failed(ref failure)) if failure.operation == Operation::Name),
            "{result:?}"
        );
        let result = fetched(said([bare(root(Some(name), None)), bare(directory(1, 0, b""))]), &inside).await;
        assert!(matches!(result, Err(CopyError::Failed(_))), "{result:?}");
        untouched(&home);
    }
    let (home, inside) = place();
    // A name of that kind is a draft only if it is that of its file.
    let plain = said([bare(root(Some(&draft), Some(1))), file(0, b"", b"x"), bare(Item::Finish)]);
    assert_eq!(fetched(plain, &inside).await.unwrap().files, 1);
    untouched(&home);
}

#[tokio::test(flavor = "multi_thread")]
async fn symbolic_links_are_never_followed() {
    let (home, inside) = place();
    let outside = home.path().join("outside");
    use std::os::unix::ffi::OsStrExt;
    let target = outside.as_os_str().as_bytes();
    let kept = [target, b"/kept"].concat();
    let (begin, data, end) = (
        Item::Begin { file: 1, seat: seat(1, b"kept"), ask: None, start: 0, size: 4 },
        Item::Data { offset: 0, len: 4 },
        Item::End { meta: Meta { mode: 0o777, ..Meta::default() }, size: 4, hash: hash(b"evil") },
    );
    let link = |name: &[u8], target: &[u8]| Item::Link {
        seat: seat(1, name),
        target: target.to_vec().into(),
        size: 4,
        mtime: Meta::default().mtime,
    };
    let items = || {
        said([
            bare(root(Some(b"tree"), None)),
            bare(directory(1, 0, b"")),
            // A link, then a directory of that name, and what is in it.
            bare(symlink(1, b"way", target)),
            bare(directory(2, 1, b"way")),
            file(2, b"evil", b"evil"),
            bare(symlink(1, b"up", b"..")),
            bare(directory(3, 1, b"up")),
            file(3, b"evil", b"evil"),
            // A link, then a file of that name.
            bare(symlink(1, b"kept", &kept)),
            bare(begin.clone()),
            (data.clone(), b"evil".to_vec()),
            bare(end.clone()),
            // What is outside, under a name inside.
            bare(link(b"h1", b"way/kept")),
            bare(link(b"h2", b"../outside/kept")),
            bare(link(b"h3", &kept)),
            bare(link(b"h4", b"")),
            bare(Item::Keep { seat: seat(1, b"way"), meta: Meta { mode: 0o777, ..Meta::default() } }),
            bare(Item::DirectoryEnd { id: 1, meta: Meta::default() }),
            bare(Item::Finish),
        ])
    };
    let Err(CopyError::Incomplete { failures, .. }) = fetched(items(), &inside).await else { panic!() };
    assert_eq!(failures.len(), 7, "{failures:?}");
    untouched(&home);
    assert!(fs::symlink_metadata(inside.join("tree/way")).unwrap().is_symlink());
    assert_eq!(fs::read(inside.join("tree/kept")).unwrap(), b"evil");
    fs::remove_dir_all(inside.join("tree")).unwrap();
    let (answers, end) = taken(items(), &inside).await;
    assert!(end.is_ok() && answers.len() == 8, "{answers:?}");
    untouched(&home);
    assert!(!inside.join("evil").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_ends_the_transfer() {
    let begin = |file, ask, start| Item::Begin { file, seat: seat(1, b"f"), ask, start, size: 9 << 20 };
    let tree = || vec![bare(root(Some(b"tree"), None)), bare(directory(1, 0, b""))];
    let with = |items: Vec<(Item, Vec<u8>)>| said(tree().into_iter().chain(items));
    let ask = |ask| Item::Ask {
        ask,
        seat: seat(1, b"f"),
        meta: Meta::default(),
        size: 1,
        unchanged: Unchanged::Stamp,
        resume: false,
        blocks: u32::MAX,
    };
    let mut loops = tree();
    loops.extend([bare(directory(2, 1, b"a")), bare(directory(3, 2, b"b"))]);
    loops.extend([bare(Item::DirectoryEnd { id: 2, meta: Meta::default() }), bare(directory(2, 3, b"c"))]);
    let mut head_too_long = 8_u32.to_le_bytes().to_vec();
    head_too_long.extend(9_u32.to_le_bytes());
    let cases: Vec<(&str, Bytes)> = vec![
        ("no message", Random(1).bytes(100_000).into()),
        ("too long", [u32::MAX.to_le_bytes(), 1_u32.to_le_bytes()].concat().into()),
        ("head too long", head_too_long.into()),
        ("two roots", with(vec![bare(root(Some(b"x"), None))])),
        ("root twice", with(vec![bare(directory(2, 0, b""))])),
        ("directory twice", with(vec![bare(directory(1, 1, b"x"))])),
        ("loop", said(loops)),
        ("number zero", said([bare(root(Some(b"tree"), None)), bare(directory(0, 0, b""))])),
        ("unknown directory", with(vec![file(7, b"x", b"")])),
        ("end of unknown", with(vec![bare(Item::DirectoryEnd { id: 7, meta: Meta::default() })])),
        ("nothing begun", said([file(1, b"x", b"")])),
        ("a file as root of a tree", with(vec![file(0, b"", b"")])),
        ("a link as root", with(vec![bare(symlink(0, b"", b"x"))])),
        ("data of nothing", with(vec![(Item::Data { offset: 0, len: 1 }, vec![0])])),
        ("end of nothing", with(vec![bare(Item::Broken)])),
        ("file in file", with(vec![bare(begin(1, None, 0)), file(1, b"x", b"")])),
        ("begin in file", with(vec![bare(begin(1, None, 0)), bare(begin(2, None, 0))])),
        ("ask in file", with(vec![bare(begin(1, None, 0)), bare(ask(1))])),
        ("finish in file", with(vec![bare(begin(1, None, 0)), bare(Item::Finish)])),
        ("number again", with(vec![bare(begin(1, None, 0)), bare(Item::Broken), bare(begin(1, None, 0))])),
        ("start of nothing", with(vec![bare(begin(1, None, 4096))])),
        ("start of unknown", with(vec![bare(begin(1, Some(9), 4096))])),
        ("copy of nothing", with(vec![bare(begin(1, None, 0)), bare(Item::Copy { offset: 0, from: 0, len: 1 })])),
        (
            "copy beyond all",
            with(vec![bare(begin(1, None, 0)), bare(Item::Copy { offset: u64::MAX, from: u64::MAX, len: u64::MAX })]),
        ),
        ("content missing", with(vec![bare(Item::Data { offset: 0, len: u32::MAX })])),
        ("content of nothing", with(vec![(Item::Forget { ask: 1 }, vec![1, 2, 3])])),
        ("after the end", with(vec![bare(Item::Finish), bare(Item::Forget { ask: 1 })])),
        ("file without a name", said([bare(root(None, Some(1))), file(0, b"", b"x")])),
    ];
    for (what, bytes) in cases {
        let (home, inside) = place();
        let result = fetched(bytes.clone(), &inside).await;
        assert!(matches!(result, Err(CopyError::Protocol { .. } | CopyError::Cut { .. })), "{what}: {result:?}");
        let (answers, _) = taken(bytes, &inside).await;
        assert!(!answers.iter().any(|answer| matches!(answer, Answer::Done { .. })), "{what}: {answers:?}");
        remotely_copy::idle().await;
        assert_eq!(drafts(&inside), [] as [std::path::PathBuf; 0], "{what}");
        untouched(&home);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_content_is_not_put_in_place() {
    let (home, inside) = place();
    fs::write(inside.join("f"), b"older").unwrap();
    let wrong_small =
        || Item::File { seat: seat(0, b""), meta: Meta::default(), size: 4, hash: hash(b"something else") };
    let begin = || bare(Item::Begin { file: 1, seat: seat(0, b""), ask: None, start: 0, size: 4 });
    let end = |size| bare(Item::End { meta: Meta::default(), size, hash: hash(b"evil") });
    let data = |offset, content: &[u8]| (Item::Data { offset, len: content.len() as u32 }, content.to_vec());
    let cases = [
        ("hash", vec![(wrong_small(), b"evil".to_vec())]),
        ("streamed", vec![begin(), data(0, b"live"), end(4)]),
        ("short", vec![begin(), data(0, b"evi"), end(3)]),
        ("long", vec![begin(), data(0, b"evil"), end(5)]),
        ("size too small", vec![begin(), data(0, b"evil"), end(3)]),
        ("hole", vec![begin(), data(1, b"evil"), end(5)]),
        ("backwards", vec![begin(), data(0, b"evil"), data(0, b"evil"), end(4)]),
        ("endless", vec![begin(), data(u64::MAX - 2, b"evil"), end(4)]),
        ("endless hole", vec![begin(), data(0, b"evil"), end(u64::MAX)]),
    ];
    for (what, items) in cases {
        let all =
            || said([bare(root(Some(b"f"), Some(4)))].into_iter().chain(items.clone()).chain([bare(Item::Finish)]));
        let result = fetched(all(), &inside).await;
        let Err(CopyError::Failed(failure)) = result else { panic!("{what}: {result:?}") };
        assert!(matches!(failure.operation, Operation::Compare | Operation::Write), "{what}: {failure:?}");
        let (answers, _) = taken(all(), &inside).await;
        assert!(matches!(answers[..], [Answer::Failed { .. }, Answer::Done { files: 0, .. }]), "{what}: {answers:?}");
        assert_eq!(fs::read(inside.join("f")).unwrap(), b"older");
        assert_eq!(drafts(&inside), [] as [std::path::PathBuf; 0]);
        untouched(&home);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_cannot_ask_for_more_than_it_may() {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("f");
    fs::write(&source, Random(1).bytes(9 << 20)).unwrap();
    let want = |ask, way, len: usize| encoded(&Answer::Want { ask, way }, vec![7; len]);
    let cases = [
        ("not asked", want(7, Way::Whole, 0), true),
        ("twice", [want(0, Way::Whole, 0), want(0, Way::Whole, 0)].concat().into(), true),
        ("signature too long", want(0, Way::Blocks { size: 4096 }, 20 * 70_000), true),
        ("half an entry", want(0, Way::Blocks { size: 4096 }, 21), true),
        ("signature of nothing", want(0, Way::Whole, 20), true),
        ("no message", Random(1).bytes(1000).into(), true),
        ("blocks of nothing", want(0, Way::Blocks { size: 0 }, 20), false),
        ("blocks of all", want(0, Way::Blocks { size: u32::MAX }, 20), false),
        ("more than there is", want(0, Way::From { len: u64::MAX, hash: hash(b"") }, 0), false),
        ("another beginning", want(0, Way::From { len: 5, hash: hash(b"other") }, 0), false),
    ];
    for (what, bytes, fatal) in cases {
        let (client, agent, _) = support::ends(&Wire::default());
        let settings = |role| Settings { role, ..Settings::default() };
        let (link, _incoming) = LinkBuilder::new(settings(Role::Client)).attach(client, Bytes::new());
        let (_agent, mut offers) = LinkBuilder::new(settings(Role::Agent)).attach(agent, Bytes::new());
        tokio::spawn(async move {
            let Offer { stream: Stream { mut send, recv, .. }, .. } = offers.next().await.unwrap();
            let mut items = MessageReceiver::new(recv);
            items.recv::<Request>().await.unwrap().unwrap();
            let asks = |items: Vec<Item>| items.iter().any(|item| matches!(item, Item::Ask { .. }));
            while !asks(items.recv().await.unwrap().unwrap().0) {}
            send.send(bytes).await.unwrap();
            let mut got = 0;
            while let Ok(Some(chunk)) = items.stream().recv().await {
                got += chunk.len();
            }
            let path = b"/there".to_vec().into();
            let done = Answer::Done { path, files: 1, unchanged: 0, bytes: got as u64, hash: None };
            let _ = send.send(encoded(&done, Vec::new())).await;
            send.finish();
        });
        let options = Options { delta: true, ..Options::default() };
        let putting = put(&link, &source, Some(Path::new("/x")), &options);
        let result = tokio::time::timeout(Duration::from_secs(60), putting).await.expect("it ends");
        match fatal {
            true => assert!(matches!(result, Err(CopyError::Protocol { .. })), "{what}: {result:?}"),
            // All of it is sent then.
            false => assert!(result.as_ref().is_ok_and(|report| report.bytes > 9 << 20), "{what}: {result:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_items_do_no_harm() {
    let names: [&[u8]; 6] = [b"a", b"b", b"..", b"", b"a/b", b"kept"];
    for seed in 1..300 {
        let (home, inside) = place();
        std::os::unix::fs::symlink("../outside", inside.join("a")).unwrap();
        let mut random = Random(seed * 7919);
        let mut items = vec![bare(root(None, None)), bare(directory(1, 0, b""))];
        for number in 0..30 {
            let dir = random.below(5) as u32;
            let name = names[random.below(6) as usize];
            let seat = seat(dir, name);
            let meta = Meta { mode: random.next() as u32, ..Meta::default() };
            let other = names[random.below(6) as usize];
            items.push(match random.below(14) {
                0..=3 => bare(directory(number + 2, dir, name)),
                4 | 5 => file(dir, name, b"evil"),
                6 => bare(symlink(dir, name, b"../outside")),
                7 => bare(Item::Link { seat, target: other.to_vec().into(), size: 4, mtime: meta.mtime }),
                8 => bare(Item::Special { seat, meta: Meta { mode: 0o010_600, ..meta }, device: 0 }),
                9 => bare(Item::DirectoryEnd { id: dir, meta }),
                10 => bare(Item::Begin { file: number, seat, ask: None, start: 0, size: 4 }),
                11 => (Item::Data { offset: random.below(4), len: 2 }, vec![1, 2]),
                12 => bare(Item::End { meta, size: random.below(4), hash: hash(b"") }),
                _ => bare(Item::Keep { seat, meta }),
            });
        }
        items.push(bare(Item::Finish));
        let _ = taken(said(items), &inside).await;
        remotely_copy::idle().await;
        untouched(&home);
        assert_eq!(drafts(&inside), [] as [std::path::PathBuf; 0], "{seed}");
    }
}
