//! What dial makes of the streams of the net service, over a link from this process to itself and on loopback addresses.
#![allow(clippy::unwrap_used, reason = "in a test that is the finding")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use remotely_net::{dial::Dialer, link_to_self};
use remotely_proto::message::MessageDecoder;
use remotely_proto::net::{Connected, DATAGRAM_MAX, Datagram, Open, Place, Question, RESET, Reply, Surroundings};
use remotely_session::{Class, Link, MessageReceiver, RecvError, RecvStream, Service, Stream, reset};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it should have happened by now")
}

fn dialled() -> Link {
    let (link, incoming) = link_to_self().unwrap();
    tokio::spawn(Dialer::new().serve_all(incoming));
    link
}

fn open(link: &Link, what: &Open) -> Stream {
    link.open(Service::NET, Class::Normal, minicbor::to_vec(what).unwrap().into()).unwrap()
}

fn connect(link: &Link, to: SocketAddr) -> Stream {
    open(link, &Open::Connect { to: Place::Address(to) })
}

/// A connection of the link that is there, and its other end.
async fn connected(link: &Link, listener: &TcpListener) -> (Stream, TcpStream) {
    let mut stream = connect(link, listener.local_addr().unwrap());
    let (socket, _) = soon(listener.accept()).await.unwrap();
    let (answer, rest) = answer(&mut stream.recv).await;
    assert!(matches!(answer, Connected::Yes { .. }) && rest.is_empty());
    (stream, socket)
}

