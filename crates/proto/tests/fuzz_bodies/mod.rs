//! What is done with the bytes of a fuzzer, by target. Used by the fuzz targets, and by the test that replays their corpus;
//! a panic is a finding.

use std::{collections::VecDeque, fmt::Debug, task::Poll, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use minicbor::{Decode, Encode};
use remotely_proto::{
    call, exec, file,
    frame::{FrameDecoder, HEADER, Header, Kind},
    fs,
    handshake::{Hello, Role, VERSIONS, feature},
    message::MessageDecoder,
    mux::{Config, Event, Mux},
    net,
    open::{Class, Service},
};

/// A target: takes any bytes.
pub(crate) type Target = fn(&[u8]);

/// All of them, by the name of their binary and of their corpus.
pub(crate) const TARGETS: [(&str, Target); 25] = [
    ("frame", frame),
    ("mux_bytes", mux_bytes),
    ("mux_frames", mux_frames),
    ("mux_pipes", mux_pipes),
    ("hello", hello),
    ("message", message),
    ("fs_lane", cbor::<fs::Lane>),
    ("fs_to_server", cbor::<fs::ToServer>),
    ("fs_to_mount", cbor::<fs::ToMount>),
    ("exec_request", cbor::<exec::Request>),
    ("exec_control", cbor::<exec::Control>),
    ("exec_report", cbor::<exec::Report>),
    ("exec_fd_open", cbor::<exec::FdOpen>),
    ("file_request", cbor::<file::Request>),
    ("file_items", cbor::<Vec<file::Item>>),
    ("file_answer", cbor::<file::Answer>),
    ("call_open", cbor::<call::Open>),
    ("call_failure", cbor::<call::Failure>),
    ("call_records", call_records),
    ("call_lines", call_lines),
    ("net_open", cbor::<net::Open>),
    ("net_connected", cbor::<net::Connected>),
    ("net_surroundings", cbor::<net::Surroundings>),
    ("net_datagrams", net_datagrams),
    ("net_names", net_names),
];

/// Runs the target of this name.
pub(crate) fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.0 == name);
    target.unwrap_or_else(|| panic!("no fuzz target {name}")).1(data);
}

/// Frames come out the same however the bytes are cut.
fn frame(data: &[u8]) {
    let mut whole = Vec::new();
    let mut decoder = FrameDecoder::default();
    let mut rest = Bytes::copy_from_slice(data);
    while let Ok(Some(part)) = decoder.next(&mut rest) {
        whole.push((part.header, part.payload.to_vec()));
    }
    let mut chopped: Vec<(Header, Vec<u8>)> = Vec::new();
    let mut decoder = FrameDecoder::default();
    'all: for chunk in data.chunks(7) {
        let mut chunk = Bytes::copy_from_slice(chunk);
        loop {
            match decoder.next(&mut chunk) {
                Ok(Some(part)) if part.first => chopped.push((part.header, part.payload.to_vec())),
                Ok(Some(part)) => chopped.last_mut().expect("a first part").1.extend_from_slice(&part.payload),
                Ok(None) => break,
                Err(_) => break 'all,
            }
        }
    }
    assert_eq!(whole, chopped);
}

/// Records come back from their own bytes, and stay within their bounds.
fn call_records(data: &[u8]) {
    let mut received = BytesMut::from(data);
    while let Ok(Some(record)) = call::Record::decode(&mut received) {
        // What a peer of ours would not send may be longer than what encodes.
        let long = match &record {
            call::Record::Define { name, .. } => name.len() > call::NAME_MAX,
            call::Record::Call { arguments: bytes, .. }
            | call::Record::Value { value: bytes, .. }
            | call::Record::Failed { failure: bytes, .. } => bytes.len() > call::INLINE_MAX,
            call::Record::Cancel { .. } | call::Record::Printed { .. } => false,
        };
        if !long {
            let mut bytes = BytesMut::new();
            record.encode(&mut bytes);
            assert_eq!(call::Record::decode(&mut bytes), Ok(Some(record)));
        }
    }
}

