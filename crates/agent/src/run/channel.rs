//! Messages with descriptors over the socket between the agent and init: a length, a count of descriptors, CBOR. The
//! agent sends and receives asynchronously ([`crate::run::handle`]), init with poll(2); both use the pieces here.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use minicbor::{Decode, Encode};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

/// Most descriptors in one message.
pub(crate) const FDS_MAX: usize = 1024;

/// The kernel passes at most 253 in one call.
const FDS_PER_CALL: usize = 250;
const PREFIX: usize = 8;
/// The largest message holds a request of the client, see `remotely_proto::message::MESSAGE_MAX`.
const LENGTH_MAX: usize = 16 << 20;

/// Two ends.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// A message on its way out.
pub(crate) struct Outgoing<'a> {
    bytes: Vec<u8>,
    sent: usize,
    fds: &'a [BorrowedFd<'a>],
}

impl<'a> Outgoing<'a> {
    /// Encodes `message`, which `fds` accompany.
    pub(crate) fn new(message: &impl Encode<()>, fds: &'a [BorrowedFd<'a>]) -> io::Result<Self> {
        if fds.len() > FDS_MAX {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let mut bytes = vec![0; PREFIX];
        minicbor::encode(message, &mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let length = (bytes.len() - PREFIX) as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..PREFIX].copy_from_slice(&(fds.len() as u32).to_ne_bytes());
        Ok(Self { bytes, sent: 0, fds })
    }

    /// One sendmsg(2). `true` when all of the message has been sent.
    pub(crate) fn send_some(&mut self, socket: impl AsFd, flags: SendFlags) -> io::Result<bool> {
        let (now, later) = self.fds.split_at(self.fds.len().min(FDS_PER_CALL));
        // Each call that carries descriptors carries a byte at least, and the last one the rest.
        let end = if later.is_empty() { self.bytes.len() } else { self.sent + 1 };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_CALL))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !now.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(now));
        }
        let bytes = IoSlice::new(&self.bytes[self.sent..end]);
        self.sent += rustix::net::sendmsg(socket, &[bytes], &mut control, flags | SendFlags::NOSIGNAL)?;
        self.fds = later;
        Ok(self.sent == self.bytes.len())
    }

    /// Sends all of it on a blocking socket.
    pub(crate) fn send(mut self, socket: impl AsFd) -> io::Result<()> {
        loop {
            match self.send_some(&socket, SendFlags::empty()) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What has been received and not yet been taken.
#[derive(Default)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Incoming {
    /// One recvmsg(2). `false` at the end.
    pub(crate) fn receive_some(&mut self, socket: impl AsFd, flags: RecvFlags) -> io::Result<bool> {
        let mut buffer = [0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_CALL))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut buffer)],
            &mut control,
            flags | RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        self.bytes.extend_from_slice(&buffer[..received.bytes]);
        Ok(received.bytes > 0)
    }

    /// The next whole message.
    pub(crate) fn next<T>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>>
    where
        T: for<'b> Decode<'b, ()>,
    {
        let Some(&[a, b, c, d, e, f, g, h]) = self.bytes.first_chunk::<PREFIX>() else { return Ok(None) };
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let fds = u32::from_ne_bytes([e, f, g, h]) as usize;
        if length > LENGTH_MAX || fds > FDS_MAX {
            return Err(io::Error::other("message too long"));
        }
        let Some(body) = self.bytes.get(PREFIX..PREFIX + length) else { return Ok(None) };
        let message = minicbor::decode(body).map_err(|error| io::Error::other(error.to_string()))?;
        if fds > self.fds.len() {
            return Err(io::Error::other("descriptors are missing from a message"));
        }
        let fds = self.fds.drain(..fds).collect();
        self.bytes.drain(..PREFIX + length);
        Ok(Some((message, fds)))
    }

    /// Waits for a whole message on a blocking socket; `None` at the end.
    pub(crate) fn wait<T>(&mut self, socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>>
    where
        T: for<'b> Decode<'b, ()>,
    {
        loop {
            if let Some(message) = self.next()? {
                return Ok(Some(message));
            }
            match self.receive_some(&socket, RecvFlags::empty()) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_descriptors_arrive_in_order_with_their_message() {
        let (ours, theirs) = pair().unwrap();
        let pipes: Vec<_> =
            (0..300).map(|_| rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()).collect();
        let sender = std::thread::spawn(move || {
            let fds: Vec<_> = pipes.iter().map(|(_, writer)| writer.as_fd()).collect();
            Outgoing::new(&7_u32, &[]).unwrap().send(&ours).unwrap();
            Outgoing::new(&vec![1_u8; 1 << 20], &fds).unwrap().send(&ours).unwrap();
            Outgoing::new(&8_u32, &fds[..1]).unwrap().send(&ours).unwrap();
            pipes.into_iter().map(|(reader, _)| reader).collect::<Vec<_>>()
        });
        let mut incoming = Incoming::default();
        let (first, none): (u32, _) = incoming.wait(&theirs).unwrap().unwrap();
        assert_eq!((first, none.len()), (7, 0));
        let (body, writers): (Vec<u8>, _) = incoming.wait(&theirs).unwrap().unwrap();
        assert_eq!((body.len(), writers.len()), (1 << 20, 300));
        let (last, one): (u32, _) = incoming.wait(&theirs).unwrap().unwrap();
        assert_eq!((last, one.len()), (8, 1));
        let readers = sender.join().unwrap();
        for (number, (reader, writer)) in readers.iter().zip(&writers).enumerate() {
            rustix::io::write(writer, &(number as u16).to_le_bytes()).unwrap();
            let mut back = [0; 2];
            rustix::io::read(reader, &mut back).unwrap();
            assert_eq!(u16::from_le_bytes(back), number as u16);
        }
        assert!(incoming.wait::<u32>(&theirs).unwrap().is_none());
    }

    #[test]
    fn a_length_out_of_bounds_is_an_error() {
        let mut incoming = Incoming { bytes: vec![0xff; 8], fds: VecDeque::new() };
        assert!(incoming.next::<u32>().is_err());
    }
}
