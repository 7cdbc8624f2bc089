//! Messages of the net service: connections, datagrams and questions about names, which one side intercepts (capture) and the
//! other makes (dial). Spoken by `remotely-net` on both sides; either side of a link can be either.
//!
//! Capture opens a stream for each connection, for each socket that sends datagrams, and one for all questions about names. What
//! such a stream is for stands in its [`Open`]. Nothing has to be waited for: data may follow the open at once.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::ByteVec;

/// What a stream of the service is for; the body of its open.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Open {
    /// A TCP connection. Towards dial its bytes. Towards capture one [`crate::message`] whose head is a [`Connected`] and which
    /// has no payload, then its bytes. The end of a direction is the end of that of the connection; [`RESET`] and a stop are the
    /// connection's own reset.
    #[n(0)]
    Connect {
        /// Where to.
        #[n(0)]
        to: Place,
    },
    /// A UDP socket of dial's own, as [`Datagram`]s in both directions: where they go to, and where they come from. Whoever has
    /// more of them than the link takes drops some.
    #[n(1)]
    Datagrams,
    /// Questions about names, as [`Question`]s, and in any order their [`Reply`]s.
    #[n(2)]
    Names {
        /// Who is asked; nobody in particular for those whom dial's side asks itself.
        #[n(0)]
        server: Option<SocketAddr>,
    },
    /// ICMP echo requests, and the replies to them, as [`Datagram`]s whose port is the sequence number.
    #[n(3)]
    Echo,
    /// What dial's side knows of its network: one message, a [`Surroundings`].
    #[n(4)]
    Surroundings,
    /// Names of the network around dial's side, as [`Found`] messages, for as long as somebody listens.
    #[n(7)]
    Hosts {
        /// Look further than the seeds.
        #[n(0)]
        auto: bool,
        /// Names to begin with; at most [`SEEDS_MAX`] are looked at.
        #[n(1)]
        seeds: Vec<String>,
    },
    /// Connections that arrive at a place on dial's side. Towards capture one message, a [`Listening`]; for each connection dial
    /// opens a stream with [`Open::Arrived`]. It listens until the other direction ends.
    #[n(5)]
    Listen {
        /// Where: an address or a path.
        #[n(0)]
        at: Place,
        /// Comes back with each connection.
        #[n(1)]
        number: u32,
    },
    /// A connection that has arrived, as [`Open::Connect`] otherwise: who has asked for it connects it to where it belongs.
    #[n(6)]
    Arrived {
        /// That of the [`Open::Listen`].
        #[n(0)]
        number: u32,
        /// Its other end; `None` for one of a path.
        #[n(1)]
        from: Option<SocketAddr>,
    },
}

/// Most names to begin with.
pub const SEEDS_MAX: usize = 256;

/// A name, and an address that it has.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Found {
    /// Name.
    #[n(0)]
    pub name: String,
    /// Address.
    #[n(1)]
    pub address: IpAddr,
}

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Place {
    /// An address and a port.
    #[n(0)]
    Address(#[n(0)] SocketAddr),
    /// A name, which dial's side looks up, and a port.
    #[n(1)]
    Name {
        /// At most [`NAME_MAX`] bytes.
        #[n(0)]
        name: String,
        /// Port.
        #[n(1)]
        port: u16,
    },
    /// A socket of the file system, unix(7).
    #[n(2)]
    Path(#[n(0)] ByteVec),
}

/// Most bytes of a name (RFC 1035).
pub const NAME_MAX: usize = 255;

/// What became of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Connected {
    /// It is there, and its bytes follow.
    #[n(0)]
    Yes {
        /// Its other end; `None` for one of a path.
        #[n(0)]
        peer: Option<SocketAddr>,
    },
    /// It could not be had; the stream ends.
    #[n(1)]
    No {
        /// errno of Linux; 0 for a name that has no address.
        #[n(0)]
        errno: u32,
        /// For the user.
        #[n(1)]
        why: String,
    },
}

/// Whether connections are waited for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Listening {
    /// They are.
    #[n(0)]
    Yes {
        /// The address, with the port if it was for dial to choose; `None` for a path.
        #[n(0)]
        at: Option<SocketAddr>,
    },
    /// They cannot be; the stream ends.
    #[n(1)]
    No {
        /// errno of Linux.
        #[n(0)]
        errno: u32,
        /// For the user.
        #[n(1)]
        why: String,
    },
}

