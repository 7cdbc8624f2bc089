//! What can go wrong with a transfer: on which side, with which path, doing what.

use std::{
    fmt::{self, Display, Formatter},
    io,
    path::PathBuf,
};

use remotely_proto::file::{self, Operation};
use thiserror::Error;

use crate::report::Report;

/// A transfer that is not complete.
#[derive(Debug, Error)]
pub enum CopyError {
    /// Nothing was copied.
    #[error("{0}")]
    Failed(#[source] Failure),
    /// Some of a tree could not be copied, the rest is in place.
    #[error("{} could not be copied: {}", count(.failures.len() as u64 + .unnamed), first(.failures))]
    Incomplete {
        /// What was copied.
        report: Box<Report>,
        /// What was not. At least one.
        failures: Vec<Failure>,
        /// How many more failed, when they were too many to name.
        unnamed: u64,
    },
    /// The link ended, or the other side gave up, before the transfer was complete.
    #[error("the transfer was cut: {why}")]
    Cut {
        /// What was seen.
        why: String,
    },
    /// The other side copies no files.
    #[error("the other side copies no files")]
    Refused,
    /// What came from the other side cannot be right.
    #[error("the transfer was ended: {why}")]
    Protocol {
        /// What was wrong.
        why: String,
    },
    /// No thread for the files.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// One thing that could not be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where it failed.
    pub side: Side,
    /// What was done.
    pub operation: Operation,
    /// With what: an absolute path.
    pub path: PathBuf,
    /// Error number of Linux; zero where the operation says it all.
    pub errno: u32,
}

/// A side of the link, as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client.
    Here,
    /// The host.
    There,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Side::Here => Side::There,
            Side::There => Side::Here,
        }
    }
}

impl Display for Side {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Here => "here",
            Side::There => "there",
        })
    }
}

impl Failure {
    pub(crate) fn new(side: Side, failure: file::Failure) -> Self {
        let file::Failure { operation, path, errno } = failure;
        Self { side, operation, path: path_of(path.into()), errno }
    }

    /// The error of the system call, if it was one.
    pub fn io(&self) -> Option<io::Error> {
        let errno = i32::try_from(self.errno).ok().filter(|errno| *errno > 0)?;
        Some(io::Error::from_raw_os_error(errno))
    }
}

impl std::error::Error for Failure {}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match self.operation {
            Operation::Compare => write!(f, "{path:?} did not arrive as it was read: the hashes differ")?,
            Operation::Changed => write!(f, "{path:?} changed while it was read")?,
            Operation::Name => write!(f, "{path:?} has a name that cannot be made")?,
            Operation::Type => write!(f, "{path:?} is neither a regular file nor a directory")?,
            operation => write!(f, "cannot {} {path:?}", verb(operation))?,
        }
        write!(f, " ({})", self.side)?;
        match self.io() {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

fn verb(operation: Operation) -> &'static str {
    match operation {
        Operation::Look => "look at",
        Operation::Open => "open",
        Operation::Read | Operation::Compare | Operation::Changed => "read",
        Operation::List => "list",
        Operation::Enter => "enter",
        Operation::Create | Operation::Name | Operation::Type => "create",
        Operation::Write => "write",
        Operation::Sync => "make durable",
        Operation::Rename => "replace",
        Operation::MakeDirectory => "make directory",
        Operation::Symlink => "make symbolic link",
        Operation::Link => "make hard link",
        Operation::MakeSpecial => "make node",
        Operation::SetOwner => "set the owner of",
        Operation::SetMode => "set the mode of",
        Operation::SetTimes => "set the times of",
        Operation::Xattr => "copy extended attributes of",
    }
}

fn count(failed: u64) -> String {
    if failed == 1 { "one file".into() } else { format!("{failed} files") }
}

fn first(failures: &[Failure]) -> String {
    failures.first().map_or_else(String::new, ToString::to_string)
}

pub(crate) fn path_of(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    std::ffi::OsString::from_vec(bytes).into()
}
