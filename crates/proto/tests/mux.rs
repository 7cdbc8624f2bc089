//! Two muxes in virtual time: streams and their ends, credit, order, keepalive, and the end of the link.
#![allow(clippy::unwrap_used, reason = "in a test that is the finding")]

mod simulator;

use std::{task::Poll, time::Duration};

use bytes::Bytes;
use remotely_proto::{
    mux::{Config, End, Event, GROWTH_MAX, OpenError, RecvError, STREAMS_MAX, SendError, WINDOW_INITIAL, WINDOW_MAX},
    open::{BODY_MAX, Class, reset},
};
use simulator::{Random, SERVICE, Simulator, Wire, fill, ms, take};

fn lan() -> Simulator {
    Simulator::new(Wire::default(), Wire::default())
}

#[test]
fn what_is_sent_with_the_open_arrives_with_it() {
    let mut sim = Simulator::new(Wire::new(10.0, ms(100)), Wire::new(10.0, ms(100)));
    sim.settle();
    let start = sim.now;
    let id = sim.client.mux.open(sim.now, SERVICE, Class::Normal, Bytes::from_static(b"body")).unwrap();
    sim.client.mux.send(id, &mut Bytes::from_static(b"data")).unwrap();
    sim.client.mux.finish(id);
    while sim.agent.events.len() < 4 {
        sim.step(start + ms(5000));
    }
    assert!(sim.now < start + ms(102), "half a round trip");
    let opened = Event::Opened { id, service: SERVICE, class: Class::Normal, body: Bytes::from_static(b"body") };
    assert_eq!(sim.agent.events[1..3], [opened, Event::Readable(id)]);
    assert_eq!(take(&mut sim.agent.mux, sim.now, id), b"data");
    assert_eq!(sim.agent.mux.recv(sim.now, id), Poll::Ready(Ok(None)));
}

#[test]
fn any_chopping_of_the_pipe_gives_the_same_bytes() {
    for seed in 1..30 {
        let wire = |seed| Wire { chop: 300, random: Some(Random::new(seed)), ..Wire::new(50.0, ms(3)) };
        let mut sim = Simulator::new(wire(seed), wire(seed + 100));
        let id = sim.stream(Class::Normal);
        let data = Random::new(seed).bytes(1_000_000);
        let (mut rest, mut seen) = (data.clone(), Vec::new());
        sim.run(ms(5000), |sim| {
            sim.client.mux.send(id, &mut rest).unwrap();
            seen.extend(take(&mut sim.agent.mux, sim.now, id));
        });
        assert!(seen == data, "seed {seed}: {} bytes", seen.len());
    }
}

#[test]
fn a_stream_that_nobody_reads_is_held_and_holds_nobody() {
    let mut sim = lan();
    let stalled = sim.stream(Class::Normal);
    let other = sim.stream(Class::Normal);
    let mut sent = 0;
    let mut seen = 0;
    sim.run(ms(2000), |sim| {
        sent += fill(&mut sim.client.mux, stalled).unwrap();
        let _ = fill(&mut sim.client.mux, other).unwrap();
        seen += take(&mut sim.agent.mux, sim.now, other).len();
    });
    assert_eq!(sent as u64, WINDOW_INITIAL, "no more than was granted is even taken from the application");
    assert!(seen > 100 << 20, "{seen}");
    // When it is read at last, it goes on.
    let mut seen = 0;
    sim.run(ms(100), |sim| {
        let _ = fill(&mut sim.client.mux, stalled).unwrap();
        seen += take(&mut sim.agent.mux, sim.now, stalled).len();
    });
    assert!(seen > 10 << 20, "{seen}");
}

#[test]
fn how_far_a_stream_has_come_is_what_was_handed_out() {
    let mut sim = Simulator::new(Wire::new(1.0, ms(10)), Wire::new(1.0, ms(10)));
    let id = sim.stream(Class::Bulk);
    assert_eq!(sim.client.mux.sent(id), Some((0, 0)));
    sim.client.mux.send(id, &mut Bytes::from(vec![0; 200_000])).unwrap();
    assert_eq!(sim.client.mux.sent(id), Some((0, 200_000)));
    let mut last = 0;
    sim.run(ms(10_000), |sim| {
        let (sent, waiting) = sim.client.mux.sent(id).unwrap();
        assert!(sent >= last && sent + waiting as u64 == 200_000, "{sent} {waiting}");
        last = sent;
        let _ = take(&mut sim.agent.mux, sim.now, id);
    });
    assert_eq!(sim.client.mux.sent(id), Some((200_000, 0)));
    sim.client.mux.reset(id, 300);
    assert_eq!(sim.client.mux.sent(id), None, "what was given up was not sent");
    assert_eq!(sim.client.mux.sent(id + 2), None);
}

