//! Hosts, clients and links for tests and the bench, on one machine: network namespaces with an sshd and a root of their
//! own, a relay with latency, and users without traces in /etc. Needs root and Debian; everything ends with the process.

pub mod cache;
pub mod checks;
pub mod client;
pub mod engine;
pub mod executable;
pub mod host;
pub mod image;
pub mod lan;
pub mod leftover;
pub mod own_network;
pub mod pair;
pub mod relay;
pub mod scratch;
pub mod spawn;
pub mod terminal;

pub use checks::Checks;
pub use client::Client;
pub use engine::Engine;
pub use host::{Fuse, Home, Host, HostOptions};
pub use lan::Lan;
pub use own_network::OwnNetwork;
pub use pair::Pair;
pub use relay::{Relay, Wire};
pub use spawn::{Outcome, Process};
pub use terminal::Terminal;
