//! A peer that does not keep to the protocol: it gets a named end or is refused, and nothing here grows or panics.
#![allow(clippy::unwrap_used, reason = "in a test that is the finding")]

mod simulator;

use std::{collections::VecDeque, task::Poll};

use bytes::Bytes;
use remotely_proto::{
    frame::{HEADER, Header, Kind, PAYLOAD_MAX, goodbye},
    handshake::{Role, Versions},
    mux::{Config, End, Event, Mux, RecvError, STREAMS_MAX, SendError, WINDOW_INITIAL},
    open::{BODY_MAX, Class, reset},
};
use simulator::{Random, SERVICE, hello, ms};

/// An agent's mux, and a client that sends what it likes.
struct Victim {
    mux: Mux,
    /// Position of the client's next numbered frame.
    seq: u64,
}

impl Victim {
    fn new() -> Self {
        let mut victim = Self { mux: Mux::new(hello(Role::Agent), Config::default()), seq: 0 };
        victim.mux.start(ms(0));
        victim
    }

    fn linked() -> Self {
        let mut victim = Self::new();
        victim.frame(Kind::Hello, 0, &hello(Role::Client).encode());
        assert_eq!(victim.mux.event(), Some(Event::Linked));
        victim
    }

    fn frame(&mut self, kind: Kind, stream: u32, payload: &[u8]) {
        let seq = if kind.numbered() { self.seq } else { 0 };
        self.frame_at(kind, stream, seq, payload);
        if kind.numbered() {
            self.seq += (HEADER + payload.len()) as u64;
        }
    }

    fn frame_at(&mut self, kind: Kind, stream: u32, seq: u64, payload: &[u8]) {
        let mut bytes = Vec::new();
        Header { len: payload.len() as u32, kind, flags: 1, stream, seq }.encode(&mut bytes);
        bytes.extend_from_slice(payload);
        self.mux.input(ms(1), bytes.into());
    }

    fn open(&mut self, stream: u32) {
        self.frame(Kind::Open, stream, &SERVICE.0.to_le_bytes());
    }

    fn output(&mut self) -> Vec<(Kind, u32, Vec<u8>)> {
        let mut pieces = VecDeque::new();
        while self.mux.output(ms(1), usize::MAX, &mut pieces) > 0 {}
        let mut bytes: Bytes = pieces.into_iter().flatten().collect();
        let mut decoder = remotely_proto::frame::FrameDecoder::default();
        let mut frames: Vec<(Kind, u32, Vec<u8>)> = Vec::new();
        while let Some(part) = decoder.next(&mut bytes).unwrap() {
            frames.push((part.header.kind, part.header.stream, part.payload.to_vec()));
        }
        frames
    }

    /// What the victim says of the end of the link.
    #[track_caller]
    fn broken(mut self) -> String {
        let Some(End::Protocol(error)) = self.mux.end() else { panic!("{:?}", self.mux.end()) };
        let error = error.to_string();
        let goodbye = (Kind::Goodbye, 0, goodbye::PROTOCOL.to_le_bytes().to_vec());
        assert!(self.mux.peer().is_none() || self.output().pop() == Some(goodbye));
        // Whatever follows is ignored.
        self.frame(Kind::Data, 1, b"more");
        self.mux.input(ms(2), Bytes::from_static(b"and garbage"));
        assert!(self.output().is_empty() || self.mux.peer().is_none());
        error
    }
}

