//! The host's side: takes calls off streams, runs the functions, sends back what they came to. Used by the agent.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, Bytes, BytesMut};
use remotely_proto::call::{Failure, FailureKind, INLINE_MAX, Open, Record};
use remotely_session::{Class, RecvStream, Stream, Turns};
use thiserror::Error;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;

use crate::doors::Doors;
use crate::here;
use crate::known::Known;
use crate::number::Numbered;
use crate::outbox::Outbox;
use crate::pool::Pool;
use crate::remote::{self, Answer, Entry, FUNCTIONS, Run};

/// Calls of one stream that run, or wait for a thread, at once.
const CALLS_MAX: usize = 64 << 10;
/// Functions that a client may define.
const SLOTS_MAX: usize = 64 << 10;
/// Most bytes of the arguments of one call.
const ARGUMENTS_MAX: usize = 1 << 30;

/// Runs what a client calls over one link.
#[derive(Debug)]
pub struct Runner {
    doors: Arc<Doors>,
    functions: HashMap<&'static str, Vec<&'static Entry>>,
    turns: Turns,
    pool: Arc<Pool>,
    /// Has what called functions have printed so far sent, and says how much that is.
    printed: fn(bool) -> u64,
}

type Slot = Result<Arc<Known>, Box<Failure>>;

impl Runner {
    /// With all functions of this program. Quick ones are run by the threads of the link, `turns`; the others by `pool`, which is
    /// to be given what `turns` leaves to others, and those that are async as tasks.
    ///
    /// `printed` is called before answers are sent, with whether no other call of the stream is running; the client takes an
    /// answer for one when it has so many bytes of what was printed.
    pub fn new(doors: Arc<Doors>, turns: Turns, pool: Arc<Pool>, printed: fn(bool) -> u64) -> Arc<Self> {
        let mut functions = HashMap::<_, Vec<_>>::new();
        for entry in FUNCTIONS {
            functions.entry(entry.name).or_default().push(entry);
        }
        Arc::new(Self { doors, functions, turns, pool, printed })
    }

    /// Serves a stream that was opened with [`Open::Calls`], until its end, on the threads of the link. `path` and
    /// `depth_limit` are what it said.
    pub fn calls(self: &Arc<Self>, path: Vec<String>, depth_limit: u8, stream: Stream) {
        here::set(path, depth_limit);
        let Stream { send, recv, .. } = stream;
        let calls = Arc::new(Calls {
            runner: self.clone(),
            outbox: Outbox::new(send, self.doors.runtime()),
            running: Mutex::default(),
            answered: Mutex::default(),
            told: AtomicU64::new(0),
            room: Semaphore::new(CALLS_MAX),
        });
        self.turns.spawn(async move {
            calls.clone().read(recv).await;
            // Nobody is left to hear of them.
            for (_, running) in calls.running().drain() {
                running.cancel();
            }
            calls.outbox.close();
        });
    }

    /// Serves a stream that was opened with [`Open::Call`].
    pub async fn call(self: Arc<Self>, name: String, signature: u64, stream: Stream) {
        let Stream { mut send, mut recv, .. } = stream;
        recv.widen(16 << 20);
        let answer = match self.find(&name, signature) {
            Err(failure) => Err(failure),
            Ok(entry) => match all(&mut recv, ARGUMENTS_MAX).await {
                Err(Incomplete::Lost) => return,
                Err(error) => Err(Failure::new(FailureKind::Arguments, error.to_string()).into()),
                Ok(arguments) => {
                    let (running, (told, answer)) = (Arc::new(Running::default()), oneshot::channel());
                    let done = Done(Some(|answer, _| drop(told.send(answer))));
                    self.start(entry, arguments.freeze(), &running, done);
                    tokio::select! {
                        biased;
                        _ = send.stopped() => return running.cancel(),
                        answer = answer => answer.unwrap_or_else(|_| Err(cancelled())),
                    }
                }
            },
        };
        let [head, body] = message(answer, (self.printed)(false));
        if send.send_all(&mut [head, body]).await.is_ok() {
            send.finish();
        }
    }

