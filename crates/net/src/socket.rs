//! What sockets can do for which there is no safe function elsewhere. Used by capture and dial; decides nothing.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Most descriptors that this process may have open, as far as it may say so itself.
pub(crate) fn allow_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Has the runtime watch a descriptor for something to read. Must be called in one.
pub(crate) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and the same one, until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// A datagram that was not meant for the socket that got it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) bytes: usize,
    pub(crate) from: SocketAddr,
    /// Where it was sent to; `None` if the kernel does not tell.
    pub(crate) to: Option<SocketAddr>,
}

/// Room for an address in a control message.
const CONTROL: usize = 128;

/// Receives a datagram on a socket with IP_RECVORIGDSTADDR, and where it was going. Never waits.
pub(crate) fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<Received> {
    // SAFETY: both are plain data, for which zero is a value.
    let (mut name, mut message): (libc::sockaddr_storage, libc::msghdr) = unsafe { std::mem::zeroed() };
    let mut control = MaybeUninit::<[u64; CONTROL / 8]>::zeroed();
    let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = size_of_val(&name) as libc::socklen_t;
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    // SAFETY: every pointer in the message is valid for the call, with the length that stands beside it.
    let bytes = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
    let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
    let mut to = None;
    // SAFETY: the kernel has filled in the control messages and their length; the macros stay inside of that.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while let Some(found) = header.as_ref() {
            match (found.cmsg_level, found.cmsg_type) {
                (libc::SOL_IP, libc::IP_ORIGDSTADDR) => {
                    to = Some(SocketAddr::V4(v4(libc::CMSG_DATA(found).cast::<libc::sockaddr_in>().read_unaligned())));
                }
                (libc::SOL_IPV6, libc::IPV6_ORIGDSTADDR) => {
                    let address = libc::CMSG_DATA(found).cast::<libc::sockaddr_in6>().read_unaligned();
                    to = Some(SocketAddr::V6(v6(address)));
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(&message, found);
        }
    }
    let from = match libc::c_int::from(name.ss_family) {
        // SAFETY: the family says which kind of address the kernel has put there.
        libc::AF_INET => SocketAddr::V4(v4(unsafe { (&raw const name).cast::<libc::sockaddr_in>().read() })),
        // SAFETY: as above.
        libc::AF_INET6 => SocketAddr::V6(v6(unsafe { (&raw const name).cast::<libc::sockaddr_in6>().read() })),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    Ok(Received { bytes, from, to })
}

fn v4(address: libc::sockaddr_in) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr)), u16::from_be(address.sin_port))
}

fn v6(address: libc::sockaddr_in6) -> SocketAddrV6 {
    let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
    SocketAddrV6::new(ip, u16::from_be(address.sin6_port), 0, 0)
}