/// What dial's side knows of its network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Surroundings {
    /// What it has routes to, but for the default one: address and length of the prefix.
    #[n(0)]
    pub routes: Vec<(IpAddr, u8)>,
    /// Its /etc/hosts, at most [`HOSTS_MAX`] bytes of it.
    #[n(1)]
    pub hosts: ByteVec,
    /// The domains in which it looks for short names.
    #[n(2)]
    pub search: Vec<String>,
    /// The families of addresses with which it has a default route: IPv4, IPv6.
    #[n(3)]
    pub default: (bool, bool),
}

/// Most bytes of a /etc/hosts that are told.
pub const HOSTS_MAX: usize = 1 << 20;

/// Reset code: the connection was reset.
pub const RESET: u32 = crate::open::reset::FIRST_FREE;

/// Most bytes of payload in a datagram of UDP over IPv4.
pub const DATAGRAM_MAX: usize = 65_507;

/// What came is no record of this service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// No such family of addresses.
    #[error("address of family {0}")]
    Family(u8),
    /// Longer than the network carries.
    #[error("datagram of {0} bytes")]
    Length(usize),
}

/// A datagram, and whom it goes to or comes from. As bytes: length of the payload u16, port u16 (little endian), family u8 (4 or 6),
/// address, payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The other end.
    pub address: SocketAddr,
    /// Payload.
    pub data: Bytes,
}

/// Length, port, family.
const DATAGRAM_HEAD: usize = 5;

impl Datagram {
    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        Self::put(self.address, &self.data, out);
    }

    /// Appends one whose payload lies elsewhere. One that is longer than [`DATAGRAM_MAX`] is left out: no network carries it.
    pub fn put(address: SocketAddr, data: &[u8], out: &mut BytesMut) {
        if data.len() > DATAGRAM_MAX {
            return;
        }
        out.reserve(DATAGRAM_HEAD + 16 + data.len());
        out.put_u16_le(data.len() as u16);
        out.put_u16_le(address.port());
        match address.ip() {
            IpAddr::V4(ip) => {
                out.put_u8(4);
                out.put_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.put_u8(6);
                out.put_slice(&ip.octets());
            }
        }
        out.put_slice(data);
    }

    /// Takes the next one off the front of what has come, if all of it is there.
    pub fn decode(from: &mut BytesMut) -> Result<Option<Self>, RecordError> {
        let Some(&[a, b, c, d, family]) = from.first_chunk::<DATAGRAM_HEAD>() else { return Ok(None) };
        let (length, port) = (usize::from(u16::from_le_bytes([a, b])), u16::from_le_bytes([c, d]));
        if length > DATAGRAM_MAX {
            return Err(RecordError::Length(length));
        }
        let of_address = match family {
            4 => 4,
            6 => 16,
            other => return Err(RecordError::Family(other)),
        };
        if from.len() < DATAGRAM_HEAD + of_address + length {
            return Ok(None);
        }
        from.advance(DATAGRAM_HEAD);
        let ip = match family {
            4 => IpAddr::V4(Ipv4Addr::from_bits(from.get_u32())),
            _ => IpAddr::V6(Ipv6Addr::from_bits(from.get_u128())),
        };
        Ok(Some(Self { address: SocketAddr::new(ip, port), data: from.split_to(length).freeze() }))
    }
}

/// A question about a name. As bytes: length of the message u16, number u32 (little endian), a byte that is 1 if the asker came by
/// TCP and so takes long answers, and the message as on the network, without a length of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Comes back with the reply.
    pub number: u32,
    /// A long answer can be given.
    pub long: bool,
    /// A message of DNS.
    pub message: Bytes,
}

const QUESTION_HEAD: usize = 7;

