//! Calls over a real link, both ends in this process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ends;

// The attribute speaks of the library.
extern crate remotely_call as remotely;

use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use ends::Ends;
use remotely_call::{CallError, FailureKind, Receiver, Sender, channel};
use remotely_macros::remote;
use serde::{Deserialize, Serialize};

#[remote]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[remote]
async fn add_later(a: u64, b: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(20)).await;
    add(a, b)
}

#[remote]
fn read(path: std::path::PathBuf) -> io::Result<String> {
    std::fs::read_to_string(path)
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Refusal {
    Busy { until: u32 },
    Never,
}

#[remote]
fn refuse(until: Option<u32>) -> Result<(), Refusal> {
    Err(until.map_or(Refusal::Never, |until| Refusal::Busy { until }))
}

#[remote]
fn divide(a: u64, b: u64) -> u64 {
    a / b
}

#[remote]
async fn divide_later(a: u64, b: u64) -> u64 {
    a / b
}

#[remote]
fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

#[remote]
fn sleep(millis: u64) {
    let end = Instant::now() + Duration::from_millis(millis);
    while Instant::now() < end && !remotely_call::here::is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[remote]
async fn sleep_badly(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Cannot be written.
#[derive(Debug, Deserialize)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("it cannot be written")
    }
}

#[remote]
fn unwritable() -> Unwritable {
    Unwritable
}

#[remote]
async fn count(to: u32, into: Sender<u32>) {
    for n in 0..to {
        if into.send(n).await.is_err() {
            return;
        }
    }
}

#[remote]
async fn sum(of: Receiver<u32>) -> Result<u64, remotely_call::ChannelError> {
    Ok(of.collect().await?.into_iter().map(u64::from).sum())
}

#[remote]
fn counted(to: u32) -> Receiver<u32> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || (0..to).all(|n| sender.blocking_send(n).is_ok()));
    receiver
}

#[tokio::test]
async fn functions_return_what_they_return_here() {
    let ends = Ends::new();
    assert_eq!(add(2, 3), 5, "it is still a function");
    assert_eq!(add_later(2, 3).await, 5);
    assert_eq!(ends.caller.call::<add>((2, 3)).await.unwrap(), 5);
    assert_eq!(ends.caller.call::<add_later>((2, 3)).await.unwrap(), 5);
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    assert_eq!(ends.caller.call::<echo>((large.clone(),)).await.unwrap(), large);
}

#[tokio::test]
async fn errors_and_panics_come_back_told() {
    let ends = Ends::new();
    let Err(CallError::Failed(failure)) = ends.caller.call::<read>(("/no/such".into(),)).await else { panic!() };
    assert_eq!(
        (failure.kind, failure.message.as_str()),
        (FailureKind::Error, "No such file or directory (os error 2)")
    );
    assert_eq!(failure.type_name.as_deref(), Some("std::io::error::Error"));

    let Err(CallError::Failed(failure)) = ends.caller.call::<refuse>((Some(7),)).await else { panic!() };
    assert_eq!(failure.message, "Busy { until: 7 }");
    let value: Refusal = minicbor_serde::from_slice(&failure.value.unwrap()).unwrap();
    assert_eq!(value, Refusal::Busy { until: 7 });

    for failed in [ends.caller.call::<divide>((1, 0)).await, ends.caller.call::<divide_later>((1, 0)).await] {
        let Err(CallError::Failed(failure)) = failed else { panic!("{failed:?}") };
        assert_eq!(failure.kind, FailureKind::Panic);
        assert!(failure.message.starts_with("attempt to divide by zero (crates/call/tests/calls.rs:"), "{failure:?}");
        assert!(failure.backtrace.unwrap().contains("calls.rs"));
    }
    assert_eq!(ends.caller.call::<divide>((6, 3)).await.unwrap(), 2, "others go on");
}

#[tokio::test]
async fn calls_that_block_run_side_by_side() {
    let ends = Ends::new();
    let began = Instant::now();
    let calls: Vec<_> = (0..50).map(|_| ends.caller.call::<sleep>((200,))).collect();
    for call in futures_util::future::join_all(calls).await {
        call.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

/// Begins a call, or goes on with it.
async fn is_waiting(call: &mut (impl Future + Unpin)) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *call).poll(cx).is_pending())).await
}

