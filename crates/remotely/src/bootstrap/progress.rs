//! The bar for an upload that takes longer than a second, on a terminal; none without the command line. Used by [`super::conversation`].

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Removes the bar when dropped.
pub(super) struct Progress {
    bar: ProgressBar,
    wanted: bool,
}

impl Progress {
    pub(super) fn new(wanted: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let wanted = wanted && rustix::termios::isatty(rustix::stdio::stderr());
        Self { bar, wanted }
    }

    /// The agent is still being compressed, which nobody knows the length of.
    pub(super) fn packs(&mut self) {
        self.bar.set_message("remotely: compressing the agent");
        if let Ok(style) = ProgressStyle::with_template("{msg} {elapsed}") {
            self.bar.set_style(style);
        }
        if self.wanted {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(Duration::from_secs(1));
        }
    }

    /// So many bytes are sent from now on.
    pub(super) fn sends(&mut self, len: u64) {
        self.bar.disable_steady_tick();
        let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_length(len);
        self.bar.reset_elapsed();
        self.bar.reset_eta();
        self.bar.set_message("remotely: sending the agent");
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
