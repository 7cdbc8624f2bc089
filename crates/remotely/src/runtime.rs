//! The Tokio runtimes of programs that have none of their own: that of `#[remotely::main]`, and the one behind
//! [`blocking`](crate::blocking).

use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

/// Runs the body of an async `main`.
///
/// # Panics
/// If the system has no threads or descriptors left for a runtime.
#[expect(clippy::expect_used, reason = "there is nobody to tell it to")]
pub fn block_on<F: Future>(main: F) -> F::Output {
    crate::agent::become_agent();
    let runtime = Builder::new_multi_thread().enable_all().build().expect("a runtime for main");
    let result = runtime.block_on(main);
    // What still runs is nobody's any more; links end with their processes.
    runtime.shutdown_background();
    result
}

/// One for all threads that wait for tunnels.
#[expect(clippy::expect_used, reason = "there is nobody to tell it to")]
pub(crate) fn shared() -> &'static Runtime {
    static SHARED: OnceLock<Runtime> = OnceLock::new();
    SHARED.get_or_init(|| {
        let builder = &mut Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("remotely").enable_all().build().expect("a runtime for tunnels")
    })
}
