//! Why something asked of a host came to nothing.

use std::error::Error as StdError;
use std::fmt::{self, Write};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use remotely_call::{Failure, FailureKind, here};
#[cfg(feature = "copy")]
use remotely_copy::CopyError;
use serde::de::DeserializeOwned;

use crate::bootstrap::ConnectError;

/// Why something asked of a host came to nothing: which host, and what happened.
///
/// As text it is one line with the host's name: control characters of what the host said are escaped, and
/// [`kind`](Self::kind) has them. What caused it there is its chain of [`source`](StdError::source)s, as if the error
/// were of here.
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    host: String,
    path: Vec<String>,
    kind: ErrorKind,
    cause: Option<Cause>,
}

/// What happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no link.
    Connect(Arc<ConnectError>),
    /// The host was to be reached from another one, which could not.
    Gateway {
        /// What the tunnel to that one calls it.
        gateway: String,
        /// What it says, or what happened to it.
        why: String,
    },
    /// The host from which this one was to be reached could not be reached itself.
    NoGateway {
        /// What the tunnel to that one calls it.
        gateway: String,
        /// Why not.
        why: String,
    },
    /// The tunnel would be deeper than allowed.
    Depth {
        /// How many links are allowed.
        limit: u8,
        /// The hosts on the way, the one that is too far included.
        path: Vec<String>,
    },
    /// The link was lost before an answer came. What the function did until then stays done.
    Lost {
        /// How that showed.
        why: String,
        /// How the process that was the way there ended, if it has.
        status: Option<ExitStatus>,
        /// The last lines that were printed on standard error there.
        stderr: String,
    },
    /// The tunnel was closed before an answer came.
    Closed,
    /// Not done within this time. The call has been cancelled.
    Timeout(Duration),
    /// The arguments cannot be sent.
    Encode(String),
    /// What came back is not what the function returns.
    Decode(String),
    /// The program there has no such function, or one with other types.
    Unknown(String),
    /// The function returned an error.
    Failed(Told),
    /// The function panicked.
    Panicked(Told),
    /// The function was cancelled there.
    Cancelled,
    /// A transfer of files is not complete.
    #[cfg(feature = "copy")]
    Copy(Arc<CopyError>),
}

/// An error or a panic of a function, as its host told it.
#[derive(Debug, Clone)]
pub struct Told {
    /// The error's own message, or the panic's with its place.
    pub message: String,
    /// What caused it, and what caused that: messages, outermost first.
    pub chain: Vec<String>,
    /// Name of the error's type; `None` for a panic.
    pub type_name: Option<String>,
    /// The stack at the panic; that of an error where it recorded one (as `anyhow` does with `RUST_BACKTRACE=1` there).
    pub backtrace: Option<String>,
    /// The last lines that were printed on standard error there.
    pub stderr: String,
    value: Option<Vec<u8>>,
}

impl ErrorKind {
    pub(super) fn failed(failure: Failure, stderr: String) -> Self {
        let Failure { kind, message, chain, type_name, value, backtrace } = failure;
        let value = value.map(Into::into);
        let told = |message| Told { message, chain, type_name, backtrace, stderr, value };
        match kind {
            FailureKind::Error => Self::Failed(told(message)),
            FailureKind::Panic => Self::Panicked(told(message)),
            FailureKind::Unknown => Self::Unknown(message),
            FailureKind::Arguments => Self::Encode(format!("they do not decode there: {message}")),
            FailureKind::Value => Self::Decode(format!("it cannot be sent: {message}")),
            FailureKind::Cancelled => Self::Cancelled,
        }
    }
}

impl Error {
    pub(crate) fn new(host: &str, kind: ErrorKind) -> Self {
        let cause = match &kind {
            ErrorKind::Failed(told) | ErrorKind::Panicked(told) => Cause::of(&told.chain),
            ErrorKind::Connect(error) => Cause::of(&causes(&**error)),
            #[cfg(feature = "copy")]
            ErrorKind::Copy(error) if !matches!(**error, CopyError::Failed(_)) => Cause::of(&causes(&**error)),
            _ => None,
        };
        let mut path = here::path();
        path.push(host.to_owned());
        Self(Box::new(Inner { host: host.to_owned(), path, kind, cause }))
    }

    /// What the tunnel calls the host.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The hosts on the way there, from the user's own on.
    pub fn path(&self) -> &[String] {
        &self.0.path
    }

    /// What happened.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The error that the function returned, where it could be serialised and is of this type.
    pub fn downcast<E: DeserializeOwned>(&self) -> Option<E> {
        match &self.0.kind {
            ErrorKind::Failed(Told { value: Some(value), type_name: Some(name), .. })
                if name == std::any::type_name::<E>() =>
            {
                minicbor_serde::from_slice(value).ok()
            }
            _ => None,
        }
    }

    /// The stack there, of a panic or of an error that recorded one.
    pub fn backtrace(&self) -> Option<&str> {
        match &self.0.kind {
            ErrorKind::Failed(told) | ErrorKind::Panicked(told) => told.backtrace.as_deref(),
            _ => None,
        }
    }