/// What has always been quick is run by the thread that reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_quick_function_that_blocks_for_once_keeps_nobody_waiting() {
    let ends = Ends::new();
    for round in 0..2 {
        for _ in 0..100 {
            ends.caller.call::<sleep>((0,)).await.unwrap();
            ends.caller.call::<sleep_badly>((0,)).await.unwrap();
        }
        let began = Instant::now();
        let mut blocking: Vec<_> = (0..20).map(|_| Box::pin(ends.caller.call::<sleep>((60_000,)))).collect();
        for call in &mut blocking {
            assert!(is_waiting(call).await);
        }
        let mut badly = Box::pin(ends.caller.call::<sleep_badly>((1500,)));
        assert!(is_waiting(&mut badly).await);
        assert_eq!(ends.caller.call::<add>((2, 3)).await.unwrap(), 5);
        assert_eq!(ends.caller.call::<add_later>((2, 3)).await.unwrap(), 5);
        assert!(began.elapsed() < Duration::from_secs(1), "round {round}: {:?}", began.elapsed());
        badly.await.unwrap();
        // Cancelled, they end; then the function is quick again, elsewhere at first.
        drop(blocking);
    }
}

#[tokio::test]
async fn a_panic_while_the_value_is_written_is_of_its_call_alone() {
    let ends = Ends::new();
    for _ in 0..3 {
        let Err(CallError::Failed(failure)) = ends.caller.call::<unwritable>(()).await else { panic!() };
        assert_eq!(failure.kind, FailureKind::Panic);
    }
    assert_eq!(ends.caller.call::<add>((2, 3)).await.unwrap(), 5);
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_there() {
    let ends = Ends::new();
    let began = Instant::now();
    let call = tokio::time::timeout(Duration::from_millis(50), ends.caller.call::<sleep>((60_000,)));
    assert!(call.await.is_err());
    // It is the only thread's turn again only when the first has ended.
    ends.caller.call::<sleep>((1,)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn channels_stream_both_ways() {
    let ends = Ends::new();
    let (sender, receiver) = channel();
    let counting = ends.caller.call::<count>((100_000, sender));
    let (counted_there, received) = tokio::join!(counting, receiver.collect());
    counted_there.unwrap();
    assert_eq!(received.unwrap(), (0..100_000).collect::<Vec<u32>>());

    let (sender, receiver) = channel();
    let arguments = (receiver,);
    let summing = ends.caller.call::<sum>(arguments);
    let feeding = async {
        for n in 0..1000 {
            sender.send(n).await.unwrap();
        }
        drop(sender);
    };
    assert_eq!(tokio::join!(summing, feeding).0.unwrap(), 499_500);

    let items = ends.caller.call::<counted>((5,)).await.unwrap();
    assert_eq!(items.collect().await.unwrap(), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_sender_hears_that_nobody_receives() {
    let ends = Ends::new();
    let (sender, mut receiver) = channel();
    let arguments = (u32::MAX, sender);
    let counting = ends.caller.call::<count>(arguments);
    let taking = async {
        assert_eq!(receiver.recv().await.unwrap(), Some(0));
        drop(receiver);
    };
    tokio::join!(counting, taking).0.unwrap();
}

#[tokio::test]
async fn what_waits_fails_when_the_link_ends() {
    let ends = Ends::new();
    let (sender, receiver) = channel::<u32>();
    let arguments = (100, sender);
    assert!(ends.caller.call::<count>(arguments).await.is_ok());
    let items = ends.caller.call::<counted>((u32::MAX,)).await.unwrap();
    let closing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        ends.close();
    };
    let (slept, ()) = tokio::join!(ends.caller.call::<sleep>((60_000,)), closing);
    assert!(matches!(slept, Err(CallError::Over)), "{slept:?}");
    assert!(matches!(ends.caller.call::<add>((1, 1)).await, Err(CallError::Over)));
    assert!(items.collect().await.is_err());
    drop(receiver);
}
