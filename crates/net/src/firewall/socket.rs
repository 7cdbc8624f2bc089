//! Transparent sockets, which take what is for others and speak in their name; and descriptors sent over a Unix socket. Made by the
//! helper or within a namespace of our own, since the kernel wants CAP_NET_ADMIN for it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, sockopt,
};

use crate::routes;
use crate::rules::Protocol;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// Most descriptors that are sent at once: a listener of each protocol and family.
const MOST: usize = 4;

/// A listener whose connections have the original destination as their own address (TCP), or which tells it with each datagram
/// (`IP_ORIGDSTADDR`, `IPV6_ORIGDSTADDR`). Not blocking.
///
/// # Errors
///
/// No privilege, or the port is in use.
pub fn listener(protocol: Protocol, address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = transparent(protocol, address)?;
    match protocol {
        Protocol::Tcp => rustix::net::listen(&socket, BACKLOG)?,
        Protocol::Udp if address.is_ipv4() => set(&socket, libc::SOL_IP, libc::IP_RECVORIGDSTADDR)?,
        Protocol::Udp => set(&socket, libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR)?,
    }
    Ok(socket)
}

/// A socket that sends datagrams from `source`, which is no address of this machine. Not blocking.
///
/// # Errors
///
/// No privilege, one of the addresses that are of this machine or of many, or one that another such socket has.
pub fn source(source: SocketAddr) -> io::Result<OwnedFd> {
    // Who answers there is to be asked, not to be spoken for.
    if routes::is_here(source.ip()) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    transparent(Protocol::Udp, source)
}

fn transparent(protocol: Protocol, address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if address.is_ipv4() {
        set(&socket, libc::SOL_IP, libc::IP_TRANSPARENT)?;
    } else {
        sockopt::set_ipv6_v6only(&socket, true)?;
        set(&socket, libc::SOL_IPV6, libc::IPV6_TRANSPARENT)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of before may linger. For datagrams it would mean that anybody who has set it too may take them over.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

fn set(socket: &OwnedFd, level: i32, name: i32) -> io::Result<()> {
    let one: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&one)).unwrap_or_default();
    // SAFETY: the value is an int that lives during the call, of the length that is passed.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const one).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a line, and descriptors with it.
pub(crate) fn send(socket: BorrowedFd<'_>, line: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    if descriptors.is_empty() {
        return write_all(socket, line);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?;
    write_all(socket, &line[sent..])
}

fn write_all(socket: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(socket, bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// Receives bytes, and the descriptors that came with them.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok((message.bytes, descriptors.flatten().collect()))
}
