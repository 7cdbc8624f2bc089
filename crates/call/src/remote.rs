//! What a remote function is to both sides: a type, a name with a hash of its signature, and a way to run it on bytes. Made by
//! `#[remote]`; nothing here knows of links.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use linkme::distributed_slice;
use remotely_proto::ByteVec;
use remotely_proto::call::{Failure, FailureKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::doors::Doors;
use crate::{panic, wire};

/// A function that can be called on another machine. Implemented by `#[remotely::remote]`, for a type that has the name of
/// the function and can be called like it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a remote function",
    note = "put `#[remotely::remote]` above the function"
)]
pub trait Remote: Copy + Send + Sync + 'static {
    /// Its arguments, as a tuple.
    type Args: Serialize + DeserializeOwned + Send + 'static;
    /// What it returns; of a `Result`, the value in it.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// How the host knows it.
    fn entry() -> &'static Entry;
}

/// All functions of the program.
#[distributed_slice]
pub static FUNCTIONS: [Entry];

/// A remote function as the host knows it.
#[derive(Debug)]
pub struct Entry {
    /// Path of its module, and its name.
    pub name: &'static str,
    /// Hash of the types of its arguments and of what it returns, see [`signature`].
    pub signature: u64,
    /// How it is run.
    pub run: Run,
}

/// How a function is run on its arguments in CBOR.
#[derive(Debug, Clone, Copy)]
pub enum Run {
    /// On a thread of its own while it runs.
    Blocking(fn(&Arc<Doors>, &[u8]) -> Answer),
    /// As a task.
    Async(fn(&Arc<Doors>, &[u8]) -> Running),
}

/// What a call came to: its value in CBOR, or why there is none.
pub type Answer = Result<Vec<u8>, Box<Failure>>;

/// An async function that runs.
pub type Running = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The hash of a signature's text (FNV-1a, 64 bits).
pub const fn signature(text: &str) -> u64 {
    let (bytes, mut hash, mut at) = (text.as_bytes(), 0xcbf2_9ce4_8422_2325_u64, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// The two types of a `Result`, whatever it is called.
pub trait Fallible {
    /// Of `Ok`.
    type Value;
    /// Of `Err`.
    type Error;
    /// As what it is.
    fn into_result(self) -> Result<Self::Value, Self::Error>;
}

impl<T, E> Fallible for Result<T, E> {
    type Value = T;
    type Error = E;

    fn into_result(self) -> Result<T, E> {
        self
    }
}

/// Runs a function on its arguments in CBOR.
pub fn blocking<A, R>(
    doors: &Arc<Doors>,
    arguments: &[u8],
    function: impl FnOnce(A) -> Result<R, Box<Failure>>,
) -> Answer
where
    A: DeserializeOwned,
    R: Serialize,
{
    // Types of the program are read and written within, too, and may panic as its function may.
    panic::caught(AssertUnwindSafe(|| {
        let arguments = wire::decode(arguments, doors).map_err(undecodable)?;
        encoded(&function(arguments)?, doors)
    }))?
}

/// Starts an async function on its arguments in CBOR.
pub fn asynchronous<A, R, F>(doors: &Arc<Doors>, arguments: &[u8], function: impl FnOnce(A) -> F) -> Running
where
    A: DeserializeOwned,
    R: Serialize,
    F: Future<Output = Result<R, Box<Failure>>> + Send + 'static,
{
    let begun = panic::caught(AssertUnwindSafe(|| {
        wire::decode(arguments, doors).map(|arguments| Box::pin(function(arguments))).map_err(undecodable)
    }));
    let running = match begun.and_then(|begun| begun) {
        Ok(running) => running,
        Err(failure) => return Box::pin(std::future::ready(Err(failure))),
    };
    let doors = doors.clone();
    Box::pin(async move {
        let value = Caught(running).await??;
        panic::caught(AssertUnwindSafe(|| encoded(&value, &doors)))?
    })
}

fn undecodable(why: String) -> Box<Failure> {
    Failure::new(FailureKind::Arguments, why).into()
}

fn encoded<R: Serialize>(value: &R, doors: &Arc<Doors>) -> Answer {
    wire::encode(value, doors).map_err(|why| Failure::new(FailureKind::Value, why).into())
}

/// A future whose panic is a failure.
struct Caught<F>(Pin<Box<F>>);

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Box<Failure>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match panic::caught(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(failure) => Poll::Ready(Err(failure)),
        }
    }
}

/// The failure of a function that returned an error; `value` is the error in CBOR.
pub(crate) fn returned(
    error: &(dyn std::error::Error + 'static),
    type_name: &str,
    value: Option<Vec<u8>>,
) -> Box<Failure> {
    let chain = std::iter::successors(error.source(), |error| error.source()).map(ToString::to_string).collect();
    // Errors that record a stack show it at the end of their debug form.
    let debug = format!("{error:?}");
    let backtrace = debug.split_once("Stack backtrace:\n").map(|(_, trace)| trace.trim_end().to_owned());
    Box::new(Failure {
        kind: FailureKind::Error,
        message: error.to_string(),
        chain,
        type_name: Some(type_name.to_owned()),
        value: value.map(ByteVec::from),
        backtrace,
    })
}
