//! Further sessions of an ssh connection that is there, by its control socket (PROTOCOL.mux of OpenSSH): no process, no login, one
//! round trip. Used by [`super::session`]; knows nothing of what the session is for, nor where the socket comes from.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use remotely_session::Pipe;
use rustix::fs::{Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::spawn::large_pipe;

const HELLO: u32 = 0x0000_0001;
const NEW_SESSION: u32 = 0x1000_0002;
const SESSION_OPENED: u32 = 0x8000_0006;
const VERSION: u32 = 4;
/// The number of our only request.
const REQUEST: u32 = 0;
const NO_ESCAPE: u32 = u32::MAX;
/// No message of ssh is as long.
const MESSAGE_MAX: u32 = 64 << 10;

/// How long a session may take to end by itself.
const END_WITHIN: Duration = Duration::from_secs(2);

/// A session of a connection; cut when dropped, with what is still in its pipe.
#[derive(Debug)]
pub(crate) struct Session {
    control: UnixStream,
}

impl Session {
    /// Waits until it has ended by itself, as it does when its pipe is closed and what was in there has been carried, or cuts it after
    /// two seconds.
    pub(crate) async fn close(mut self) {
        let ended = async { while let Ok(1..) = self.control.read(&mut [0; 64]).await {} };
        let _ = tokio::time::timeout(END_WITHIN, ended).await;
    }
}

/// Opens a session in which the login shell of the host runs `command`, over the control socket at `path`; with the pipe to it. Its
/// standard error goes nowhere. Cancel safe.
pub(super) async fn open(path: &Path, command: &[u8]) -> io::Result<(Session, Pipe)> {
    let mut control = UnixStream::connect(path).await?;
    let hello = [HELLO.to_be_bytes(), VERSION.to_be_bytes()].concat();
    send(&mut control, &hello).await?;
    if !receive(&mut control).await?.starts_with(&hello) {
        return Err(io::Error::other("ssh has another version of its control protocol"));
    }
    let (stdin, writer) = large_pipe()?;
    let (reader, stdout) = large_pipe()?;
    let stderr = rustix::fs::open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    send(&mut control, &request(command)).await?;
    for fd in [&stdin, &stdout, &stderr] {
        pass(&control, fd.as_fd()).await?;
    }
    let answer = receive(&mut control).await?;
    if answer.get(..4) != Some(&SESSION_OPENED.to_be_bytes()) {
        let said = answer.get(12..).unwrap_or_default();
        return Err(io::Error::other(format!("ssh opens no session: {}", String::from_utf8_lossy(said))));
    }
    Ok((Session { control }, Pipe { reader, writer }))
}

/// No terminal, no X11, no agent, no subsystem.
fn request(command: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(command.len() + 48);
    let mut number = |number: u32| message.extend_from_slice(&number.to_be_bytes());
    number(NEW_SESSION);
    number(REQUEST);
    // An empty string in reserve, four flags.
    (0..5).for_each(|_| number(0));
    number(NO_ESCAPE);
    // The type of a terminal that there is none of.
    number(0);
    number(command.len() as u32);
    message.extend_from_slice(command);
    message
}

async fn send(control: &mut UnixStream, message: &[u8]) -> io::Result<()> {
    let length = message.len() as u32;
    control.write_all(&[&length.to_be_bytes(), message].concat()).await
}

async fn receive(control: &mut UnixStream) -> io::Result<Vec<u8>> {
    let length = control.read_u32().await?;
    if length > MESSAGE_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length as usize];
    control.read_exact(&mut message).await?;
    Ok(message)
}

/// One descriptor, with the byte that carries it.
async fn pass(control: &UnixStream, fd: BorrowedFd<'_>) -> io::Result<()> {
    let passed = control.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        Ok(rustix::net::sendmsg(control, &[IoSlice::new(&[0])], &mut ancillary, flags)?)
    });
    passed.await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net;
    use std::path::PathBuf;
    use std::{env, fs};

    use super::*;

    #[test]
    fn a_request_is_what_ssh_reads() {
        let command = b"exec sh";
        let message = request(command);
        let numbers: Vec<u32> =
            message[..40].chunks(4).map(|four| u32::from_be_bytes(four.try_into().unwrap())).collect();
        // Its kind, its number, reserved, terminal, X11, agent, subsystem, escape, the terminal's type, the command's length.
        assert_eq!(numbers, [0x1000_0002, 0, 0, 0, 0, 0, 0, u32::MAX, 0, command.len() as u32]);
        assert_eq!(&message[40..], command);
    }

    fn directory(name: &str) -> PathBuf {
        let path = env::temp_dir().join(format!("remotely-control-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        path
    }

    /// Answers as ssh does, `opened` or not, and returns the command. By calls that wait, since each byte with a descriptor is read alone.
    fn answer(listener: &net::UnixListener, opened: bool) -> Vec<u8> {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; 12];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(&hello).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut asked = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut asked).unwrap();
        stream.read_exact(&mut [0; 3]).unwrap();
        let kind: u32 = if opened { SESSION_OPENED } else { 0x8000_0003 };
        let mut said = [kind.to_be_bytes(), REQUEST.to_be_bytes(), 7_u32.to_be_bytes()].concat();
        said.extend_from_slice(if opened { b"" } else { b"refused" });
        stream.write_all(&[&(said.len() as u32).to_be_bytes()[..], &said].concat()).unwrap();
        asked[40..].to_vec()
    }

    #[tokio::test]
    async fn a_session_is_opened_or_refused() {
        let directory = directory("sessions");
        for opened in [true, false] {
            let path = directory.join(if opened { "yes" } else { "no" });
            let listener = net::UnixListener::bind(&path).unwrap();
            let ssh = tokio::task::spawn_blocking(move || answer(&listener, opened));
            let session = open(&path, b"exec sh").await;
            assert_eq!(ssh.await.unwrap(), b"exec sh");
            match session {
                Ok((session, _)) => {
                    assert!(opened);
                    session.close().await;
                }
                Err(error) => assert!(!opened && error.to_string().ends_with("no session: refused"), "{error}"),
            }
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
