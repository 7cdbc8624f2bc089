//! Functions of a program, called on another machine. The client's side is [`Caller`], the host's [`Runner`]; both know a
//! function by its [`Entry`], which `#[remote]` makes. [`channel`]s travel in arguments and values.
//!
//! Stands on a link and knows nothing of how it came about, nor of the file service. Used by the library and by the agent.

mod caller;
mod channel;
mod doors;
pub mod here;
mod known;
mod number;
mod outbox;
mod panic;
mod pool;
mod printer;
mod remote;
mod runner;
mod told;
mod wire;

pub use remotely_proto::call::{Failure, FailureKind, Line};

pub use self::caller::{CallError, Caller};
pub use self::channel::{ChannelError, Item, Receiver, Sender, channel};
pub use self::doors::Doors;
pub use self::panic::install as install_panic_hook;
pub use self::pool::Pool;
pub use self::printer::Printer;
pub use self::remote::{Answer, Entry, FUNCTIONS, Remote, Run, Running};
pub use self::runner::Runner;

/// What `#[remote]` expands to stands on this.
#[doc(hidden)]
pub mod __private {
    pub use linkme;

    pub use crate::remote::{Entry, FUNCTIONS, Fallible, Remote, Run, asynchronous, blocking, signature};
    pub use crate::told::{NoValue, Told, ViaDebug, ViaError, WithValue};
}
