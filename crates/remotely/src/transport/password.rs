//! The shell that stands in front of a hop that may want a password, and the marks by which it and the hop's program ask for
//! one. Used by `sudo` and `su`; [`spawn`](super::spawn) finds the marks in standard error.
//!
//! The first flight has been written to the pipe by then, so that shell throws it away (it cannot be read by the program,
//! which would take it for the password). Then each side speaks only when it is its turn: a mark asks, a line answers,
//! the message `open` says that it was right, and behind the line [`GO`] the client sends the first flight again.

use std::ffi::OsString;

/// What the client writes when it has heard `open`: everything before it was for those who asked, and is thrown away.
pub(crate) const GO: &str = "remotely-go";

/// Throws the first flight away. POSIX shell; must be followed by a separator.
pub(super) const SKIP: &str = "read -r n || exit 1; head -c \"$n\" >/dev/null";

const BEGIN: &[u8] = b"\x01remotely-password ";
const END: u8 = b'\x02';
/// The longest number of a hop that is believed, in digits.
const DIGITS: usize = 4;

/// What asks for the password of the hop with that number, as an argument of printf(1): no control character is in the line
/// that several shells read. No character of the mark means anything to the prompts of sudo.
pub(super) fn mark(hop: usize) -> String {
    format!("\"\\001remotely-password {hop}\\002\"")
}

/// The command line that runs the script in front of `inner`.
pub(super) fn stage(script: String, inner: Vec<OsString>) -> Vec<OsString> {
    let mut argv: Vec<OsString> = ["sh", "-c"].map(Into::into).into();
    argv.extend([script.into(), "sh".into()]);
    argv.extend(inner);
    argv
}

/// What runs behind a program that has asked: it says so, and passes over a password that was not wanted after all.
pub(super) fn gate(exec: &str) -> String {
    format!(
        "printf \"\\000remotely\\001 open\\n\"; while read -r x; do if [ \"$x\" = {GO} ]; then exec {exec}; fi; done; exit 1"
    )
}

/// Asks up to three times on behalf of a program that reads one password from its input and asks for it in words of its
/// own, and ends with 1 if it was wrong. An answer is two lines, so that at the end of a session, which is one of the pipe too, nobody is asked again.
pub(super) fn repeated(hop: usize, program: &str) -> String {
    let mark = mark(hop);
    format!(
        "{SKIP}; for i in 1 2 3; do printf {mark} >&2; read -r x || exit $s; {program} \"$@\"; s=$?; [ $s = 1 ] || exit $s; done; exit $s"
    )
}

/// Finds marks in a stream, however it is cut.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// What may be the beginning of one.
    held: Vec<u8>,
    prompt: Prompt,
}

impl Marks {
    /// Takes the next bytes; gives those that are not of marks, and the hops that the marks name.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<usize>) {
        let (mut rest, mut hops) = (Vec::with_capacity(bytes.len()), Vec::new());
        for &byte in bytes {
            self.held.push(byte);
            if byte == END
                && let Some(hop) = self.hop()
            {
                hops.push(hop);
                self.held.clear();
                self.prompt = Prompt { awaited: true, held: Vec::new() };
            }
            while !self.held.is_empty() && !self.may_be_mark() {
                self.prompt.pass(self.held.remove(0), &mut rest);
            }
        }
        (rest, hops)
    }

    /// What is held at the end of the stream: no mark.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        let mut rest = self.prompt.rest();
        rest.append(&mut self.held);
        rest
    }

    fn hop(&self) -> Option<usize> {
        let number = self.held.strip_prefix(BEGIN)?.strip_suffix(&[END])?;
        std::str::from_utf8(number).ok()?.parse().ok()
    }

    fn may_be_mark(&self) -> bool {
        match self.held.strip_prefix(BEGIN) {
            Some(number) => number.len() <= DIGITS && number.iter().all(u8::is_ascii_digit),
            None => BEGIN.starts_with(&self.held),
        }
    }
}

/// What su asks in words of its own, behind the mark that asks for it, and what it says where the answer was wrong: the next mark says
/// that as well. Left out.
#[derive(Debug, Default)]
struct Prompt {
    awaited: bool,
    /// What may be the beginning of it.
    held: Vec<u8>,
}

impl Prompt {
    const ASKS: &[u8] = b"Password: ";
    /// Of util-linux and shadow, and of busybox.
    const REFUSES: [&[u8]; 2] = [b"Password: su: Authentication failure\n", b"Password: \nsu: incorrect password\n"];

    fn pass(&mut self, byte: u8, rest: &mut Vec<u8>) {
        if !self.awaited {
            return rest.push(byte);
        }
        self.held.push(byte);
        if Self::REFUSES.contains(&self.held.as_slice()) {
            *self = Self::default();
        } else if !Self::REFUSES.iter().any(|refusal| refusal.starts_with(&self.held)) {
            rest.extend(self.rest());
        }
    }

    fn rest(&mut self) -> Vec<u8> {
        let Self { held, .. } = std::mem::take(self);
        held.strip_prefix(Self::ASKS).map_or_else(|| held.clone(), <[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_however_they_are_cut_and_the_rest_is_whole() {
        let mark = |hop| format!("\x01remotely-password {hop}\x02");
        let text =
            format!("a{}b\x01remotely-passage\x01{}{}\x01remotely-password 99999\x02\x01", mark(0), mark(12), mark(3));
        for size in 1..text.len() {
            let mut marks = Marks::default();
            let (mut rest, mut hops) = (Vec::new(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                let (more, found) = marks.pass(piece);
                rest.extend(more);
                hops.extend(found);
            }
            rest.extend(marks.rest());
            assert_eq!(hops, [0, 12, 3], "{size}");
            let expected = "ab\x01remotely-passage\x01\x01remotely-password 99999\x02\x01";
            assert_eq!(String::from_utf8_lossy(&rest), expected, "{size}");
        }
    }
    #[test]
    fn the_prompt_of_su_itself_is_left_out() {
        let mark = "\x01remotely-password 1\x02";
        let table = [
            (format!("{mark}Password: su: Authentication failure\n{mark}Password: su: gone\n"), "su: gone\n"),
            (format!("{mark}Password: \nsu: incorrect password\nx"), "x"),
            (format!("{mark}Password: "), ""),
            (format!("{mark}Passage"), "Passage"),
            ("Password: su: Authentication failure\n".to_owned(), "Password: su: Authentication failure\n"),
        ];
        for (text, expected) in table {
            for size in [1, 7, 100] {
                let mut marks = Marks::default();
                let mut rest: Vec<u8> = text.as_bytes().chunks(size).flat_map(|piece| marks.pass(piece).0).collect();
                rest.extend(marks.rest());
                assert_eq!(String::from_utf8_lossy(&rest), expected, "{text:?}");
            }
        }
    }
}
