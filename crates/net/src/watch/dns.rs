//! The few DNS messages that hostwatch needs: questions for addresses and names, and what the answers say. Bytes in, bytes out.

use std::net::IpAddr;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An IPv4 address.
    A = 1,
    /// A name.
    Ptr = 12,
    /// An IPv6 address.
    Aaaa = 28,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Address(IpAddr),
    Name(String),
}

const HEADER: usize = 12;
const INTERNET: u16 = 1;

/// A recursive question. Its id is 0: whoever sends it gives it one of his own. None for what cannot be a name.
pub(crate) fn question(name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut bytes = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    if bytes.len() > HEADER + 255 {
        return None;
    }
    bytes.extend((kind as u16).to_be_bytes());
    bytes.extend(INTERNET.to_be_bytes());
    Some(bytes)
}

/// The name that stands for an address in reverse lookups.
pub(crate) fn reverse(address: IpAddr) -> String {
    let labels: Vec<String> = match address {
        IpAddr::V4(address) => address.octets().iter().rev().map(|byte| format!("{byte}.")).collect(),
        IpAddr::V6(address) => {
            address.octets().iter().rev().map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4)).collect()
        }
    };
    labels.concat() + if address.is_ipv4() { "in-addr.arpa" } else { "ip6.arpa" }
}

/// The answers of one kind. None for what is no DNS message.
pub(crate) fn answers(message: &[u8], kind: Kind) -> Option<Vec<Answer>> {
    let count = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let (questions, records) = (count(4)?, count(6)?);
    let mut at = HEADER;
    for _ in 0..questions {
        at = skip_name(message, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..records {
        at = skip_name(message, at)?;
        let (this, class, length) = (count(at)?, count(at + 2)?, usize::from(count(at + 8)?));
        let data = at + 10;
        let bytes = message.get(data..data + length)?;
        if this == kind as u16 && class == INTERNET {
            found.extend(match kind {
                Kind::A => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Answer::Address(bytes.into())),
                Kind::Aaaa => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Answer::Address(bytes.into())),
                Kind::Ptr => name(message, data).map(Answer::Name),
            });
        }
        at = data + length;
    }
    Some(found)
}

/// Where it goes on behind a name.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            length @ 1..64 => at += length + 1,
            // A pointer ends a name.
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
}

fn name(message: &[u8], mut at: usize) -> Option<String> {
    let mut name = String::new();
    // A name has at most 127 labels; more steps are a loop of pointers.
    for _ in 0..256 {
        match usize::from(*message.get(at)?) {
            0 => return Some(name).filter(|name| !name.is_empty() && name.len() < 256),
            length @ 1..64 => {
                let label = std::str::from_utf8(message.get(at + 1..at + 1 + length)?).ok()?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(label);
                at += length + 1;
            }
            high @ 192.. => at = (high & 63) << 8 | usize::from(*message.get(at + 1)?),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What dnsmasq answers to `dig -x 10.0.0.7`, with a pointer to the name asked for.
    fn answered(question: &[u8], kind: Kind, data: &[u8]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2] = 0x85;
        message[7] = 1;
        message.extend([0xc0, 12]);
        message.extend((kind as u16).to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 60]);
        message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend(data);
        message
    }

    #[test]
    fn asks_and_understands() {
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        let asked = question(&reverse(address), Kind::Ptr).unwrap();
        assert_eq!(&asked[12..], b"\x017\x010\x010\x0210\x07in-addr\x04arpa\0\0\x0c\0\x01");
        // The name ends in that of the question: a pointer behind a label.
        let message = answered(&asked, Kind::Ptr, b"\x03web\xc0\x15");
        assert_eq!(answers(&message, Kind::Ptr).unwrap(), [Answer::Name("web.in-addr.arpa".into())]);
        assert_eq!(answers(&message, Kind::A).unwrap(), []);
        let asked = question("web.corp.example", Kind::Aaaa).unwrap();
        let six: IpAddr = "fd00::7".parse().unwrap();
        let IpAddr::V6(bytes) = six else { unreachable!() };
        assert_eq!(
            answers(&answered(&asked, Kind::Aaaa, &bytes.octets()), Kind::Aaaa).unwrap(),
            [Answer::Address(six)]
        );
        assert!(reverse(six).starts_with("7.0.0.0.") && reverse(six).ends_with("0.0.d.f.ip6.arpa"));
    }

    #[test]
    fn refuses_what_is_no_name_and_no_message() {
        for name in ["", "a..b", &"a".repeat(64), &"a.".repeat(130)] {
            assert_eq!(question(name, Kind::A), None, "{name}");
        }
        let asked = question("a", Kind::Ptr).unwrap();
        let turns = answered(&asked, Kind::Ptr, &[0xc0, u8::try_from(asked.len()).unwrap() + 12]);
        assert_eq!(answers(&turns, Kind::Ptr), Some(Vec::new()), "a pointer to itself");
        assert_eq!(answers(&asked[..5], Kind::A), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for kind in [Kind::A, Kind::Ptr, Kind::Aaaa] {
                let _ = answers(&bytes, kind);
            }
        }

        #[test]
        fn no_answer_makes_it_panic(data in proptest::collection::vec(any::<u8>(), 0..60)) {
            let asked = question("web.example", Kind::Ptr).unwrap();
            let _ = answers(&answered(&asked, Kind::Ptr, &data), Kind::Ptr);
        }
    }
}
