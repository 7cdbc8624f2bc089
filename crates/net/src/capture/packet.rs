//! Answers in the name of others: packets with any source, by raw sockets that somebody with the privilege has made. So nothing has to be
//! bound to addresses and ports that programs here may want to bind themselves.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use bytes::{BufMut, BytesMut};
use rustix::net::{SendFlags, sendto};

const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Of the header of UDP, and of an echo of ICMP.
const HEAD: usize = 8;
const HOPS: u8 = 64;

/// Sends packets that it makes whole, header included.
#[derive(Debug)]
pub struct Packets {
    /// Raw, of protocol IPPROTO_RAW, IPv4.
    pub v4: OwnedFd,
    /// The same for IPv6.
    pub v6: OwnedFd,
}

impl Packets {
    /// A datagram of UDP. One that the socket cannot take now is lost.
    pub(super) fn datagram(&self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let mut payload = BytesMut::with_capacity(HEAD + data.len());
        payload.put_u16(from.port());
        payload.put_u16(to.port());
        // What is longer is no datagram of UDP, and has not been taken for one.
        payload.put_u16((HEAD + data.len()) as u16);
        payload.put_u16(0);
        payload.put_slice(data);
        // Zero says that there is none.
        self.send(UDP, from.ip(), to.ip(), payload, 6, |sum| if sum == 0 { 0xffff } else { sum });
    }

    /// A reply to a ping.
    pub(super) fn echo(&self, from: IpAddr, to: IpAddr, identifier: u16, sequence: u16, data: &[u8]) {
        let mut payload = BytesMut::with_capacity(HEAD + data.len());
        let (protocol, kind) = if from.is_ipv4() { (ICMP, 0) } else { (ICMPV6, 129) };
        payload.put_u8(kind);
        payload.put_slice(&[0; 3]);
        payload.put_u16(identifier);
        payload.put_u16(sequence);
        payload.put_slice(data);
        self.send(protocol, from, to, payload, 2, |sum| sum);
    }

    /// Puts the checksum at `at` of the payload, a header in front, and sends it.
    fn send(&self, protocol: u8, from: IpAddr, to: IpAddr, mut payload: BytesMut, at: usize, sum: impl Fn(u16) -> u16) {
        let mut pseudo = BytesMut::with_capacity(40);
        let (socket, mut packet) = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                // ICMP of IPv4 sums nothing but itself.
                if protocol != ICMP {
                    pseudo.put_slice(&from.octets());
                    pseudo.put_slice(&to.octets());
                    pseudo.put_u16(protocol.into());
                    pseudo.put_u16(payload.len() as u16);
                }
                (&self.v4, header_v4(protocol, from.octets(), to.octets(), payload.len()))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                pseudo.put_slice(&from.octets());
                pseudo.put_slice(&to.octets());
                pseudo.put_u32(payload.len() as u32);
                pseudo.put_u32(protocol.into());
                (&self.v6, header_v6(protocol, from.octets(), to.octets(), payload.len()))
            }
            _ => return,
        };
        let checksum = sum(checksum(&pseudo, &payload));
        payload[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        packet.put_slice(&payload);
        let sent = sendto(socket, &packet, SendFlags::DONTWAIT, &SocketAddr::new(to, 0));
        if let Err(error) = sent {
            tracing::debug!(%from, %to, error = %io::Error::from(error), "an answer is lost");
        }
    }
}

/// Total length and checksum are the kernel's to fill in.
fn header_v4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: usize) -> BytesMut {
    let mut packet = BytesMut::with_capacity(20 + payload);
    packet.put_slice(&[0x45, 0]);
    packet.put_u16((20 + payload) as u16);
    packet.put_slice(&[0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
    packet.put_slice(&from);
    packet.put_slice(&to);
    packet
}

fn header_v6(protocol: u8, from: [u8; 16], to: [u8; 16], payload: usize) -> BytesMut {
    let mut packet = BytesMut::with_capacity(40 + payload);
    packet.put_slice(&[0x60, 0, 0, 0]);
    packet.put_u16(payload as u16);
    packet.put_slice(&[protocol, HOPS]);
    packet.put_slice(&from);
    packet.put_slice(&to);
    packet
}

/// As RFC 1071 has it, over both.
fn checksum(pseudo: &[u8], payload: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for bytes in [pseudo, payload] {
        let (pairs, rest) = bytes.as_chunks::<2>();
        sum += pairs.iter().map(|&pair| u64::from(u16::from_be_bytes(pair))).sum::<u64>();
        sum += rest.first().map_or(0, |&last| u64::from(last) << 8);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_sums_to_nothing() {
        for payload in [&b"\x45\x00\x00\x73\x00\x00\x40\x00\x40\x11\xb8\x61\xc0\xa8\x00\x01\xc0\xa8\x00\xc7"[..], b""] {
            // The sum over what holds its own checksum.
            let expected = if payload.is_empty() { 0xffff } else { 0 };
            assert_eq!(checksum(b"", payload), expected);
        }
        assert_eq!(checksum(b"\x01", b"\x02"), !0x0300);
    }
}
