//! A TCP relay in front of a host: adds latency, limits the rate, freezes, cuts. Threads of this process, two per
//! connection. Adds no limit of its own: 2 MiB of ssh window pass through it as through a wire.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What the wire is like. The default: no delay, no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wire {
    /// One way; the round trip is twice that.
    pub delay: Duration,
    /// Bytes per second in each direction; 0 means no limit.
    pub rate: u64,
    /// With a rate: bytes that may wait in front of it, as in a router. 0 means 64 KiB.
    pub buffer: usize,
    /// Every connection is reset after that many bytes, both directions together; 0 means never.
    pub cut_after: u64,
}

impl Wire {
    /// A wire with this round trip time in milliseconds.
    pub fn rtt(milliseconds: u64) -> Self {
        Self { delay: Duration::from_micros(milliseconds * 500), ..Self::default() }
    }
}

/// A running relay. Dropped, it closes what goes through it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wire: Wire,
    to: SocketAddr,
    frozen: Mutex<bool>,
    thawed: Condvar,
    refusing: AtomicBool,
    ended: AtomicBool,
    passed: AtomicU64,
    connections: Mutex<Vec<(TcpStream, TcpStream)>>,
}

impl Relay {
    /// Listens on a free port of 127.0.0.1 and passes every connection on to `to`.
    ///
    /// # Panics
    /// When it can't listen.
    pub fn start(to: SocketAddr, wire: Wire) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("testbed: listen on loopback");
        let address = listener.local_addr().expect("testbed: address of a listener");
        let shared = Arc::new(Shared {
            wire,
            to,
            frozen: Mutex::new(false),
            thawed: Condvar::new(),
            refusing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            connections: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing passes in either direction and nobody is told: a cable is pulled.
    pub fn freeze(&self) {
        *lock(&self.shared.frozen) = true;
    }

    /// Undoes [`freeze`](Self::freeze); what was under way arrives.
    pub fn thaw(&self) {
        *lock(&self.shared.frozen) = false;
        self.shared.thawed.notify_all();
    }

    /// Resets all connections (RST to both ends).
    pub fn reset(&self) {
        for (near, far) in lock(&self.shared.connections).drain(..) {
            reset(&near);
            reset(&far);
        }
        self.thaw();
    }

    /// New connections are closed at once from now on, or accepted again.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refusing.store(refuse, Ordering::Relaxed);
    }

    /// Bytes that have passed, both directions.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.reset();
        // Wakes the accepting thread, which sees that it has ended.
        let _ = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for near in listener.incoming().flatten() {
        if shared.ended.load(Ordering::Relaxed) {
            return;
        }
        if shared.refusing.load(Ordering::Relaxed) {
            continue;
        }
        let Ok(far) = TcpStream::connect(shared.to) else { continue };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let (Ok(n1), Ok(f1), Ok(n2), Ok(f2)) = (near.try_clone(), far.try_clone(), near.try_clone(), far.try_clone())
        else {
            continue;
        };
        lock(&shared.connections).push((n2, f2));
        let count = Arc::new(AtomicU64::new(0));
        direction(shared, near, f1, Arc::clone(&count));
        direction(shared, far, n1, count);
    }
}

/// What is on its way in one direction.
#[derive(Default)]
struct Queue {
    blocks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// The writer is gone, or no block will follow the last.
    closed: bool,
}

fn direction(shared: &Arc<Shared>, mut from: TcpStream, mut to: TcpStream, count: Arc<AtomicU64>) {
    let wire = shared.wire;
    let queue = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
    let (filled, reading) = (Arc::clone(&queue), Arc::clone(shared));
    thread::spawn(move || {
        let mut free = vec![0; 256 << 10];
        // With a rate, what waits in front of it is bounded; without one, only the delay keeps bytes here.
        let room = if wire.rate == 0 { usize::MAX } else { [64 << 10, wire.buffer][usize::from(wire.buffer > 0)] };
        // Small blocks where a rate is kept, or it would come in bursts.
        let share =
            if wire.rate == 0 { free.len() } else { (wire.rate as usize / 200).clamp(1460, 64 << 10).min(room) };
        loop {
            let got = from.read(&mut free[..share]).unwrap_or(0);
            let passed = count.fetch_add(got as u64, Ordering::Relaxed) + got as u64;
            reading.passed.fetch_add(got as u64, Ordering::Relaxed);
            if wire.cut_after > 0 && passed >= wire.cut_after {
                reset(&from);
            }
            let mut state = lock(&filled.0);
            while state.bytes > 0 && state.bytes + got > room && !state.closed {
                state = filled.1.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let gone = state.closed;
            if got == 0 || gone {
                state.closed = true;
            }
            state.bytes += got;
            // An empty block stands for the end of file: it travels as long as bytes do.
            state.blocks.push_back((Instant::now() + wire.delay, free[..got].to_vec()));
            filled.1.notify_all();
            if got == 0 || gone {
                return;
            }
        }
    });
    let writing = Arc::clone(shared);
    thread::spawn(move || {
        let mut free_at = Instant::now();
        loop {
            let mut state = lock(&queue.0);
            while state.blocks.is_empty() {
                state = queue.1.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let Some((due, block)) = state.blocks.pop_front() else { continue };
            drop(state);
            let due = if wire.rate == 0 {
                due
            } else {
                let sent =
                    free_at.max(due - wire.delay) + Duration::from_secs_f64(block.len() as f64 / wire.rate as f64);
                free_at = sent;
                sent + wire.delay
            };
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let mut frozen = lock(&writing.frozen);
            while *frozen {
                frozen = writing.thawed.wait(frozen).unwrap_or_else(PoisonError::into_inner);
            }
            drop(frozen);
            let end = block.is_empty();
            let failed = if end { to.shutdown(Shutdown::Write).is_err() } else { to.write_all(&block).is_err() };
            let mut state = lock(&queue.0);
            state.bytes -= block.len();
            if failed || end {
                state.closed = true;
                state.blocks.clear();
                queue.1.notify_all();
                if failed && !end {
                    // Tell the sender, as the far end would have.
                    let _ = to.shutdown(Shutdown::Both);
                }
                return;
            }
            queue.1.notify_all();
        }
    });
}

/// Closes a connection with a RST instead of a FIN.
fn reset(stream: &TcpStream) {
    // connect(2) to AF_UNSPEC sends the RST at once, whoever still holds the socket.
    if rustix::net::connect_unspec(stream).is_err() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
