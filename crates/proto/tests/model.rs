//! Random operations on many streams over random wires, compared with a model: what arrives is what was sent, in order,
//! once, as far as the ends of the stream say; and when all is over, nothing is left.
#![allow(clippy::unwrap_used, reason = "in a test that is the finding")]

mod simulator;

use std::{
    collections::{BTreeMap, VecDeque},
    task::Poll,
};

use bytes::Bytes;
use remotely_proto::{
    mux::{RecvError, SendError},
    open::{Class, reset},
};
use simulator::{Random, SERVICE, Side, Simulator, Wire, ms};

/// What must be true of one direction of a stream.
#[derive(Default)]
struct Direction {
    /// Sent and not yet received.
    on_the_way: VecDeque<u8>,
    finished: bool,
    /// The sender's reset, and the receiver's stop.
    reset: Option<u32>,
    stopped: bool,
    /// The receiver has seen the end.
    ended: bool,
    sender_dropped: bool,
    receiver_dropped: bool,
}

/// Key: the stream, and whether it is the direction from client to agent.
type Model = BTreeMap<(u32, bool), Direction>;

struct World {
    sim: Simulator,
    model: Model,
    random: Random,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut wire = || Wire {
            chop: 1 + random.below(3000),
            random: Some(Random::new(random.next())),
            capacity: 1 + random.below(100_000),
            ..Wire::new(1.0 + random.below(300) as f64, ms(random.below(40) as u64))
        };
        let sim = Simulator::new(wire(), wire());
        let mut world = Self { sim, model: Model::new(), random };
        world.sim.settle();
        world
    }

    fn side(&mut self, client: bool) -> &mut Side {
        if client { &mut self.sim.client } else { &mut self.sim.agent }
    }

    /// One random thing that an application may do.
    fn act(&mut self) {
        let client = self.random.below(2) == 0;
        if self.random.below(12) == 0 && self.model.len() < 40 {
            return self.open(client);
        }
        // Only streams that this side knows of.
        let known: Vec<u32> = self.model.keys().filter(|key| key.1 == client).map(|key| key.0).collect();
        if known.is_empty() {
            return self.open(client);
        }
        let id = known[self.random.below(known.len())];
        match self.random.below(40) {
            0 => self.finish(id, client),
            1 => self.reset(id, client),
            2 => self.stop(id, client),
            3 => self.drop_send(id, client),
            4 => self.drop_recv(id, client),
            5..20 => self.send(id, client),
            _ => self.recv(id, client),
        }
    }

    fn open(&mut self, client: bool) {
        let class = Class::ALL[self.random.below(3)];
        let now = self.sim.now;
        let id = self.side(client).mux.open(now, SERVICE, class, Bytes::new()).unwrap();
        self.model.insert((id, client), Direction::default());
        self.model.insert((id, !client), Direction::default());
    }

    /// The other side knows a stream when it was told of it; before that nothing can be done there.
    fn is_known(&self, id: u32, client: bool) -> bool {
        let side = if client { &self.sim.client } else { &self.sim.agent };
        !matches!(side.mux.sendable(id), Err(SendError::Ended))
    }

    fn send(&mut self, id: u32, client: bool) {
        let len = if self.random.below(4) == 0 { self.random.below(300_000) } else { self.random.below(2000) };
        let data = self.random.bytes(len);
        let mut rest = data.clone();
        if !self.is_known(id, client) || self.model[&(id, client)].sender_dropped {
            return;
        }
        let result = self.side(client).mux.send(id, &mut rest);
        let direction = self.model.get_mut(&(id, client)).unwrap();
        match result {
            Ok(()) => {
                assert!(!direction.finished && direction.reset.is_none());
                direction.on_the_way.extend(&data[..data.len() - rest.len()]);
            }
            Err(SendError::Stopped) => assert!(direction.finished || direction.stopped),
            Err(SendError::Reset(code)) => assert!(direction.reset == Some(code) || direction.stopped),
            Err(SendError::Ended) => panic!("the link is over: {:?}", self.side(client).mux.end()),
        }
    }

    fn recv(&mut self, id: u32, client: bool) {
        let now = self.sim.now;
        if !self.is_known(id, client) || self.model[&(id, !client)].receiver_dropped {
            return;
        }
        let result = self.side(client).mux.recv(now, id);
        let direction = self.model.get_mut(&(id, !client)).unwrap();
        match result {
            Poll::Pending => {}
            Poll::Ready(Ok(Some(chunk))) => {
                assert!(!direction.ended && !direction.stopped && !chunk.is_empty());
                let expected: Vec<u8> = direction.on_the_way.drain(..chunk.len()).collect();
                assert!(expected == chunk, "other bytes than were sent on stream {id}");
            }
            Poll::Ready(Ok(None)) if direction.stopped => {}
            Poll::Ready(Ok(None)) => {
                assert!(direction.finished && direction.on_the_way.is_empty(), "an end that nobody made");
                direction.ended = true;
            }
            Poll::Ready(Err(RecvError::Reset(code))) => {
                assert_eq!(direction.reset, Some(code));
                direction.ended = true;
            }
            Poll::Ready(Err(RecvError::Ended)) => panic!("the link is over: {:?}", self.side(client).mux.end()),
        }
    }

    fn finish(&mut self, id: u32, client: bool) {
        if self.is_known(id, client) && !self.model[&(id, client)].sender_dropped {
            self.side(client).mux.finish(id);
            let direction = self.model.get_mut(&(id, client)).unwrap();
            direction.finished |= direction.reset.is_none();
        }
    }

    fn reset(&mut self, id: u32, client: bool) {
        let code = reset::FIRST_FREE + self.random.below(9) as u32;
        if self.is_known(id, client) && !self.model[&(id, client)].sender_dropped {
            self.side(client).mux.reset(id, code);
            self.model.get_mut(&(id, client)).unwrap().reset.get_or_insert(code);
        }
    }

    fn stop(&mut self, id: u32, client: bool) {
        if self.is_known(id, client) && !self.model[&(id, !client)].receiver_dropped {
            self.side(client).mux.stop(id, 0);
            self.model.get_mut(&(id, !client)).unwrap().stopped = true;
        }
    }

    fn drop_send(&mut self, id: u32, client: bool) {
        if self.is_known(id, client) && !std::mem::replace(self.sender_dropped(id, client), true) {
            self.side(client).mux.drop_send(id, reset::CANCELLED);
            let direction = self.model.get_mut(&(id, client)).unwrap();
            if !direction.finished {
                direction.reset.get_or_insert(reset::CANCELLED);
            }
        }
    }

    fn sender_dropped(&mut self, id: u32, client: bool) -> &mut bool {
        &mut self.model.get_mut(&(id, client)).unwrap().sender_dropped
    }

    fn drop_recv(&mut self, id: u32, client: bool) {
        let direction = self.model.get_mut(&(id, !client)).unwrap();
        if direction.receiver_dropped {
            return;
        }
        if self.is_known(id, client) {
            self.side(client).mux.drop_recv(id, 0);
            let direction = self.model.get_mut(&(id, !client)).unwrap();
            (direction.receiver_dropped, direction.stopped) = (true, true);
        }
    }

    /// Lets everything that was sent arrive, and checks that it does.
    fn finish_all(&mut self) {
        let keys: Vec<(u32, bool)> = self.model.keys().copied().collect();
        self.sim.run(ms(2000), |_| {});
        for &(id, client) in &keys {
            self.finish(id, client);
        }
        let mut idle = 0;
        while idle < 50 {
            let before: usize = self.model.values().map(|direction| direction.on_the_way.len()).sum();
            self.sim.run(ms(200), |_| {});
            for &(id, client) in &keys {
                for _ in 0..100 {
                    self.recv(id, client);
                }
            }
            let after: usize = self.model.values().map(|direction| direction.on_the_way.len()).sum();
            idle = if before == after { idle + 1 } else { 0 };
        }
        for (key, direction) in &self.model {
            let Direction { ended, stopped, reset, on_the_way, .. } = direction;
            assert!(*ended || *stopped, "{key:?}: {} bytes have not come, reset {reset:?}", on_the_way.len());
        }
        for &(id, client) in &keys {
            self.drop_send(id, client);
            self.drop_recv(id, client);
        }
        self.sim.settle();
        self.sim.settle();
        for side in [&self.sim.client, &self.sim.agent] {
            assert!(side.mux.end().is_none(), "{:?}", side.mux.end());
            assert_eq!(side.mux.stats().streams, 0);
        }
    }
}