impl Question {
    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        let message = &self.message[..self.message.len().min(u16::MAX.into())];
        out.put_u16_le(message.len() as u16);
        out.put_u32_le(self.number);
        out.put_u8(self.long.into());
        out.put_slice(message);
    }

    /// Takes the next one off the front of what has come, if all of it is there.
    pub fn decode(from: &mut BytesMut) -> Option<Self> {
        let &[a, b, c, d, e, f, long] = from.first_chunk::<QUESTION_HEAD>()?;
        let length = usize::from(u16::from_le_bytes([a, b]));
        if from.len() < QUESTION_HEAD + length {
            return None;
        }
        from.advance(QUESTION_HEAD);
        let message = from.split_to(length).freeze();
        Some(Self { number: u32::from_le_bytes([c, d, e, f]), long: long == 1, message })
    }
}

/// The answer to a [`Question`]. As bytes: length of the message u16, number u32 (little endian), message. An empty message
/// says that nobody has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// That of the question.
    pub number: u32,
    /// A message of DNS, or nothing.
    pub message: Bytes,
}

const REPLY_HEAD: usize = 6;

impl Reply {
    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        let message = &self.message[..self.message.len().min(u16::MAX.into())];
        out.put_u16_le(message.len() as u16);
        out.put_u32_le(self.number);
        out.put_slice(message);
    }

    /// Takes the next one off the front of what has come, if all of it is there.
    pub fn decode(from: &mut BytesMut) -> Option<Self> {
        let &[a, b, c, d, e, f] = from.first_chunk::<REPLY_HEAD>()?;
        let length = usize::from(u16::from_le_bytes([a, b]));
        if from.len() < REPLY_HEAD + length {
            return None;
        }
        from.advance(REPLY_HEAD);
        Some(Self { number: u32::from_le_bytes([c, d, e, f]), message: from.split_to(length).freeze() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut<T>(bytes: &BytesMut, mut decode: impl FnMut(&mut BytesMut) -> Option<T>) -> Vec<T> {
        let (mut received, mut found) = (BytesMut::new(), Vec::new());
        for chunk in bytes.chunks(7) {
            received.extend_from_slice(chunk);
            while let Some(record) = decode(&mut received) {
                found.push(record);
            }
        }
        assert!(received.is_empty());
        found
    }

    #[test]
    fn records_come_back_however_they_are_cut() {
        let datagrams = [("10.0.0.1:53", 0), ("[fd00::1]:65535", DATAGRAM_MAX), ("0.0.0.0:0", 1)];
        let datagrams = datagrams
            .map(|(address, n)| Datagram { address: address.parse().unwrap(), data: Bytes::from(vec![n as u8; n]) });
        let mut bytes = BytesMut::new();
        datagrams.iter().for_each(|datagram| datagram.encode(&mut bytes));
        assert_eq!(cut(&bytes, |from| Datagram::decode(from).unwrap()), datagrams);

        let question = Question { number: u32::MAX, long: true, message: Bytes::from(vec![1; 65_535]) };
        bytes.clear();
        question.encode(&mut bytes);
        assert_eq!(cut(&bytes, Question::decode), [question]);

        let replies = [Reply { number: 1, message: Bytes::new() }, Reply { number: 2, message: vec![3; 600].into() }];
        bytes.clear();
        replies.iter().for_each(|reply| reply.encode(&mut bytes));
        assert_eq!(cut(&bytes, Reply::decode), replies);
    }

    #[test]
    fn what_no_network_carries_is_neither_sent_nor_taken() {
        let mut bytes = BytesMut::new();
        let address = "1.2.3.4:5".parse().unwrap();
        Datagram::put(address, &vec![0; DATAGRAM_MAX + 1], &mut bytes);
        assert!(bytes.is_empty());
        let long = [&65_508_u16.to_le_bytes()[..], &[0, 0, 4]].concat();
        assert_eq!(Datagram::decode(&mut BytesMut::from(&long[..])), Err(RecordError::Length(65_508)));
        assert_eq!(Datagram::decode(&mut BytesMut::from(&[0, 0, 0, 0, 5][..])), Err(RecordError::Family(5)));
    }
}