fn call_lines(data: &[u8]) {
    let mut received = BytesMut::from(data);
    while let Ok(Some(line)) = call::Line::decode(&mut received) {
        assert!(line.bytes.len() <= call::LINE_MAX);
    }
}

/// Datagrams come back from their own bytes.
fn net_datagrams(data: &[u8]) {
    let mut received = BytesMut::from(data);
    while let Ok(Some(datagram)) = net::Datagram::decode(&mut received) {
        assert!(datagram.data.len() <= net::DATAGRAM_MAX);
        let mut bytes = BytesMut::new();
        datagram.encode(&mut bytes);
        assert_eq!(net::Datagram::decode(&mut bytes), Ok(Some(datagram)));
    }
}

/// Questions and replies come back from their own bytes.
fn net_names(data: &[u8]) {
    let mut received = BytesMut::from(data);
    while let Some(question) = net::Question::decode(&mut received) {
        let mut bytes = BytesMut::new();
        question.encode(&mut bytes);
        assert_eq!(net::Question::decode(&mut bytes), Some(question));
    }
    let mut received = BytesMut::from(data);
    while let Some(reply) = net::Reply::decode(&mut received) {
        let mut bytes = BytesMut::new();
        reply.encode(&mut bytes);
        assert_eq!(net::Reply::decode(&mut bytes), Some(reply));
    }
}

fn client_hello() -> Hello {
    let (link, key) = ([1; 16], [2; 16]);
    Hello { versions: VERSIONS, features: feature::PIPES, role: Role::Client, link, key, depth: 0, wall_ns: 3 }
}

/// An agent that serves whatever is opened, and a client that says anything.
struct Agent {
    mux: Mux,
    now: Duration,
    streams: Vec<u32>,
    pieces: VecDeque<Bytes>,
}

impl Agent {
    fn new() -> Self {
        let hello = Hello { role: Role::Agent, ..client_hello() };
        let mut mux = Mux::new(hello, Config::default());
        mux.start(Duration::ZERO);
        Self { mux, now: Duration::ZERO, streams: vec![2], pieces: VecDeque::new() }
    }

    fn linked() -> Self {
        let mut agent = Self::new();
        let payload = client_hello().encode();
        let mut bytes = Vec::new();
        let len = payload.len() as u32;
        Header { len, kind: Kind::Hello, flags: 0, stream: 0, seq: 0 }.encode(&mut bytes);
        bytes.extend(payload);
        agent.input(bytes.into());
        let opened = agent.mux.open(agent.now, Service(1), Class::Normal, Bytes::new());
        assert_eq!(opened, Ok(2));
        agent
    }

    fn input(&mut self, chunk: Bytes) {
        self.now += Duration::from_millis(1);
        self.mux.input(self.now, chunk);
        while let Some(event) = self.mux.event() {
            if let Event::Opened { id, .. } = event {
                self.streams.push(id);
            }
        }
    }

    /// Does something with a stream, by the bits of `choice`.
    fn serve(&mut self, choice: u8) {
        let Some(&id) = self.streams.get(usize::from(choice >> 4) % self.streams.len()) else { return };
        match choice & 15 {
            0..4 => while let Poll::Ready(Ok(Some(_))) = self.mux.recv(self.now, id) {},
            4..8 => _ = self.mux.send(id, &mut Bytes::from_static(&[0; 3000])),
            8 => self.mux.finish(id),
            9 => self.mux.reset(id, 300),
            10 => self.mux.stop(id, 0),
            11 => self.mux.drop_send(id, 1),
            12 => self.mux.drop_recv(id, 0),
            13 => self.mux.tick(self.now),
            _ => {
                self.mux.output(self.now, 10_000, &mut self.pieces);
                self.pieces.clear();
            }
        }
    }
}

/// Raw bytes on a fresh link.
fn mux_bytes(data: &[u8]) {
    let mut agent = Agent::new();
    for chunk in data.chunks(100) {
        agent.input(Bytes::copy_from_slice(chunk));
        agent.serve(14);
        agent.serve(0);
    }
}

