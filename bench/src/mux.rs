//! The mux by itself: how much goes through it on one core, and how long a keystroke takes while a download runs. No host,
//! no ssh: what is left of the figures of a run is not the link's.

use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use remotely_proto::handshake::{Hello, Role, VERSIONS};
use remotely_proto::mux::{Config, Mux};
use remotely_session::{Class, Incoming, Link, LinkBuilder, Pipe, RecvStream, SendStream, Service, Settings};
use testbed::{Relay, Wire};

const SERVICE: Service = Service(900);

/// Prints both.
pub(crate) fn run() {
    println!("mux in memory, one way, both ends and a copy in place of the pipe on one core: {:.2} GB/s", in_memory());
    println!("echo of one byte, median and 95th percentile, and the bulk transfer beside it:");
    for (name, wire) in [
        ("RTT 50 ms", Wire::rtt(50)),
        ("RTT 50 ms, 100 Mbit/s", Wire { rate: 12_500_000, buffer: 1 << 20, ..Wire::rtt(50) }),
        ("RTT 20 ms, 1 Gbit/s", Wire { rate: 125_000_000, buffer: 4 << 20, ..Wire::rtt(20) }),
    ] {
        for bulk in [false, true] {
            let Echo { median, late, rate } = echo(wire, bulk);
            let load = if bulk { format!("{:.0} Mbit/s", rate * 8.0 / 1e6) } else { "nothing".to_owned() };
            println!("  {name:22} beside {load:12} {median:8.1?} {late:8.1?}");
        }
    }
}

/// Bytes per second / 10^9 from one mux to another, with the copy into and out of a pipe's buffer as a single one.
fn in_memory() -> f64 {
    let start = Instant::now();
    let end = |role| {
        Mux::new(
            Hello { versions: VERSIONS, features: 0, role, link: [0; 16], key: [0; 16], depth: 0, wall_ns: 0 },
            Config::default(),
        )
    };
    let (mut here, mut there) = (end(Role::Client), end(Role::Agent));
    let (mut pieces, mut pipe) = (VecDeque::new(), BytesMut::new());
    let mut pass = |from: &mut Mux, to: &mut Mux| {
        from.output(start.elapsed(), 256 << 10, &mut pieces);
        pipe.reserve(512 << 10);
        for piece in pieces.drain(..) {
            pipe.extend_from_slice(&piece);
        }
        to.input(start.elapsed(), pipe.split().freeze());
        while to.event().is_some() {}
    };
    pass(&mut here, &mut there);
    pass(&mut there, &mut here);
    let Ok(stream) = here.open(start.elapsed(), SERVICE, Class::Bulk, Bytes::new()) else {
        unreachable!("a new link has streams");
    };
    let block = Bytes::from(vec![7; 1 << 20]);
    let mut rest = block.clone();
    let (mut taken, mut since, mut before) = (0, start, 0);
    while start.elapsed() < Duration::from_secs(3) {
        while here.send(stream, &mut rest).is_ok() && rest.is_empty() {
            rest = block.clone();
        }
        pass(&mut here, &mut there);
        while let std::task::Poll::Ready(Ok(Some(chunk))) = there.recv(start.elapsed(), stream) {
            taken += chunk.len();
        }
        pass(&mut there, &mut here);
        if before == 0 && start.elapsed() > Duration::from_secs(1) {
            (since, before) = (Instant::now(), taken);
        }
    }
    (taken - before) as f64 / since.elapsed().as_secs_f64() / 1e9
}

struct Echo {
    median: Duration,
    late: Duration,
    /// Bytes per second of the bulk transfer.
    rate: f64,
}

/// Bytes that come back over TCP through a relay, while a bulk transfer goes the same way.
fn echo(wire: Wire, bulk: bool) -> Echo {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("bench: a runtime");
    let result = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bench: listen on loopback");
        let relay = Relay::start(listener.local_addr().expect("bench: address"), wire);
        let (client, _incoming) = link(Role::Client, TcpStream::connect(relay.address()).expect("bench: connect"));
        let (_agent, mut incoming) = link(Role::Agent, listener.accept().expect("bench: accept").0);
        let mut keys = client.open(SERVICE, Class::Normal, Bytes::new()).expect("bench: open");
        let answer = incoming.next().await.expect("bench: a stream").stream;
        let echo = tokio::spawn(echo_all(answer.recv, answer.send));
        let (fill, drain) = if bulk {
            let stream = client.open(SERVICE, Class::Bulk, Bytes::new()).expect("bench: open");
            let sink = incoming.next().await.expect("bench: a stream").stream;
            (Some(tokio::spawn(fill(stream.send))), Some(tokio::spawn(count(sink.recv))))
        } else {
            (None, None)
        };
        let mut echoes = Vec::new();
        let end = Instant::now() + Duration::from_secs(8);
        while Instant::now() < end {
            let asked = Instant::now();
            keys.send.send(Bytes::from_static(b"k")).await.expect("bench: send");
            keys.recv.recv().await.expect("bench: receive");
            echoes.push(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        fill.inspect(|task| task.abort());
        let rate = match drain {
            Some(task) => task.await.expect("bench: count"),
            None => 0.0,
        };
        client.close();
        client.ended().await;
        echo.abort();
        // The first second is spent on finding out what the link can do.
        echoes.drain(..echoes.len() / 8);
        echoes.sort();
        Echo { median: echoes[echoes.len() / 2], late: echoes[echoes.len() * 95 / 100], rate }
    });
    runtime.shutdown_background();
    result
}

fn link(role: Role, socket: TcpStream) -> (Link, Incoming) {
    socket.set_nodelay(true).expect("bench: TCP_NODELAY");
    let reader = socket.try_clone().expect("bench: duplicate a socket").into();
    let pipe = Pipe { reader, writer: socket.into() };
    LinkBuilder::new(Settings { role, ..Settings::default() }).attach(pipe, Bytes::new())
}

async fn echo_all(mut from: RecvStream, mut to: SendStream) {
    while let Ok(Some(chunk)) = from.recv().await {
        if to.send(chunk).await.is_err() {
            return;
        }
    }
}

async fn fill(mut to: SendStream) {
    let block = Bytes::from(vec![7; 1 << 20]);
    while to.send(block.clone()).await.is_ok() {}
}

/// Bytes per second until the stream ends, without the first second.
async fn count(mut from: RecvStream) -> f64 {
    let start = Instant::now();
    let (mut bytes, mut last) = (0, start);
    while let Ok(Some(chunk)) = from.recv().await {
        last = Instant::now();
        if last - start > Duration::from_secs(1) {
            bytes += chunk.len();
        }
    }
    bytes as f64 / (last - start).as_secs_f64().max(1.001).mul_add(1.0, -1.0)
}
