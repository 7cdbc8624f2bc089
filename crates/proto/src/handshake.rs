//! The first thing that each side says. Checked by the mux; what is in it comes from the driver, which alone has a clock
//! and randomness.

use minicbor::{Decode, Encode};
use thiserror::Error;

/// Marks where the protocol begins in what a login shell may have printed before: a bootstrap line is this, its words,
/// and a newline.
pub const MAGIC: &[u8] = b"\0remotely\x01";

/// What this build speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };

/// Bits of [`Hello::features`].
pub mod feature {
    /// The link may run over several pipes at once.
    pub const PIPES: u64 = 1;
}

/// Which side of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Role {
    /// Where the user is. Opens streams with odd numbers.
    #[n(0)]
    Client,
    /// On the host. Opens streams with even numbers.
    #[n(1)]
    Agent,
}

impl Role {
    /// The other one.
    pub fn peer(self) -> Self {
        match self {
            Role::Client => Role::Agent,
            Role::Agent => Role::Client,
        }
    }
}

/// A range of versions of the protocol, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Versions {
    /// Oldest.
    #[n(0)]
    pub min: u16,
    /// Newest.
    #[n(1)]
    pub max: u16,
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max { write!(f, "{}", self.max) } else { write!(f, "{} to {}", self.min, self.max) }
    }
}

/// Payload of a hello frame. The place and form of its first two fields never change; a later version may add fields,
/// which earlier ones skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// What its sender speaks.
    #[n(0)]
    pub versions: Versions,
    /// What its sender can do besides, one bit each, see [`feature`]; used only where both have it.
    #[n(1)]
    pub features: u64,
    /// Who speaks.
    #[n(2)]
    pub role: Role,
    /// Name of the link, drawn by the client; that of the agent is its own and only tells agents apart.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub link: [u8; 16],
    /// Proves to the agent, when a new pipe comes, that it belongs to this link. Drawn by the client; zero from the agent.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub key: [u8; 16],
    /// How many links deep the sender runs: 0 for a user's own process.
    #[n(5)]
    pub depth: u8,
    /// The sender's clock when it made this, nanoseconds since 1970.
    #[n(6)]
    pub wall_ns: u64,
}

/// What a further pipe of a link begins with, from the client: it belongs to this link, under this number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Name of the link.
    pub link: [u8; 16],
    /// Its key, which nobody else knows.
    pub key: [u8; 16],
    /// Number of the pipe.
    pub pipe: u32,
}

impl Ticket {
    /// Bytes of one.
    pub const LEN: usize = 36;

    /// As it is sent.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..16].copy_from_slice(&self.link);
        out[16..32].copy_from_slice(&self.key);
        out[32..].copy_from_slice(&self.pipe.to_le_bytes());
        out
    }

    /// The reverse of [`encode`](Self::encode).
    pub fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let mut ticket = Self { link: [0; 16], key: [0; 16], pipe: 0 };
        ticket.link.copy_from_slice(&bytes[..16]);
        ticket.key.copy_from_slice(&bytes[16..32]);
        let mut pipe = [0; 4];
        pipe.copy_from_slice(&bytes[32..]);
        ticket.pipe = u32::from_le_bytes(pipe);
        ticket
    }

    /// Whether it is for the link that this client's hello has begun. Takes as long for a wrong key as for the right one.
    pub fn admits_to(&self, client: &Hello) -> bool {
        let differ = self.key.iter().zip(client.key).fold(0, |all, (ours, theirs)| all | (ours ^ theirs));
        self.link == client.link && std::hint::black_box(differ) == 0
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("pipe", &self.pipe).finish_non_exhaustive()
    }
}

/// What the two hellos come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// The newest version that both speak.
    pub version: u16,
    /// The features that both have.
    pub features: u64,
}

