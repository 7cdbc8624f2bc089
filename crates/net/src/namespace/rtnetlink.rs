//! Interfaces, addresses, routes and rules of the network namespace that this process is in, by rtnetlink(7). Used by `inside`.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto, socket_with};

const NEWLINK: u16 = 16;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const NEWRULE: u16 = 32;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const EXCLUSIVE: u16 = 0x200;

const UP: u32 = 1;
const HEADER: usize = 16;

/// The family of what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn code(self) -> u8 {
        (match self {
            Self::V4 => libc::AF_INET,
            Self::V6 => libc::AF_INET6,
        }) as u8
    }
}

/// Asks the kernel.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes an interface of this kind; with `peer`, as a pair, as veth is.
    pub(super) fn add_link(&mut self, name: &str, kind: &str, peer: Option<&str>) -> io::Result<()> {
        let mut body = vec![0; 16];
        attribute(&mut body, 3, &c_string(name));
        let mut info = Vec::new();
        attribute(&mut info, 1, kind.as_bytes());
        if let Some(peer) = peer {
            let mut other = vec![0; 16];
            attribute(&mut other, 3, &c_string(peer));
            let mut data = Vec::new();
            attribute(&mut data, 1, &other);
            attribute(&mut info, 2, &data);
        }
        attribute(&mut body, 18, &info);
        self.ask(NEWLINK, CREATE | EXCLUSIVE, &body)
    }

    /// Sets an interface up, with this MTU.
    pub(super) fn set_up(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let mut body = vec![0; 4];
        body.extend(index.to_ne_bytes());
        body.extend(UP.to_ne_bytes());
        body.extend(UP.to_ne_bytes());
        attribute(&mut body, 4, &mtu.to_ne_bytes());
        self.ask(NEWLINK, 0, &body)
    }

    /// Gives an interface an address, alone in its network.
    pub(super) fn add_address(&mut self, index: u32, family: Family, address: &[u8]) -> io::Result<()> {
        // Nobody else can have an address of IPv6 here: it need not be asked for (IFA_F_NODAD).
        let flags = if family == Family::V6 { 2 } else { 0 };
        let mut body = vec![family.code(), (address.len() * 8) as u8, flags, 0];
        body.extend(index.to_ne_bytes());
        attribute(&mut body, 2, address);
        attribute(&mut body, 1, address);
        self.ask(NEWADDR, CREATE | EXCLUSIVE, &body)
    }

    /// Has everything go out by an interface.
    pub(super) fn add_default_route(&mut self, index: u32, family: Family) -> io::Result<()> {
        self.ask(NEWROUTE, CREATE | EXCLUSIVE, &default_route(index, family))
    }

    /// The reverse.
    pub(super) fn delete_default_route(&mut self, index: u32, family: Family) -> io::Result<()> {
        self.ask(DELROUTE, 0, &default_route(index, family))
    }

    /// Has everything with this mark be delivered to this machine.
    pub(super) fn deliver_marked(&mut self, loopback: u32, family: Family, mark: u32, table: u8) -> io::Result<()> {
        // Table, protocol static, scope host, type local.
        let mut body = vec![family.code(), 0, 0, 0, table, 4, 254, 2, 0, 0, 0, 0];
        attribute(&mut body, 4, &loopback.to_ne_bytes());
        self.ask(NEWROUTE, CREATE | EXCLUSIVE, &body)?;
        let mut body = vec![family.code(), 0, 0, 0, table, 0, 0, 1, 0, 0, 0, 0];
        attribute(&mut body, 6, &100_u32.to_ne_bytes());
        attribute(&mut body, 10, &mark.to_ne_bytes());
        self.ask(NEWRULE, CREATE | EXCLUSIVE, &body)
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | ACK | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        sendto(&self.socket, &message, SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0_u8; 8192];
        let (n, _) = recv(&self.socket, &mut answer, RecvFlags::empty())?;
        // A header, then the errno as a negative number; zero says that it was done.
        match answer[..n].get(HEADER..HEADER + 4).and_then(|errno| errno.first_chunk()) {
            Some(&errno) => match i32::from_ne_bytes(errno) {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(-errno)),
            },
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn default_route(index: u32, family: Family) -> Vec<u8> {
    // Table main, protocol static, scope link for IPv4, type unicast.
    let scope = if family == Family::V4 { 253 } else { 0 };
    let mut body = vec![family.code(), 0, 0, 0, 254, 4, scope, 1, 0, 0, 0, 0];
    attribute(&mut body, 4, &index.to_ne_bytes());
    body
}

fn attribute(out: &mut Vec<u8>, kind: u16, data: &[u8]) {
    out.extend(((4 + data.len()) as u16).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn c_string(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}
