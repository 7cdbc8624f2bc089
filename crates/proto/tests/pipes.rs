//! Several pipes beneath one link: what comes over them in any order, or is lost with one of them, arrives once and in order; and
//! several carry what one does not.
#![allow(clippy::unwrap_used, reason = "in a test that is the finding")]

mod simulator;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use remotely_proto::{
    frame::{HEADER, Header, Kind},
    handshake::Role,
    mux::{Config, End, Event, Mux},
    open::Class,
};
use simulator::{Random, SERVICE, Simulator, Wire, fill, hello, ms, take};

/// A wire that lets `window` bytes through in a round trip, roughly: what a session of ssh does.
fn session(rtt: Duration, window: usize) -> Wire {
    Wire { capacity: window / 2, ..Wire::new(window as f64 * 8.0 / 1e6 / rtt.as_secs_f64(), rtt / 2) }
}

/// Bytes that tell their place.
fn pattern(from: usize, len: usize) -> Bytes {
    (from..from + len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

/// Streams in both directions over pipes of random delays that come and go. Returns how many pipes were lost.
fn everything_arrives(seed: u64) -> u32 {
    const STREAMS: usize = 4;
    const LEN: usize = 600_000;
    let mut random = Random::new(seed);
    let wire = |random: &mut Random| Wire {
        chop: 1 + random.below(20_000),
        random: Some(Random::new(random.next())),
        capacity: 1 + random.below(200_000),
        ..Wire::new(5.0 + random.below(200) as f64, ms(random.below(60) as u64))
    };
    let mut sim = Simulator::new(wire(&mut random), wire(&mut random));
    sim.settle();
    let mut pipes = vec![0];
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        let client = n % 2 == 0;
        let (now, class) = (sim.now, Class::ALL[random.below(3)]);
        let mux = if client { &mut sim.client.mux } else { &mut sim.agent.mux };
        streams.push((mux.open(now, SERVICE, class, Bytes::new()).unwrap(), client, 0, 0));
    }
    let (begin, mut since, mut lost) = (sim.now, None, 0);
    while streams.iter().any(|&(_, _, _, seen)| seen < LEN) {
        assert!(sim.now - begin < Duration::from_secs(60), "seed {seed}: it stands still at {streams:?}");
        let limit = sim.now + ms(1 + random.below(10) as u64);
        sim.step(limit);
        match random.below(60) {
            0..=2 if pipes.len() < 8 => {
                since = since.or(Some(sim.now));
                pipes.push(sim.widen(wire(&mut random), wire(&mut random)));
            }
            3 if pipes.len() > 1 => {
                let chosen = random.below(pipes.len());
                // What was sent before there was a second pipe is not kept.
                if pipes[chosen] != 0 || since.is_some_and(|since| sim.now - since > ms(2000)) {
                    sim.cut(pipes.swap_remove(chosen));
                    lost += 1;
                }
            }
            _ => {}
        }
        assert!(sim.client.mux.end().is_none(), "seed {seed}: {:?}", sim.client.mux.end());
        assert!(sim.agent.mux.end().is_none(), "seed {seed}: {:?}", sim.agent.mux.end());
        for (id, client, sent, seen) in &mut streams {
            let (from, to) =
                if *client { (&mut sim.client, &mut sim.agent) } else { (&mut sim.agent, &mut sim.client) };
            let len = random.below(100_000).min(LEN - *sent);
            let mut data = pattern(*sent, len);
            from.mux.send(*id, &mut data).unwrap();
            *sent += len - data.len();
            // Before the open is in, there is nothing to be taken.
            if to.mux.sendable(*id).is_ok() {
                let got = take(&mut to.mux, sim.now, *id);
                assert_eq!(got, pattern(*seen, got.len()), "seed {seed}");
                *seen += got.len();
            }
        }
    }
    assert!(streams.iter().all(|&(_, _, _, seen)| seen == LEN));
    lost
}

#[test]
fn whatever_pipes_come_and_go_everything_arrives_once_and_in_order() {
    let lost: u32 = (0..30).map(everything_arrives).sum();
    assert!(lost > 100, "{lost}");
}

#[test]
fn a_frame_that_was_cut_in_the_middle_goes_on_where_it_was() {
    let slow = || Wire { chop: 1000, ..Wire::new(8.0, ms(10)) };
    let mut sim = Simulator::new(slow(), slow());
    let id = sim.stream(Class::Normal);
    sim.widen(slow(), slow());
    sim.settle();
    let data = pattern(0, 40_000);
    let mut rest = data.clone();
    sim.client.mux.send(id, &mut rest).unwrap();
    let mut got = Vec::new();
    let mut steps = 0;
    while got.len() < 5_000 {
        let limit = sim.now + ms(1);
        sim.step(limit);
        got.extend(take(&mut sim.agent.mux, sim.now, id));
        steps += 1;
        assert!(steps < 1000);
    }
    sim.cut(0);
    sim.run(ms(500), |_| {});
    got.extend(take(&mut sim.agent.mux, sim.now, id));
    assert!(got == data, "{} bytes of {}", got.len(), data.len());
}

#[test]
fn without_another_pipe_or_with_bytes_from_before_it_the_loss_is_the_end() {
    let mut sim = Simulator::new(Wire::default(), Wire::default());
    let id = sim.stream(Class::Normal);
    sim.client.mux.lose_pipe(sim.now, 0);
    assert!(matches!(sim.client.mux.end(), Some(End::Lost)));

    let slow = || Wire::new(8.0, ms(200));
    let mut sim = Simulator::new(slow(), slow());
    sim.stream(Class::Normal);
    sim.client.mux.send(id, &mut pattern(0, 50_000)).unwrap();
    sim.run(ms(5), |_| {});
    sim.widen(slow(), slow());
    sim.run(ms(5), |_| {});
    sim.cut(0);
    assert!(matches!(sim.client.mux.end(), Some(End::Lost)));
}

/// Bits per second of one stream over sessions of 2 MiB at 20 ms, and how many of these it came to.
fn bulk(most: usize) -> (f64, usize) {
    let wire = || session(ms(20), 2 << 20);
    let mut sim = Simulator::new(wire(), wire());
    let id = sim.stream(Class::Bulk);
    sim.agent.mux.widen(id, 16 << 20);
    let (mut seen, mut pipes, begin) = (0, 1, sim.now);
    sim.run(Duration::from_secs(2), |sim| {
        let _ = fill(&mut sim.client.mux, id);
        let now = sim.now;
        let got = take(&mut sim.agent.mux, now, id).len();
        if now - begin > Duration::from_secs(1) {
            seen += got;
        }
        for event in std::mem::take(&mut sim.client.events) {
            if let Event::Narrow(have) = event {
                assert_eq!(have, pipes, "it was told once, and the latest");
                if pipes < most {
                    sim.widen(wire(), wire());
                    pipes += 1;
                }
            }
        }
    });
    (seen as f64 * 8.0, pipes)
}

#[test]
fn a_stream_that_fills_its_pipes_asks_for_more_and_uses_them() {
    let (one, pipes) = bulk(1);
    assert_eq!(pipes, 1);
    // What one stream has on its way is 16 MiB, in 20 ms and what acks take.
    let (several, pipes) = bulk(8);
    assert!(pipes > 4, "{pipes}");
    assert!(one > 0.7e9 && several > 4.0e9, "{one:.3e} over one, {several:.3e} over {pipes}");
}

#[test]
fn what_the_agent_sends_widens_the_link_too_and_a_slow_link_does_not() {
    let wire = || session(ms(20), 2 << 20);
    let mut sim = Simulator::new(wire(), wire());
    let id = sim.stream(Class::Bulk);
    sim.client.mux.widen(id, 16 << 20);
    sim.run(Duration::from_secs(1), |sim| {
        let _ = fill(&mut sim.agent.mux, id);
        let now = sim.now;
        take(&mut sim.client.mux, now, id);
    });
    assert!(sim.client.events.contains(&Event::Narrow(1)));

    let mut sim = Simulator::new(Wire::new(100.0, ms(10)), Wire::new(100.0, ms(10)));
    let id = sim.stream(Class::Bulk);
    sim.run(Duration::from_secs(5), |sim| {
        let _ = fill(&mut sim.client.mux, id);
        let now = sim.now;
        take(&mut sim.agent.mux, now, id);
    });
    assert!(!sim.client.events.iter().any(|event| matches!(event, Event::Narrow(_))));
}

#[test]
fn a_peer_that_does_not_know_of_pipes_gets_none() {
    let mut mux = Mux::new(hello(Role::Client), Config::default());
    assert_eq!(mux.ticket(), None);
    let old = remotely_proto::handshake::Hello { features: 0, ..hello(Role::Agent) };
    let mut agent = Mux::new(old, Config::default());
    let mut pieces = Default::default();
    agent.output(ms(1), 1 << 20, &mut pieces);
    pieces.drain(..).for_each(|piece| mux.input(ms(1), piece));
    assert!(mux.peer().is_some());
    assert_eq!(mux.ticket(), None);
    assert!(!mux.add_pipe(ms(1), 1));
}

#[test]
fn silence_is_announced_on_each_pipe_and_believed_when_it_is() {
    let mut sim = Simulator::new(Wire::default(), Wire::default());
    sim.stream(Class::Normal);
    let far = || Wire::new(100.0, ms(80));
    sim.widen(far(), far());
    sim.settle();
    sim.client.mux.hold();
    sim.run(ms(200), |_| {});
    assert!(sim.client.mux.held());
    sim.client.asleep = true;
    sim.run(Duration::from_secs(100), |_| {});
    assert!(sim.agent.mux.end().is_none());
    sim.client.asleep = false;
    let now = sim.now;
    sim.client.mux.resume(now);
    sim.run(Duration::from_secs(20), |_| {});
    assert!(sim.agent.mux.end().is_none() && sim.client.mux.end().is_none());
}

/// A link of a slow pipe and another one, on both of which something is on its way.
fn loaded() -> (Simulator, u32) {
    let slow = || Wire { capacity: 20_000, ..Wire::new(8.0, ms(10)) };
    let mut sim = Simulator::new(slow(), slow());
    let id = sim.stream(Class::Bulk);
    sim.widen(slow(), slow());
    sim.run(ms(200), |sim| {
        let _ = fill(&mut sim.client.mux, id);
        take(&mut sim.agent.mux, sim.now, id);
    });
    assert!(!sim.client.lanes[0].wire.segments.is_empty() && !sim.client.wire.segments.is_empty());
    (sim, id)
}

#[test]
fn a_pipe_that_hangs_among_others_is_found() {
    let (mut sim, _) = loaded();
    sim.client.lanes[0].wire.cut = true;
    sim.client.lanes[0].wire.segments.clear();
    sim.run(Duration::from_secs(25), |_| {});
    assert!(sim.client.mux.end().is_none(), "the other one lives");
    sim.run(Duration::from_secs(15), |_| {});
    assert!(matches!(sim.client.mux.end(), Some(End::Silent(_))), "{:?}", sim.client.mux.end());
}

#[test]
fn a_pipe_on_which_something_waits_for_a_peer_that_paused_or_for_this_side_does_not_hang() {
    let (mut sim, id) = loaded();
    sim.agent.mux.hold();
    sim.run(ms(100), |sim| _ = fill(&mut sim.client.mux, id));
    assert!(sim.agent.mux.held());
    sim.agent.asleep = true;
    sim.run(Duration::from_secs(100), |_| {});
    assert!(sim.client.mux.end().is_none());
    // Both machines sleep, too.
    sim.client.asleep = true;
    sim.run(Duration::from_secs(100), |_| {});
    (sim.client.asleep, sim.agent.asleep) = (false, false);
    let now = sim.now;
    sim.agent.mux.resume(now);
    let mut seen = 0;
    sim.run(Duration::from_secs(40), |sim| seen += take(&mut sim.agent.mux, sim.now, id).len());
    assert!(sim.client.mux.end().is_none() && sim.agent.mux.end().is_none());
    assert!(seen > 100_000, "{seen}");
}

/// An agent that has two pipes, and a peer that can say anything.
fn striped() -> Mux {
    let mut agent = Mux::new(hello(Role::Agent), Config::default());
    let payload = hello(Role::Client).encode();
    agent.input(ms(1), frame(Kind::Hello, 0, 0, &payload));
    assert!(agent.add_pipe(ms(1), 1));
    agent
}

fn frame(kind: Kind, stream: u32, seq: u64, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    Header { len: payload.len() as u32, kind, flags: 0, stream, seq }.encode(&mut out);
    out.extend_from_slice(payload);
    out.freeze()
}

#[test]
fn a_peer_cannot_have_more_kept_behind_a_gap_than_a_link_has_on_its_way() {
    let mut agent = striped();
    let block = vec![0; 64 << 10];
    let mut seq = 1000;
    while agent.end().is_none() {
        agent.input_from(ms(2), 1, frame(Kind::Data, 1, seq, &block));
        seq += (HEADER + block.len()) as u64;
        assert!(seq < 40 << 20);
    }
    assert!(matches!(agent.end(), Some(End::Protocol(_))));
    let mut agent = striped();
    let mut frames = 0_u64;
    while agent.end().is_none() {
        agent.input_from(ms(2), 1, frame(Kind::Eof, 1, 1000 + frames * HEADER as u64, &[]));
        frames += 1;
        assert!(frames < 100_000);
    }
}

#[test]
fn frames_that_do_not_fit_together_end_the_link() {
    // One that begins before the end of another.
    let mut agent = striped();
    agent.input_from(ms(2), 1, frame(Kind::Data, 1, 30, &[1; 10]));
    agent.input(ms(2), frame(Kind::Open, 1, 0, &[0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    assert!(matches!(agent.end(), Some(End::Protocol(_))));
    // An ack of more than was put on a pipe.
    let mut agent = striped();
    let mut ack = vec![0; 8];
    ack.extend(0_u64.to_le_bytes());
    ack.extend(1_u32.to_le_bytes());
    ack.extend(7_u64.to_le_bytes());
    agent.input(ms(2), frame(Kind::Ack, 0, 0, &ack));
    assert!(matches!(agent.end(), Some(End::Protocol(_))));
}

#[test]
fn what_comes_twice_counts_once() {
    let mut agent = striped();
    let open = frame(Kind::Open, 1, 0, &[0x84, 3]);
    let data = frame(Kind::Data, 1, 22, b"abcdef");
    agent.input_from(ms(2), 1, data.clone());
    agent.input_from(ms(2), 1, open.clone());
    agent.input(ms(2), open);
    agent.input(ms(2), data);
    assert!(agent.end().is_none(), "{:?}", agent.end());
    assert_eq!(take(&mut agent, ms(2), 1), b"abcdef");
}