    /// The last lines that were printed on standard error there; for messages.
    pub fn stderr(&self) -> &str {
        match &self.0.kind {
            ErrorKind::Failed(told) | ErrorKind::Panicked(told) => &told.stderr,
            ErrorKind::Lost { stderr, .. } => stderr,
            _ => "",
        }
    }

    /// What happened and its causes, without the host's name in front, and with the last that ssh said of it.
    #[cfg(feature = "tree")]
    pub(crate) fn why(&self) -> String {
        let text = chain(self);
        let text = text.strip_prefix(&format!("{}: ", self.0.host)).unwrap_or(&text);
        let last = match &self.0.kind {
            ErrorKind::Connect(error) => error.stderr().trim_end().lines().next_back(),
            _ => None,
        };
        match last {
            Some(last) if !text.contains(last.trim()) => format!("{text}: {}", last.trim()),
            _ => text.to_owned(),
        }
    }

    /// What the user can do, in one line.
    pub fn hint(&self) -> Option<String> {
        match &self.0.kind {
            ErrorKind::Connect(error) => error.hint(),
            ErrorKind::Depth { .. } => Some(
                "Tunnel::depth_limit or REMOTELY_DEPTH_LIMIT allow more, in the program that is started first".into(),
            ),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let out = &mut OneLine(out);
        let host = &self.0.host;
        match &self.0.kind {
            ErrorKind::Connect(error) => write!(out, "{host}: {error}"),
            ErrorKind::Gateway { gateway, why } => write!(out, "{host}: {gateway} could not reach it: {why}"),
            ErrorKind::NoGateway { gateway, why } => {
                write!(out, "{gateway}, the gateway of {host}, could not be reached: {why}")
            }
            ErrorKind::Depth { limit, path } => {
                write!(out, "depth limit of {limit} exceeded at {}", path.join(" -> "))
            }
            ErrorKind::Lost { why, status, stderr } => {
                write!(out, "{host}: {why}")?;
                if let Some(status) = status.filter(|status| !status.success()) {
                    write!(out, " ({status})")?;
                }
                match stderr.lines().next_back() {
                    Some(last) => write!(out, "; the last it said: {last}"),
                    None => Ok(()),
                }
            }
            ErrorKind::Closed => write!(out, "{host}: the tunnel was closed"),
            ErrorKind::Timeout(limit) => write!(out, "{host}: not done within {} s", limit.as_secs_f32()),
            ErrorKind::Encode(why) => write!(out, "{host}: the arguments cannot be sent: {why}"),
            ErrorKind::Decode(why) => write!(out, "{host}: what came back is not the value of the function: {why}"),
            ErrorKind::Unknown(why) => write!(out, "{host}: {why}"),
            ErrorKind::Failed(told) => write!(out, "{host}: {}", told.message),
            ErrorKind::Panicked(told) => write!(out, "{host}: the function panicked: {}", told.message),
            ErrorKind::Cancelled => write!(out, "{host}: the call was cancelled there"),
            #[cfg(feature = "copy")]
            ErrorKind::Copy(error) => write!(out, "{host}: {error}"),
        }
    }
}

/// Writes on, with control characters escaped: what a host says moves no cursor, and forges no line.
struct OneLine<'a, W>(&'a mut W);

impl<W: Write> Write for OneLine<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(char::is_control) {
            let plain = piece.trim_end_matches(char::is_control);
            self.0.write_str(plain)?;
            for control in piece[plain.len()..].chars() {
                write!(self.0, "{}", control.escape_debug())?;
            }
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_ref().map(|cause| cause as _)
    }
}

/// What happened, and why, and why that.
pub fn chain(error: &dyn StdError) -> String {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn causes(error: &(dyn StdError + 'static)) -> Vec<String> {
    std::iter::successors(error.source(), |&error| error.source()).map(ToString::to_string).collect()
}

/// What caused an error, of which only the words are here.
#[derive(Debug, Clone)]
struct Cause {
    message: String,
    cause: Option<Box<Cause>>,
}

impl Cause {
    fn of(chain: &[String]) -> Option<Self> {
        let (message, rest) = chain.split_first()?;
        Some(Self { message: message.clone(), cause: Self::of(rest).map(Box::new) })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        OneLine(out).write_str(&self.message)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_its_host_said() {
        let failure = Failure {
            chain: vec!["\x1b]0;title\x07".into(), "tab\tkept apart".into()],
            ..Failure::new(FailureKind::Error, "one\ntwo\r\n\n")
        };
        let error = Error::new("web1", ErrorKind::failed(failure, String::new()));
        assert_eq!(error.to_string(), r"web1: one\ntwo\r\n\n");
        assert_eq!(chain(&error), r"web1: one\ntwo\r\n\n: \u{1b}]0;title\u{7}: tab\tkept apart");
        assert!(matches!(error.kind(), ErrorKind::Failed(told) if told.message == "one\ntwo\r\n\n"));
    }
}
