//! Panics of called functions: caught with their message, their place and the stack, instead of being printed. Without
//! unwinding they end the process, and then they are printed, for the caller to find among its last words.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{UnwindSafe, catch_unwind};

use remotely_proto::call::{Failure, FailureKind};

thread_local! {
    static CALLED: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<Box<Failure>>> = const { RefCell::new(None) };
}

/// Has panics of called functions noted from here on; all others are reported as before.
pub fn install() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !CALLED.get() || cfg!(panic = "abort") {
            return before(info);
        }
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("a panic without words");
        let message = match info.location() {
            Some(location) => format!("{text} ({}:{})", location.file(), location.line()),
            None => text.to_owned(),
        };
        let backtrace = Some(Backtrace::force_capture().to_string());
        LAST.set(Some(Box::new(Failure { backtrace, ..Failure::new(FailureKind::Panic, message) })));
    }));
}

/// Runs something of a called function.
pub(crate) fn caught<T>(run: impl FnOnce() -> T + UnwindSafe) -> Result<T, Box<Failure>> {
    let outer = CALLED.replace(true);
    let result = catch_unwind(run);
    CALLED.set(outer);
    result.map_err(|_| LAST.take().unwrap_or_else(|| Failure::new(FailureKind::Panic, "a panic without words").into()))
}
