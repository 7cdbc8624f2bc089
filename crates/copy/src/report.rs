//! What a transfer did, for the caller of put and fetch.

use std::{
    fmt::{self, Debug, Display, Formatter},
    path::PathBuf,
};

use remotely_proto::file::Reason;

use crate::error::Side;

/// What a transfer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Absolute path on the client: of what was put, or of where it was fetched to. Empty if the latter could not be made.
    pub local: PathBuf,
    /// Absolute path on the host: of what was fetched, or of where it was put. Empty if the latter could not be made.
    pub remote: PathBuf,
    /// Regular files that were sent and are in place.
    pub files: u64,
    /// Regular files that were there already, by [`Options::unchanged`](crate::Options::unchanged).
    pub unchanged: u64,
    /// Bytes of content of the files that were sent.
    pub bytes: u64,
    /// Bytes on the stream, both ways together.
    pub wire: u64,
    /// Of a single file.
    pub hash: Option<Hash>,
    /// What was left out on purpose: the first thousand or so.
    pub skipped: Vec<Skipped>,
}

/// Something that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Where it is.
    pub side: Side,
    /// Absolute path.
    pub path: PathBuf,
    /// Why.
    pub reason: Reason,
}

impl Display for Skipped {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { side, path, reason } = self;
        let why = match reason {
            Reason::Socket => "a socket",
            Reason::Device => "a device node, which root makes if owners are asked for",
            Reason::Unfinished => "the unfinished file of another transfer",
            Reason::Owner => "owners stay as they are made: only root gives files away",
        };
        write!(f, "{path:?} ({side}): {why}")
    }
}

/// A BLAKE3 hash. Shown as `b3sum` does.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Display for Hash {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Debug for Hash {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}
