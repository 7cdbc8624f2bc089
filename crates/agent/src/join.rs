//! Further pipes of an agent's link. Another session of the same connection starts this executable with the word `join`, and sends
//! it what proves that it belongs to the link; it hands its standard input and output over to the agent that runs, and ends with
//! that. Nobody else gets in: the socket is asked for by name, answers the agent's own user only, and wants the link's key.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use remotely_proto::handshake::{Hello, MAGIC, Ticket};
use remotely_session::{Link, Pipe, Pipes};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use crate::{start, sys};

/// The agent may not listen yet when the first comes.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Whoever has come in says so long nothing at most.
const TICKET_WITHIN: Duration = Duration::from_secs(5);

/// Has the agent take further pipes for as long as the link lasts. Must be called in its runtime. Where it cannot listen, the link has
/// one pipe, as it has before anybody comes.
pub(crate) fn listen(link: &Link) {
    let pipes = link.pipes();
    tokio::spawn(async move {
        let Ok(client) = pipes.linked().await else { return };
        match bind(&client) {
            Ok(listener) => serve(listener, client, pipes).await,
            Err(error) => tracing::debug!(%error, "cannot listen for further pipes"),
        }
    });
}

/// By a name of the kernel's own, which leaves nothing behind. It was drawn by the client and is known to nobody before.
fn name(link: &[u8; 16]) -> io::Result<SocketAddr> {
    let hex: String = link.iter().map(|byte| format!("{byte:02x}")).collect();
    SocketAddr::from_abstract_name(format!("remotely-{hex}"))
}

fn bind(client: &Hello) -> io::Result<UnixListener> {
    let listener = net::UnixListener::bind_addr(&name(&client.link)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn serve(listener: UnixListener, client: Hello, pipes: Pipes) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = pipes.ended() => return,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(admit(stream, client, pipes.clone()))),
            Err(error) => {
                tracing::debug!(%error, "cannot take a further pipe");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Takes the pipe of one that has come, and keeps it until that is gone.
async fn admit(stream: UnixStream, client: Hello, pipes: Pipes) {
    let own = rustix::process::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own) {
        return;
    }
    let received = tokio::time::timeout(TICKET_WITHIN, receive(&stream)).await;
    let Ok(Ok((ticket, pipe))) = received else { return };
    if !ticket.admits_to(&client) {
        return tracing::debug!("a further pipe with a wrong key");
    }
    let Ok(ready) = pipe.writer.try_clone() else { return };
    match pipes.add(ticket.pipe, pipe, Bytes::new()) {
        Ok(Some(mut added)) => {
            // Nothing is written to it before something has come on it, and that waits for this.
            let _ = rustix::io::write(&ready, &[MAGIC, b" ready\n"].concat());
            drop(ready);
            added.ended().await;
        }
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "cannot use a further pipe"),
    }
}

