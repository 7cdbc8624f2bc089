//! Remotely makes another machine feel like part of this one. For programs: call your own functions on other machines.
//!
//! ```no_run
//! use std::path::PathBuf;
//!
//! use remotely::{Tunnel, remote};
//!
//! #[remote]
//! fn size(path: PathBuf) -> std::io::Result<u64> {
//!     Ok(std::fs::metadata(path)?.len())
//! }
//!
//! #[remotely::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let web = Tunnel::to("ops@web1")?;
//!     println!("{} bytes", web.call(size, ("/var/log/syslog".into(),)).await?);
//!     Ok(())
//! }
//! ```
//!
//! Nothing has to be installed on the other machine but a POSIX shell: the executable sends itself there, once, and is its own
//! other side. For that it has to be linked statically, see [`bootstrap::ConnectError::Dynamic`].
//!
//! # Features
//! None is needed to call functions: `remotely = { version = "0.1", default-features = false }`.
//! - `cli` (default): the command line, which the `remotely` executable consists of, and all of these:
//! - `copy`: put and fetch of files and trees;
//! - `exec`: commands of a host;
//! - `facts`: what there is to know about a host;
//! - `run`: what `remotely HOST -- COMMAND` does, with the file service and the mount;
//! - `tree`: groups whose hosts are reached from other hosts;
//! - `inventory`: groups and hosts of [`nodes`] from files in TOML and YAML.

// The attributes speak of `remotely`, here too.
extern crate self as remotely;

mod agent;
pub mod blocking;
pub mod bootstrap;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "exec")]
pub mod exec;
#[cfg(feature = "facts")]
pub mod facts;
pub mod group;
#[cfg(feature = "cli")]
mod net;
pub mod nodes;
pub mod options;
pub mod password;
pub mod queue;
#[cfg(feature = "run")]
pub mod report;
#[cfg(feature = "run")]
pub mod run;
mod runtime;
pub mod stderr;
pub mod target;
pub mod transport;
#[cfg(feature = "tree")]
mod tree;
#[cfg(not(feature = "tree"))]
#[path = "no_tree.rs"]
mod tree;
pub mod tunnel;

/// Options and reports of transfers, and what can go wrong with them.
#[cfg(feature = "copy")]
pub mod copy {
    pub use remotely_copy::*;
}

pub use remotely_call::{ChannelError, Receiver, Remote, Sender, channel, here};
pub use remotely_macros::{main, remote};

pub use self::group::{Group, GroupResult};
pub use self::nodes::NodeSet;
pub use self::queue::Queue;
pub use self::target::Target;
pub use self::tunnel::{Call, Error, Tunnel};

#[cfg(feature = "cli")]
pub use self::cli::main as command_line;

/// What the attributes expand to stands on this.
#[doc(hidden)]
pub mod __private {
    pub use remotely_call::__private::*;

    pub use crate::runtime::block_on;
}

/// The Rust of the pages for users.
#[cfg(all(doctest, feature = "cli"))]
mod pages {
    #[doc = include_str!("../../../docs/library.md")]
    mod library {}
}
