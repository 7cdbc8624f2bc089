//! Two ends of a link in one process, over socket pairs and pipes: what a service can rely on.
#![allow(clippy::unwrap_used, reason = "in a test that is the finding")]

use std::{os::fd::OwnedFd, time::Duration};

use bytes::Bytes;
use remotely_session::{
    Class, End, Incoming, Link, LinkBuilder, MessageReceiver, MessageSender, Offer, Pipe, RecvError, RecvMessageError,
    Role, SendError, Service, Settings, Stream, reset,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::time::timeout;

const SERVICE: Service = Service(900);

fn settings(role: Role) -> Settings {
    Settings { role, depth: 1, ..Settings::default() }
}

fn sockets() -> (Pipe, Pipe) {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let pipe = |fd: OwnedFd| Pipe { reader: fd.try_clone().unwrap(), writer: fd };
    (pipe(a), pipe(b))
}

fn pipes() -> (Pipe, Pipe) {
    let (there, here) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let client = Pipe { reader: here.0.into(), writer: there.1.into() };
    let agent = Pipe { reader: there.0.into(), writer: here.1.into() };
    (client, agent)
}

/// A linked pair: what the client has, what the agent has.
fn pair(pipes: (Pipe, Pipe)) -> ((Link, Incoming), (Link, Incoming)) {
    let client = LinkBuilder::new(settings(Role::Client)).attach(pipes.0, Bytes::new());
    let agent = LinkBuilder::new(settings(Role::Agent)).attach(pipes.1, Bytes::new());
    (client, agent)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future).await.expect("it should have happened by now")
}

async fn offer(incoming: &mut Incoming) -> Offer {
    soon(incoming.next()).await.expect("a stream")
}

/// Opens a stream from client to agent and returns both ends.
async fn stream(client: &Link, agent: &mut Incoming) -> (Stream, Stream) {
    let ours = client.open(SERVICE, Class::Normal, Bytes::new()).unwrap();
    (ours, offer(agent).await.stream)
}

