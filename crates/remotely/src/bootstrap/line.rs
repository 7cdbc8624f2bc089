//! The text of the first remote command. Pure: [`super::conversation`] speaks with what it starts.

use super::executable::Hash;
use crate::options::AgentKind;

/// What an executable is started with to be an agent, before what kind of agent or what else it is asked. No program has it as a
/// word of its own.
pub const WORD: &str = "remotely-agent";

/// The POSIX shell line that becomes the agent `hash`, on a host whose login shell has been given it by a transport.
///
/// `nonce` names the temporary file of this upload; `reuse` is false where an agent that is already there is not to be used,
/// `packed` where the way is too fast for compressing to be worth it; `kind` is what the agent is to be.
pub(super) fn line(hash: &Hash, nonce: u64, reuse: bool, packed: bool, kind: AgentKind) -> String {
    one_line(include_str!("line.sh"))
        .replace("@HASH@", hash.as_str())
        .replace("@NONCE@", &format!("{nonce:016x}"))
        .replace("@REUSE@", if reuse { "true" } else { "false" })
        .replace("@PACKED@", if packed { "command -v gzip >/dev/null" } else { "false" })
        .replace("@WORD@", WORD)
        .replace("@KIND@", kind.word())
}

/// A shell script on one line: without its comments, the lines joined by blanks. The script must be written for that,
/// with every command ended by a semicolon.
pub fn one_line(script: &str) -> String {
    let code = script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    code.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_one_line_with_everything_filled_in() {
        let line = line(&Hash::of(b"x"), 0xab, true, true, AgentKind::Run);
        assert!(!line.contains(['\n', '@', '\t']), "{line}");
        assert!(line.contains(".new-00000000000000ab"));
        // The word limit of the C shell on glibc is 8 KiB after quoting, and several hops quote several times.
        assert!(line.len() < 2560, "{}", line.len());
    }
}