#[test]
fn what_cannot_be_right_ends_the_link_and_says_why() {
    type Act = dyn Fn(&mut Victim);
    let cases: [(&str, &Act); 16] = [
        ("frame at 7, expected at 0", &|victim| victim.frame_at(Kind::Open, 1, 7, &[0, 0])),
        ("frame at 0, expected at 22", &|victim| {
            victim.open(1);
            victim.frame_at(Kind::Open, 3, 0, &[0, 0]);
        }),
        ("a second hello", &|victim| victim.frame(Kind::Hello, 0, &hello(Role::Client).encode())),
        ("open of stream 2", &|victim| victim.open(2)),
        ("open of stream 0", &|victim| victim.open(0)),
        ("open of stream 3", &|victim| {
            victim.open(5);
            victim.open(3);
        }),
        ("frame Data on stream 1, which is not open", &|victim| victim.frame(Kind::Data, 1, b"x")),
        ("frame Credit on stream 2, which is not open", &|victim| victim.frame(Kind::Credit, 2, &[0; 8])),
        ("frame Eof on stream 0, which is not open", &|victim| victim.frame(Kind::Eof, 0, &[])),
        ("more bytes on stream 1 than were granted", &|victim| {
            victim.open(1);
            for _ in 0..=WINDOW_INITIAL as usize / PAYLOAD_MAX {
                victim.frame(Kind::Data, 1, &[0; PAYLOAD_MAX]);
            }
        }),
        ("bytes on stream 1 after its end", &|victim| {
            victim.open(1);
            victim.frame(Kind::Eof, 1, &[]);
            victim.frame(Kind::Data, 1, b"x");
        }),
        ("bytes on stream 1 after its end", &|victim| {
            victim.open(1);
            victim.frame(Kind::Eof, 1, &[]);
            victim.frame(Kind::Eof, 1, &[]);
        }),
        ("ack of 99, which was never sent", &|victim| victim.frame_at(Kind::Ack, 0, 99, &[0; 8])),
        ("frame Data with 65537 bytes of payload", &|victim| victim.frame(Kind::Data, 1, &[0; PAYLOAD_MAX + 1])),
        ("frame Unknown(99) with 65537 bytes of payload", &|victim| {
            victim.frame(Kind::Unknown(99), 0, &[0; PAYLOAD_MAX + 1]);
        }),
        ("the other side ended the link with code 1", &|victim| victim.frame(Kind::Goodbye, 0, &1u32.to_le_bytes())),
    ];
    for (why, act) in cases {
        let mut victim = Victim::linked();
        act(&mut victim);
        assert_eq!(victim.broken(), why);
    }
}

#[test]
fn the_first_thing_must_be_a_hello() {
    let mut victim = Victim::new();
    victim.open(1);
    assert_eq!(victim.broken(), "frame Open before a hello");
    let mut victim = Victim::new();
    victim.frame(Kind::Hello, 0, b"nonsense");
    assert_eq!(victim.broken(), "hello does not decode");
    let mut victim = Victim::new();
    victim.frame(Kind::Hello, 0, &hello(Role::Agent).encode());
    assert_eq!(victim.broken(), "the other side is Agent as well");

    let mut victim = Victim::new();
    let mut theirs = hello(Role::Client);
    theirs.versions = Versions { min: 8, max: 9 };
    victim.frame(Kind::Hello, 0, &theirs.encode());
    let end = victim.mux.end().unwrap().to_string();
    assert_eq!(end, "the protocol here has version 1, there 8 to 9");
    // The other side can tell as well: our hello still goes out.
    assert_eq!(victim.output()[0].0, Kind::Hello);
}

#[test]
fn an_unknown_frame_is_refused_on_its_stream_and_the_link_goes_on() {
    let mut victim = Victim::linked();
    victim.frame(Kind::Unknown(0x33), 0, b"for the link");
    victim.frame(Kind::Unknown(0xee), 77, b"on a stream that nobody has opened");
    victim.open(1);
    victim.open(3);
    victim.frame(Kind::Unknown(0x33), 1, &[0; 5000]);
    victim.frame(Kind::Data, 1, b"on");
    victim.frame(Kind::Data, 3, b"not concerned");
    assert!(victim.mux.end().is_none());
    let code = reset::UNSUPPORTED;
    assert_eq!(victim.mux.recv(ms(1), 1), Poll::Ready(Err(RecvError::Reset(code))));
    assert_eq!(victim.mux.sendable(1), Err(SendError::Reset(code)));
    assert_eq!(victim.mux.recv(ms(1), 3), Poll::Ready(Ok(Some(Bytes::from_static(b"not concerned")))));
    let output = victim.output();
    for kind in [Kind::Reset, Kind::Stop] {
        assert!(output.contains(&(kind, 1, code.to_le_bytes().to_vec())), "{output:?}");
    }
}

#[test]
fn frames_for_a_stream_that_is_gone_are_nothing() {
    let mut victim = Victim::linked();
    victim.open(1);
    victim.mux.drop_send(1, reset::CANCELLED);
    victim.mux.drop_recv(1, 0);
    victim.output();
    assert_eq!(victim.mux.stats().streams, 0);
    victim.frame(Kind::Data, 1, b"was on its way");
    victim.frame(Kind::Credit, 1, &u64::MAX.to_le_bytes());
    victim.frame(Kind::Stop, 1, &[0; 4]);
    victim.frame(Kind::Reset, 1, &[0; 4]);
    victim.frame(Kind::Eof, 1, &[]);
    assert!(victim.mux.end().is_none());
    assert_eq!(victim.mux.stats().streams, 0);
}

