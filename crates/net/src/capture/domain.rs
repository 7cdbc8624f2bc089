//! A domain of names, and whether a question is about one of them. Used to tell who is asked.

use std::str::FromStr;

use crate::dial::question::question_of;

/// Bytes of type and class behind the name of a question.
const BEHIND: usize = 4;

/// A domain: itself, and every name beneath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// As it stands in a question: labels with their lengths, and the root.
    wire: Vec<u8>,
}

/// This is no domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no domain: labels of 1 to 63 characters between dots are wanted, as in corp.example")]
pub struct DomainError {
    text: String,
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let error = || DomainError { text: text.to_owned() };
        let name = text.trim_start_matches("*.").trim_start_matches(['.', '~']).trim_end_matches('.');
        let mut wire = Vec::new();
        for label in name.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length)).ok_or_else(error)?;
            if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
                return Err(error());
            }
            wire.push(length);
            wire.extend_from_slice(label.as_bytes());
        }
        wire.push(0);
        // RFC 1035, 2.3.4.
        if wire.len() > 255 { Err(error()) } else { Ok(Self { wire }) }
    }
}

impl Domain {
    /// Whether this message of DNS asks about one of its names.
    pub(super) fn has(&self, message: &[u8]) -> bool {
        let Some(question) = question_of(message) else { return false };
        let mut name = &question[..question.len() - BEHIND];
        loop {
            if name.eq_ignore_ascii_case(&self.wire) {
                return true;
            }
            match name {
                [length @ 1..=63, rest @ ..] => name = &rest[usize::from(*length)..],
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str) -> Vec<u8> {
        let mut message = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
        message.extend_from_slice(&name.parse::<Domain>().unwrap().wire);
        message.extend_from_slice(b"\x00\x01\x00\x01");
        message
    }

    #[test]
    fn a_domain_has_itself_and_what_is_beneath() {
        for written in ["corp.example", "CORP.example.", ".corp.example", "*.corp.example", "~corp.example"] {
            let domain: Domain = written.parse().unwrap();
            for name in ["corp.example", "db.corp.example", "a.b.Corp.Example"] {
                assert!(domain.has(&question(name)), "{written} {name}");
            }
            for name in ["example", "xcorp.example", "corp.example.org", "corp"] {
                assert!(!domain.has(&question(name)), "{written} {name}");
            }
            assert!(!domain.has(b"") && !domain.has(&question("corp.example")[..20]));
        }
    }

    #[test]
    fn what_is_no_domain() {
        let long = format!("{}.x", "a".repeat(64));
        for text in ["", ".", "a..b", "a b", "a/b", &long, &["a".repeat(60).as_str(); 5].join(".")] {
            assert!(text.parse::<Domain>().is_err(), "{text}");
        }
    }
}