#[test]
fn windows_grow_to_what_the_link_needs_and_within_a_budget() {
    let mut sim = Simulator::new(Wire { delay: ms(50), ..Wire::default() }, Wire { delay: ms(50), ..Wire::default() });
    let ids: Vec<u32> = (0..20).map(|_| sim.stream(Class::Normal)).collect();
    sim.run(ms(3000), |sim| {
        for &id in &ids {
            let _ = fill(&mut sim.client.mux, id).unwrap();
            take(&mut sim.agent.mux, sim.now, id);
        }
    });
    // Now nobody reads, and the windows fill.
    sim.run(ms(3000), |sim| {
        for &id in &ids {
            let _ = fill(&mut sim.client.mux, id).unwrap();
        }
    });
    let held: Vec<usize> = ids.iter().map(|&id| take(&mut sim.agent.mux, sim.now, id).len()).collect();
    let total: usize = held.iter().sum();
    assert!(held.iter().all(|&held| held as u64 <= WINDOW_MAX), "{held:?}");
    assert!(total > 40 << 20 && total as u64 <= GROWTH_MAX + 20 * WINDOW_INITIAL, "{total}");
    // What a stream has grown by comes back with its end.
    for &id in &ids {
        sim.client.mux.drop_send(id, reset::CANCELLED);
        sim.client.mux.drop_recv(id, 0);
        sim.agent.mux.drop_send(id, reset::CANCELLED);
        sim.agent.mux.drop_recv(id, 0);
    }
    sim.settle();
    assert_eq!((sim.client.mux.stats().streams, sim.agent.mux.stats().streams), (0, 0));
    let id = sim.stream(Class::Normal);
    let mut seen = 0;
    sim.run(ms(3000), |sim| {
        let _ = fill(&mut sim.client.mux, id).unwrap();
        seen += take(&mut sim.agent.mux, sim.now, id).len();
    });
    assert!(seen > 200 << 20, "{seen}");
}

#[test]
fn normal_and_bulk_share_four_to_one_and_streams_equally() {
    let mut sim = Simulator::new(Wire::new(100.0, ms(10)), Wire::new(100.0, ms(10)));
    let classes = [Class::Normal, Class::Normal, Class::Bulk, Class::Bulk, Class::Bulk];
    let ids = classes.map(|class| sim.stream(class));
    let mut seen = [0; 5];
    sim.run(ms(10_000), |sim| {
        for (id, seen) in ids.iter().zip(&mut seen) {
            let _ = fill(&mut sim.client.mux, *id).unwrap();
            *seen += take(&mut sim.agent.mux, sim.now, *id).len();
        }
    });
    let total: usize = seen.iter().sum();
    let share = |n: usize| seen[n] as f64 / total as f64;
    for n in 0..2 {
        assert!((share(n) - 0.4).abs() < 0.03, "{seen:?}");
    }
    for n in 2..5 {
        assert!((share(n) - 0.2 / 3.0).abs() < 0.02, "{seen:?}");
    }
}

#[test]
fn stop_reset_and_eof_concern_one_direction() {
    let mut sim = lan();
    let id = sim.stream(Class::Normal);
    sim.client.mux.send(id, &mut Bytes::from_static(b"there")).unwrap();
    sim.client.mux.finish(id);
    sim.settle();
    assert_eq!(take(&mut sim.agent.mux, sim.now, id), b"there");
    assert_eq!(sim.agent.mux.recv(sim.now, id), Poll::Ready(Ok(None)));
    assert_eq!(sim.client.mux.sendable(id), Err(SendError::Stopped));
    sim.agent.mux.send(id, &mut Bytes::from_static(b"back")).unwrap();
    sim.settle();
    assert_eq!(take(&mut sim.client.mux, sim.now, id), b"back");
    sim.agent.mux.reset(id, 300);
    sim.settle();
    assert_eq!(sim.client.mux.recv(sim.now, id), Poll::Ready(Err(RecvError::Reset(300))));

    let id = sim.stream(Class::Normal);
    let _ = fill(&mut sim.client.mux, id).unwrap();
    sim.agent.mux.stop(id, 0);
    sim.settle();
    assert_eq!(sim.client.mux.sendable(id), Err(SendError::Stopped));
    assert_eq!(sim.agent.mux.sendable(id), Ok(()));
    sim.agent.mux.stop(id, 0);
    assert_eq!(sim.agent.mux.recv(sim.now, id), Poll::Ready(Ok(None)));
}

