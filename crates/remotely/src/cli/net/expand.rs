//! The words of `remotely net` before clap sees them: those of SSHUTTLE_ARGS and of files (`@FILE`), and the other name that the
//! command goes by. Reads files, does nothing else.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::transport::shell;

/// As who calls this executable `sshuttle` expects it to behave.
pub(crate) const SSHUTTLE: &str = "sshuttle";
/// Files may name files, so deep.
const DEPTH: usize = 8;

/// The words could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExpandError {
    #[error("could not read the arguments in {path:?}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path:?}: files of arguments name each other more than {DEPTH} deep")]
    Depth { path: PathBuf },
    #[error("SSHUTTLE_ARGS")]
    Environment(#[source] shell::SplitError),
}

/// Whether the executable was called by this other name: `sshuttle`, by a link to it.
pub(crate) fn is_sshuttle(argv0: &OsStr) -> bool {
    argv0.as_bytes().rsplit(|&byte| byte == b'/').next() == Some(SSHUTTLE.as_bytes())
}

/// The words with those of the environment in front, and `@FILE` replaced by what is in the file: one argument a line, blanks around
/// it and a pair of quotes taken off, lines that begin with `#` left out. Behind `--` everything is as it is.
pub(crate) fn expand(words: &[OsString], environment: Option<&OsStr>) -> Result<Vec<OsString>, ExpandError> {
    let mut all = match environment {
        Some(text) => shell::split(text).map_err(ExpandError::Environment)?,
        None => Vec::new(),
    };
    all.extend_from_slice(words);
    let mut out = Vec::new();
    let end = all.iter().position(|word| word == "--").unwrap_or(all.len());
    for word in &all[..end] {
        one(word, 0, &mut out)?;
    }
    out.extend_from_slice(&all[end..]);
    Ok(out)
}

fn one(word: &OsStr, depth: usize, out: &mut Vec<OsString>) -> Result<(), ExpandError> {
    let Some(path) = word.as_bytes().strip_prefix(b"@").filter(|path| !path.is_empty()) else {
        out.push(word.to_owned());
        return Ok(());
    };
    let path = PathBuf::from(OsStr::from_bytes(path));
    if depth == DEPTH {
        return Err(ExpandError::Depth { path });
    }
    let text = std::fs::read(&path).map_err(|source| ExpandError::File { path, source })?;
    // A file ends with the end of its last line; an empty line is an empty argument, as argparse has it.
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    for line in text.split(|&byte| byte == b'\n').filter(|_| !text.is_empty()) {
        if !line.starts_with(b"#") {
            one(OsStr::from_bytes(unquoted(line.trim_ascii())), depth + 1, out)?;
        }
    }
    Ok(())
}

fn unquoted(line: &[u8]) -> &[u8] {
    match line {
        [b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"'] => inner,
        line => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[OsString]) -> Vec<&str> {
        words.iter().map(|word| word.to_str().unwrap()).collect()
    }

    #[test]
    fn files_and_the_environment_come_in() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            OsString::from(format!("@{}", dir.path().join(name).display()))
        };
        let inner = file("inner", "10.0.0.0/8\n");
        let outer = file("outer", &format!("# nets\n  -r\n'user@gw'\n\"--dns\"\n{}\n", inner.display()));
        let words = ["-v".into(), outer, "--".into(), "@not-a-file".into()];
        let out = expand(&words, Some(OsStr::new("-x '1.2.3.4'"))).unwrap();
        assert_eq!(texts(&out), ["-x", "1.2.3.4", "-v", "-r", "user@gw", "--dns", "10.0.0.0/8", "--", "@not-a-file"]);
    }

    #[test]
    fn bad_files_are_told() {
        assert!(matches!(expand(&["@/nowhere".into()], None), Err(ExpandError::File { .. })));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("self");
        let word = OsString::from(format!("@{}", path.display()));
        std::fs::write(&path, word.as_bytes()).unwrap();
        assert!(matches!(expand(&[word], None), Err(ExpandError::Depth { .. })));
        assert!(matches!(expand(&[], Some(OsStr::new("'open"))), Err(ExpandError::Environment(_))));
        assert_eq!(texts(&expand(&["@".into(), "".into()], None).unwrap()), ["@", ""]);
    }

    #[test]
    fn the_other_name() {
        assert!(is_sshuttle(OsStr::new("sshuttle")) && is_sshuttle(OsStr::new("/usr/bin/sshuttle")));
        assert!(!is_sshuttle(OsStr::new("remotely")) && !is_sshuttle(OsStr::new("/sshuttle/remotely")));
    }
}
