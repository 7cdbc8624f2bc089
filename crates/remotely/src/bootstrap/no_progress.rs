//! Stands for the bar of an upload in programs without the command line.

pub(super) struct Progress;

impl Progress {
    pub(super) fn new(_: bool, _: u64) -> Self {
        Self
    }

    pub(super) fn add(&self, _: u64) {}
}