/// The answer, and what has come with it.
async fn answer(recv: &mut RecvStream) -> (Connected, Bytes) {
    let mut decoder = MessageDecoder::default();
    loop {
        decoder.push(&soon(recv.recv()).await.unwrap().expect("an answer"));
        if let Some((answer, _)) = decoder.next().unwrap() {
            return (answer, decoder.rest());
        }
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_rides_with_the_open_and_each_direction_ends_by_itself() {
    let (link, listener) = (dialled(), listener().await);
    let mut stream = connect(&link, listener.local_addr().unwrap());
    stream.send.send(Bytes::from_static(b"ask")).await.unwrap();
    stream.send.finish();
    let (mut socket, _) = soon(listener.accept()).await.unwrap();
    let mut asked = Vec::new();
    soon(socket.read_to_end(&mut asked)).await.unwrap();
    assert_eq!(asked, b"ask");
    // The other direction goes on.
    let expected: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sending = expected.clone();
    tokio::spawn(async move { socket.write_all(&sending).await });
    let (answer, rest) = answer(&mut stream.recv).await;
    assert!(matches!(answer, Connected::Yes { .. }));
    let mut all = rest.to_vec();
    while let Some(chunk) = soon(stream.recv.recv()).await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    assert!(all == expected, "{} bytes", all.len());
}

#[tokio::test]
async fn a_refused_connection_is_told_with_its_errno() {
    let (link, address) = (dialled(), listener().await.local_addr().unwrap());
    let mut stream = connect(&link, address);
    let (Connected::No { errno, why }, _) = answer(&mut stream.recv).await else { panic!("it was not refused") };
    assert_eq!(errno, libc::ECONNREFUSED as u32, "{why}");
    assert_eq!(soon(stream.recv.recv()).await, Ok(None));
}

#[tokio::test]
async fn a_reset_of_the_connection_is_one_of_the_stream_and_the_other_way_round() {
    let (link, listener) = (dialled(), listener().await);
    let (mut stream, socket) = connected(&link, &listener).await;
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    drop(socket);
    assert_eq!(soon(stream.recv.recv()).await, Err(RecvError::Reset(RESET)));

    let (mut stream, mut socket) = connected(&link, &listener).await;
    stream.send.reset(RESET);
    assert_eq!(soon(socket.read(&mut [0])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

    // Nobody reads any more: whoever writes there hears of it.
    let (mut stream, mut socket) = connected(&link, &listener).await;
    stream.recv.stop();
    let wrote = soon(async {
        loop {
            if let Err(error) = socket.write_all(&[0; 4096]).await {
                return error.kind();
            }
        }
    });
    assert!(matches!(wrote.await, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
}

#[tokio::test]
async fn a_stop_reaches_an_idle_connection_whose_other_direction_is_over() {
    let (link, listener) = (dialled(), listener().await);
    let (mut stream, mut socket) = connected(&link, &listener).await;
    stream.send.finish();
    assert_eq!(soon(socket.read(&mut [0])).await.unwrap(), 0);
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(stream);
    // It has sent nothing, and is told without having to.
    let ready = soon(socket.ready(tokio::io::Interest::ERROR)).await;
    assert!(ready.unwrap().is_error());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_holds_up_its_own_connection_only() {
    let (link, listener) = (dialled(), listener().await);
    let (mut slow, _unread) = connected(&link, &listener).await;
    let sent = tokio::time::timeout(Duration::from_secs(1), slow.send.send(vec![0; 64 << 20].into())).await;
    assert!(sent.is_err(), "64 MiB for a reader that reads nothing were taken");
    let (mut stream, mut socket) = connected(&link, &listener).await;
    stream.send.send(Bytes::from_static(b"hello")).await.unwrap();
    let mut buffer = [0; 5];
    soon(socket.read_exact(&mut buffer)).await.unwrap();
    assert_eq!(&buffer, b"hello");
}

#[tokio::test]
async fn names_are_looked_up_there() {
    let (link, listener) = (dialled(), listener().await);
    let port = listener.local_addr().unwrap().port();
    let named = |name: &str| open(&link, &Open::Connect { to: Place::Name { name: name.into(), port } });
    assert!(matches!(answer(&mut named("localhost").recv).await.0, Connected::Yes { .. }));
    assert!(matches!(answer(&mut named("..").recv).await.0, Connected::No { errno: 0, .. }));
    assert_eq!(soon(named(&"x".repeat(300)).recv.recv()).await, Err(RecvError::Reset(reset::REFUSED)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_arrive_whole_in_both_directions_and_from_whom_they_are() {
    let bound = |address| UdpSocket::bind(address);
    let (link, one, other) = (dialled(), bound("127.0.0.1:0").await.unwrap(), bound("[::1]:0").await.unwrap());
    let Stream { mut send, mut recv, .. } = open(&link, &Open::Datagrams);
    let big: Vec<u8> = (0..DATAGRAM_MAX).map(|n| n as u8).collect();
    let mut records = BytesMut::new();
    Datagram::put(one.local_addr().unwrap(), &big, &mut records);
    Datagram::put(other.local_addr().unwrap(), b"", &mut records);
    send.send(records.freeze()).await.unwrap();
    let mut buffer = vec![0; 1 << 16];
    let (n, from) = soon(one.recv_from(&mut buffer)).await.unwrap();
    assert!(buffer[..n] == big);
    one.send_to(&big, from).await.unwrap();
    let (n, from) = soon(other.recv_from(&mut buffer)).await.unwrap();
    assert_eq!(n, 0);
    other.send_to(b"other", from).await.unwrap();
    let (mut received, mut found) = (BytesMut::new(), Vec::new());
    while found.len() < 2 {
        received.extend_from_slice(&soon(recv.recv()).await.unwrap().unwrap());
        while let Some(datagram) = Datagram::decode(&mut received).unwrap() {
            found.push(datagram);
        }
    }
    found.sort_by_key(|datagram| datagram.data.len());
    assert_eq!((found[0].address, &found[0].data[..]), (other.local_addr().unwrap(), &b"other"[..]));
    assert!(found[1].address == one.local_addr().unwrap() && found[1].data == big);
}

const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x00\x00\x01\x00\x01";

/// A server of names that answers `whole` by TCP, and by UDP that it has been cut.
async fn cutting_server(whole: Vec<u8>) -> SocketAddr {
    let tcp = listener().await;
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (n, from) = udp.recv_from(&mut buffer).await.unwrap();
            let mut cut = buffer[..n].to_vec();
            cut[2] |= 0x82;
            // Somebody else's answer is passed over.
            udp.send_to(&[&b"\x99\x99"[..], &cut[2..]].concat(), from).await.unwrap();
            udp.send_to(&cut, from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = tcp.accept().await.unwrap();
            let n = socket.read_u16().await.unwrap();
            socket.read_exact(&mut vec![0; n.into()]).await.unwrap();
            socket.write_u16(whole.len() as u16).await.unwrap();
            socket.write_all(&whole).await.unwrap();
        }
    });
    address
}

/// What comes back for a question.
async fn asked(link: &Link, server: SocketAddr, long: bool) -> Bytes {
    let Stream { mut send, mut recv, .. } = open(link, &Open::Names { server: Some(server) });
    let (mut question, mut received) = (BytesMut::new(), BytesMut::new());
    Question { number: 5, long, message: Bytes::from_static(QUESTION) }.encode(&mut question);
    send.send(question.freeze()).await.unwrap();
    loop {
        if let Some(Reply { number, message }) = Reply::decode(&mut received) {
            assert_eq!(number, 5);
            return message;
        }
        received.extend_from_slice(&soon(recv.recv()).await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn a_long_answer_about_a_name_is_fetched_by_tcp_if_the_asker_takes_it() {
    let mut whole = QUESTION.to_vec();
    whole[2] |= 0x80;
    whole.extend([7; 3000]);
    let (link, server) = (dialled(), cutting_server(whole.clone()).await);
    assert_eq!(asked(&link, server, true).await, whole);
    assert_eq!(asked(&link, server, false).await.len(), QUESTION.len());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_by_an_empty_answer() {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(asked(&dialled(), nobody, false).await.is_empty());
}

#[tokio::test]
async fn surroundings_name_no_loopback_route() {
    let link = dialled();
    let stream = open(&link, &Open::Surroundings);
    let found = soon(MessageReceiver::new(stream.recv).recv::<Surroundings>()).await;
    let (found, _) = found.unwrap().unwrap();
    assert!(found.routes.iter().all(|(ip, width)| !ip.is_loopback() && *width > 0), "{found:?}");
    assert!(!found.hosts.is_empty());
}
