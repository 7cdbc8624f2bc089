//! The descriptor of /dev/fuse: reads requests, writes answers and invalidations. May block in `read`; used from threads of
//! its own.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

use bytes::{BufMut, Bytes, BytesMut};
use rustix::io::Errno;
use thiserror::Error;

use super::abi::{INTERRUPT_BIT, MINOR_OLDEST, notify};
use super::{Answer, Op, Request};

/// Largest request: a write of 1 MiB and its headers.
const REQUEST_MAX: usize = (1 << 20) + 4096;
/// Room for requests that is made at once: writes are often much smaller than the largest.
const ROOM: usize = 4 * REQUEST_MAX;
/// Above this a write's data stays in the buffer that it was read into; below it is copied and the buffer used again.
const COPY_MAX: usize = 32 << 10;

/// The device did not do what it must.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// read(2) of a request.
    #[error("reading a request from /dev/fuse")]
    Read(#[source] std::io::Error),
    /// The first request is not INIT.
    #[error("the kernel did not begin with FUSE INIT")]
    NoInit,
    /// The kernel is too old.
    #[error("the host's kernel speaks FUSE {major}.{minor}; 7.{MINOR_OLDEST} (Linux 5.4) or later is needed")]
    Version {
        /// Its version.
        major: u32,
        /// Its version.
        minor: u32,
    },
}

/// A mounted /dev/fuse. Shared between threads.
#[derive(Debug)]
pub(crate) struct Device {
    fd: OwnedFd,
}

impl Device {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Answers INIT. Blocks until the kernel has sent it.
    pub(crate) fn handshake(&self) -> Result<(), DeviceError> {
        let mut buffer = BytesMut::new();
        loop {
            let Some(request) = self.next(&mut buffer)? else { return Err(DeviceError::NoInit) };
            match request.op {
                Op::Init { major, minor, .. } if major < 7 || (major == 7 && minor < MINOR_OLDEST) => {
                    self.refuse(request.unique, Errno::PROTO);
                    return Err(DeviceError::Version { major, minor });
                }
                Op::Init { major, .. } if major > 7 => self.answer(request.unique, Answer::init_version()),
                Op::Init { minor, max_readahead, flags, .. } => {
                    self.answer(request.unique, Answer::init(minor, max_readahead, flags));
                    return Ok(());
                }
                _ => return Err(DeviceError::NoInit),
            }
        }
    }

    /// The next request; `None` when the mount is gone. `buffer` is the caller's, kept between calls.
    pub(crate) fn next(&self, buffer: &mut BytesMut) -> Result<Option<Request>, DeviceError> {
        loop {
            if buffer.capacity() < REQUEST_MAX {
                buffer.reserve(ROOM);
            }
            let len = match rustix::io::read(&self.fd, buffer.spare_capacity_mut()) {
                Ok((request, _)) => request.len(),
                // ENOENT: the request was interrupted before it was read.
                Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => continue,
                Err(Errno::NODEV | Errno::CONNABORTED | Errno::BADF) => return Ok(None),
                Err(error) => return Err(DeviceError::Read(error.into())),
            };
            // SAFETY: read(2) has initialised that many bytes at the start of the spare capacity, which is all of the buffer.
            unsafe { buffer.advance_mut(len) };
            let bytes = if len > COPY_MAX { buffer.split().freeze() } else { Bytes::copy_from_slice(buffer) };
            buffer.clear();
            match Request::parse(bytes) {
                Ok(request) => return Ok(Some(request)),
                Err(Some(unique)) => self.refuse(unique, Errno::INVAL),
                Err(None) => {}
            }
        }
    }

    /// Answers a request. The kernel may have forgotten it (ENOENT): nothing to do then.
    pub(crate) fn answer(&self, unique: u64, answer: Answer) {
        let body = answer.head.len() + answer.data_len();
        let header = header(body, 0, unique);
        let mut pieces = Vec::with_capacity(2 + answer.data.len());
        pieces.push(IoSlice::new(&header));
        if !answer.head.is_empty() {
            pieces.push(IoSlice::new(&answer.head));
        }
        pieces.extend(answer.data.iter().filter(|piece| !piece.is_empty()).map(|piece| IoSlice::new(piece)));
        self.write(&pieces);
    }

    /// Answers with an error.
    pub(crate) fn refuse(&self, unique: u64, errno: Errno) {
        self.write(&[IoSlice::new(&header(0, -errno.raw_os_error(), unique))]);
    }

    /// Has the kernel say once more that a request was interrupted. If that is over, the kernel knows nothing of it any more.
    pub(crate) fn refuse_interrupt(&self, interrupted: u64) {
        self.refuse(interrupted | INTERRUPT_BIT, Errno::AGAIN);
    }

    /// Drops attributes and content of an inode. Waits for reads of it that are on their way.
    pub(crate) fn invalidate_inode(&self, node: u64) {
        let mut body = [0; 24];
        body[..8].copy_from_slice(&node.to_ne_bytes());
        // Offset 0, length -1: all of it.
        body[16..].copy_from_slice(&(-1i64).to_ne_bytes());
        self.write(&[IoSlice::new(&header(body.len(), notify::INVAL_INODE, 0)), IoSlice::new(&body)]);
    }

    /// Drops attributes of an inode and keeps its content.
    pub(crate) fn invalidate_attr(&self, node: u64) {
        let mut body = [0; 24];
        body[..8].copy_from_slice(&node.to_ne_bytes());
        body[8..16].copy_from_slice(&(-1i64).to_ne_bytes());
        self.write(&[IoSlice::new(&header(body.len(), notify::INVAL_INODE, 0)), IoSlice::new(&body)]);
    }

    /// Drops a name. Waits for operations in that directory that are on their way.
    pub(crate) fn invalidate_entry(&self, parent: u64, name: &[u8]) {
        self.tell_entry(parent, name, 0);
    }

    /// Has a name looked up again before it is used. Who is in a directory of that name stays there (getcwd(2)). Waits like
    /// [`invalidate_entry`](Self::invalidate_entry).
    pub(crate) fn expire_entry(&self, parent: u64, name: &[u8]) {
        self.tell_entry(parent, name, notify::EXPIRE_ONLY);
    }

    fn tell_entry(&self, parent: u64, name: &[u8], flags: u32) {
        let mut body = [0; 16];
        body[..8].copy_from_slice(&parent.to_ne_bytes());
        body[8..12].copy_from_slice(&(name.len() as u32).to_ne_bytes());
        body[12..].copy_from_slice(&flags.to_ne_bytes());
        let len = body.len() + name.len() + 1;
        self.write(&[
            IoSlice::new(&header(len, notify::INVAL_ENTRY, 0)),
            IoSlice::new(&body),
            IoSlice::new(name),
            IoSlice::new(&[0]),
        ]);
    }

    fn write(&self, pieces: &[IoSlice<'_>]) {
        loop {
            match rustix::io::writev(self.fd.as_fd(), pieces) {
                Err(Errno::INTR) => {}
                // ENOENT: the request, inode or name is gone. Other errors come with the end of the mount.
                Err(error) if error != Errno::NOENT => {
                    tracing::debug!(%error, "write to /dev/fuse");
                    return;
                }
                _ => return,
            }
        }
    }
}

/// `fuse_out_header`.
fn header(body: usize, error: i32, unique: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..4].copy_from_slice(&((16 + body) as u32).to_ne_bytes());
    out[4..8].copy_from_slice(&error.to_ne_bytes());
    out[8..].copy_from_slice(&unique.to_ne_bytes());
    out
}
