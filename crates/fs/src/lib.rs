//! Files of the client on the host: the server that gives them away here, and the mount that shows them there.
pub mod mount;
pub mod server;
