//! placeholder
#![allow(missing_docs)]
pub mod mount;
pub mod server;