/// The hellos do not go together.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// There is no version that both speak.
    #[error("the protocol here has version {ours}, there {theirs}")]
    Version {
        /// Of this build.
        ours: Versions,
        /// Of the peer.
        theirs: Versions,
    },
    /// Both are clients, or both agents.
    #[error("the other side is {0:?} as well")]
    Role(Role),
    /// It is no hello.
    #[error("hello does not decode")]
    Decode(#[source] minicbor::decode::Error),
}

impl Hello {
    /// As the payload of a frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Encoding into a Vec cannot fail.
        let Ok(()) = minicbor::encode(self, &mut out).map_err(|_| ()) else { unreachable!("a Vec takes all bytes") };
        out
    }

    /// Reads the peer's hello and settles what is spoken. The versions are looked at before the rest, so that a hello of
    /// any later form gives [`HandshakeError::Version`].
    pub fn negotiate(&self, theirs: &[u8]) -> Result<(Hello, Negotiated), HandshakeError> {
        #[derive(Decode)]
        struct Preamble {
            #[n(0)]
            versions: Versions,
        }
        let preamble: Preamble = minicbor::decode(theirs).map_err(HandshakeError::Decode)?;
        let version = self.versions.max.min(preamble.versions.max);
        if version < self.versions.min.max(preamble.versions.min) {
            return Err(HandshakeError::Version { ours: self.versions, theirs: preamble.versions });
        }
        let theirs: Hello = minicbor::decode(theirs).map_err(HandshakeError::Decode)?;
        if theirs.role == self.role {
            return Err(HandshakeError::Role(theirs.role));
        }
        Ok((theirs, Negotiated { version, features: self.features & theirs.features }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(role: Role, min: u16, max: u16, features: u64) -> Hello {
        let versions = Versions { min, max };
        Hello { versions, features, role, link: [7; 16], key: [8; 16], depth: 1, wall_ns: 99 }
    }

    #[test]
    fn the_newest_common_version_and_the_common_features() {
        let ours = hello(Role::Client, 1, 3, 0b110);
        let theirs = hello(Role::Agent, 2, 5, 0b011);
        let (got, negotiated) = ours.negotiate(&theirs.encode()).unwrap();
        assert_eq!(got, theirs);
        assert_eq!(negotiated, Negotiated { version: 3, features: 0b010 });
    }

    #[test]
    fn no_common_version_is_said_even_if_the_rest_is_unreadable() {
        let ours = hello(Role::Client, 1, 1, 0);
        let mut theirs = Vec::new();
        minicbor::Encoder::new(&mut theirs).array(2).unwrap().array(2).unwrap().u16(4).unwrap().u16(9).unwrap();
        minicbor::Encoder::new(&mut theirs).str("something of the future").unwrap();
        let error = ours.negotiate(&theirs).unwrap_err();
        assert_eq!(error.to_string(), "the protocol here has version 1, there 4 to 9");
    }

    #[test]
    fn fields_of_a_later_version_are_skipped() {
        let ours = hello(Role::Client, 1, 1, 0);
        let mut theirs = hello(Role::Agent, 1, 2, 0).encode();
        assert_eq!(theirs[0], 0x87, "an array of seven");
        theirs[0] = 0x88;
        theirs.push(0xf6);
        assert!(ours.negotiate(&theirs).is_ok());
    }

    #[test]
    fn a_ticket_is_for_one_link() {
        let client = hello(Role::Client, 1, 1, 0);
        let ticket = Ticket { link: client.link, key: client.key, pipe: 0x0102_0304 };
        assert_eq!(Ticket::decode(&ticket.encode()), ticket);
        assert!(ticket.admits_to(&client));
        assert!(!Ticket { key: [9; 16], ..ticket }.admits_to(&client));
        assert!(!Ticket { link: [9; 16], ..ticket }.admits_to(&client));
        assert!(!format!("{ticket:?}").contains('8'), "the key is for nobody's eyes");
    }

    #[test]
    fn two_clients_do_not_link() {
        let ours = hello(Role::Client, 1, 1, 0);
        assert!(matches!(ours.negotiate(&ours.encode()), Err(HandshakeError::Role(Role::Client))));
    }
}
