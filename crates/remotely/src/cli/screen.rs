//! What a command that goes to many hosts shows: lines behind the names of their hosts, and a line that says how far it is, while
//! standard error is a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{password, stderr};

/// From when on it is shown how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Screen {
    bar: ProgressBar,
    /// Of several hosts, how many are done.
    wanted: bool,
    terminal: bool,
    colours: [bool; 2],
    prefix: bool,
}

impl Screen {
    /// For so many hosts. With `prefix`, lines begin with the name of their host.
    pub(super) fn new(verb: &str, hosts: usize, prefix: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(hosts as u64), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:20} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(format!("remotely {verb}:"));
        let colours = [io::stdout().is_terminal(), io::stderr().is_terminal()];
        Self { bar, wanted: colours[1] && hosts > 1, terminal: colours[1], colours, prefix }
    }

    /// A line of a host, without its newline. An error if nobody reads standard output any more.
    pub(super) fn line(&self, host: &str, is_error: bool, line: &[u8]) -> io::Result<()> {
        let mut text = Vec::with_capacity(host.len() + line.len() + 16);
        if self.prefix {
            match (self.colours[usize::from(is_error)], is_error) {
                (true, false) => text.extend_from_slice(format!("\x1b[36m{host}:\x1b[0m ").as_bytes()),
                (true, true) => text.extend_from_slice(format!("\x1b[31m{host}:\x1b[0m ").as_bytes()),
                (false, _) => text.extend_from_slice(format!("{host}: ").as_bytes()),
            }
        }
        text.extend_from_slice(line);
        text.push(b'\n');
        if is_error {
            self.error(&text);
            return Ok(());
        }
        self.output(&text)
    }

    /// Writes to standard output.
    pub(super) fn output(&self, bytes: &[u8]) -> io::Result<()> {
        self.give_way();
        self.bar.suspend(|| {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        })
    }

    /// Writes to standard error.
    pub(super) fn error(&self, bytes: &[u8]) {
        self.give_way();
        self.bar.suspend(|| {
            let _ = io::stderr().lock().write_all(bytes);
        });
    }

    /// So much of the only transfer is done.
    pub(super) fn copied(&self, files: u64, bytes: u64, total: Option<u64>) {
        self.give_way();
        let template = match total {
            Some(_) => "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            None => "{prefix} {bytes} {bytes_per_sec} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_length(total.unwrap_or(bytes));
        self.bar.set_position(bytes);
        self.bar.set_message(format!("{files} files"));
        self.appear(self.terminal);
    }

    /// One more host is done.
    pub(super) fn done(&self, failed: usize) {
        self.give_way();
        if self.wanted {
            self.bar.inc(1);
        }
        if failed > 0 {
            self.bar.set_message(format!("{failed} failed"));
        }
        self.tick();
    }

    /// To be called now and then.
    pub(super) fn tick(&self) {
        self.give_way();
        self.appear(self.wanted);
        if self.wanted {
            self.bar.tick();
        }
    }

    fn appear(&self, wanted: bool) {
        if wanted && self.bar.is_hidden() && self.bar.elapsed() > PATIENCE && !password::is_asking() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            stderr::set_bar(true);
        }
    }

    /// A question has taken the place of the bar, which comes back after the answer.
    fn give_way(&self) {
        if password::is_asking() && !self.bar.is_hidden() {
            self.bar.set_draw_target(ProgressDrawTarget::hidden());
            stderr::set_bar(false);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.give_way();
        stderr::set_bar(false);
        self.bar.finish_and_clear();
    }
}