#[test]
fn random_operations_keep_to_the_model() {
    for seed in 1..=60 {
        let mut world = World::new(seed);
        for _ in 0..1500 {
            world.act();
            if world.random.below(3) == 0 {
                let time = ms(world.random.below(20) as u64);
                world.sim.run(time, |_| {});
            }
        }
        world.finish_all();
    }
}

#[test]
fn a_cut_at_any_moment_ends_both_sides_and_leaves_a_front_of_what_was_sent() {
    for seed in 100..140 {
        let mut world = World::new(seed);
        for _ in 0..world.random.below(800) {
            world.act();
            let time = ms(world.random.below(5) as u64);
            world.sim.run(time, |_| {});
        }
        (world.sim.client.wire.cut, world.sim.agent.wire.cut) = (true, true);
        world.sim.run(ms(16_000), |_| {});
        let keys: Vec<(u32, bool)> = world.model.keys().copied().collect();
        for (id, client) in keys {
            let direction = world.model.get_mut(&(id, !client)).unwrap();
            let now = world.sim.now;
            let side = if client { &mut world.sim.client } else { &mut world.sim.agent };
            assert!(side.mux.end().is_some());
            while let Poll::Ready(Ok(Some(chunk))) = side.mux.recv(now, id) {
                let expected: Vec<u8> = direction.on_the_way.drain(..chunk.len()).collect();
                assert!(expected == chunk);
            }
            assert!(!side.mux.recv(now, id).is_pending());
        }
    }
}