#[test]
fn too_many_streams_and_too_long_bodies_are_refused() {
    let mut sim = lan();
    sim.settle();
    for _ in 0..STREAMS_MAX {
        let id = sim.client.mux.open(sim.now, SERVICE, Class::Normal, Bytes::new()).unwrap();
        assert_eq!(sim.client.mux.sendable(id), Ok(()));
    }
    let id = sim.client.mux.open(sim.now, SERVICE, Class::Normal, Bytes::new()).unwrap();
    assert_eq!(sim.client.mux.sendable(id), Err(SendError::Reset(reset::LIMIT)));
    sim.settle();
    assert_eq!(sim.agent.opened().len(), STREAMS_MAX);
    let long = Bytes::from(vec![0; BODY_MAX + 1]);
    let id = sim.agent.mux.open(sim.now, SERVICE, Class::Normal, long).unwrap();
    assert_eq!(sim.agent.mux.recv(sim.now, id), Poll::Ready(Err(RecvError::Reset(reset::TOO_LONG))));
    let full = Bytes::from(vec![0; BODY_MAX]);
    let id = sim.agent.mux.open(sim.now, SERVICE, Class::Normal, full).unwrap();
    sim.settle();
    assert_eq!(sim.client.opened(), [id]);
}

#[test]
fn close_waits_for_what_was_sent_but_not_for_ever() {
    let mut sim = Simulator::new(Wire::new(1.0, ms(20)), Wire::new(1.0, ms(20)));
    let id = sim.stream(Class::Bulk);
    let sent = fill(&mut sim.client.mux, id).unwrap();
    sim.client.mux.finish(id);
    sim.client.mux.close(sim.now);
    assert_eq!(sim.client.mux.open(sim.now, SERVICE, Class::Normal, Bytes::new()), Err(OpenError::Over));
    sim.run(ms(10_000), |_| {});
    assert_eq!(take(&mut sim.agent.mux, sim.now, id).len(), sent);
    assert_eq!(sim.agent.mux.recv(sim.now, id), Poll::Ready(Ok(None)));
    assert!(matches!(sim.client.mux.end(), Some(End::Closed)) && matches!(sim.agent.mux.end(), Some(End::Closed)));

    // The peer's pipe is full and stays so, but the peer is alive.
    let mut sim = lan();
    let id = sim.stream(Class::Bulk);
    sim.client.wire.capacity = 0;
    let _ = fill(&mut sim.client.mux, id).unwrap();
    let start = sim.now;
    sim.client.mux.close(sim.now);
    while sim.client.mux.end().is_none() {
        sim.step(start + ms(60_000));
    }
    assert!(sim.now - start <= ms(15_001), "{:?}", sim.now - start);
}

#[test]
fn a_cut_is_known_within_fifteen_seconds_on_both_sides() {
    for busy in [false, true] {
        let mut sim = Simulator::new(Wire::new(50.0, ms(25)), Wire::new(50.0, ms(25)));
        let id = sim.stream(Class::Bulk);
        let work = |sim: &mut Simulator| {
            if busy {
                let _ = fill(&mut sim.client.mux, id);
                while let Poll::Ready(Ok(Some(_))) = sim.agent.mux.recv(sim.now, id) {}
            }
        };
        sim.run(ms(30_000), work);
        assert!(sim.client.mux.end().is_none() && sim.agent.mux.end().is_none());
        (sim.client.wire.cut, sim.agent.wire.cut) = (true, true);
        sim.run(ms(15_200), work);
        for side in [&sim.client, &sim.agent] {
            assert!(matches!(side.mux.end(), Some(End::Silent(_))), "busy {busy}: {:?}", side.mux.end());
        }
    }
}

#[test]
fn packets_that_go_one_way_only_are_noticed_by_whom_they_miss() {
    for client_is_deaf in [false, true] {
        let mut sim = Simulator::new(Wire::new(50.0, ms(25)), Wire::new(50.0, ms(25)));
        sim.settle();
        if client_is_deaf {
            sim.agent.wire.cut = true
        } else {
            sim.client.wire.cut = true
        }
        sim.run(ms(15_200), |_| {});
        let deaf = if client_is_deaf { &sim.client } else { &sim.agent };
        assert!(matches!(deaf.mux.end(), Some(End::Silent(_))));
    }
}

