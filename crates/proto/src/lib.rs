//! The protocol of Remotely, without I/O and without a clock: frames, handshake, mux, credit, schedule, and the messages
//! of the services. Everything that crosses a pipe is defined here and nowhere else.
//!
//! Bytes from the peer go in, bytes for the peer and events come out; `now` is an argument wherever time matters.

pub mod call;
pub mod exec;
pub mod file;
pub mod frame;
pub mod fs;
pub mod handshake;
pub mod message;
pub mod mux;
pub mod net;
pub mod open;

pub use minicbor::bytes::ByteVec;
