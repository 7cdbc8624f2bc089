//! A link over several pipes: what comes to pass when pipes are added and lost, with either driver.
#![allow(clippy::unwrap_used, reason = "in a test that is the finding")]

use std::{os::fd::OwnedFd, time::Duration};

use bytes::Bytes;
use remotely_session::{
    Added, Class, End, Incoming, Link, LinkBuilder, Pipe, RecvStream, Role, SendStream, Service, Settings, Stream,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::time::timeout;

const SERVICE: Service = Service(900);

fn sockets() -> (Pipe, Pipe) {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let pipe = |fd: OwnedFd| Pipe { reader: fd.try_clone().unwrap(), writer: fd };
    (pipe(a), pipe(b))
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("it should have happened by now")
}

/// A link whose pipes can be cut: each goes through a task of ours.
struct Pair {
    client: Link,
    agent: Link,
    offers: Incoming,
    _incoming: Incoming,
    cuts: Vec<tokio::task::JoinHandle<()>>,
}

/// The two ends of a way that a task carries bytes over.
fn cuttable() -> (Pipe, Pipe, tokio::task::JoinHandle<()>) {
    let ((client, ours), (theirs, agent)) = (sockets(), sockets());
    let (mut from_client, mut to_client) = ours.split().unwrap();
    let (mut from_agent, mut to_agent) = theirs.split().unwrap();
    let carried = tokio::spawn(async move {
        let there = async {
            while let Ok(chunk) = from_client.read().await
                && !chunk.is_empty()
                && to_agent.write_all(chunk).await.is_ok()
            {}
        };
        let back = async {
            while let Ok(chunk) = from_agent.read().await
                && !chunk.is_empty()
                && to_client.write_all(chunk).await.is_ok()
            {}
        };
        tokio::select! {
            () = there => {}
            () = back => {}
        }
    });
    (client, agent, carried)
}

impl Pair {
    async fn start(turns: bool) -> Self {
        let (there, here, carried) = cuttable();
        let settings = |role| Settings { role, ..Settings::default() };
        let (client, incoming) = LinkBuilder::new(settings(Role::Client)).attach(there, Bytes::new());
        let builder = LinkBuilder::new(settings(Role::Agent));
        let (agent, offers) = if turns {
            let (agent, offers, _) = builder.attach_in_turns(here, Bytes::new(), |job| job()).unwrap();
            (agent, offers)
        } else {
            builder.attach(here, Bytes::new())
        };
        soon(client.linked()).await.unwrap();
        soon(agent.linked()).await.unwrap();
        Self { client, agent, offers, _incoming: incoming, cuts: vec![carried] }
    }

    fn widen(&mut self) -> [Added; 2] {
        let (there, here, carried) = cuttable();
        let number = self.client.pipes().ticket().unwrap().pipe;
        let agent = self.agent.pipes().add(number, here, Bytes::new()).unwrap().unwrap();
        let client = self.client.pipes().add(number, there, Bytes::new()).unwrap().unwrap();
        self.cuts.push(carried);
        [agent, client]
    }

    async fn stream(&mut self) -> (Stream, Stream) {
        let ours = self.client.open(SERVICE, Class::Normal, Bytes::new()).unwrap();
        (ours, soon(self.offers.next()).await.unwrap().stream)
    }
}

fn byte(position: usize) -> u8 {
    (position ^ (position >> 8) ^ (position >> 16)) as u8
}

async fn write(mut to: SendStream, size: usize) {
    let (mut sent, mut len) = (0, 1);
    while sent < size {
        len = (len * 7 % 300_007).min(size - sent);
        to.send((sent..sent + len).map(byte).collect()).await.unwrap();
        sent += len;
    }
    to.finish();
}

async fn check(mut from: RecvStream, size: usize) {
    let mut seen = 0;
    while let Some(chunk) = soon(from.recv()).await.unwrap() {
        assert!(chunk.iter().enumerate().all(|(i, &b)| b == byte(seen + i)), "at {seen}");
        seen += chunk.len();
    }
    assert_eq!(seen, size);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipes_that_are_lost_in_the_middle_lose_nothing() {
    const SIZE: usize = 48 << 20;
    for turns in [false, true] {
        let mut pair = Pair::start(turns).await;
        for _ in 0..5 {
            pair.widen();
        }
        assert_eq!(pair.client.stats().pipes, 6);
        let (ours, theirs) = pair.stream().await;
        let moved = [
            tokio::spawn(write(ours.send, SIZE)),
            tokio::spawn(write(theirs.send, SIZE)),
            tokio::spawn(check(ours.recv, SIZE)),
            tokio::spawn(check(theirs.recv, SIZE)),
        ];
        // The first pipe among them.
        for pipe in [3, 0, 1] {
            tokio::time::sleep(Duration::from_millis(30)).await;
            pair.cuts[pipe].abort();
            let [mut agent, mut client] = pair.widen();
            pair.cuts.pop().unwrap().abort();
            soon(agent.ended()).await;
            soon(client.ended()).await;
        }
        for task in moved {
            soon(task).await.unwrap();
        }
        assert_eq!(pair.client.stats().pipes, 3);
        pair.client.close();
        assert_eq!(soon(pair.client.ended()).await, End::Closed);
        assert_eq!(soon(pair.agent.ended()).await, End::Closed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_last_pipe_is_lost_the_link_is() {
    for turns in [false, true] {
        let mut pair = Pair::start(turns).await;
        pair.widen();
        pair.stream().await;
        for cut in &pair.cuts {
            cut.abort();
        }
        assert!(matches!(soon(pair.client.ended()).await, End::Lost { .. }));
        assert!(matches!(soon(pair.agent.ended()).await, End::Lost { .. }));
        assert_eq!(pair.client.pipes().ticket(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_link_of_several_pipes_costs_nothing_and_answers_at_once() {
    let mut pair = Pair::start(false).await;
    for _ in 0..7 {
        pair.widen();
    }
    assert_eq!(pair.client.pipes().ticket(), None, "eight are enough");
    let (mut ours, mut theirs) = pair.stream().await;
    for _ in 0..200 {
        ours.send.send(Bytes::from_static(b"k")).await.unwrap();
        assert_eq!(soon(theirs.recv.recv()).await.unwrap().unwrap(), "k");
        theirs.send.send(Bytes::from_static(b"v")).await.unwrap();
        assert_eq!(soon(ours.recv.recv()).await.unwrap().unwrap(), "v");
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = (pair.client.stats().frames_sent, cpu());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(pair.client.stats().frames_sent - before.0 < 3);
    assert!(cpu() - before.1 < Duration::from_millis(100), "it spins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_while_much_is_queued_sends_it_and_does_not_spin() {
    let mut pair = Pair::start(false).await;
    for _ in 0..3 {
        pair.widen();
    }
    let (mut ours, theirs) = pair.stream().await;
    // Nobody reads, so that a part stays queued here.
    let _ = timeout(Duration::from_millis(200), ours.send.send(vec![0; 4 << 20].into())).await;
    let before = cpu();
    pair.client.close();
    assert_eq!(soon(pair.client.ended()).await, End::Closed);
    assert!(cpu() - before < Duration::from_millis(500), "it spins");
    assert_eq!(soon(pair.agent.ended()).await, End::Closed);
    drop(theirs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_in_all_pipes_when_a_hold_resolves() {
    let mut pair = Pair::start(false).await;
    pair.widen();
    let (mut ours, mut theirs) = pair.stream().await;
    let held = soon(pair.client.hold()).await;
    let sent = pair.client.stats().frames_sent;
    ours.send.send(Bytes::from_static(b"later")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(pair.client.stats().frames_sent, sent);
    drop(held);
    assert_eq!(soon(theirs.recv.recv()).await.unwrap().unwrap(), "later");
}

/// What this process has used.
fn cpu() -> Duration {
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(usage.tv_sec as u64, usage.tv_nsec as u32)
}
