//! Changes that failed after the command had gone on: told at the end of the run, by path.

use std::sync::Mutex;

use rustix::io::Errno;

use super::{name::Name, service::Hold};

/// Failures kept in full; the rest are counted.
const KEPT_MAX: usize = 256;

/// A change that could not be applied here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was tried: `write`, `rename`, ...
    pub operation: &'static str,
    /// Path from the root, as bytes; empty if the file has no name any more.
    pub path: Vec<u8>,
    /// errno of Linux.
    pub errno: u32,
}

/// All failures so far.
#[derive(Debug, Default)]
pub(super) struct Failures {
    kept: Mutex<(Vec<Failure>, u64)>,
}

impl Failures {
    /// Remembers one. The same failure of the same file is counted, not listed again.
    pub(super) fn add(&self, operation: &'static str, path: Option<Vec<Name>>, errno: Errno) {
        let mut bytes = Vec::new();
        for name in path.unwrap_or_default() {
            bytes.push(b'/');
            bytes.extend_from_slice(&name);
        }
        let failure = Failure { operation, path: bytes, errno: errno.raw_os_error().unsigned_abs() };
        let mut kept = self.kept.hold();
        kept.1 += 1;
        if kept.0.len() < KEPT_MAX && !kept.0.contains(&failure) {
            kept.0.push(failure);
        }
    }

    /// The different ones, oldest first.
    pub(super) fn list(&self) -> Vec<Failure> {
        self.kept.hold().0.clone()
    }

    /// How many there were in all.
    pub(super) fn count(&self) -> u64 {
        self.kept.hold().1
    }
}
