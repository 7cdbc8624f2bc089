//! Where this process is on the way of tunnels within tunnels, and whether the call that runs on this thread is still wanted.
//! Set by the agent, asked by called functions and by whoever opens further tunnels.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

/// The name of the user's own machine in a path.
pub const ORIGIN: &str = "localhost";
/// How many links deep tunnels may go, unless the program or `REMOTELY_DEPTH_LIMIT` says otherwise.
pub const DEPTH_LIMIT: u8 = 2;

#[derive(Debug)]
struct Here {
    path: Vec<String>,
    depth_limit: u8,
}

static HERE: OnceLock<Here> = OnceLock::new();

/// A call that its caller can give up.
pub(crate) trait Cancellable: Send + Sync {
    fn is_cancelled(&self) -> bool;
}

thread_local! {
    static CALLED: RefCell<Option<Arc<dyn Cancellable>>> = const { RefCell::new(None) };
}

/// What the client says of this place. Once for a process; later calls change nothing.
pub(crate) fn set(path: Vec<String>, depth_limit: u8) {
    let _ = HERE.set(Here { path, depth_limit });
}

/// The hosts on the way here, from the user's own machine on, each as its caller named it: `["localhost", "web1"]` in a
/// function that was called on `web1`.
pub fn path() -> Vec<String> {
    HERE.get().map_or_else(|| vec![ORIGIN.to_owned()], |here| here.path.clone())
}

/// What the caller calls this host; `localhost` in the program that the user started.
pub fn host() -> String {
    path().pop().unwrap_or_default()
}

/// How many links deep this process runs: 0 in the program that the user started.
pub fn depth() -> u8 {
    HERE.get().map_or(0, |here| u8::try_from(here.path.len().saturating_sub(1)).unwrap_or(u8::MAX))
}

/// How many links deep tunnels may go, where the program that the user started has said so.
pub fn depth_limit() -> Option<u8> {
    HERE.get().map(|here| here.depth_limit)
}

/// Whether the caller of the function that runs on this thread has given up on it. A function that is not async and takes
/// long is to look now and then: nothing else ends it.
pub fn is_cancelled() -> bool {
    CALLED.with_borrow(|call| call.as_ref().is_some_and(|call| call.is_cancelled()))
}

/// Runs the function of `call`.
pub(crate) fn called<T>(call: Arc<dyn Cancellable>, run: impl FnOnce() -> T) -> T {
    let _called = Called;
    CALLED.set(Some(call));
    run()
}

/// Until it is dropped, a called function runs on this thread.
struct Called;

impl Drop for Called {
    fn drop(&mut self) {
        CALLED.set(None);
    }
}
