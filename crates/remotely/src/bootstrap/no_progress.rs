//! Stands for the bar of an upload in programs without the command line.

pub(super) struct Progress;

impl Progress {
    pub(super) fn new(_: bool) -> Self {
        Self
    }

    pub(super) fn packs(&mut self) {}

    pub(super) fn sends(&mut self, _: u64) {}

    pub(super) fn add(&self, _: u64) {}
}
