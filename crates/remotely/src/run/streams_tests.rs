//! Streams over a real link, with pipes for the user's descriptors.

use std::io::Read as _;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;
use remotely_proto::exec::{FdSpec, OutputHeader};
use remotely_session::{Class, Incoming, Link, LinkBuilder, Offer, Pipe, Role, Service, Settings};

use super::*;

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it takes too long")
}

/// What has been applied, set by the test.
impl Applied for watch::Receiver<u64> {
    async fn applied(&self, tag: u64) {
        let mut applied = self.clone();
        let _ = applied.wait_for(|applied| *applied >= tag).await;
    }
}

/// A link, and the other side of it with its end of each stream.
struct Host {
    _links: (Link, Link),
    _incoming: (Incoming, Incoming),
    streams: Vec<Offer>,
}

/// Relays `locals` over a new link.
async fn connect(locals: &Locals, applied: Option<watch::Receiver<u64>>) -> (Relays, Host) {
    let pipe = |end: UnixStream| Pipe { reader: end.try_clone().unwrap().into(), writer: end.into() };
    let (here, there) = UnixStream::pair().unwrap();
    let mut builder = LinkBuilder::new(Settings::default());
    let streams: Vec<_> = locals.fds().map(|_| builder.open(Service::FD, Class::Normal, Bytes::new())).collect();
    let count = streams.len();
    let (sender, receiver) = watch::channel(applied);
    // It outlives its sender, which is not used any more.
    drop(sender);
    let relays = locals.relay(streams, receiver);
    let agent = LinkBuilder::new(Settings { role: Role::Agent, ..Settings::default() });
    let (link, incoming) = builder.attach(pipe(here), Bytes::new());
    let (other, mut offers) = agent.attach(pipe(there), Bytes::new());
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(within(offers.next()).await.unwrap());
    }
    (relays, Host { _links: (link, other), _incoming: (incoming, offers), streams })
}

fn locals(specs: &[(u32, FdKind)]) -> Locals {
    let specs = specs.iter().map(|(fd, kind)| FdSpec { fd: *fd, kind: kind.clone() }).collect();
    Locals::take(&Survey { specs, ..Survey::default() }, None).unwrap()
}

fn number(fd: impl IntoRawFd) -> u32 {
    fd.into_raw_fd() as u32
}

fn block(tag: u64, data: &[u8]) -> Bytes {
    [&OutputHeader { tag, screen: 0, len: data.len() as u32 }.encode(), data].concat().into()
}

async fn read_all(fd: OwnedFd) -> Vec<u8> {
    let read = tokio::task::spawn_blocking(move || {
        let mut all = Vec::new();
        std::fs::File::from(fd).read_to_end(&mut all).unwrap();
        all
    });
    within(read).await.unwrap()
}

#[tokio::test]
async fn output_waits_for_the_changes_before_it() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let (apply, applied) = watch::channel(0);
    let locals = locals(&[(number(write), FdKind::PipeOut)]);
    let (_relays, mut host) = connect(&locals, Some(applied)).await;
    let send = &mut host.streams[0].stream.send;
    send.send(block(0, b"at once ")).await.unwrap();
    send.send(block(2, b"later")).await.unwrap();
    send.finish();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rustix::io::ioctl_fionread(&read), Ok(8));
    apply.send_replace(1);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(rustix::io::ioctl_fionread(&read), Ok(8));
    apply.send_replace(2);
    assert_eq!(read_all(read).await, b"at once later");
}

#[tokio::test]
async fn output_waits_for_what_the_terminal_showed_before_it() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let (shown, screen) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
    let specs = [(number(write), FdKind::PipeOut), (u32::MAX, FdKind::Tty)];
    let survey = Survey { specs: specs.map(|(fd, kind)| FdSpec { fd, kind }).into(), ..Survey::default() };
    let (keyboard, _keys) = rustix::pipe::pipe().unwrap();
    let screen = Arc::new(screen);
    let locals = Locals::take(&survey, Some((Arc::new(keyboard), screen.clone(), None))).unwrap();
    let (_relays, mut host) = connect(&locals, Some(watch::channel(0).1)).await;
    let [pipe, terminal] = &mut host.streams[..] else { unreachable!() };
    let before = |screen, data: &[u8]| -> Bytes {
        [&OutputHeader { tag: 0, screen, len: data.len() as u32 }.encode(), data].concat().into()
    };
    pipe.stream.send.send(before(4, b"first")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rustix::io::ioctl_fionread(&read), Ok(0));
    terminal.stream.send.send(block(0, b"echo")).await.unwrap();
    let mut five = [0; 5];
    let read = within(tokio::task::spawn_blocking(move || rustix::io::read(&read, &mut five).map(|_| read)));
    let read = read.await.unwrap().unwrap();
    assert_eq!(rustix::io::ioctl_fionread(&shown), Ok(4));
    // A terminal that takes nothing holds up nobody else for long.
    while rustix::io::write(&*screen, &[b'x'; 4096]).is_ok() {}
    terminal.stream.send.send(block(0, b"held")).await.unwrap();
    for _ in 0..50 {
        pipe.stream.send.send(before(8, b"x")).await.unwrap();
    }
    pipe.stream.send.finish();
    let begun = std::time::Instant::now();
    assert_eq!(read_all(read).await, [b'x'; 50]);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_was_written_before_the_end_is_kept_and_what_came_after_is_not_waited_for() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let fd = number(write);
    let locals = locals(&[(fd, FdKind::PipeOut)]);
    let (mut relays, mut host) = connect(&locals, Some(watch::channel(0).1)).await;
    let Offer { stream, .. } = host.streams.remove(0);
    let mut send = stream.send;
    let writing = tokio::spawn(async move {
        for _ in 0..20 {
            send.send(block(0, &[7; 50_000])).await.unwrap();
        }
        // A process in the background holds it open, and says nothing.
        send
    });
    let reading = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        read_all(read).await
    });
    within(relays.drain(&[(fd, 1_000_000)])).await;
    assert_eq!(reading.await.unwrap().len(), 1_000_000);
    drop(writing.await);
}

