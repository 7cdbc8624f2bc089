//! What a transfer has to tell in the end: failures of both sides, and what was left out. Bounded, since the other side adds
//! to it.

use std::sync::{Arc, Mutex, PoisonError};

use remotely_proto::file;

use crate::{
    error::{Failure, Side, path_of},
    report::Skipped,
};

/// Bytes of paths that are kept; what is beyond is counted.
const PATHS_MAX: usize = 4 << 20;
/// What a path counts for besides its bytes.
const ENTRY: usize = 64;
/// Of what was left out, so much is kept.
const SKIPPED_MAX: usize = 256 << 10;

/// Shared between the task and the thread of a transfer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) failures: Vec<Failure>,
    pub(crate) unnamed: u64,
    pub(crate) skipped: Vec<Skipped>,
    bytes: usize,
    skipped_bytes: usize,
}

impl Notes {
    pub(crate) fn failed(&self, side: Side, failure: file::Failure) {
        tracing::debug!(%side, ?failure, "cannot be copied");
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += failure.path.len() + ENTRY;
        if kept.bytes > PATHS_MAX {
            kept.unnamed += 1;
        } else {
            kept.failures.push(Failure::new(side, failure));
        }
    }

    pub(crate) fn skipped(&self, side: Side, skipped: file::Skipped) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file::Skipped { path, reason } = skipped;
        kept.skipped_bytes += path.len() + ENTRY;
        if kept.skipped_bytes <= SKIPPED_MAX {
            kept.skipped.push(Skipped { side, path: path_of(path.into()), reason });
        }
    }

    /// Whether anything failed so far.
    pub(crate) fn failed_any(&self) -> bool {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.unnamed > 0 || !kept.failures.is_empty()
    }

    /// Takes all out.
    pub(crate) fn take(&self) -> Kept {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
