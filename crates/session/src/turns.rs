//! Drives a link on threads of its own, which take turns: the one that leads reads and writes, and does what has come of it on
//! the spot, without a change of threads. When that takes long, the one that watches leads on. Started by
//! [`LinkBuilder::attach_in_turns`](crate::LinkBuilder::attach_in_turns); knows nothing of what is done.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};

use crate::driver::{Course, LAST_WORDS, after_write_error, finish, lose, lose_first};
use crate::link::End;
use crate::pipe::{Pipe, prepare, read_into, write_pieces};
use crate::shared::Shared;

/// How often the watching thread looks.
const TICK: Duration = Duration::from_millis(1);
/// A job that it finds so often is none for who leads. Once is too little: on a busy machine a thread may not have run at all.
const TICKS_STUCK: u32 = 2;
/// After so many ticks without a job the watching thread sleeps until there is one.
const TICKS_IDLE: u32 = 8;
/// Jobs are done for so long before the link has its turn again.
const SLICE: Duration = Duration::from_micros(200);
/// Bytes that a pipe holds are taken before new jobs are done, as far as this many reads go.
const READS: usize = 4;

/// Something to be done.
pub type Job = Box<dyn FnOnce() + Send>;

/// The threads of a link that take turns. Clones are the same.
#[derive(Clone)]
pub struct Turns(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    bell: Arc<Bell>,
    /// Tasks to be polled.
    ready: Mutex<VecDeque<Arc<Task>>>,
    seat: Mutex<Seat>,
    /// For the watching thread: there are jobs again, or it is over.
    watch: Condvar,
    /// For those that have nothing to do: one is to watch, or it is over.
    spare: Condvar,
    elsewhere: Box<dyn Fn(Job) + Send + Sync>,
}

/// Who leads, and what is to be done.
#[derive(Default)]
struct Seat {
    jobs: VecDeque<Job>,
    /// Behind the jobs.
    after: Vec<Job>,
    /// What leads, while its thread does jobs.
    leading: Option<Box<Leading>>,
    /// Changes with each job, and when another thread leads on.
    stint: u64,
    /// There is a thread that watches; it sleeps.
    watched: bool,
    dozing: bool,
    /// Threads that have nothing to do, and that one of them is to watch.
    spares: usize,
    wanted: bool,
    over: bool,
}

/// What a thread does.
enum Role {
    Lead(Box<Leading>),
    Watch,
    /// Waits for a role.
    Rest,
    End,
}

/// What goes from one who leads to the next.
struct Leading {
    /// `None` when it is gone and the link runs over others.
    pipe: Option<(OwnedFd, Arc<OwnedFd>)>,
    buffer: BytesMut,
    course: Course,
    waker: Waker,
}

impl Turns {
    /// Jobs that are not done here are handed to `elsewhere`, which must not wait.
    pub(crate) fn start(
        shared: Arc<Shared>,
        pipe: Pipe,
        first: VecDeque<Bytes>,
        received: Bytes,
        elsewhere: Box<dyn Fn(Job) + Send + Sync>,
    ) -> io::Result<Self> {
        prepare(&pipe)?;
        let Pipe { reader, writer } = pipe;
        let writer = Arc::new(writer);
        let bell = Arc::new(Bell::new()?);
        let course = Course::begin(&shared, writer.clone(), first, received);
        let pipe = Some((reader, writer));
        let leading = Leading { pipe, buffer: BytesMut::new(), course, waker: bell.clone().into() };
        let (ready, seat) = (Mutex::default(), Mutex::default());
        let inner = Inner { shared, bell, ready, seat, watch: Condvar::new(), spare: Condvar::new(), elsewhere };
        let inner = Arc::new(inner);
        inner.enlist_watch();
        inner.thread(Role::Lead(Box::new(leading)))?;
        Ok(Self(inner))
    }

