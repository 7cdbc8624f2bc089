//! The network of one side of a link, for the other: who intercepts connections, datagrams and questions about names
//! (capture), and who makes them (dial). Either side can be either. Knows nothing of how the link came about.

pub mod firewall;
pub mod hosts;
mod netlink;
pub mod own;
pub mod routes;
pub mod rules;
pub mod subnet;
pub mod watch;
