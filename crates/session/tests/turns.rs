//! A link whose threads take turns, against one that is driven by a task: what those can rely on who have things done there.
#![allow(clippy::unwrap_used, reason = "in a test that is the finding")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use remotely_session::{Class, End, Incoming, Link, LinkBuilder, Pipe, Role, Service, Settings, Stream, Turns};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::time::timeout;

const SERVICE: Service = Service(900);

struct Ends {
    client: Link,
    _incoming: Incoming,
    agent: Link,
    offers: Incoming,
    turns: Turns,
    /// Jobs that were done elsewhere.
    elsewhere: Arc<AtomicUsize>,
    /// What the client reads from.
    to_client: std::io::PipeReader,
}

async fn ends() -> Ends {
    let (there, here) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let to_client = here.0.try_clone().unwrap();
    let client = Pipe { reader: here.0.into(), writer: there.1.into() };
    let agent = Pipe { reader: there.0.into(), writer: here.1.into() };
    let settings = |role| Settings { role, ..Settings::default() };
    let (client, _incoming) = LinkBuilder::new(settings(Role::Client)).attach(client, Bytes::new());
    let elsewhere = Arc::new(AtomicUsize::new(0));
    let counted = elsewhere.clone();
    let (agent, offers, turns) = LinkBuilder::new(settings(Role::Agent))
        .attach_in_turns(agent, Bytes::new(), move |job| {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(std::thread::spawn(job));
        })
        .unwrap();
    soon(agent.linked()).await.unwrap();
    soon(client.linked()).await.unwrap();
    Ends { client, _incoming, agent, offers, turns, elsewhere, to_client }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("it should have happened by now")
}

/// Gives everything back that comes, on the thread that leads.
async fn echo(ends: &mut Ends) -> Stream {
    let ours = ends.client.open(SERVICE, Class::Normal, Bytes::new()).unwrap();
    let Stream { mut send, mut recv, .. } = soon(ends.offers.next()).await.unwrap().stream;
    ends.turns.spawn(async move {
        while let Ok(Some(chunk)) = recv.recv().await {
            if send.send(chunk).await.is_err() {
                return;
            }
        }
        send.finish();
    });
    ours
}

async fn is_echoed(stream: &mut Stream, text: &'static str) {
    stream.send.send(Bytes::from_static(text.as_bytes())).await.unwrap();
    let mut came = Vec::new();
    while came.len() < text.len() {
        came.extend_from_slice(&soon(stream.recv.recv()).await.unwrap().unwrap());
    }
    assert_eq!(came, text.as_bytes());
}

#[tokio::test]
async fn more_than_any_pipe_holds_travels_both_ways_and_the_end_is_told() {
    let mut ends = ends().await;
    let Stream { mut send, mut recv, .. } = echo(&mut ends).await;
    let sent: Vec<u8> = (0..8_u32 << 20).map(|n| (n >> 3) as u8).collect();
    let sending = async {
        send.send(Bytes::from(sent.clone())).await.unwrap();
        send.finish();
    };
    let receiving = async {
        let mut all = Vec::new();
        while let Some(chunk) = soon(recv.recv()).await.unwrap() {
            all.extend_from_slice(&chunk);
        }
        all
    };
    let ((), came) = tokio::join!(sending, receiving);
    assert!(came == sent);
    ends.client.close();
    assert_eq!(soon(ends.agent.ended()).await, End::Closed);
    assert_eq!(soon(ends.client.ended()).await, End::Closed);
}

#[tokio::test]
async fn its_goodbye_arrives_and_a_pipe_that_is_cut_is_a_loss() {
    let first = ends().await;
    first.agent.close();
    assert_eq!(soon(first.client.ended()).await, End::Closed);

    let (from, to) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let pipe = Pipe { reader: from.0.into(), writer: to.1.into() };
    let builder = LinkBuilder::new(Settings { role: Role::Agent, ..Settings::default() });
    let (cut, _incoming, _turns) = builder.attach_in_turns(pipe, Bytes::new(), |job| job()).unwrap();
    drop((from.1, to.0));
    assert!(matches!(soon(cut.ended()).await, End::Lost { .. }));
}

#[tokio::test]
async fn a_job_that_does_not_come_back_keeps_nobody() {
    let mut ends = ends().await;
    let mut stream = echo(&mut ends).await;
    let (done, was_done) = tokio::sync::mpsc::unbounded_channel();
    let mut held = Vec::new();
    for round in 0..5 {
        let (release, released) = mpsc::channel::<()>();
        held.push(release);
        ends.turns.run(Box::new(move || _ = released.recv()));
        for job in 0..3 {
            let done = done.clone();
            ends.turns.run(Box::new(move || done.send((round, job)).unwrap()));
        }
        is_echoed(&mut stream, "still there").await;
    }
    let mut was_done = was_done;
    for _ in 0..15 {
        soon(was_done.recv()).await.unwrap();
    }
    let before = ends.elsewhere.load(Ordering::SeqCst);
    assert!(before <= 15, "those that were held stay where they began");
    drop(held);
    is_echoed(&mut stream, "nor those that come back").await;
    // With nothing in its way a job is done by who leads.
    for _ in 0..100 {
        let (done, was_done) = tokio::sync::oneshot::channel();
        ends.turns.run(Box::new(move || done.send(()).unwrap()));
        soon(was_done).await.unwrap();
    }
    assert!(ends.elsewhere.load(Ordering::SeqCst) < before + 50);
}

#[tokio::test]
async fn the_end_is_heard_while_a_job_is_held() {
    let ends = ends().await;
    let (_release, released) = mpsc::channel::<()>();
    ends.turns.run(Box::new(move || _ = released.recv()));
    ends.client.close();
    assert_eq!(soon(ends.agent.ended()).await, End::Closed);
}

#[tokio::test]
async fn a_panic_is_of_its_job_alone_and_what_is_behind_is_done_once() {
    let mut ends = ends().await;
    let mut stream = echo(&mut ends).await;
    let behind = Arc::new(AtomicUsize::new(0));
    for _ in 0..10 {
        let (turns, behind) = (ends.turns.clone(), behind.clone());
        ends.turns.run(Box::new(move || {
            turns.after(Box::new(move || _ = behind.fetch_add(1, Ordering::SeqCst)));
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
    }
    is_echoed(&mut stream, "alive").await;
    soon(async {
        while behind.load(Ordering::SeqCst) < 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    // Also by a job that is not done here.
    let (turns, late) = (ends.turns.clone(), behind.clone());
    std::thread::spawn(move || turns.after(Box::new(move || _ = late.fetch_add(1, Ordering::SeqCst))));
    soon(async {
        while behind.load(Ordering::SeqCst) < 11 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_tried_to_be_sent_is_in_the_pipe_at_once() {
    let mut ends = ends().await;
    let _ours = ends.client.open(SERVICE, Class::Normal, Bytes::new()).unwrap();
    let mut theirs = soon(ends.offers.next()).await.unwrap().stream;
    // Acks and the like, which the client's task takes while this one waits.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut word = Bytes::from_static(b"now");
    theirs.send.try_send(&mut word).unwrap();
    let mut fds = [PollFd::new(&ends.to_client, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&Timespec::default())), Ok(1), "nobody else has had a turn");
    assert!(word.is_empty());
}