#[test]
fn any_credit_is_taken_and_little_is_queued() {
    let mut victim = Victim::linked();
    victim.open(1);
    victim.frame(Kind::Credit, 1, &u64::MAX.to_le_bytes());
    victim.frame(Kind::Credit, 1, &0u64.to_le_bytes());
    let queued = simulator::fill(&mut victim.mux, 1).unwrap();
    assert_eq!(queued, remotely_proto::mux::QUEUE_MAX);
}

#[test]
fn too_many_streams_are_refused_and_far_too_many_end_the_link() {
    let mut victim = Victim::linked();
    victim.output();
    let mut id = 1;
    for _ in 0..STREAMS_MAX + 10 {
        victim.open(id);
        id += 2;
    }
    assert_eq!(victim.mux.stats().streams, STREAMS_MAX);
    let output = victim.output();
    let refused =
        |kind| output.iter().filter(|&frame| frame.0 == kind && frame.2 == reset::LIMIT.to_le_bytes()).count();
    assert_eq!((refused(Kind::Reset), refused(Kind::Stop)), (10, 10));
    // Nobody reads our refusals.
    for _ in 0..=STREAMS_MAX {
        victim.open(id);
        id += 2;
    }
    assert_eq!(victim.broken(), "too many streams");

    let mut victim = Victim::linked();
    victim.frame(Kind::Open, 1, &vec![0; 2 + BODY_MAX + 1]);
    assert!(victim.output().contains(&(Kind::Reset, 1, reset::TOO_LONG.to_le_bytes().to_vec())));
}

#[test]
fn a_flood_of_pings_has_one_answer() {
    let mut victim = Victim::linked();
    for token in 0..10_000 {
        victim.frame_at(Kind::Ping, 0, token, &[]);
    }
    let pongs = victim.output().iter().filter(|frame| frame.0 == Kind::Pong).count();
    assert_eq!(pongs, 1);
}

#[test]
fn bytes_that_nobody_takes_cost_what_was_granted() {
    // A thousand frames of a byte each.
    let mut victim = Victim::linked();
    victim.open(1);
    victim.mux.event();
    let mut taken = 0;
    for _ in 0..1000 {
        victim.frame(Kind::Data, 1, b"x");
    }
    while let Poll::Ready(Ok(Some(chunk))) = victim.mux.recv(ms(1), 1) {
        taken += chunk.len();
        assert_eq!(chunk.len(), 1000, "single bytes are put together");
    }
    assert_eq!(taken, 1000);
}

#[test]
fn garbage_never_panics() {
    for seed in 1..2000 {
        let mut random = Random::new(seed);
        let mut victim = if seed % 4 == 0 { Victim::new() } else { Victim::linked() };
        for _ in 0..random.below(60) {
            let kind = Kind::from_code(random.next() as u8 & if random.below(2) == 0 { 0x87 } else { 0xff });
            let stream = random.below(8) as u32;
            let len = match random.below(6) {
                0 => 8,
                1 => 4,
                2 => 0,
                3 => 2 + random.below(20),
                _ => random.below(70_000),
            };
            let payload = random.bytes(len);
            match random.below(10) {
                0 => victim.mux.input(ms(1), payload.clone()),
                1 => victim.frame_at(kind, stream, random.next(), &payload),
                _ => victim.frame(kind, stream, &payload),
            }
            let id = random.below(8) as u32;
            match random.below(8) {
                0 => drop(victim.mux.recv(ms(1), id)),
                1 => drop(victim.mux.send(id, &mut payload.clone())),
                2 => victim.mux.stop(id, 0),
                3 => victim.mux.drop_send(id, 1),
                4 => victim.mux.drop_recv(id, 1),
                5 => drop(victim.mux.open(ms(1), SERVICE, Class::Normal, Bytes::new())),
                6 => victim.mux.tick(ms(random.below(30_000) as u64)),
                _ => drop(victim.output()),
            }
        }
        while victim.mux.event().is_some() {}
    }
}