#[tokio::test]
async fn a_reader_that_goes_away_stops_the_writer_there() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let locals = locals(&[(number(write), FdKind::PipeOut)]);
    let (_relays, host) = connect(&locals, Some(watch::channel(0).1)).await;
    drop(read);
    within(host.streams[0].stream.send.stopped()).await;
    assert_eq!(locals.broken(), [], "nobody wants to be told of a closed pipe");
}

#[tokio::test]
async fn input_ends_there_as_it_does_here() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let locals = locals(&[(number(read), FdKind::PipeIn)]);
    let (_relays, mut host) = connect(&locals, None).await;
    rustix::io::write(&write, b"abc").unwrap();
    let recv = &mut host.streams[0].stream.recv;
    assert_eq!(within(recv.recv()).await.unwrap().as_deref(), Some(&b"abc"[..]));
    drop(write);
    assert_eq!(within(recv.recv()).await.unwrap(), None);
}

fn total(bytes: u64) -> Bytes {
    Bytes::copy_from_slice(&bytes.to_le_bytes())
}

#[tokio::test]
async fn a_command_that_reads_no_more_breaks_the_pipe_here() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let locals = locals(&[(number(read), FdKind::PipeIn)]);
    let (_relays, mut host) = connect(&locals, None).await;
    locals.started();
    let stream = &mut host.streams[0].stream;
    stream.send.finish();
    stream.recv.stop();
    let gone = async {
        while rustix::io::write(&write, b"x").is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(gone).await;
}

#[tokio::test]
async fn what_was_read_last_is_taken_before_the_pipe_is_closed() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let next = rustix::io::dup(&read).unwrap();
    let locals = locals(&[(number(read), FdKind::PipeIn)]);
    let (_relays, mut host) = connect(&locals, None).await;
    locals.started();
    rustix::io::write(&write, b"mine yours").unwrap();
    let stream = &mut host.streams[0].stream;
    assert_eq!(within(stream.recv.recv()).await.unwrap().as_deref(), Some(&b"mine yours"[..]));
    // The news that no more is wanted overtakes the rest.
    stream.recv.stop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let last = total(5);
    stream.send.send(total(2)).await.unwrap();
    stream.send.send(last.slice(..3)).await.unwrap();
    stream.send.send(last.slice(3..)).await.unwrap();
    stream.send.finish();
    drop(write);
    let rest = async {
        while rustix::io::ioctl_fionread(&next) != Ok(5) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        read_all(next).await
    };
    assert_eq!(within(rest).await, b"yours");
}

#[tokio::test]
async fn what_was_read_at_the_end_is_taken_and_no_more() {
    let (tokens, back) = rustix::pipe::pipe().unwrap();
    let here = rustix::io::dup(&tokens).unwrap();
    rustix::io::write(&back, b"+++").unwrap();
    let (into, out) = (number(tokens), number(back));
    let locals = locals(&[(into, FdKind::PipeIn), (out, FdKind::PipeOut)]);
    let (mut relays, mut host) = connect(&locals, Some(watch::channel(0).1)).await;
    locals.started();
    assert_eq!(within(host.streams[0].stream.recv.recv()).await.unwrap().as_deref(), Some(&b"+++"[..]));
    // Somebody here was faster with two of them, and keeps one; the command gives its three back when it ends.
    rustix::io::read(&here, &mut [0; 2]).unwrap();
    host.streams[1].stream.send.send(block(0, b"+++")).await.unwrap();
    let drained = tokio::time::timeout(SETTLE * 2, relays.drain(&[(into, 3), (out, 3)])).await;
    assert!(drained.is_ok());
    assert_eq!(rustix::io::ioctl_fionread(&here), Ok(1));
}

