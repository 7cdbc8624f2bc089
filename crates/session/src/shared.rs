//! What the driver and the handles of the application share: the mux behind a lock, and whom to wake. The lock is held for
//! a moment only and never across an await.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use remotely_proto::{
    mux::{Event, Mux},
    open::{Class, Service, reset},
};
use tokio::sync::watch;

use crate::{link::End, pipe::write_pieces};

/// Most bytes that are written by who adds to them, rather than by the driver: others wait for the lock meanwhile.
const AT_ONCE: usize = 16 << 10;

/// How far a link has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) peer: Option<remotely_proto::handshake::Hello>,
    pub(crate) end: Option<End>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    start: Instant,
    state: Mutex<State>,
    pub(crate) progress: watch::Sender<Progress>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) mux: Mux,
    pub(crate) streams: HashMap<u32, Waiting>,
    pub(crate) offers: Offers,
    /// The driver, while it waits.
    pub(crate) driver: Option<Waker>,
    /// Until when it does, if nobody wakes it.
    pub(crate) wakes_at: Option<Duration>,
    pub(crate) outlet: Outlet,
    /// That nothing will come for a while has been written to the pipe, and nothing since.
    pub(crate) silent: bool,
    /// Who waits for that.
    pub(crate) holder: Option<Waker>,
}

/// What it takes to write without the driver.
#[derive(Debug, Default)]
pub(crate) struct Outlet {
    /// Where to; `None` before there is a pipe, and when the link is over.
    pub(crate) writer: Option<Arc<OwnedFd>>,
    pub(crate) hand: Hand,
    /// The driver has had its turn meanwhile, and could not use it.
    pub(crate) missed: bool,
    /// What the pipe has not taken of somebody else than the driver, who is to write it first of all.
    pub(crate) left: VecDeque<Bytes>,
}

/// Who is writing, so that nobody gets ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Hand {
    /// Nobody.
    #[default]
    Free,
    /// The driver, who has bytes that are not written yet, or is to take those that are left.
    Driver,
    /// Somebody else, who wakes the driver if there is something to do for it afterwards.
    Other,
}

/// Who waits for a stream.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) sender: Option<Waker>,
    pub(crate) receiver: Option<Waker>,
    pub(crate) stopped: Vec<Waker>,
    /// Something was done with it, or it was opened here: dropping it is not a refusal.
    pub(crate) used: bool,
    /// Halves that the application still holds.
    pub(crate) halves: u8,
}

/// Streams that the peer opened and nobody has taken up. At most as many as the mux lets in.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    pub(crate) queue: VecDeque<Opened>,
    pub(crate) waiting: Option<Waker>,
    /// Nobody will ask for more.
    pub(crate) closed: bool,
}

#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) id: u32,
    pub(crate) service: Service,
    pub(crate) class: Class,
    pub(crate) body: Bytes,
}

impl Shared {
    pub(crate) fn new(mux: Mux) -> Self {
        let (streams, offers) = (HashMap::new(), Offers::default());
        let outlet = Outlet::default();
        let state = State { mux, streams, offers, driver: None, wakes_at: None, outlet, silent: false, holder: None };
        Self { start: Instant::now(), state: Mutex::new(state), progress: watch::Sender::default() }
    }

    /// The moment of the mux's time zero.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// Does something with the state, then wakes whom it concerns: tasks that wait for a stream, and the driver if there is
    /// something to write, now or before it would look by itself.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut State, Duration) -> R) -> R {
        let (result, driver) = self.drive(|state, now| {
            let result = act(state, now);
            let driver = state.driver_due(now);
            (result, driver)
        });
        driver.into_iter().for_each(Waker::wake);
        result
    }

    /// As [`with`](Self::with), for a little that is waited for: it is written before this returns, if the pipe takes it and
    /// nothing is before it. That saves two changes of threads.
    pub(crate) fn with_now<R>(&self, act: impl FnOnce(&mut State, Duration) -> R) -> R {
        let (result, output, driver) = self.drive(|state, now| {
            let result = act(state, now);
            let output = state.take_output(now);
            let driver = if output.is_none() { state.driver_due(now) } else { None };
            (result, output, driver)
        });
        driver.into_iter().for_each(Waker::wake);
        if let Some((writer, mut pieces)) = output {
            // What it fails with is the driver's to find out. Not under the lock: who reads what comes of it needs that at once.
            let _ = write_pieces(&*writer, &mut pieces);
            self.drive(|state, now| state.give_back(now, pieces)).into_iter().for_each(Waker::wake);
        }
        result
    }

    /// As [`with`](Self::with), for the driver, which need not be woken.
    pub(crate) fn drive<R>(&self, act: impl FnOnce(&mut State, Duration) -> R) -> R {
        let mut wake = Vec::new();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut state, self.start.elapsed());
        state.events(&mut wake);
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        result
    }
}

impl State {
    /// What is to be written, for somebody else than the driver.
    fn take_output(&mut self, now: Duration) -> Option<(Arc<OwnedFd>, VecDeque<Bytes>)> {
        let Outlet { writer: Some(writer), hand: hand @ Hand::Free, left, .. } = &mut self.outlet else { return None };
        if self.mux.end().is_some() || self.mux.output(now, AT_ONCE, left) == 0 {
            return None;
        }
        *hand = Hand::Other;
        Some((writer.clone(), std::mem::take(left)))
    }

    /// The driver, if it has something to do now.
    fn give_back(&mut self, now: Duration, left: VecDeque<Bytes>) -> Option<Waker> {
        let more = !left.is_empty();
        self.outlet.hand = if more { Hand::Driver } else { Hand::Free };
        self.outlet.left = left;
        let more = more || std::mem::take(&mut self.outlet.missed);
        if more || self.mux.end().is_some() { self.driver.take() } else { self.driver_due(now) }
    }

