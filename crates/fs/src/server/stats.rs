//! Counts of what the server did, for `--stats`.

use std::sync::atomic::{AtomicU64, Ordering};

use remotely_proto::fs::Request;

/// A snapshot of the counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages by kind, most frequent first; kinds that did not occur are left out.
    pub requests: Vec<(&'static str, u64)>,
    /// Bytes of file data sent in answers.
    pub bytes_read: u64,
    /// Bytes of file data written.
    pub bytes_written: u64,
    /// Bytes of file data pushed before they were asked for.
    pub bytes_pushed: u64,
    /// Notices.
    pub notices: u64,
    /// Changes that failed after the command had gone on.
    pub failures: u64,
}

const KINDS: [&str; 33] = [
    "bind",
    "forget",
    "cancel",
    "lookup",
    "list",
    "getattr",
    "open",
    "release",
    "read",
    "readlink",
    "getxattr",
    "listxattr",
    "statfs",
    "seek",
    "getlk",
    "setlk",
    "open-write",
    "create",
    "mknod",
    "symlink",
    "tmpfile",
    "link",
    "unlink",
    "rename",
    "setattr",
    "write",
    "fsync",
    "release-write",
    "fallocate",
    "copy-range",
    "setxattr",
    "removexattr",
    "used",
];

/// The counts.
#[derive(Debug)]
pub(super) struct Counters {
    requests: [AtomicU64; 33],
    pub(super) bytes_read: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) bytes_pushed: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            requests: std::array::from_fn(|_| AtomicU64::default()),
            bytes_read: Default::default(),
            bytes_written: Default::default(),
            bytes_pushed: Default::default(),
        }
    }
}

impl Counters {
    pub(super) fn count(&self, request: &Request) {
        self.requests[index(request)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self, notices: u64, failures: u64) -> Stats {
        let counts = KINDS.into_iter().zip(self.requests.iter().map(|count| count.load(Ordering::Relaxed)));
        let mut requests: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
        requests.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Stats {
            requests,
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            bytes_pushed: self.bytes_pushed.load(Ordering::Relaxed),
            notices,
            failures,
        }
    }
}

/// The name of a kind of request.
pub(super) fn kind(request: &Request) -> &'static str {
    KINDS[index(request)]
}

fn index(request: &Request) -> usize {
    match request {
        Request::Bind { .. } => 0,
        Request::Forget { .. } => 1,
        Request::Cancel { .. } => 2,
        Request::Lookup { .. } => 3,
        Request::List { .. } => 4,
        Request::Getattr { .. } => 5,
        Request::Open { .. } => 6,
        Request::Release { .. } => 7,
        Request::Read { .. } => 8,
        Request::Readlink { .. } => 9,
        Request::Getxattr { .. } => 10,
        Request::Listxattr { .. } => 11,
        Request::Statfs { .. } => 12,
        Request::Seek { .. } => 13,
        Request::Getlk { .. } => 14,
        Request::Setlk { .. } => 15,
        Request::OpenWrite { .. } => 16,
        Request::Create { .. } => 17,
        Request::Mknod { .. } => 18,
        Request::Symlink { .. } => 19,
        Request::Tmpfile { .. } => 20,
        Request::Link { .. } => 21,
        Request::Unlink { .. } => 22,
        Request::Rename { .. } => 23,
        Request::Setattr { .. } => 24,
        Request::Write { .. } => 25,
        Request::Fsync { .. } => 26,
        Request::ReleaseWrite { .. } => 27,
        Request::Fallocate { .. } => 28,
        Request::CopyRange { .. } => 29,
        Request::Setxattr { .. } => 30,
        Request::Removexattr { .. } => 31,
        Request::Used { .. } => 32,
    }
}
