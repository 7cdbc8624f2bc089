//! Files of known hosts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT): which lines are about a host, and which keys it has.

use std::path::Path;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

/// A file of known hosts.
#[derive(Debug)]
pub(super) struct KnownHosts {
    lines: Vec<Line>,
}

/// What is known of a host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    /// The lines, as they are.
    pub(super) lines: String,
    /// The keys it may have, as RFC 4253, section 6.6, writes them.
    pub(super) keys: Vec<Vec<u8>>,
    /// Those that it must not have.
    revoked: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Line {
    hosts: Hosts,
    key: Vec<u8>,
    meaning: Meaning,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// It is the host's.
    Own,
    /// It signs keys of hosts.
    Authority,
    /// Nobody is to have it any more.
    Revoked,
}

#[derive(Debug)]
enum Hosts {
    /// Separated by commas.
    Patterns(String),
    /// `|1|salt|hash`.
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

impl KnownHosts {
    /// Of a file, empty if it cannot be read. What is no line of such a file is left out, as ssh does.
    pub(super) fn read(path: &Path) -> Self {
        Self::of(
            &std::fs::read(path).map_or_else(|_| String::new(), |text| String::from_utf8_lossy(&text).into_owned()),
        )
    }

    fn of(text: &str) -> Self {
        Self { lines: text.lines().filter_map(Line::of).collect() }
    }

    /// Adds what it knows of a host.
    pub(super) fn about(&self, name: &str, about: &mut About) {
        for line in self.lines.iter().filter(|line| line.hosts.include(name)) {
            about.lines.push_str(&line.text);
            about.lines.push('\n');
            match line.meaning {
                Meaning::Own => about.keys.push(line.key.clone()),
                Meaning::Revoked => about.revoked.push(line.key.clone()),
                Meaning::Authority => {}
            }
        }
        about.keys.retain(|key| !about.revoked.contains(key));
    }
}

impl Line {
    fn of(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mut hosts = words.next().filter(|word| !word.starts_with('#'))?;
        let meaning = match hosts {
            "@revoked" => Meaning::Revoked,
            "@cert-authority" => Meaning::Authority,
            _ => Meaning::Own,
        };
        if meaning != Meaning::Own {
            hosts = words.next()?;
        }
        let key = Base64::decode_vec(words.nth(1)?).ok()?;
        Some(Self { hosts: Hosts::of(hosts)?, key, meaning, text: text.to_owned() })
    }
}

impl Hosts {
    fn of(word: &str) -> Option<Self> {
        let Some(hashed) = word.strip_prefix("|1|") else { return Some(Self::Patterns(word.to_owned())) };
        let (salt, hash) = hashed.split_once('|')?;
        Some(Self::Hashed { salt: Base64::decode_vec(salt).ok()?, hash: Base64::decode_vec(hash).ok()? })
    }

    fn include(&self, name: &str) -> bool {
        match self {
            Self::Hashed { salt, hash } => {
                let Ok(mac) = Hmac::<Sha1>::new_from_slice(salt) else { return false };
                mac.chain_update(name).verify_slice(hash).is_ok()
            }
            Self::Patterns(patterns) => {
                let mut found = false;
                for pattern in patterns.split(',') {
                    match pattern.strip_prefix('!') {
                        Some(pattern) if matches(pattern.as_bytes(), name.as_bytes()) => return false,
                        Some(_) => {}
                        None => found |= matches(pattern.as_bytes(), name.as_bytes()),
                    }
                }
                found
            }
        }
    }
}

/// ssh_config(5), PATTERNS: `*` and `?`; names have no case.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // Where to go on after a star, and how much of the name it stands for at least.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&name[n]) => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((after, from)) => {
                    (p, n) = (after, from + 1);
                    star = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# comment
web1,10.0.0.1 ssh-ed25519 AAAA first
web*,!web2 ssh-rsa BBBB
[gw]:2222 ssh-ed25519 CCCC
|1|JfKTdBh7rNbXkVAQCRp4OQoPfmI=|s02ILaduGuN0uOWQMpXqPVpGXTk= ssh-ed25519 DDDD
@cert-authority web? ssh-ed25519 EEEE
web3 ssh-ed25519 FFFF
@revoked * ssh-ed25519 FFFF
broken
";

    fn about(name: &str) -> About {
        let mut about = About::default();
        KnownHosts::of(FILE).about(name, &mut about);
        about
    }

    fn keys(keys: &[&str]) -> Vec<Vec<u8>> {
        keys.iter().map(|key| Base64::decode_vec(key).unwrap()).collect()
    }

    #[test]
    fn lines_about_a_host() {
        assert_eq!(about("web1").keys, keys(&["AAAA", "BBBB"]));
        assert_eq!(about("WEB1").keys, keys(&["AAAA", "BBBB"]));
        assert_eq!(about("10.0.0.1").keys, keys(&["AAAA"]));
        assert_eq!(about("web2").keys, keys(&[]));
        assert_eq!(about("web2").lines.lines().count(), 2, "an authority, and what is revoked, are told");
        assert_eq!(about("[gw]:2222").keys, keys(&["CCCC"]));
        assert_eq!(about("gw").keys, keys(&[]));
        assert_eq!(about("web3").keys, keys(&["BBBB"]), "the other one is revoked");
    }

    #[test]
    fn hashed_names() {
        // HMAC-SHA1 of the name, with the salt as its key.
        assert_eq!(about("192.168.1.61").keys, keys(&["DDDD"]));
    }

    #[test]
    fn patterns() {
        for (pattern, name, yes) in
            [("*", "", true), ("a*c", "abbc", true), ("a*c", "abb", false), ("?", "", false), ("*.x", "a.b.x", true)]
        {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), yes, "{pattern} {name}");
        }
    }
}
