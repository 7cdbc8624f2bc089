//! The options of every command that goes to a host, and how they become [`ConnectOptions`].

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::options::{ConnectOptions, Width};
use crate::password::Passwords;
use crate::target::Target;
use crate::transport::shell;

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Way {
    /// Options for ssh, split into words as a shell splits them: --ssh-opts '-p 2222 -i key'.
    #[arg(long, value_name = "STRING", allow_hyphen_values = true, value_parser = OsStringValueParser::new().try_map(words))]
    ssh_opts: Option<Words>,
    /// Sessions of the ssh connection that the link runs over: a number up to 8, or auto, which opens them when they help.
    #[arg(long, value_name = "N", default_value = "auto")]
    pipes: Width,
    /// Give up when the host has not answered after this time.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    connect_timeout: Option<Duration>,
    /// Say more about what is done; twice for more still. REMOTELY_LOG=debug has the same effect.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

impl Way {
    pub(super) fn options(self, target: Target) -> ConnectOptions {
        ConnectOptions {
            ssh_opts: self.ssh_opts.unwrap_or_default().0,
            timeout: self.connect_timeout,
            width: self.pipes,
            passwords: Passwords::from_terminal(),
            ..ConnectOptions::new(target)
        }
    }
}

/// The text of `--ssh-opts` as words: a type of its own, because clap takes a `Vec` for an option given several times.
#[derive(Debug, Clone, Default)]
pub(super) struct Words(pub(super) Vec<OsString>);

pub(super) fn words(text: OsString) -> Result<Words, shell::SplitError> {
    shell::split(&text).map(Words)
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.ok_or_else(|| "a number of seconds above 0 is wanted".into())
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse::<usize>().ok().filter(|count| *count > 0).ok_or_else(|| "a number above 0 is wanted".into())
}
