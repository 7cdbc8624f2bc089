//! The host's side: takes calls off streams, runs the functions, sends back what they came to. Used by the agent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use remotely_proto::call::{Failure, FailureKind, INLINE_MAX, Open, Record};
use remotely_session::{Class, RecvStream, Stream};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;

use crate::doors::Doors;
use crate::here;
use crate::outbox::Outbox;
use crate::pool::Pool;
use crate::remote::{Answer, Entry, FUNCTIONS, Run};

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
    pool: Arc<Pool>,
    /// Has what called functions have printed so far sent, and says how much that is.
    printed: fn(bool) -> u64,
}

type Slot = Result<&'static Entry, Box<Failure>>;

impl Runner {
    /// With all functions of this program. `printed` is called before an answer is sent, with whether no other call of the
    /// stream is running; the client takes the answer for one when it has so many bytes of what was printed.
    pub fn new(doors: Arc<Doors>, printed: fn(bool) -> u64) -> Arc<Self> {
        let mut functions = HashMap::<_, Vec<_>>::new();
        for entry in FUNCTIONS {
            functions.entry(entry.name).or_default().push(entry);
        }
        Arc::new(Self { doors, functions, pool: Arc::default(), printed })
    }

    /// Serves a stream that was opened with [`Open::Calls`], until its end. `path` and `depth_limit` are what it said.
    pub async fn calls(self: Arc<Self>, path: Vec<String>, depth_limit: u8, stream: Stream) {
        here::set(path, depth_limit);
        let Stream { send, recv, .. } = stream;
        let calls = Arc::new(Calls {
            runner: self.clone(),
            outbox: Outbox::new(send, &Handle::current()),
            running: Mutex::default(),
            told: AtomicU64::new(0),
            room: Semaphore::new(CALLS_MAX),
        });
        calls.clone().read(recv).await;
        // Nobody is left to hear of them.
        for (_, running) in calls.running().drain() {
            running.cancel();
        }
        calls.outbox.close();
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
                    self.start(entry, arguments.freeze(), &running, |answer| drop(told.send(answer)));
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

    fn find(&self, name: &str, signature: u64) -> Slot {
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

    /// Starts a function; `tell` gets its answer, in any case once. `running` may be cancelled from before on.
    fn start(
        &self,
        entry: &'static Entry,
        arguments: Bytes,
        running: &Arc<Running>,
        tell: impl FnOnce(Answer) + Send + 'static,
    ) {
        let done = Done(Some(tell));
        match entry.run {
            Run::Async(run) => {
                let future = run(&self.doors, &arguments);
                running.is(tokio::spawn(async move { done.with(future.await) }).abort_handle());
            }
            Run::Blocking(run) => {
                let (running, doors) = (running.clone(), self.doors.clone());
                let job = move || {
                    if !running.cancelled.load(Ordering::Relaxed) {
                        done.with(here::called(running.cancelled.clone(), || run(&doors, &arguments)));
                    }
                };
                self.pool.run(self.doors.runtime(), Box::new(job));
            }
        }
    }
}

fn cancelled() -> Box<Failure> {
    Failure::new(FailureKind::Cancelled, "it was cancelled").into()
}

/// The calls of one shared stream.
struct Calls {
    runner: Arc<Runner>,
    outbox: Arc<Outbox>,
    running: Mutex<HashMap<u32, Arc<Running>>>,
    /// How much the client knows to have been printed.
    told: AtomicU64,
    room: Semaphore,
}

/// A function that runs, or is going to.
#[derive(Debug, Default)]
struct Running {
    cancelled: Arc<AtomicBool>,
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

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Calls {
    async fn read(self: Arc<Self>, mut recv: RecvStream) {
        let (mut received, mut slots) = (BytesMut::new(), HashMap::new());
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

    async fn heed(self: &Arc<Self>, record: Record, slots: &mut HashMap<u32, Slot>) {
        match record {
            Record::Define { slot, signature, name } if slots.len() < SLOTS_MAX => {
                slots.insert(slot, self.runner.find(&name, signature));
            }
            Record::Define { .. } | Record::Value { .. } | Record::Failed { .. } | Record::Printed { .. } => {}
            Record::Call { call, slot, arguments } => {
                self.outbox.room().await;
                if let Ok(room) = self.room.acquire().await {
                    room.forget();
                }
                match slots.get(&slot) {
                    Some(Ok(entry)) => self.start(call, entry, arguments),
                    Some(Err(failure)) => self.answer(call, Err(failure.clone())),
                    None => self.answer(call, Err(Failure::new(FailureKind::Unknown, "an undefined function").into())),
                }
            }
            Record::Cancel { call } => {
                if let Some(running) = self.running().get(&call) {
                    running.cancel();
                }
            }
        }
    }

    fn start(self: &Arc<Self>, call: u32, entry: &'static Entry, arguments: Bytes) {
        let (calls, running) = (self.clone(), Arc::new(Running::default()));
        self.running().insert(call, running.clone());
        self.runner.start(entry, arguments, &running, move |answer| calls.answer(call, answer));
    }

    fn answer(self: &Arc<Self>, call: u32, answer: Answer) {
        let last = {
            let mut running = self.running();
            running.remove(&call);
            running.is_empty()
        };
        let printed = (self.runner.printed)(last);
        self.room.add_permits(1);
        match answer {
            Ok(value) if value.len() > INLINE_MAX => self.send_apart(call, Ok(value), printed),
            Ok(value) => {
                self.push(last, printed, &Record::Value { call, value: value.into() });
            }
            Err(failure) => {
                let bytes = encoded(&failure);
                if bytes.len() > INLINE_MAX {
                    return self.send_apart(call, Err(failure), printed);
                }
                self.push(last, printed, &Record::Failed { call, failure: bytes.into() });
            }
        }
    }

    fn push(&self, at_once: bool, printed: u64, record: &Record) {
        self.outbox.push(at_once, |out| {
            if self.told.fetch_max(printed, Ordering::Relaxed) < printed {
                Record::Printed { bytes: printed }.encode(out);
            }
            record.encode(out);
        });
    }

    fn send_apart(&self, call: u32, answer: Answer, printed: u64) {
        let doors = self.runner.doors.clone();
        let Ok(Stream { mut send, .. }) = doors.open(Class::Normal, &Open::Answer { call }) else { return };
        doors.runtime().spawn(async move {
            if send.send_all(&mut message(answer, printed)).await.is_ok() {
                send.finish();
            }
        });
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u32, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells what a call came to, in any case once.
struct Done<F: FnOnce(Answer)>(Option<F>);

impl<F: FnOnce(Answer)> Done<F> {
    fn with(mut self, answer: Answer) {
        if let Some(tell) = self.0.take() {
            tell(answer);
        }
    }
}

impl<F: FnOnce(Answer)> Drop for Done<F> {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(Err(cancelled()));
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