    /// Polls a future on the thread that leads, now and whenever it is woken. It must not keep that thread: what may take
    /// long is a job.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let task =
            Task { future: Mutex::new(Some(Box::pin(future))), queued: AtomicBool::new(false), inner: self.0.clone() };
        Arc::new(task).wake();
    }

    /// Has something done: by who leads, if that is free soon, else elsewhere. Never waits.
    pub fn run(&self, job: Job) {
        let mut seat = self.0.seat();
        if seat.watched && !seat.over {
            seat.jobs.push_back(job);
            drop(seat);
            self.0.bell.ring();
        } else {
            drop(seat);
            (self.0.elsewhere)(job);
        }
    }

    /// Has something done behind the jobs that are there, to be called by one of them: what they have come to is sent together.
    pub fn after(&self, what: Job) {
        self.0.seat().after.push(what);
        // The job may be done elsewhere.
        self.0.bell.ring();
    }
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seat = self.0.seat();
        out.debug_struct("Turns").field("jobs", &seat.jobs.len()).field("stint", &seat.stint).finish_non_exhaustive()
    }
}

impl Inner {
    /// A thread, from one role to the next.
    fn serve(self: Arc<Self>, mut role: Role) {
        let _guard = LoseOnPanic(&self.shared);
        loop {
            role = match role {
                Role::Lead(leading) => self.lead(leading),
                Role::Watch => self.watch(),
                Role::Rest => self.rest(),
                Role::End => return,
            };
        }
    }

    fn lead(self: &Arc<Self>, mut leading: Box<Leading>) -> Role {
        loop {
            let over = leading.send(&self.shared, &self.bell);
            let over = over.or_else(|| leading.receive(&self.shared, &self.bell, || self.is_idle()));
            if let Some((end, flush)) = over {
                if flush {
                    leading.flush(&self.shared);
                }
                self.end(end);
                return Role::End;
            }
            self.poll_tasks();
            leading = match self.work(leading) {
                Some(leading) => leading,
                None => return Role::Rest,
            };
        }
    }

    fn is_idle(&self) -> bool {
        let seat = self.seat();
        seat.jobs.is_empty() && seat.after.is_empty() && lock(&self.ready).is_empty()
    }

    fn poll_tasks(&self) {
        loop {
            // Not in the condition of a loop, which would keep it locked.
            let Some(task) = lock(&self.ready).pop_front() else { return };
            task.poll();
        }
    }

    /// Does jobs for a while. `None` if another thread has gone on meanwhile.
    fn work(&self, leading: Box<Leading>) -> Option<Box<Leading>> {
        let mut seat = self.seat();
        if seat.jobs.is_empty() && seat.after.is_empty() {
            return Some(leading);
        }
        seat.leading = Some(leading);
        let began = Instant::now();
        while let Some(job) = seat.jobs.pop_front() {
            seat.stint += 1;
            let stint = seat.stint;
            if std::mem::replace(&mut seat.dozing, false) {
                self.watch.notify_one();
            }
            drop(seat);
            done(job);
            seat = self.seat();
            if seat.stint != stint {
                self.settle(seat);
                return None;
            }
            if began.elapsed() > SLICE {
                break;
            }
        }
        seat.stint += 1;
        let leading = seat.leading.take();
        self.settle(seat);
        leading
    }

    /// Does what is to be done behind the jobs.
    fn settle(&self, mut seat: MutexGuard<'_, Seat>) {
        let after = std::mem::take(&mut seat.after);
        drop(seat);
        after.into_iter().for_each(done);
    }

    /// Looks whether jobs end, and is to lead on when one does not.
    fn watch(self: &Arc<Self>) -> Role {
        let mut seat = self.seat();
        let (mut seen, mut idle) = (None, 0);
        loop {
            if seat.over {
                return Role::End;
            }
            idle = if seen.replace(seat.stint) == Some(seat.stint) { idle + 1 } else { 0 };
            if idle >= TICKS_STUCK && seat.leading.is_some() {
                break;
            }
            if idle > TICKS_IDLE {
                seat.dozing = true;
                while seat.dozing && !seat.over {
                    seat = self.watch.wait(seat).unwrap_or_else(PoisonError::into_inner);
                }
                (seen, idle) = (None, 0);
            }
            drop(seat);
            thread::sleep(TICK);
            seat = self.seat();
        }
        let Some(leading) = seat.leading.take() else { return Role::Watch };
        seat.stint += 1;
        seat.watched = false;
        // One may be as slow as the other.
        let jobs = std::mem::take(&mut seat.jobs);
        self.settle(seat);
        jobs.into_iter().for_each(&self.elsewhere);
        self.enlist_watch();
        Role::Lead(leading)
    }