    fn find(&self, name: &str, signature: u64) -> Result<&'static Entry, Box<Failure>> {
        let unknown = |why: String| Box::new(Failure::new(FailureKind::Unknown, why));
        let Some(entries) = self.functions.get(name) else {
            return Err(unknown(format!("the program there has no remote function {name}")));
        };
        let mut fitting = entries.iter().filter(|entry| entry.signature == signature);
        match (fitting.next(), fitting.next()) {
            (Some(entry), None) => Ok(entry),
            (Some(_), Some(_)) => Err(unknown(format!("the program has two remote functions {name}: rename one"))),
            (None, _) => Err(unknown(format!("the function {name} of the program there takes or returns other types"))),
        }
    }

    /// Starts a function; `done` hears of its answer. `running` may be cancelled from before on.
    fn start<F: FnOnce(Answer, Company) + Send + 'static>(
        &self,
        entry: &'static Entry,
        arguments: Bytes,
        running: &Arc<Running>,
        done: Done<F>,
    ) {
        match entry.run {
            Run::Async(run) => self.go_on(run(&self.doors, &arguments), running, done),
            Run::Blocking(run) => {
                let (running, doors) = (running.clone(), self.doors.clone());
                let job = move || {
                    if !running.is_cancelled() {
                        done.with(running.call(|| run(&doors, &arguments)), Company::None);
                    }
                };
                self.pool.run(Box::new(job));
            }
        }
    }

    /// Runs an async function as a task.
    fn go_on<F: FnOnce(Answer, Company) + Send + 'static>(
        &self,
        future: remote::Running,
        running: &Running,
        done: Done<F>,
    ) {
        let task = self.doors.runtime().spawn(async move { done.with(future.await, Company::None) });
        running.is(task.abort_handle());
    }
}

fn cancelled() -> Box<Failure> {
    Failure::new(FailureKind::Cancelled, "it was cancelled").into()
}

/// The calls of one shared stream.
struct Calls {
    runner: Arc<Runner>,
    outbox: Arc<Outbox>,
    running: Mutex<Numbered<Arc<Running>>>,
    /// Answers, as records, that are sent when those that have been read with their calls are there as well.
    answered: Mutex<BytesMut>,
    /// How much the client knows to have been printed.
    told: AtomicU64,
    room: Semaphore,
}

/// Whether an answer is one of several that go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Company {
    None,
    Others,
}

/// A function that runs, or is going to.
#[derive(Debug, Default)]
struct Running {
    cancelled: AtomicBool,
    /// If it is async, once it runs.
    task: OnceLock<AbortHandle>,
}