#[test]
fn an_idle_link_lives_and_a_busy_one_is_never_taken_for_dead() {
    let mut sim = Simulator::new(Wire::new(50.0, ms(300)), Wire::new(50.0, ms(300)));
    sim.run(Duration::from_secs(3600), |_| {});
    assert!(sim.client.mux.end().is_none() && sim.agent.mux.end().is_none());
    assert!(sim.client.mux.stats().frames_sent < 1500, "{:?}", sim.client.mux.stats());

    // 32 kbit/s: a first flight of 256 KiB takes more than a minute.
    let mut sim = Simulator::new(Wire::new(0.032, ms(300)), Wire::new(0.032, ms(300)));
    let id = sim.client.mux.open(sim.now, SERVICE, Class::Bulk, Bytes::new()).unwrap();
    let _ = fill(&mut sim.client.mux, id).unwrap();
    let flight = sim.client.mux.first_flight(sim.now);
    assert!(flight.len() > 256 << 10);
    sim.client.pieces = [flight].into();
    let mut seen = 0;
    sim.run(Duration::from_secs(600), |sim| {
        let _ = fill(&mut sim.client.mux, id).unwrap();
        if sim.agent.mux.stats().streams > 0 {
            seen += take(&mut sim.agent.mux, sim.now, id).len();
        }
    });
    assert!(sim.client.mux.end().is_none() && sim.agent.mux.end().is_none());
    assert!(seen > 2_000_000, "{seen}");
}

#[test]
fn waking_from_a_sleep_does_not_kill_the_link() {
    let config = Config { dead_after: Duration::from_secs(3600), ..Config::default() };
    let mut sim = Simulator::with_config(Wire::new(50.0, ms(5)), Wire::new(50.0, ms(5)), config);
    sim.settle();
    sim.client.asleep = true;
    sim.run(Duration::from_secs(3000), |_| {});
    sim.client.asleep = false;
    sim.run(Duration::from_secs(7200), |_| {});
    assert!(sim.client.mux.end().is_none() && sim.agent.mux.end().is_none());
}

#[test]
fn an_announced_silence_lasts_until_the_next_byte() {
    let mut sim = Simulator::new(Wire::new(50.0, ms(25)), Wire::new(50.0, ms(25)));
    let id = sim.stream(Class::Normal);
    sim.client.mux.hold();
    sim.settle();
    assert!(sim.client.mux.held());
    let sent = sim.client.mux.stats().bytes_sent;
    // What the peer says or the application sends is no reason to speak.
    sim.agent.mux.send(id, &mut Bytes::from_static(b"still here")).unwrap();
    sim.client.mux.send(id, &mut Bytes::from_static(b"later")).unwrap();
    sim.settle();
    assert_eq!(sim.client.mux.stats().bytes_sent, sent);
    sim.client.asleep = true;
    let frames = sim.agent.mux.stats().frames_sent;
    sim.run(Duration::from_secs(3600), |_| {});
    assert!(sim.agent.mux.end().is_none());
    let pings = sim.agent.mux.stats().frames_sent - frames;
    assert!((1..100).contains(&pings), "{pings}");

    sim.client.asleep = false;
    sim.client.mux.resume(sim.now);
    sim.settle();
    assert_eq!(take(&mut sim.agent.mux, sim.now, id), b"later");
    assert_eq!(take(&mut sim.client.mux, sim.now, id), b"still here");
    sim.run(ms(60_000), |_| {});
    assert!(sim.client.mux.end().is_none() && sim.agent.mux.end().is_none());
    // From then on silence counts again.
    sim.client.asleep = true;
    sim.run(ms(15_200), |_| {});
    assert!(matches!(sim.agent.mux.end(), Some(End::Silent(_))));
}

#[test]
fn a_silence_that_was_not_kept_or_is_closed_over_is_none() {
    let mut sim = lan();
    sim.settle();
    // Something follows the announcement in the same chunk.
    sim.client.mux.hold();
    let mut pieces = std::collections::VecDeque::new();
    sim.client.mux.output(sim.now, usize::MAX, &mut pieces);
    sim.client.mux.resume(sim.now);
    sim.client.mux.output(sim.now, usize::MAX, &mut pieces);
    sim.agent.mux.input(sim.now, pieces.into_iter().flatten().collect());
    sim.client.asleep = true;
    sim.run(ms(15_200), |_| {});
    assert!(matches!(sim.agent.mux.end(), Some(End::Silent(_))));

    let mut sim = lan();
    sim.settle();
    sim.client.mux.hold();
    sim.settle();
    sim.client.mux.close(sim.now);
    sim.settle();
    assert!(matches!(sim.client.mux.end(), Some(End::Closed)) && matches!(sim.agent.mux.end(), Some(End::Closed)));
}

#[test]
fn nothing_follows_the_first_flight_until_the_hello_is_in() {
    let mut sim = lan();
    let flight: usize = sim.client.pieces.iter().map(Bytes::len).sum();
    sim.agent.asleep = true;
    let id = sim.client.mux.open(sim.now, SERVICE, Class::Control, Bytes::new()).unwrap();
    let _ = fill(&mut sim.client.mux, id).unwrap();
    sim.run(ms(10_000), |_| {});
    assert_eq!(sim.client.mux.stats().bytes_sent, flight as u64);
    sim.agent.asleep = false;
    sim.settle();
    assert_eq!(sim.agent.opened(), [id]);
}