    /// Has another thread watch. Without one, no job is done by who leads.
    fn enlist_watch(self: &Arc<Self>) {
        let mut seat = self.seat();
        // One that came back meanwhile may watch already.
        if std::mem::replace(&mut seat.watched, true) {
            return;
        }
        if seat.spares > 0 {
            seat.wanted = true;
            return self.spare.notify_one();
        }
        drop(seat);
        if self.thread(Role::Watch).is_err() {
            self.seat().watched = false;
        }
    }

    /// For a thread that leads no more. It does not end: what functions have started may be tied to the thread that
    /// started it (PR_SET_PDEATHSIG).
    fn rest(&self) -> Role {
        let mut seat = self.seat();
        seat.spares += 1;
        while !seat.wanted && seat.watched && !seat.over {
            seat = self.spare.wait(seat).unwrap_or_else(PoisonError::into_inner);
        }
        seat.spares -= 1;
        seat.wanted = false;
        seat.watched = true;
        if seat.over { Role::End } else { Role::Watch }
    }

    fn end(&self, end: End) {
        finish(&self.shared, end);
        let mut seat = self.seat();
        seat.over = true;
        let jobs = std::mem::take(&mut seat.jobs);
        drop(seat);
        self.watch.notify_all();
        self.spare.notify_all();
        jobs.into_iter().for_each(&self.elsewhere);
        // What the end has woken.
        self.poll_tasks();
    }

    fn thread(self: &Arc<Self>, role: Role) -> io::Result<()> {
        let inner = self.clone();
        thread::Builder::new().name("link".into()).spawn(move || inner.serve(role)).map(drop)
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        lock(&self.seat)
    }
}

impl Leading {
    /// Writes what there is to be written, as far as the pipe takes it. Something, if the link is over.
    fn send(&mut self, shared: &Shared, bell: &Bell) -> Option<(End, bool)> {
        let waker = self.waker.clone();
        let cx = Context::from_waker(&waker);
        loop {
            bell.hear();
            if let Some(over) = self.course.turn(shared, &cx) {
                return Some(over);
            }
            if self.course.pieces.is_empty() {
                return None;
            }
            let Some((reader, writer)) = &self.pipe else { return None };
            match write_pieces(&**writer, &mut self.course.pieces) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return None,
                Err(error) => {
                    let read = || Ok(read_into(reader, &mut self.buffer)?);
                    let end = after_write_error(shared, &error.into(), read);
                    if !self.goes_on(shared) {
                        return Some((end, false));
                    }
                }
            }
        }
    }

    /// Without the first pipe, if there are others.
    fn goes_on(&mut self, shared: &Shared) -> bool {
        let goes_on = lose_first(shared);
        if goes_on {
            self.pipe = None;
            self.course.pieces.clear();
        }
        goes_on
    }

    /// Waits until there is something to be done, unless there is, and takes what has come.
    fn receive(&mut self, shared: &Shared, bell: &Bell, is_idle: impl Fn() -> bool) -> Option<(End, bool)> {
        let waits = bell.park(is_idle);
        let limit = match (waits, self.course.wake_at) {
            (false, _) => Some(Duration::ZERO),
            (true, None) => None,
            (true, Some(at)) => Some((shared.start() + at).saturating_duration_since(Instant::now())),
        };
        let limit =
            limit.map(|time| Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() });
        let blocked = !self.course.pieces.is_empty();
        let (reader, writer, used) = match &self.pipe {
            Some((reader, writer)) => (reader, &**writer, if blocked { 3 } else { 2 }),
            None => (&bell.fd, &bell.fd, 1),
        };
        let mut fds = [
            PollFd::new(&bell.fd, PollFlags::IN),
            PollFd::new(reader, PollFlags::IN),
            PollFd::new(writer, PollFlags::OUT),
        ];
        let polled = poll(&mut fds[..used], limit.as_ref());
        let [rang, came] = [0, 1].map(|n| polled.is_ok() && n < used && !fds[n].revents().is_empty());
        bell.unpark(rang);
        match polled {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Some(lost("wait for", error)),
        }
        if !came {
            return None;
        }
        let end = self.read(shared)?;
        if self.goes_on(shared) { None } else { Some(end) }
    }

    /// Takes what has come. Something, if the pipe is gone.
    fn read(&mut self, shared: &Shared) -> Option<(End, bool)> {
        let (reader, _) = self.pipe.as_ref()?;
        for _ in 0..READS {
            let room = self.buffer.capacity();
            match read_into(reader, &mut self.buffer) {
                Ok(chunk) if chunk.is_empty() => return Some((End::Lost { why: "the pipe ended".into() }, false)),
                Ok(chunk) => {
                    let all = chunk.len() < room;
                    shared.drive(|state, now| state.mux.input(now, chunk));
                    if all {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(error) => return Some(lost("read from", error)),
            }
        }
        None
    }

    /// Whether they arrive or not, the link is over.
    fn flush(&mut self, shared: &Shared) {
        let until = Instant::now() + LAST_WORDS;
        while !self.course.pieces.is_empty()
            && Instant::now() < until
            && let Some((_, writer)) = &self.pipe
        {
            match write_pieces(&**writer, &mut self.course.pieces) {
                Ok(()) => {}
                Err(Errno::AGAIN) => {
                    let limit = Timespec { tv_sec: 1, tv_nsec: 0 };
                    let _ = poll(&mut [PollFd::new(&**writer, PollFlags::OUT)], Some(&limit));
                }
                Err(_) => break,
            }
        }
        // Further pipes write their own.
        while shared.drive(|state, _| !state.further.is_empty()) && Instant::now() < until {
            thread::sleep(TICK);
        }
    }
}

/// Nobody leads any more when a thread ends in the middle of it.
struct LoseOnPanic<'a>(&'a Shared);

