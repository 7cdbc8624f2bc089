//! A socket that carries a connection, of a network or of the file system, and one that waits for them. Used by capture, dial and
//! forward; decides nothing.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use rustix::net::{Shutdown, shutdown, sockopt};
use tokio::io::{Interest, Ready};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// One connection. What is small is not held back on it.
#[derive(Debug)]
pub(crate) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Calls the same function of whatever it is.
macro_rules! either {
    ($this:expr, $socket:ident => $call:expr) => {
        match $this {
            Connection::Tcp($socket) => $call,
            Connection::Unix($socket) => $call,
        }
    };
}

impl Connection {
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => socket.poll_read_ready(cx))
    }

    pub(crate) fn try_read_buf(&self, into: &mut BytesMut) -> io::Result<usize> {
        either!(self, socket => socket.try_read_buf(into))
    }

    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, socket => socket.try_write_vectored(slices))
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        either!(self, socket => socket.readable().await)
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        either!(self, socket => socket.writable().await)
    }

    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        either!(self, socket => socket.ready(interest).await)
    }

    /// Says that nothing more is sent.
    pub(crate) fn finish(&self) {
        // It fails if the connection is over, which the other direction tells better.
        let _ = shutdown(self, Shutdown::Write);
    }

    /// Has it say when it is closed that it was cut, if it can.
    pub(crate) fn reset(&self) {
        if let Self::Tcp(socket) = self {
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }

    /// Has it say when it is closed that all was sent.
    pub(crate) fn end_in_order(&self) {
        if let Self::Tcp(socket) = self {
            let _ = sockopt::set_socket_linger(socket, None);
        }
    }

    /// Has the other end asked whether it is still there, after so long without a word.
    pub(crate) fn ask_after(&self, silence: Duration) {
        if let Self::Tcp(socket) = self {
            let _ = sockopt::set_tcp_keepidle(socket, silence);
            let _ = sockopt::set_socket_keepalive(socket, true);
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, socket => socket.as_fd())
    }
}

impl From<TcpStream> for Connection {
    fn from(socket: TcpStream) -> Self {
        // It fails if the connection is over.
        let _ = socket.set_nodelay(true);
        Self::Tcp(socket)
    }
}

impl From<UnixStream> for Connection {
    fn from(socket: UnixStream) -> Self {
        Self::Unix(socket)
    }
}

/// Waits for connections. A path that it has made goes with it.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _path: Made },
}

/// A socket in the file system, by which it can be told from one that somebody else has put in its place.
#[derive(Debug)]
pub(crate) struct Made {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Listener {
    pub(crate) fn at_address(at: SocketAddr) -> io::Result<Self> {
        let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        if at.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        socket.bind(at)?;
        Ok(Self::Tcp(socket.listen(BACKLOG)?))
    }

    /// At a path where there is nothing, or a socket that nobody listens at any more.
    pub(crate) fn at_path(path: &[u8]) -> io::Result<Self> {
        let path = Path::new(OsStr::from_bytes(path));
        let bind = || UnixListener::bind(path);
        let listener = match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
                fs::remove_file(path)?;
                bind()
            }
            bound => bound,
        }?;
        let about = fs::symlink_metadata(path)?;
        let made = Made { path: path.to_owned(), device: about.dev(), inode: about.ino() };
        Ok(Self::Unix { listener, _path: made })
    }

    /// Where, unless it is a path.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix { .. } => None,
        }
    }

    /// The next connection, and who it is from. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<(Connection, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(socket, from)| (socket.into(), Some(from))),
            Self::Unix { listener, .. } => listener.accept().await.map(|(socket, _)| (socket.into(), None)),
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == (self.device, self.inode)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_left_behind(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket());
    let asked = std::os::unix::net::UnixStream::connect(path);
    is_socket && asked.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_goes_with_its_listener_and_one_left_behind_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let at = || Listener::at_path(path.as_os_str().as_bytes());
        let first = at().unwrap();
        assert_eq!(at().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let second = at().unwrap();
        // Somebody else's stays.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        drop(second);
        assert!(path.exists());
        assert_eq!(at().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
