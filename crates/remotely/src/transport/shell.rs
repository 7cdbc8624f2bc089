//! Words and shells: quoting for a login shell of any kind, splitting as a POSIX shell does. Pure functions, used by the
//! transports, the command line (`--ssh-opts`) and messages that show a command.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// One word so that sh, bash, dash, busybox sh, csh and fish all read it as exactly this word.
///
/// The three bytes that some of them treat specially inside single quotes stand outside, behind a backslash: the quote
/// itself, the backslash (fish) and `!` (csh). No quoting of a newline means the same to csh and to the others, so a
/// word for a login shell must not have one.
pub fn quote(word: &OsStr) -> OsString {
    let bytes = word.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./:=@,%+".contains(byte);
    // fish and some others expand a leading `=` or `%`.
    if !bytes.is_empty() && bytes.iter().all(plain) && !matches!(bytes[0], b'=' | b'%') {
        return word.to_owned();
    }
    quote_whole(word)
}

/// The same for every word, plain or not: whatever it is, it stands in quotes or behind backslashes.
pub fn quote_whole(word: &OsStr) -> OsString {
    let bytes = word.as_bytes();
    let mut out = Vec::with_capacity(bytes.len() + 8);
    let mut inside = false;
    for &byte in bytes {
        let special = matches!(byte, b'\'' | b'\\' | b'!');
        if special == inside {
            out.push(b'\'');
            inside = !inside;
        }
        if special {
            out.push(b'\\');
        }
        out.push(byte);
    }
    if inside {
        out.push(b'\'');
    } else if bytes.is_empty() {
        out.extend(b"''");
    }
    OsString::from_vec(out)
}

/// A command for a shell of any kind, which becomes it: its words, quoted.
pub fn command(words: &[OsString]) -> OsString {
    let mut command = OsString::from("exec");
    for word in words {
        command.push(" ");
        command.push(quote(word));
    }
    command
}

/// Splits as a POSIX shell splits words: blanks, single and double quotes, backslashes. Nothing is expanded.
pub fn split(text: &OsStr) -> Result<Vec<OsString>, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = text.as_bytes().iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' => words.extend(word.take().map(OsString::from_vec)),
            b'\\' => match bytes.next() {
                None => return Err(SplitError::Backslash),
                Some(b'\n') => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            b'\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next() {
                        None => return Err(SplitError::Quote('\'')),
                        Some(b'\'') => break,
                        Some(byte) => word.push(byte),
                    }
                }
            }
            b'"' => double_quoted(&mut bytes, word.get_or_insert_default())?,
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word.map(OsString::from_vec));
    Ok(words)
}

/// Where `byte` stands for the first time outside of quotes and not behind a backslash, as [`split`] reads the text.
pub fn find_unquoted(text: &str, byte: u8) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, found) in text.bytes().enumerate() {
        match (quote, found) {
            _ if escaped => escaped = false,
            (None | Some(b'"'), b'\\') => escaped = true,
            (None, b'\'' | b'"') => quote = Some(found),
            (Some(open), _) if open == found => quote = None,
            (None, _) if found == byte => return Some(at),
            _ => {}
        }
    }
    None
}

fn double_quoted(bytes: &mut impl Iterator<Item = u8>, word: &mut Vec<u8>) -> Result<(), SplitError> {
    loop {
        match bytes.next() {
            None => return Err(SplitError::Quote('"')),
            Some(b'"') => return Ok(()),
            Some(b'\\') => match bytes.next() {
                None => return Err(SplitError::Quote('"')),
                Some(b'\n') => {}
                Some(byte @ (b'$' | b'`' | b'"' | b'\\')) => word.push(byte),
                Some(byte) => word.extend([b'\\', byte]),
            },
            Some(byte) => word.push(byte),
        }
    }
}

/// Why a text cannot be split into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A quote that does not end.
    #[error("a {0} is not closed")]
    Quote(char),
    /// Nothing to escape.
    #[error("there is a backslash at the end")]
    Backslash,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_they_must_be() {
        let table = [
            ("", "''"),
            ("plain/word-1.2", "plain/word-1.2"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            (r"a\b!", r"'a'\\'b'\!"),
            ("!", r"\!"),
            ("=x", "'=x'"),
            ("~", "'~'"),
        ];
        for (word, quoted) in table {
            assert_eq!(quote(OsStr::new(word)), quoted, "{word}");
        }
    }

    #[test]
    fn text_is_split_as_a_shell_does() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("  -A \t-p 22\n", &["-A", "-p", "22"]),
            ("-o 'ProxyCommand=nc %h %p'", &["-o", "ProxyCommand=nc %h %p"]),
            (r#"-o "a \"b\" \c $x""#, &["-o", r#"a "b" \c $x"#]),
            (r"a\ b c\\", &["a b", r"c\"]),
            (r#"a''b "" ''"#, &["ab", "", ""]),
            ("a\\\nb", &["ab"]),
        ];
        for (text, words) in table {
            let split = split(OsStr::new(text)).unwrap();
            assert_eq!(split, words.iter().map(OsString::from).collect::<Vec<_>>(), "{text}");
        }
        assert_eq!(split(OsStr::new("a 'b")), Err(SplitError::Quote('\'')));
        assert_eq!(split(OsStr::new("a \"b\\")), Err(SplitError::Quote('"')));
        assert_eq!(split(OsStr::new("a \\")), Err(SplitError::Backslash));
    }

    #[test]
    fn splitting_undoes_quoting() {
        for word in ["", "a", "it's", r"\!'", "a\tb\"c\"", "$HOME `x` *", "=", "\u{e9}"] {
            assert_eq!(split(&quote(OsStr::new(word))), Ok(vec![word.into()]), "{word}");
        }
    }
}