async fn read_all(stream: &mut remotely_session::RecvStream) -> Result<Vec<u8>, RecvError> {
    let mut all = Vec::new();
    while let Some(chunk) = soon(stream.recv()).await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

#[tokio::test]
async fn bytes_and_ends_travel_both_ways() {
    for pipes in [sockets(), pipes()] {
        let ((client, _incoming), (agent, mut offers)) = pair(pipes);
        let mut ours = client.open(SERVICE, Class::Control, Bytes::from_static(b"body")).unwrap();
        ours.send.send(Bytes::from_static(b"question")).await.unwrap();
        ours.send.finish();
        let Offer { service, class, body, stream: mut theirs } = offer(&mut offers).await;
        assert_eq!((service, class, &body[..], theirs.id), (SERVICE, Class::Control, &b"body"[..], ours.id));
        assert_eq!(read_all(&mut theirs.recv).await.unwrap(), b"question");
        // The other direction is open still.
        theirs.send.send(Bytes::from_static(b"answer")).await.unwrap();
        theirs.send.finish();
        assert_eq!(read_all(&mut ours.recv).await.unwrap(), b"answer");
        assert_eq!(client.linked().await.unwrap().role, Role::Agent);
        assert_eq!(agent.linked().await.unwrap().depth, 1);
    }
}

#[tokio::test]
async fn either_side_opens() {
    let ((client, mut incoming), (agent, mut offers)) = pair(sockets());
    let from_agent = agent.open(SERVICE, Class::Bulk, Bytes::new()).unwrap();
    let from_client = client.open(SERVICE, Class::Bulk, Bytes::new()).unwrap();
    assert_eq!(offer(&mut incoming).await.stream.id, from_agent.id);
    assert_eq!(offer(&mut offers).await.stream.id, from_client.id);
    assert_ne!(from_agent.id % 2, from_client.id % 2);
}

#[tokio::test]
async fn what_nobody_takes_up_is_refused() {
    let ((client, _incoming), (_agent, mut offers)) = pair(sockets());
    let mut ours = client.open(SERVICE, Class::Normal, Bytes::new()).unwrap();
    drop(offer(&mut offers).await);
    assert_eq!(soon(ours.recv.recv()).await, Err(RecvError::Reset(reset::REFUSED)));
    assert_eq!(soon(ours.send.stopped()).await, SendError::Reset(reset::REFUSED));
    assert_eq!(ours.send.send(Bytes::from_static(b"x")).await, Err(SendError::Reset(reset::REFUSED)));

    let mut ours = client.open(SERVICE, Class::Normal, Bytes::new()).unwrap();
    offer(&mut offers).await.refuse(reset::FIRST_FREE + 7);
    assert_eq!(soon(ours.recv.recv()).await, Err(RecvError::Reset(reset::FIRST_FREE + 7)));
    assert_eq!(soon(ours.send.stopped()).await, SendError::Reset(reset::FIRST_FREE + 7));

    // Waiting and later ones are refused when nobody asks for streams any more.
    let mut waiting = client.open(SERVICE, Class::Normal, Bytes::new()).unwrap();
    tokio::task::yield_now().await;
    drop(offers);
    let mut later = client.open(SERVICE, Class::Normal, Bytes::new()).unwrap();
    for stream in [&mut waiting, &mut later] {
        assert_eq!(soon(stream.recv.recv()).await, Err(RecvError::Reset(reset::REFUSED)));
    }

    let mut large = client.open(SERVICE, Class::Normal, vec![0; 5000].into()).unwrap();
    assert_eq!(large.recv.recv().await, Err(RecvError::Reset(reset::TOO_LONG)));
}

#[tokio::test]
async fn a_sender_learns_that_nobody_reads() {
    let ((client, _incoming), (_agent, mut offers)) = pair(sockets());
    let (mut ours, mut theirs) = stream(&client, &mut offers).await;
    ours.send.send(Bytes::from_static(b"first")).await.unwrap();
    assert_eq!(soon(theirs.recv.recv()).await.unwrap().unwrap(), "first");
    theirs.recv.stop();
    assert_eq!(soon(ours.send.stopped()).await, SendError::Stopped);
    assert_eq!(ours.send.send(Bytes::from_static(b"x")).await, Err(SendError::Stopped));
    assert_eq!(theirs.recv.recv().await, Ok(None));
    // The other direction is not concerned.
    theirs.send.send(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(soon(ours.recv.recv()).await.unwrap().unwrap(), "still here");

    // A sender that waits for room is woken, and dropping does the same as stopping.
    let (mut ours, mut theirs) = stream(&client, &mut offers).await;
    ours.send.send(Bytes::from_static(b"first")).await.unwrap();
    assert!(soon(theirs.recv.recv()).await.unwrap().is_some());
    let blocked = tokio::spawn(async move { ours.send.send(vec![0; 8 << 20].into()).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!blocked.is_finished());
    drop(theirs.recv);
    assert_eq!(soon(blocked).await.unwrap(), Err(SendError::Stopped));
}

#[tokio::test]
async fn a_reset_overtakes_data() {
    let ((client, _incoming), (_agent, mut offers)) = pair(sockets());
    let (mut ours, mut theirs) = stream(&client, &mut offers).await;
    ours.send.send(vec![1; 100_000].into()).await.unwrap();
    ours.send.reset(300);
    let error = loop {
        match soon(theirs.recv.recv()).await {
            Ok(chunk) => assert!(chunk.is_some(), "no eof after a reset"),
            Err(error) => break error,
        }
    };
    assert_eq!(error, RecvError::Reset(300));

    let (ours, mut theirs) = stream(&client, &mut offers).await;
    drop(ours.send);
    assert_eq!(soon(theirs.recv.recv()).await, Err(RecvError::Reset(reset::CANCELLED)));
}

#[tokio::test]
async fn close_lets_everything_out_first() {
    let ((client, _incoming), (agent, mut offers)) = pair(pipes());
    let (mut ours, mut theirs) = stream(&client, &mut offers).await;
    let data: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    ours.send.send(data.clone().into()).await.unwrap();
    ours.send.finish();
    client.close();
    assert!(client.open(SERVICE, Class::Normal, Bytes::new()).is_err());
    assert_eq!(soon(client.ended()).await, End::Closed);
    assert_eq!(soon(agent.ended()).await, End::Closed);
    assert_eq!(read_all(&mut theirs.recv).await.unwrap(), data);
    assert_eq!(theirs.send.send(Bytes::from_static(b"x")).await, Err(SendError::Ended));
    assert_eq!(soon(ours.recv.recv()).await, Err(RecvError::Ended));
    assert!(soon(offers.next()).await.is_none());
}

#[tokio::test]
async fn the_link_is_closed_with_its_last_handle() {
    let ((client, incoming), (agent, mut offers)) = pair(sockets());
    let (mut ours, mut theirs) = stream(&client, &mut offers).await;
    drop((client, incoming));
    ours.send.send(Bytes::from_static(b"the stream holds it")).await.unwrap();
    assert!(soon(theirs.recv.recv()).await.unwrap().is_some());
    drop(ours);
    assert_eq!(soon(agent.ended()).await, End::Closed);
}

#[tokio::test]
async fn the_end_of_the_pipe_is_the_end_of_the_link() {
    for pipes in [sockets(), pipes()] {
        let (client, _incoming) = LinkBuilder::new(settings(Role::Client)).attach(pipes.0, Bytes::new());
        let mut ours = client.open(SERVICE, Class::Normal, Bytes::new()).unwrap();
        drop(pipes.1);
        let End::Lost { why } = soon(client.ended()).await else { panic!("lost") };
        assert!(why.contains("pipe"), "{why}");
        assert_eq!(soon(ours.recv.recv()).await, Err(RecvError::Ended));
        assert_eq!(ours.send.send(Bytes::from_static(b"x")).await, Err(SendError::Ended));
        assert!(client.open(SERVICE, Class::Normal, Bytes::new()).is_err());
    }
}

#[tokio::test]
async fn a_pipe_that_takes_no_more_is_the_end_of_the_link() {
    let (client_pipe, agent_pipe) = pipes();
    let (client, _incoming) = LinkBuilder::new(settings(Role::Client)).attach(client_pipe, Bytes::new());
    drop(agent_pipe.reader);
    // The writer is kept open: no end is to be read.
    let _writer = agent_pipe.writer;
    let End::Lost { why } = soon(client.ended()).await else { panic!("lost") };
    assert!(why.contains("write"), "{why}");
}

#[tokio::test]
async fn what_is_no_pipe_ends_the_link() {
    let file = || OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
    let pipe = Pipe { reader: file(), writer: file() };
    let (client, mut incoming) = LinkBuilder::new(settings(Role::Client)).attach(pipe, Bytes::new());
    assert!(matches!(soon(client.ended()).await, End::Lost { .. }));
    assert!(incoming.next().await.is_none());
}

#[tokio::test]
async fn garbage_and_other_versions_are_named() {
    let (client_pipe, other) = sockets();
    let (client, _incoming) = LinkBuilder::new(settings(Role::Client)).attach(client_pipe, Bytes::new());
    rustix::io::write(&other.writer, b"Welcome to Ubuntu 24.04 LTS, nice to see you").unwrap();
    let End::Protocol { why } = soon(client.ended()).await else { panic!("protocol") };
    assert!(why.contains("frame"), "{why}");

    let (client_pipe, other) = sockets();
    let (client, _incoming) = LinkBuilder::new(settings(Role::Client)).attach(client_pipe, Bytes::new());
    let payload = [0x81, 0x82, 0x07, 0x09];
    let mut hello = vec![4, 0, 0, 0, 0x80];
    hello.resize(20, 0);
    hello.extend(payload);
    rustix::io::write(&other.writer, &hello).unwrap();
    let end = soon(client.ended()).await;
    assert_eq!(end.to_string(), "the protocol here has version 1, there 7 to 9");
}

#[tokio::test]
async fn a_silent_other_side_is_given_up() {
    let (client_pipe, _other) = sockets();
    let settings = Settings {
        keepalive: Duration::from_millis(50),
        dead_after: Duration::from_millis(200),
        ..settings(Role::Client)
    };
    let (client, _incoming) = LinkBuilder::new(settings).attach(client_pipe, Bytes::new());
    assert_eq!(soon(client.ended()).await, End::Silent);
}

#[tokio::test]
async fn an_announced_silence_is_no_end() {
    let (client_pipe, agent_pipe) = pipes();
    let quick = |role| Settings {
        keepalive: Duration::from_millis(50),
        dead_after: Duration::from_millis(200),
        ..settings(role)
    };
    let (agent, mut offers) = LinkBuilder::new(quick(Role::Agent)).attach(agent_pipe, Bytes::new());
    // Its process can be stopped, as far as that shows in the pipe: one thread runs it, and then does not.
    let process = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (stopped, continued) = tokio::task::spawn_blocking(move || {
        process.block_on(async {
            let (client, _incoming) = LinkBuilder::new(quick(Role::Client)).attach(client_pipe, Bytes::new());
            let (mut ours, mut theirs) = stream(&client, &mut offers).await;
            // A send just before does not get in the way.
            ours.send.send(vec![1; 1000].into()).await.unwrap();
            let held = soon(client.hold()).await;
            std::thread::sleep(Duration::from_secs(1));
            let stopped = timeout(Duration::ZERO, agent.ended()).await.is_err();
            drop(held);
            ours.send.send(Bytes::from_static(b"back")).await.unwrap();
            ours.send.finish();
            assert_eq!(read_all(&mut theirs.recv).await.unwrap().len(), 1004);
            // After a second one, silence is that of a link that nobody uses.
            let held = soon(client.hold()).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(held);
            tokio::time::sleep(Duration::from_millis(500)).await;
            let continued = timeout(Duration::ZERO, agent.ended()).await.is_err();
            client.close();
            assert_eq!(soon(client.ended()).await, End::Closed);
            assert_eq!(soon(agent.ended()).await, End::Closed);
            // Of a link that is over nobody waits for the announcement.
            drop(timeout(Duration::from_millis(500), client.hold()).await.unwrap());
            (stopped, continued)
        })
    })
    .await
    .unwrap();
    assert!(stopped && continued, "{stopped} {continued}");
}

#[tokio::test]
async fn a_pipe_that_is_full_holds_nobody_up_for_long() {
    let (client_pipe, _agent_pipe) = pipes();
    let (client, _incoming) = LinkBuilder::new(settings(Role::Client)).attach(client_pipe, Bytes::new());
    let begun = std::time::Instant::now();
    drop(soon(client.hold()).await);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_goodbye_counts_although_nobody_reads_any_more() {
    // The runtime learns late of what can be read: with one thread, not before this function waits.
    for _ in 0..20 {
        let (client_pipe, agent_pipe) = pipes();
        let ((client, incoming), (agent, mut offers)) = pair((client_pipe, agent_pipe));
        let (ours, mut theirs) = stream(&client, &mut offers).await;
        client.close();
        assert_eq!(soon(client.ended()).await, End::Closed);
        drop((client, incoming, ours));
        // The answer meets a pipe without a reader.
        let _ = theirs.send.send(Bytes::from_static(b"answer")).await;
        assert_eq!(soon(agent.ended()).await, End::Closed);
    }
}

#[tokio::test]
async fn the_first_flight_carries_what_was_queued_before_there_was_a_pipe() {
    let mut builder = LinkBuilder::new(settings(Role::Client));
    let mut one = builder.open(SERVICE, Class::Control, Bytes::from_static(b"one"));
    one.send.send(Bytes::from_static(b"request")).await.unwrap();
    let lost = builder.first_flight();
    // The agent had to be uploaded first, and meanwhile there was more to send.
    let mut two = builder.open(SERVICE, Class::Normal, Bytes::from_static(b"two"));
    two.send.send(vec![7; 100_000].into()).await.unwrap();
    two.send.finish();
    let flight = builder.first_flight();
    assert_eq!(flight[..lost.len()], lost[..]);
    assert!(flight.len() > lost.len() + 100_000);

    // The bootstrap has read ahead on both sides.
    let (client_pipe, agent_pipe) = pipes();
    let (agent, mut offers) = LinkBuilder::new(settings(Role::Agent)).attach(agent_pipe, flight);
    let (client, _incoming) = builder.attach(client_pipe, Bytes::new());
    let mut first = offer(&mut offers).await;
    assert_eq!(&first.body[..], b"one");
    assert_eq!(soon(first.stream.recv.recv()).await.unwrap().unwrap(), "request");
    first.stream.send.send(Bytes::from_static(b"reply")).await.unwrap();
    assert_eq!(soon(one.recv.recv()).await.unwrap().unwrap(), "reply");
    let mut second = offer(&mut offers).await;
    assert_eq!(read_all(&mut second.stream.recv).await.unwrap().len(), 100_000);
    one.send.send(Bytes::from_static(b"later")).await.unwrap();
    assert_eq!(soon(first.stream.recv.recv()).await.unwrap().unwrap(), "later");
    client.close();
    assert_eq!(soon(agent.ended()).await, End::Closed);
}

#[tokio::test]
async fn a_builder_that_is_dropped_ends_its_streams() {
    let mut builder = LinkBuilder::new(settings(Role::Client));
    let mut stream = builder.open(SERVICE, Class::Normal, Bytes::new());
    drop(builder);
    assert_eq!(soon(stream.recv.recv()).await, Err(RecvError::Ended));
}

#[tokio::test]
async fn messages_of_all_sizes() {
    let ((client, _incoming), (_agent, mut offers)) = pair(pipes());
    let (ours, theirs) = stream(&client, &mut offers).await;
    let sizes = [0usize, 1, 1000, 70_000, 3 << 20];
    let sender = tokio::spawn(async move {
        let mut sender = MessageSender::new(ours.send);
        for size in sizes {
            sender.send(&(size as u64), vec![size as u8; size].into()).await.unwrap();
        }
        sender.finish();
        sender
    });
    let mut receiver = MessageReceiver::new(theirs.recv);
    for size in sizes {
        let (head, payload) = soon(receiver.recv::<u64>()).await.unwrap().unwrap();
        assert_eq!((head, payload.len()), (size as u64, size));
        assert!(payload.iter().all(|&byte| byte == size as u8));
    }
    assert!(soon(receiver.recv::<u64>()).await.unwrap().is_none());
    drop(sender.await.unwrap());

    let (mut ours, theirs) = stream(&client, &mut offers).await;
    ours.send.send(Bytes::from_static(&[9, 0, 0, 0, 1, 0, 0])).await.unwrap();
    ours.send.finish();
    let error = MessageReceiver::new(theirs.recv).recv::<u64>().await.unwrap_err();
    assert!(matches!(error, RecvMessageError::Cut));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_there_and_back() {
    const SIZE: usize = 64 << 20;
    for pipes in [sockets(), pipes()] {
        let ((client, _incoming), (_agent, mut offers)) = pair(pipes);
        let (ours, mut theirs) = stream(&client, &mut offers).await;
        let echo = tokio::spawn(async move {
            while let Some(chunk) = theirs.recv.recv().await.unwrap() {
                theirs.send.send(chunk).await.unwrap();
            }
            theirs.send.finish();
            theirs
        });
        let Stream { mut send, mut recv, .. } = ours;
        let writer = tokio::spawn(async move {
            let mut sent = 0;
            let mut size = 1;
            while sent < SIZE {
                size = (size * 7 % 300_007).min(SIZE - sent);
                send.send((sent..sent + size).map(byte).collect()).await.unwrap();
                sent += size;
            }
            send.finish();
            send
        });
        let mut seen = 0;
        while let Some(chunk) = soon(recv.recv()).await.unwrap() {
            assert!(chunk.iter().enumerate().all(|(i, &b)| b == byte(seen + i)), "at {seen}");
            seen += chunk.len();
        }
        assert_eq!(seen, SIZE);
        drop((writer.await.unwrap(), echo.await.unwrap()));
    }
}

fn byte(position: usize) -> u8 {
    (position ^ (position >> 8) ^ (position >> 16)) as u8
}

#[tokio::test]
async fn a_slow_reader_holds_its_sender_and_nobody_else() {
    let ((client, _incoming), (_agent, mut offers)) = pair(sockets());
    let (mut slow, _not_read) = stream(&client, &mut offers).await;
    let (mut quick, mut theirs) = stream(&client, &mut offers).await;
    // It takes the receiver's window and a queue of 1 MiB at most, and then waits.
    let mut taken = 0;
    while timeout(Duration::from_millis(200), slow.send.send(vec![0; 64 << 10].into())).await.is_ok() {
        taken += 64 << 10;
        assert!(taken <= 2 << 20, "the sender is not held");
    }
    for n in 0..100u8 {
        quick.send.send(vec![n; 10_000].into()).await.unwrap();
        let mut left = 10_000;
        while left > 0 {
            left -= soon(theirs.recv.recv()).await.unwrap().unwrap().len();
        }
    }
}

#[tokio::test]
async fn a_runtime_that_ends_takes_the_link_along() {
    let (client_pipe, _other) = sockets();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (client, _incoming) = {
        let _guard = runtime.enter();
        LinkBuilder::new(settings(Role::Client)).attach(client_pipe, Bytes::new())
    };
    runtime.shutdown_background();
    assert!(matches!(soon(client.ended()).await, End::Lost { .. }));
}