impl Drop for LoseOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            lose(self.0, "a thread of the link panicked");
        }
    }
}

fn lost(what: &str, error: Errno) -> (End, bool) {
    (End::Lost { why: format!("cannot {what} the pipe: {}", io::Error::from(error)) }, false)
}

/// Does a job, whose panic is its own.
fn done(job: Job) {
    let _ = catch_unwind(AssertUnwindSafe(job));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A future that the thread which leads polls.
struct Task {
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    queued: AtomicBool,
    inner: Arc<Inner>,
}

impl Task {
    fn poll(self: &Arc<Self>) {
        self.queued.store(false, Ordering::SeqCst);
        let mut future = lock(&self.future);
        let Some(polled) = &mut *future else { return };
        let waker = self.clone().into();
        if polled.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            *future = None;
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            lock(&self.inner.ready).push_back(self.clone());
            self.inner.bell.ring();
        }
    }
}

/// Wakes who leads from its wait for the pipe.
struct Bell {
    fd: OwnedFd,
    /// Since this was last asked for.
    rung: AtomicBool,
    /// Somebody waits, and is to be woken by the descriptor.
    parked: AtomicBool,
}

impl Bell {
    fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd, rung: AtomicBool::new(false), parked: AtomicBool::new(false) })
    }

    fn ring(&self) {
        self.rung.store(true, Ordering::SeqCst);
        if self.parked.swap(false, Ordering::SeqCst) {
            let _ = write(&self.fd, &1_u64.to_ne_bytes());
        }
    }

    /// To be called before looking at what it may have been rung for.
    fn hear(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }

    /// Whether the caller is to wait: nobody has rung, and then there is nothing to be done.
    fn park(&self, is_idle: impl Fn() -> bool) -> bool {
        self.parked.store(true, Ordering::SeqCst);
        let waits = !self.rung.load(Ordering::SeqCst) && is_idle();
        if !waits {
            self.unpark(false);
        }
        waits
    }

    fn unpark(&self, rang: bool) {
        // Who found it parked writes, perhaps only now: a later wait ends early then, which does no harm.
        self.parked.store(false, Ordering::SeqCst);
        if rang {
            let _ = read(&self.fd, &mut [0; 8]);
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}