impl Running {
    fn is(&self, task: AbortHandle) {
        let _ = self.task.set(task);
        // By somebody who did not see the task yet.
        if self.cancelled.load(Ordering::SeqCst) {
            self.cancel();
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Runs the function, which can ask whether it is cancelled.
    fn call<T>(self: &Arc<Self>, run: impl FnOnce() -> T) -> T {
        here::called(self.clone(), run)
    }
}

impl here::Cancellable for Running {
    fn is_cancelled(&self) -> bool {
        Running::is_cancelled(self)
    }
}

impl Calls {
    async fn read(self: Arc<Self>, mut recv: RecvStream) {
        let (mut received, mut slots) = (BytesMut::new(), Numbered::default());
        loop {
            loop {
                match Record::decode(&mut received) {
                    Ok(Some(record)) => self.heed(record, &mut slots).await,
                    Ok(None) => break,
                    // Where one record ends and the next begins cannot be known any more.
                    Err(error) => return tracing::warn!(%error, "the client calls in no way that is known"),
                }
            }
            match recv.recv().await {
                Ok(Some(chunk)) => received.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return,
            }
        }
    }

    async fn heed(self: &Arc<Self>, record: Record, slots: &mut Numbered<Slot>) {
        match record {
            Record::Define { slot, signature, name } if slots.len() < SLOTS_MAX => {
                slots.insert(slot, self.runner.find(&name, signature).map(|entry| Arc::new(Known::new(entry))));
            }
            Record::Define { .. } | Record::Value { .. } | Record::Failed { .. } | Record::Printed { .. } => {}
            Record::Call { call, slot, arguments } => {
                self.outbox.room().await;
                if let Ok(room) = self.room.acquire().await {
                    room.forget();
                }
                let unknown = || Failure::new(FailureKind::Unknown, "an undefined function").into();
                match slots.get(&slot) {
                    Some(Ok(known)) => self.begin(call, known.clone(), arguments),
                    Some(Err(failure)) => self.answer(call, Err(failure.clone()), Company::None),
                    None => self.answer(call, Err(unknown()), Company::None),
                }
            }
            Record::Cancel { call } => {
                if let Some(running) = self.running().get(&call) {
                    running.cancel();
                }
            }
        }
    }

    /// Has a function run: here and now when the threads of the link come to it, if it is quick.
    fn begin(self: &Arc<Self>, call: u32, known: Arc<Known>, arguments: Bytes) {
        let (calls, running) = (self.clone(), Arc::new(Running::default()));
        self.running().insert(call, running.clone());
        self.runner.turns.run(Box::new(move || {
            if known.is_quick() {
                calls.run(call, &known, &arguments, &running);
            } else {
                calls.run_elsewhere(call, known, arguments, running);
            }
        }));
    }

    fn run(self: Arc<Self>, call: u32, known: &Known, arguments: &[u8], running: &Arc<Running>) {
        let calls = self.clone();
        let done = Done(Some(move |answer, company| calls.answer(call, answer, company)));
        if running.is_cancelled() {
            return;
        }
        let doors = &self.runner.doors;
        let inside = known.enter();
        match known.entry.run {
            Run::Blocking(run) => {
                let answer = running.call(|| run(doors, arguments));
                drop(inside);
                done.with(answer, Company::Others);
            }
            Run::Async(run) => {
                let mut future = run(doors, arguments);
                // Whoever has something to wait for is polled again, as a task; so is who does not come to an end by itself, as the
                // runtime says by its budget.
                let mut noop = Context::from_waker(Waker::noop());
                let once = std::future::poll_fn(|_| Poll::Ready(Pin::new(&mut future).poll(&mut noop)));
                let first = doors.runtime().block_on(once);
                drop(inside);
                match first {
                    Poll::Ready(answer) => done.with(answer, Company::Others),
                    Poll::Pending => self.runner.go_on(future, running, done),
                }
            }
        }
    }

    fn run_elsewhere(self: Arc<Self>, call: u32, known: Arc<Known>, arguments: Bytes, running: Arc<Running>) {
        let calls = self.clone();
        let done = Done(Some(move |answer, company| calls.answer(call, answer, company)));
        let doors = self.runner.doors.clone();
        match known.entry.run {
            Run::Async(run) => {
                let begun = running.clone();
                let task = self.runner.doors.runtime().spawn(async move {
                    let inside = known.enter();
                    let mut future = run(&doors, &arguments);
                    let first = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
                    drop(inside);
                    let answer = match first {
                        Poll::Ready(answer) => answer,
                        Poll::Pending => future.await,
                    };
                    done.with(answer, Company::None);
                });
                begun.is(task.abort_handle());
            }
            Run::Blocking(run) => self.runner.pool.run(Box::new(move || {
                if running.is_cancelled() {
                    return;
                }
                let inside = known.enter();
                let answer = running.call(|| run(&doors, &arguments));
                drop(inside);
                done.with(answer, Company::None);
            })),
        }
    }

    fn answer(self: &Arc<Self>, call: u32, answer: Answer, company: Company) {
        let last = {
            let mut running = self.running();
            running.remove(&call);
            running.is_empty()
        };
        self.room.add_permits(1);
        let record = match answer {
            Ok(value) if value.len() > INLINE_MAX => return self.send_apart(call, Ok(value), last),
            Ok(value) => Record::Value { call, value: value.into() },
            Err(failure) => {
                let bytes = encoded(&failure);
                if bytes.len() > INLINE_MAX {
                    return self.send_apart(call, Err(failure), last);
                }
                Record::Failed { call, failure: bytes.into() }
            }
        };
        match company {
            Company::None => self.push(last, (self.runner.printed)(last), |out| record.encode(out)),
            Company::Others => {
                let mut answered = lock(&self.answered);
                let first = answered.is_empty();
                record.encode(&mut answered);
                drop(answered);
                if first {
                    let calls = self.clone();
                    self.runner.turns.after(Box::new(move || calls.send_answered()));
                }
            }
        }
    }

    /// Sends the answers that are there.
    fn send_answered(&self) {
        let answered = lock(&self.answered).split();
        let last = self.running().is_empty();
        // Behind their taking: what the functions have printed is there now.
        let printed = (self.runner.printed)(last);
        self.push(true, printed, |out| out.extend_from_slice(&answered));
    }

    fn push(&self, at_once: bool, printed: u64, write: impl FnOnce(&mut BytesMut)) {
        self.outbox.push(at_once, |out| {
            if self.told.fetch_max(printed, Ordering::Relaxed) < printed {
                Record::Printed { bytes: printed }.encode(out);
            }
            write(out);
        });
    }

    fn send_apart(&self, call: u32, answer: Answer, last: bool) {
        let printed = (self.runner.printed)(last);
        let doors = self.runner.doors.clone();
        let Ok(Stream { mut send, .. }) = doors.open(Class::Normal, &Open::Answer { call }) else { return };
        doors.runtime().spawn(async move {
            if send.send_all(&mut message(answer, printed)).await.is_ok() {
                send.finish();
            }
        });
    }

    fn running(&self) -> MutexGuard<'_, Numbered<Arc<Running>>> {
        lock(&self.running)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells what a call came to, in any case once.
struct Done<F: FnOnce(Answer, Company)>(Option<F>);

impl<F: FnOnce(Answer, Company)> Done<F> {
    fn with(mut self, answer: Answer, company: Company) {
        if let Some(tell) = self.0.take() {
            tell(answer, company);
        }
    }
}

impl<F: FnOnce(Answer, Company)> Drop for Done<F> {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(Err(cancelled()), Company::None);
        }
    }
}

fn encoded(failure: &Failure) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Encoding into a Vec cannot fail.
    let Ok(()) = minicbor::encode(failure, &mut bytes).map_err(|_| ()) else { unreachable!("a Vec takes all bytes") };
    bytes
}

/// An answer on a stream of its own.
fn message(answer: Answer, printed: u64) -> [Bytes; 2] {
    let (kind, body) = match answer {
        Ok(value) => (0, value),
        Err(failure) => (1, encoded(&failure)),
    };
    let mut head = BytesMut::new();
    head.put_u8(kind);
    head.put_u64_le(printed);
    [head.freeze(), body.into()]
}

/// Not all of a stream could be taken.
#[derive(Debug, Clone, Copy, Error)]
pub(crate) enum Incomplete {
    #[error("there are more than {0} bytes of it")]
    TooLong(usize),
    #[error("it was cut off")]
    Lost,
}

/// Everything to the end of a stream, if it is not more than `max` bytes.
pub(crate) async fn all(recv: &mut RecvStream, max: usize) -> Result<BytesMut, Incomplete> {
    let mut received = BytesMut::new();
    loop {
        match recv.recv().await {
            Ok(Some(chunk)) if received.len() + chunk.len() > max => {
                return Err(Incomplete::TooLong(max));
            }
            Ok(Some(chunk)) => received.extend_from_slice(&chunk),
            Ok(None) => return Ok(received),
            Err(_) => return Err(Incomplete::Lost),
        }
    }
}