    /// The driver, if it would sleep too long: something can be written now, or pacing lets it sooner than it knows of.
    fn driver_due(&mut self, now: Duration) -> Option<Waker> {
        self.driver.as_ref()?;
        let sooner = || match (self.mux.timeout(false), self.wakes_at) {
            (Some(due), Some(at)) => due < at,
            (due, at) => due.is_some() && at.is_none(),
        };
        if self.mux.has_output(now) || sooner() { self.driver.take() } else { None }
    }

    fn events(&mut self, wake: &mut Vec<Waker>) {
        while let Some(event) = self.mux.event() {
            match event {
                Event::Linked => {}
                Event::Opened { id, service, class, body } => {
                    if self.offers.closed {
                        self.mux.drop_send(id, reset::REFUSED);
                        self.mux.drop_recv(id, reset::REFUSED);
                        continue;
                    }
                    self.streams.insert(id, Waiting::new(false));
                    self.offers.queue.push_back(Opened { id, service, class, body });
                    wake.extend(self.offers.waiting.take());
                }
                Event::Readable(id) => wake.extend(self.streams.get_mut(&id).and_then(|s| s.receiver.take())),
                Event::Writable(id) => wake.extend(self.streams.get_mut(&id).and_then(|s| s.sender.take())),
                Event::Stopped(id) => {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        wake.extend(stream.sender.take());
                        wake.append(&mut stream.stopped);
                    }
                }
            }
        }
        if self.mux.end().is_some() {
            wake.extend(self.offers.waiting.take());
            wake.extend(self.holder.take());
        }
    }
}

impl Waiting {
    pub(crate) fn new(used: bool) -> Self {
        Self { sender: None, receiver: None, stopped: Vec::new(), used, halves: 2 }
    }
}

/// Stores who waits, without making the same waker twice.
pub(crate) fn wait(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

/// What handles hold: the link is closed when the last of them is gone.
#[derive(Debug, Clone)]
pub(crate) struct Handle(Arc<Last>);

#[derive(Debug)]
struct Last(Arc<Shared>);

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Last(shared)))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        self.0.with(|state, now| state.mux.close(now));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use remotely_proto::{
        handshake::{Hello, Role, VERSIONS},
        mux::Config,
    };

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn mux(role: Role) -> Mux {
        let hello = Hello { versions: VERSIONS, features: 0, role, link: [0; 16], key: [0; 16], depth: 0, wall_ns: 0 };
        Mux::new(hello, Config::default())
    }

    /// What one has to write reaches the other, so many bytes of it.
    fn pass(from: &mut Mux, to: &mut Mux, now: Duration, wire: &mut VecDeque<Bytes>, mut room: usize) {
        from.output(now, 64 << 10, wire);
        while let Some(piece) = wire.front_mut()
            && room > 0
        {
            let part = piece.split_to(piece.len().min(room));
            room -= part.len();
            to.input(now, part);
            if wire.front().is_some_and(Bytes::is_empty) {
                wire.pop_front();
            }
        }
        while to.event().is_some() {}
    }

    #[test]
    fn a_driver_that_sleeps_too_long_for_what_pacing_holds_back_is_woken() {
        let (shared, mut agent) = (Shared::new(mux(Role::Client)), mux(Role::Agent));
        let (mut there, mut back) = (VecDeque::new(), VecDeque::new());
        // A link of 10 MB/s, on which acks take a while.
        let tick = |shared: &Shared, agent: &mut Mux, there: &mut _, back: &mut _| {
            shared.drive(|state, now| pass(&mut state.mux, agent, now, there, 80 << 10));
            std::thread::sleep(Duration::from_millis(8));
            shared.drive(|state, now| pass(agent, &mut state.mux, now, back, usize::MAX));
        };
        tick(&shared, &mut agent, &mut there, &mut back);
        let id = shared.drive(|state, now| state.mux.open(now, Service(900), Class::Normal, Bytes::new())).unwrap();
        for _ in 0..1000 {
            if shared.drive(|state, _| state.mux.stats().filled) {
                break;
            }
            let _ = shared.drive(|state, _| state.mux.send(id, &mut vec![0; 256 << 10].into()));
            tick(&shared, &mut agent, &mut there, &mut back);
            while agent.recv(shared.start().elapsed(), id).is_ready() {}
        }
        for _ in 0..50 {
            tick(&shared, &mut agent, &mut there, &mut back);
            while agent.recv(shared.start().elapsed(), id).is_ready() {}
        }

        let woken = Arc::new(Count(AtomicUsize::new(0)));
        let held_back = (0..10_000).any(|_| {
            shared.drive(|state, now| {
                state.mux.output(now, usize::MAX, &mut there);
                (state.driver, state.wakes_at) = (Some(woken.clone().into()), state.mux.timeout(false));
            });
            let sleeps_until = shared.drive(|state, _| state.wakes_at);
            woken.0.store(0, Ordering::SeqCst);
            shared.with(|state, _| state.mux.send(id, &mut vec![0; 1 << 10].into())).unwrap();
            shared.drive(|state, now| !state.mux.has_output(now) && state.mux.timeout(false) < sleeps_until)
        });
        assert!(held_back, "pacing let everything through");
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        // It knows now, and need not be woken again.
        shared.drive(|state, _| {
            (state.driver, state.wakes_at) = (Some(woken.clone().into()), state.mux.timeout(false));
        });
        shared.with(|state, _| state.mux.send(id, &mut vec![0; 1 << 10].into())).unwrap();
        let held_back = shared.drive(|state, now| !state.mux.has_output(now));
        assert_eq!(woken.0.load(Ordering::SeqCst), if held_back { 1 } else { 2 });
    }
}
