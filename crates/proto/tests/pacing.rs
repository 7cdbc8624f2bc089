//! Latency and throughput at once, in virtual time: a keystroke is not queued behind a download, and the download is not
//! throttled to save the keystroke.
#![allow(clippy::unwrap_used, reason = "in a test that is the finding")]

mod simulator;

use std::time::Duration;

use bytes::Bytes;
use remotely_proto::open::Class;
use simulator::{Simulator, Wire, fill, ms, take};

/// A bulk transfer from client to agent, and now and then a byte that comes back.
struct Load {
    sim: Simulator,
    bulk: u32,
    /// Another one from agent to client, if any.
    back: Option<u32>,
    echo: u32,
    /// When the byte that is on its way was sent, and when to send the next.
    asked: Option<Duration>,
    next: Duration,
    /// Bytes of the bulk transfer that arrived, and echoes in ascending order.
    received: usize,
    received_back: usize,
    echoes: Vec<Duration>,
}

impl Load {
    fn new(mbit: f64, one_way: Duration, bulk: Class, echo: Class) -> Self {
        let mut sim = Simulator::new(Wire::new(mbit, one_way), Wire::new(mbit, one_way));
        let (bulk, echo) = (sim.stream(bulk), sim.stream(echo));
        let (next, echoes) = (sim.now, Vec::new());
        Self { sim, bulk, back: None, echo, asked: None, next, received: 0, received_back: 0, echoes }
    }

    /// Counts what happens in this time.
    fn run(&mut self, time: Duration) {
        let Self { sim, bulk, back, echo, asked, next, received, received_back, echoes } = self;
        (*received, *received_back) = (0, 0);
        echoes.clear();
        sim.run(time, |sim| {
            let now = sim.now;
            fill(&mut sim.client.mux, *bulk).unwrap();
            *received += take(&mut sim.agent.mux, now, *bulk).len();
            if let Some(back) = *back {
                fill(&mut sim.agent.mux, back).unwrap();
                *received_back += take(&mut sim.client.mux, now, back).len();
            }
            for byte in take(&mut sim.agent.mux, now, *echo) {
                sim.agent.mux.send(*echo, &mut Bytes::copy_from_slice(&[byte])).unwrap();
            }
            if !take(&mut sim.client.mux, now, *echo).is_empty()
                && let Some(asked) = asked.take()
            {
                echoes.push(now - asked);
                *next = now + ms(23);
            }
            if asked.is_none() && now >= *next {
                sim.client.mux.send(*echo, &mut Bytes::from_static(b"k")).unwrap();
                *asked = Some(now);
            }
        });
        echoes.sort();
    }

    fn median(&self) -> Duration {
        self.echoes[self.echoes.len() / 2]
    }

    fn mbit(&self, time: Duration) -> f64 {
        self.received as f64 / 125_000.0 / time.as_secs_f64()
    }
}

#[test]
fn a_key_is_not_queued_behind_a_download_nor_the_download_throttled() {
    let time = ms(12_000);
    for echo in [Class::Control, Class::Normal] {
        for (mbit, one_way) in [(100.0, 25), (100.0, 10), (1000.0, 25), (20.0, 50), (500.0, 1), (10.0, 100)] {
            let mut load = Load::new(mbit, ms(one_way), Class::Bulk, echo);
            load.run(ms(4000));
            load.run(time);
            let (got, median) = (load.mbit(time), load.median());
            let case = format!("{mbit} Mbit/s, {one_way} ms one way, {echo:?}: {got:.1} Mbit/s, median {median:?}");
            assert!(got >= 0.95 * mbit, "{case}");
            assert!(median <= 2 * ms(one_way) + ms(10), "{case}");
        }
    }
}

#[test]
fn it_takes_a_second_to_reach_the_rate_of_the_link() {
    let mut load = Load::new(100.0, ms(25), Class::Normal, Class::Normal);
    load.run(ms(1000));
    load.run(ms(1000));
    assert!(load.mbit(ms(1000)) >= 95.0, "{}", load.mbit(ms(1000)));
}

#[test]
fn a_link_that_becomes_faster_or_slower_is_followed() {
    let mut load = Load::new(20.0, ms(25), Class::Bulk, Class::Normal);
    load.run(ms(5000));
    for (mbit, settle) in [(100.0, 3000), (10.0, 4000), (40.0, 3000)] {
        load.sim.client.wire.rate = mbit * 125_000.0;
        load.run(ms(settle));
        load.run(ms(5000));
        let (got, median) = (load.mbit(ms(5000)), load.median());
        assert!(got >= 0.95 * mbit, "{mbit} Mbit/s: {got}");
        assert!(median <= ms(60), "{mbit} Mbit/s: {median:?}");
    }
}

#[test]
fn downloads_in_both_directions_leave_room_for_acks_and_keys() {
    let mut load = Load::new(100.0, ms(25), Class::Bulk, Class::Normal);
    load.back = Some(load.sim.stream(Class::Bulk));
    load.run(ms(3000));
    load.run(ms(10_000));
    for bytes in [load.received, load.received_back] {
        let mbit = bytes as f64 / 125_000.0 / 10.0;
        assert!(mbit >= 92.0, "{mbit}");
    }
    // Each direction has its few milliseconds of queue, and the acks of one wait in that of the other.
    assert!(load.median() <= ms(80), "{:?}", load.median());
}
