//! What the mount counted, told at the end of a command (`Report::Exited`) and shown by `--stats`. Changes nothing.

use minicbor::{Decode, Encode};

/// What the kernel of the host asked the mount for, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Counts {
    /// Requests that want an answer, by kind; kinds that did not occur are left out.
    #[n(0)]
    pub requests: Vec<Asked>,
    /// Bytes of file content given to the kernel. What is in its page cache it does not ask for again.
    #[n(1)]
    pub bytes_read: u64,
    /// Bytes of file content taken from the kernel.
    #[n(2)]
    pub bytes_written: u64,
}

/// Requests of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Asked {
    /// The kind, by its number in linux/fuse.h.
    #[n(0)]
    pub opcode: u32,
    /// How many came.
    #[n(1)]
    pub count: u64,
    /// How many of them were answered at once, from what was known on the host.
    #[n(2)]
    pub hits: u64,
}