async fn receive(stream: &UnixStream) -> io::Result<(Ticket, Pipe)> {
    let mut bytes = [0; Ticket::LEN];
    let mut fds: Vec<OwnedFd> = Vec::new();
    let received = stream.async_io(Interest::READABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                fds.extend(passed);
            }
        }
        Ok(received.bytes)
    });
    let received = received.await?;
    match <[OwnedFd; 2]>::try_from(fds) {
        // So little is sent and received whole.
        Ok([reader, writer]) if received == Ticket::LEN => Ok((Ticket::decode(&bytes), Pipe { reader, writer })),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Hands standard input and output over to the agent that runs here, for the link that the client names on it; ends with the agent,
/// or when that is done with them.
///
/// Does not return.
pub fn main() -> ExitCode {
    sys::ignore_sigpipe();
    match start::take_stdio().and_then(hand_over) {
        Ok(()) => sys::exit_now(0),
        Err(error) => {
            let _ = writeln!(io::stderr(), "remotely agent: cannot join: {error}");
            sys::exit_now(1)
        }
    }
}

fn hand_over(pipe: Pipe) -> io::Result<()> {
    start::skip_line(pipe.reader.as_fd())?;
    let mut bytes = [0; Ticket::LEN];
    start::read_exact(pipe.reader.as_fd(), &mut bytes)?;
    let mut agent = connect(&Ticket::decode(&bytes).link)?;
    // Whoever listens by this name gets the key, and the pipe.
    if rustix::net::sockopt::socket_peercred(&agent)?.uid != rustix::process::geteuid() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let fds = [pipe.reader.as_fd(), pipe.writer.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(&agent, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    drop(pipe);
    // It stays for as long as they are used: for sshd, the end of this process is the end of its session.
    agent.read_to_end(&mut Vec::new())?;
    Ok(())
}

fn connect(link: &[u8; 16]) -> io::Result<net::UnixStream> {
    let (name, began) = (name(link)?, Instant::now());
    loop {
        match net::UnixStream::connect_addr(&name) {
            Err(_) if began.elapsed() < CONNECT_WITHIN => std::thread::sleep(Duration::from_millis(5)),
            connected => return connected,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use remotely_session::{Class, LinkBuilder, Role, Service, Settings};

    use super::*;

    fn sockets() -> (Pipe, Pipe) {
        let ends = net::UnixStream::pair().unwrap();
        let pipe = |end: net::UnixStream| Pipe { reader: end.try_clone().unwrap().into(), writer: end.into() };
        (pipe(ends.0), pipe(ends.1))
    }

    fn link(role: Role, pipe: Pipe) -> (Link, remotely_session::Incoming) {
        LinkBuilder::new(Settings { role, ..Settings::default() }).attach(pipe, Bytes::new())
    }

    /// What a session of its own would do: a client that sends its ticket, and a process of the host.
    fn session(ticket: &Ticket) -> (Pipe, thread::JoinHandle<io::Result<()>>) {
        let (ours, theirs) = sockets();
        let begin = [format!("{}\n", Ticket::LEN).as_bytes(), &ticket.encode()].concat();
        rustix::io::write(&ours.writer, &begin).unwrap();
        (ours, thread::spawn(move || hand_over(theirs)))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_has_the_key_joins_and_ends_with_the_link_and_nobody_else_does() {
        let (here, there) = sockets();
        let ((client, _incoming), (agent, mut offers)) = (link(Role::Client, here), link(Role::Agent, there));
        listen(&agent);
        client.linked().await.unwrap();
        let ticket = client.pipes().ticket().unwrap();

        let (wrong, process) = session(&Ticket { key: [7; 16], ..ticket });
        process.join().unwrap().unwrap();
        let mut said = [0; 64];
        assert_eq!(rustix::io::read(&wrong.reader, &mut said).unwrap(), 0);
        assert_eq!(agent.stats().pipes, 1);

        let (ours, process) = session(&ticket);
        let ready = [MAGIC, b" ready\n"].concat();
        assert_eq!(rustix::io::read(&ours.reader, &mut said).unwrap(), ready.len());
        assert_eq!(said[..ready.len()], ready);
        let mut added = client.pipes().add(ticket.pipe, ours, Bytes::new()).unwrap().unwrap();
        assert_eq!((client.stats().pipes, agent.stats().pipes), (2, 2));
        let mut stream = client.open(Service(900), Class::Normal, Bytes::new()).unwrap();
        stream.send.send(vec![5; 100_000].into()).await.unwrap();
        stream.send.finish();
        let mut theirs = offers.next().await.unwrap().stream;
        let mut len = 0;
        while let Some(chunk) = theirs.recv.recv().await.unwrap() {
            len += chunk.len();
        }
        assert_eq!(len, 100_000);

        // The same number again.
        let (again, second) = session(&ticket);
        second.join().unwrap().unwrap();
        assert_eq!(rustix::io::read(&again.reader, &mut said).unwrap(), 0);

        client.close();
        client.ended().await;
        added.ended().await;
        process.join().unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_brings_no_descriptors_is_shown_out() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        rustix::io::write(&ours, &[0; Ticket::LEN]).unwrap();
        assert!(receive(&theirs).await.is_err());
        drop(ours);
        assert!(receive(&theirs).await.is_err());
    }
}
