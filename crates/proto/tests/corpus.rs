//! Replays the corpus of every fuzz target, as it lies in `fuzz/corpus`.

mod fuzz_bodies;

use std::{collections::HashSet, fs, mem::discriminant, path::Path};

use bytes::Bytes;
use remotely_proto::{
    call,
    frame::{FrameDecoder, Kind},
    fs::{Notice, Reply, Request, ToMount, ToServer},
    net,
};

#[test]
fn every_target_takes_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in fuzz_bodies::TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")) {
            let data = fs::read(entry.unwrap().path()).unwrap();
            target(&data);
            // What is cut short or has a bit wrong is taken as well.
            for end in 0..data.len().min(400) {
                target(&data[..end]);
                let mut wrong = data.clone();
                wrong[end] ^= 1 << (end % 8);
                target(&wrong);
            }
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
    }
}

#[test]
fn every_target_has_its_binary() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    for (name, _) in fuzz_bodies::TARGETS {
        let source = fs::read_to_string(targets.join(name).with_extension("rs")).unwrap();
        assert!(source.contains(&format!("run(\"{name}\"")), "{name}");
        fuzz_bodies::run(name, b"");
    }
}

#[test]
fn every_use_of_a_call_stream_is_in_the_corpus() {
    let opened: HashSet<_> = seeds("call_open")
        .iter()
        .map(|data| discriminant(&minicbor::decode::<call::Open>(data).expect("a seed that decodes")))
        .collect();
    assert_eq!(opened.len(), 5, "a use has no seed, or there is a new one");
    assert!(seeds("call_failure").iter().all(|data| minicbor::decode::<call::Failure>(data).is_ok()));
}

#[test]
fn every_use_of_a_net_stream_is_in_the_corpus() {
    let opened: HashSet<_> = seeds("net_open")
        .iter()
        .map(|data| discriminant(&minicbor::decode::<net::Open>(data).expect("a seed that decodes")))
        .collect();
    assert_eq!(opened.len(), 5, "a use has no seed, or there is a new one");
}

#[test]
fn what_the_fs_server_says_unasked_is_in_the_corpus() {
    let mut notices = HashSet::new();
    let mut replies = HashSet::new();
    for data in seeds("fs_to_mount") {
        match minicbor::decode::<ToMount>(&data).unwrap() {
            ToMount::Notice { notice, .. } => _ = notices.insert(discriminant(&notice)),
            ToMount::Reply { reply: Reply::Removed { .. }, .. } => _ = replies.insert("removed"),
            ToMount::Reply { reply: Reply::Found { parent: None, .. }, .. } => _ = replies.insert("found"),
            ToMount::Reply { reply: Reply::Found { parent: Some(_), .. }, .. } => _ = replies.insert("made"),
            ToMount::Reply { .. } => {}
        }
    }
    assert!(notices.contains(&discriminant(&Notice::PushEnd)));
    assert_eq!(notices.len(), 11, "a kind of notice has no seed, or there is a new one");
    assert_eq!(replies.len(), 3, "{replies:?}");
    let used = |data: &Vec<u8>| {
        matches!(minicbor::decode::<ToServer>(data).unwrap(), ToServer { request: Request::Used { .. }, .. })
    };
    assert!(seeds("fs_to_server").iter().any(used));
}

#[test]
fn every_kind_of_frame_is_in_the_corpus() {
    let (mut kinds, mut long_ack) = (Vec::new(), false);
    for data in seeds("frame") {
        let (mut decoder, mut rest) = (FrameDecoder::default(), Bytes::from(data));
        while let Some(part) = decoder.next(&mut rest).unwrap() {
            long_ack |= part.header.kind == Kind::Ack && part.header.len > 8;
            kinds.push(part.header.kind);
        }
    }
    for kind in [Kind::Hello, Kind::Open, Kind::Data, Kind::Eof, Kind::Stop, Kind::Reset, Kind::Pause, Kind::Goodbye] {
        assert!(kinds.contains(&kind), "{kind:?} is not among {kinds:?}");
    }
    for kind in [Kind::Ack, Kind::Ping, Kind::Pong, Kind::Widen] {
        assert!(kinds.contains(&kind), "{kind:?} is not among {kinds:?}");
    }
    assert!(long_ack, "an ack of several pipes is not among them");
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let seed = |entry: std::io::Result<fs::DirEntry>| entry.and_then(|entry| fs::read(entry.path())).expect("a seed");
    fs::read_dir(directory).expect("a corpus").map(seed).collect()
}