/// Frames whose headers are right as a rule: each is made of kind, stream, length and a choice, then its payload.
fn mux_frames(mut data: &[u8]) {
    let mut agent = Agent::linked();
    let mut seq = 0;
    while data.len() >= 4 {
        let [kind, stream, len, choice] = [data.get_u8(), data.get_u8(), data.get_u8(), data.get_u8()];
        let kind = Kind::from_code(kind);
        let len = match kind {
            Kind::Credit | Kind::Ack => 8,
            Kind::Stop | Kind::Reset | Kind::Goodbye => 4,
            _ => usize::from(len),
        };
        let payload = &data[..len.min(data.len())];
        data = &data[payload.len()..];
        let mut bytes = Vec::new();
        let position = if kind.numbered() { seq } else { u64::from(choice) };
        let header =
            Header { len: payload.len() as u32, kind, flags: choice & 3, stream: stream.into(), seq: position };
        header.encode(&mut bytes);
        bytes.extend_from_slice(payload);
        if kind.numbered() {
            seq += (HEADER + payload.len()) as u64;
        }
        agent.input(bytes.into());
        agent.serve(choice);
    }
}

/// Frames on a link of three pipes, in about the right order: each is made of kind, stream, length and a choice of pipe and of what
/// is done then, and of where it begins, before or after the last one, then its payload.
fn mux_pipes(mut data: &[u8]) {
    let mut agent = Agent::linked();
    let pipes = [0, 1, 2];
    assert!(pipes[1..].iter().all(|&pipe| agent.mux.add_pipe(agent.now, pipe)));
    let mut end = 0_u64;
    while data.len() >= 5 {
        let [kind, stream, len] = [data.get_u8(), data.get_u8(), data.get_u8()];
        let [choice, place] = [data.get_u8(), data.get_u8()];
        let (kind, payload) = (Kind::from_code(kind), &data[..usize::from(len).min(data.len())]);
        data = &data[payload.len()..];
        let seq = end.saturating_add_signed(i64::from(place.cast_signed()));
        let header = Header { len: payload.len() as u32, kind, flags: choice & 3, stream: stream.into(), seq };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        bytes.extend_from_slice(payload);
        if kind.numbered() {
            end = seq + (HEADER + payload.len()) as u64;
        }
        let pipe = pipes[usize::from(choice) % pipes.len()];
        agent.now += Duration::from_millis(1);
        agent.mux.input_from(agent.now, pipe, bytes.into());
        match choice {
            250.. => agent.mux.lose_pipe(agent.now, pipe),
            240.. => agent.mux.block_pipe(pipe, choice & 1 == 0),
            _ => _ = agent.mux.output_to(agent.now, pipe, 10_000, &mut agent.pieces),
        }
        agent.pieces.clear();
        agent.input(Bytes::new());
        agent.serve(choice);
    }
}

fn hello(data: &[u8]) {
    let ours = Hello { role: Role::Agent, ..client_hello() };
    if let Ok((theirs, negotiated)) = ours.negotiate(data) {
        assert_eq!(negotiated.version, 1);
        assert_eq!(ours.negotiate(&theirs.encode()).ok(), Some((theirs, negotiated)));
    }
}

/// Messages come out the same however the bytes are cut.
fn message(data: &[u8]) {
    let mut whole = MessageDecoder::default();
    whole.push(data);
    let mut chopped = MessageDecoder::default();
    let mut chunks = data.chunks(11);
    while let Ok(Some(expected)) = whole.next::<fs::ToServer>() {
        let found = loop {
            match chopped.next::<fs::ToServer>().expect("it decodes") {
                Some(found) => break found,
                None => chopped.push(chunks.next().expect("all of it came")),
            }
        };
        assert_eq!(expected, found);
    }
}

/// What decodes is encoded to something that decodes to the same.
fn cbor<T>(data: &[u8])
where
    T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + Debug,
{
    if let Ok(value) = minicbor::decode::<T>(data) {
        let again = minicbor::to_vec(&value).expect("a Vec takes all bytes");
        assert_eq!(minicbor::decode::<T>(&again).ok(), Some(value));
    }
}
