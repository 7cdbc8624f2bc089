//! The bar for an upload that takes longer than a second, on a terminal; none without the command line. Used by [`super::conversation`].

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Removes the bar when dropped.
pub(super) struct Progress {
    bar: ProgressBar,
    wanted: bool,
}

impl Progress {
    pub(super) fn new(wanted: bool, len: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::hidden());
        let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message("remotely: sending the agent");
        let wanted = wanted && rustix::termios::isatty(rustix::stdio::stderr());
        Self { bar, wanted }
    }

    pub(super) fn add(&self, bytes: u64) {
        if self.wanted && self.bar.is_hidden() && self.bar.elapsed() > Duration::from_secs(1) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.inc(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
