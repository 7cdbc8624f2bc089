//! The elevated helper of the whole-machine mode, and the client's side of it. The helper is the only privileged process, with the
//! smallest input language; the end of its input undoes everything.

mod apply;
mod client;
mod conntrack;
mod elevated;
mod guardian;
mod held;
mod journal;
mod lift;
mod line;
mod names;
mod signals;
mod socket;
mod spawn;

pub use apply::{Applier, ApplyError, release, supports};
pub use client::{ClientError, Firewall};
pub use conntrack::forget;
pub use elevated::{ElevatedError, Settings, serve};
pub use journal::JournalError;
pub use lift::lift;
pub use line::{Go, LONGEST, LineError, Reader, Request, say};
pub use socket::{listener, source};
