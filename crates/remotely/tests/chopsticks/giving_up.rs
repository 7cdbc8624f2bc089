//! Chopsticks has no timeout anywhere and nothing can be cancelled. Here everything can be given up, and ends there too.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use remotely::target::Target;
use remotely::tunnel::ErrorKind;
use remotely::{Group, Queue, Sender, Tunnel, channel, here, remote};

use crate::{char_range, forever, get_pid, group, local};

const SOON: Duration = Duration::from_millis(200);

/// Where nobody ever answers.
fn silent(name: &str) -> Tunnel {
    let target = Target::local().command(["sh", "-c", "exec sleep 600", "sh"]).unwrap();
    Tunnel::new(target).named(name).on_line(|_| {})
}

/// Says when it is ended.
struct Bell(Option<Sender<String>>);

impl Drop for Bell {
    fn drop(&mut self) {
        let bell = self.0.take().unwrap();
        tokio::spawn(async move { bell.send("ended".into()).await });
    }
}

#[remote]
async fn wait_to_be_ended(bell: Sender<String>) {
    bell.send("begun".into()).await.unwrap();
    let _bell = Bell(Some(bell));
    std::future::pending().await
}

#[remote]
fn look_whether_wanted(bell: Sender<String>) {
    bell.blocking_send("begun".into()).unwrap();
    while !here::is_cancelled() {
        std::thread::sleep(Duration::from_millis(5));
    }
    bell.blocking_send("ended".into()).unwrap();
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_there() {
    let tunnel = local("a");
    let (sender, mut bell) = channel();
    let (other_sender, mut other_bell) = channel();
    {
        let mut call = tunnel.call(wait_to_be_ended, (sender,));
        let mut blocking = tunnel.call(look_whether_wanted, (other_sender,));
        let both = async {
            assert_eq!(bell.recv().await.unwrap().unwrap(), "begun");
            assert_eq!(other_bell.recv().await.unwrap().unwrap(), "begun");
        };
        tokio::select! {
            _ = &mut call => panic!("it never returns"),
            _ = &mut blocking => panic!("nor does this"),
            () = both => {}
        }
    }
    assert_eq!(bell.recv().await.unwrap().unwrap(), "ended");
    assert_eq!(other_bell.recv().await.unwrap().unwrap(), "ended");
    assert!(tunnel.is_connected());
}

#[tokio::test]
async fn calls_have_a_limit_connecting_included() {
    for tunnel in [local("a"), silent("s")] {
        let error = tunnel.call(forever, ()).timeout(SOON).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Timeout(SOON)), "{error:?}");
    }
}

#[tokio::test]
async fn connecting_has_a_limit() {
    let error = silent("s").connect_timeout(SOON).connect().await.unwrap_err();
    assert!(error.to_string().contains("no answer within 0.2 s"), "{error}");
    // In a group, a silent host keeps nobody.
    let group = (group(&["a", "b"]) | silent("s")).connect_timeout(Duration::from_secs(2));
    let mut results = group.call(get_pid, ());
    let mut order = Vec::new();
    while let Some((host, result)) = results.next().await {
        assert_eq!(result.is_ok(), host != "s", "{result:?}");
        order.push(host);
    }
    assert_eq!(order.last().unwrap(), "s");
}

#[tokio::test]
async fn groups_and_queues_have_limits() {
    let group = group(&["a", "b"]).call_timeout(SOON);
    group.connect().await.raise_failures().unwrap();
    let given_up = group.call(forever, ()).await;
    assert!(given_up.failures().all(|(_, error)| matches!(error.kind(), ErrorKind::Timeout(SOON))));
    assert_eq!(given_up.failures().count(), 2);
    // Behind what is given up, a queue goes on.
    let (queue, tunnel) = (Queue::new(), local("c"));
    let hanging = queue.put(&tunnel, tunnel.call(forever, ()).timeout(SOON));
    let next = queue.call(&tunnel, char_range, ('a', 'c'));
    assert!(hanging.await.is_err());
    assert_eq!(next.await.unwrap(), "abc");
}

#[tokio::test]
async fn dropping_the_results_of_a_group_cancels() {
    let group: Group = group(&["a", "b"]);
    let (sender, mut bell) = channel();
    let calls = group.call(wait_to_be_ended, (sender,));
    let mut heard = Vec::new();
    for _ in 0..2 {
        heard.push(bell.recv().await.unwrap().unwrap());
    }
    drop(calls);
    for _ in 0..2 {
        heard.push(bell.recv().await.unwrap().unwrap());
    }
    assert_eq!(heard, ["begun", "begun", "ended", "ended"]);
}

#[tokio::test]
async fn a_transfer_that_is_dropped_leaves_no_half_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    let source = std::fs::File::create(at("large")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&source, &vec![7; 48 << 20], 0).unwrap();
    std::fs::write(at("there"), "precious").unwrap();
    let tunnel = local("a");
    tunnel.connect().await.unwrap();
    let put = tunnel.put(at("large"), at("there"));
    let put = tokio::time::timeout(Duration::from_millis(10), put.into_future()).await;
    assert!(put.is_err(), "it was faster than that");
    let began = Instant::now();
    while std::fs::read_dir(dir.path()).unwrap().count() > 3 && began.elapsed() < Duration::from_secs(3) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(std::fs::read_to_string(at("there")).unwrap(), "precious");
    assert!(tunnel.call(get_pid, ()).await.is_ok(), "the link is as before");
    // What stays of a large file is gone on with.
    let report = tunnel.put(at("large"), at("there")).await.unwrap();
    assert_eq!((report.files, std::fs::metadata(at("there")).unwrap().len()), (1, 48 << 20));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn without_async_too() {
    let tunnel = remotely::blocking::Tunnel::from(silent("s"));
    let error = tunnel.call_within(SOON, get_pid, ()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout(SOON)), "{error:?}");
}