#[tokio::test]
async fn what_is_given_back_makes_up_for_what_others_took() {
    let (tokens, back) = rustix::pipe::pipe().unwrap();
    let here = rustix::io::dup(&tokens).unwrap();
    rustix::io::write(&back, b"+++").unwrap();
    // The writing end has the lower number.
    let out = number(back);
    let into = number(rustix::io::fcntl_dupfd_cloexec(&tokens, out as i32 + 1).unwrap());
    drop(tokens);
    let locals = locals(&[(out, FdKind::PipeOut), (into, FdKind::PipeIn)]);
    let (_relays, mut host) = connect(&locals, Some(watch::channel(0).1)).await;
    locals.started();
    let [out, into] = &mut host.streams[..] else { panic!() };
    within(into.stream.recv.recv()).await.unwrap();
    rustix::io::read(&here, &mut [0; 3]).unwrap();
    into.stream.send.send(total(3)).await.unwrap();
    for given in [&b"+"[..], b"+", b"+-"] {
        out.stream.send.send(block(0, given)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What the others have taken is theirs to give back.
    let mut left = [0; 4];
    assert_eq!(rustix::io::ioctl_fionread(&here), Ok(1));
    rustix::io::read(&here, &mut left).unwrap();
    assert_eq!(&left, b"-\0\0\0");
}

#[tokio::test]
async fn what_never_comes_back_holds_up_the_end_for_a_moment_only() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let here = rustix::io::dup(&read).unwrap();
    rustix::io::write(&write, b"abc").unwrap();
    let fd = number(read);
    let locals = locals(&[(fd, FdKind::PipeIn)]);
    let (mut relays, mut host) = connect(&locals, None).await;
    within(host.streams[0].stream.recv.recv()).await.unwrap();
    rustix::io::read(&here, &mut [0; 3]).unwrap();
    tokio::time::timeout(SETTLE * 2, relays.drain(&[(fd, 3)])).await.unwrap();
}

#[tokio::test]
async fn input_read_before_the_command_ran_is_sent_again() {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let locals = locals(&[(number(read), FdKind::PipeIn)]);
    rustix::io::write(&write, b"first").unwrap();
    let (relays, mut host) = connect(&locals, None).await;
    assert_eq!(within(host.streams[0].stream.recv.recv()).await.unwrap().as_deref(), Some(&b"first"[..]));
    drop((relays, host));

    let (_relays, mut host) = connect(&locals, None).await;
    let recv = &mut host.streams[0].stream.recv;
    assert_eq!(within(recv.recv()).await.unwrap().as_deref(), Some(&b"first"[..]));
    rustix::io::write(&write, b"second").unwrap();
    assert_eq!(within(recv.recv()).await.unwrap().as_deref(), Some(&b"second"[..]));
}

#[tokio::test]
async fn a_stalled_reader_stalls_its_own_stream_only() {
    let (stalled, one) = rustix::pipe::pipe().unwrap();
    let (read, two) = rustix::pipe::pipe().unwrap();
    let locals = locals(&[(number(one), FdKind::PipeOut), (number(two), FdKind::PipeOut)]);
    let (_relays, mut host) = connect(&locals, Some(watch::channel(0).1)).await;
    let mut second = host.streams.remove(1).stream.send;
    let mut first = host.streams.remove(0).stream.send;
    let flood = tokio::spawn(async move { while first.send(block(0, &[0; 60_000])).await.is_ok() {} });
    tokio::time::sleep(Duration::from_millis(50)).await;
    within(second.send(block(0, b"through"))).await.unwrap();
    second.finish();
    assert_eq!(read_all(read).await, b"through");
    assert!(!flood.is_finished());
    drop(stalled);
    within(flood).await.unwrap();
}

#[tokio::test]
async fn a_socket_is_half_closed_both_ways() {
    let (mut outside, inside) = UnixStream::pair().unwrap();
    let locals = locals(&[(number(inside), FdKind::Socket)]);
    let (_relays, mut host) = connect(&locals, Some(watch::channel(0).1)).await;
    let Offer { mut stream, .. } = host.streams.remove(0);
    rustix::io::write(&outside, b"question").unwrap();
    outside.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(within(stream.recv.recv()).await.unwrap().as_deref(), Some(&b"question"[..]));
    assert_eq!(within(stream.recv.recv()).await.unwrap(), None);
    stream.send.send(block(0, b"answer")).await.unwrap();
    stream.send.finish();
    let answer = tokio::task::spawn_blocking(move || {
        let mut all = String::new();
        outside.read_to_string(&mut all).unwrap();
        all
    });
    assert_eq!(within(answer).await.unwrap(), "answer");
}

#[tokio::test]
async fn a_full_disk_is_told_of() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert!(full.as_raw_fd() > 2);
    let fd = number(full);
    let locals = locals(&[(fd, FdKind::PipeOut)]);
    let (_relays, mut host) = connect(&locals, Some(watch::channel(0).1)).await;
    host.streams[0].stream.send.send(block(0, b"x")).await.unwrap();
    within(host.streams[0].stream.send.stopped()).await;
    assert_eq!(locals.broken(), [(fd, Errno::NOSPC)]);
}
