//! The grammar in front of clap: options with or without dashes, before or after the target, up to the first `--`; and
//! what the words mean that are left. Pure; the names come from clap's own definitions.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::transport::shell;

/// The words as clap reads them: the program's name, the subcommand if any, options with two dashes and their value
/// behind `=`, the target, and everything from the first `--` as it is.
pub(super) fn normalize(command: &clap::Command, words: Vec<OsString>) -> Result<Vec<OsString>, WordsError> {
    let options = Options::of(command);
    let subcommands: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    let separator = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (head, tail) = words.split_at(separator);

    // Short options mean something else to each command, and may stand before its name.
    let ahead = head.iter().find_map(|word| named(&subcommands, word, true));
    let mut subcommand: Option<&str> = None;
    let mut explicit_run = false;
    let mut given: Vec<OsString> = Vec::new();
    let mut positional: Vec<(usize, &OsStr)> = Vec::new();
    let mut rest = head.iter().enumerate();
    while let Some((at, word)) = rest.next() {
        let (name, value) = name_and_value(word);
        // It may stand anywhere, but takes no other command's place: what `remotely firewall` may do is what sudo was told.
        if name == b"feign" && value.is_none() && subcommand.is_none() {
            subcommand = Some("feign");
        } else if let Some(takes_value) = options.long(word, name, subcommand) {
            let value = match value {
                None if takes_value => match rest.next() {
                    Some((_, word)) => Some(word.as_bytes()),
                    None => return Err(WordsError::NoValue { option: option(name, None) }),
                },
                value => value,
            };
            given.push(option(name, value));
        } else if is_option(word) {
            given.push(word.clone());
            if options.short_wants_more(word, subcommand.or(ahead)) {
                match rest.next() {
                    Some((_, value)) => given.push(value.clone()),
                    None => return Err(WordsError::NoValue { option: word.clone() }),
                }
            }
        } else if positional.is_empty() && subcommand.is_none() && !explicit_run && word == "run" {
            explicit_run = true;
        } else if let Some(found) =
            named(&subcommands, word, positional.is_empty() && subcommand.is_none() && !explicit_run)
        {
            subcommand = Some(found);
        } else {
            positional.push((at, word));
        }
    }

    if matches!(subcommand, None | Some("feign"))
        && let Some(&(at, _)) = positional.get(1)
    {
        return Err(match subcommand {
            None => WordsError::NoSeparator { corrected: corrected(&words, at) },
            Some(_) => WordsError::FeignRunsNothing,
        });
    }
    if subcommand == Some("feign") && !tail.is_empty() {
        return Err(WordsError::FeignRunsNothing);
    }

    let mut out: Vec<OsString> = vec!["remotely".into()];
    out.extend(subcommand.map(OsString::from));
    out.extend(given);
    out.extend(positional.into_iter().map(|(_, word)| word.to_owned()));
    out.extend(tail.iter().cloned());
    Ok(out)
}

/// The commands, and the run without a name, whose options may be written without dashes. Words of the others are hosts and files.
const DASHLESS: [&str; 4] = ["", "feign", "doctor", "hosts"];

/// The options of every command, and whether the next word is their value.
struct Options {
    /// By command, the one without a name first.
    long: Vec<(String, HashMap<Vec<u8>, bool>)>,
    /// Short ones that take a value, in the same order.
    valued: Vec<Vec<u8>>,
}

impl Options {
    fn of(command: &clap::Command) -> Self {
        let mut options = Self { long: Vec::new(), valued: Vec::new() };
        for (n, command) in std::iter::once(command).chain(command.get_subcommands()).enumerate() {
            let mut valued = Vec::new();
            let mut names: HashMap<Vec<u8>, bool> = [(b"help".to_vec(), false), (b"version".to_vec(), false)].into();
            for argument in command.get_arguments() {
                let takes_value = argument.get_action().takes_values() && !argument.is_positional();
                // What wants a '=' may stand alone: the next word is not its value.
                let takes_value = takes_value && !argument.is_require_equals_set();
                for name in argument.get_long_and_visible_aliases().unwrap_or_default() {
                    names.insert(name.into(), takes_value);
                }
                valued.extend(argument.get_short().filter(|_| takes_value).and_then(|c| u8::try_from(c).ok()));
            }
            options.valued.push(valued);
            options.long.push((if n == 0 { String::new() } else { command.get_name().into() }, names));
        }
        options
    }

    /// Whether a word is a long option, and whether the next word is its value if it has none. Without dashes it is one only of the command
    /// that was named so far: what is an option of another may well be a host.
    fn long(&self, word: &OsStr, name: &[u8], subcommand: Option<&str>) -> Option<bool> {
        let own = subcommand.unwrap_or_default();
        let bare = DASHLESS.contains(&own);
        let mut tables = self.long.iter().filter(|(command, _)| is_option(word) || (bare && command == own));
        tables.find_map(|(_, names)| names.get(name).copied())
    }

    /// Whether the value of a short option of this command, the last of a word such as `-fx`, is the next word.
    fn short_wants_more(&self, word: &OsStr, subcommand: Option<&str>) -> bool {
        let bytes = word.as_bytes();
        let own = subcommand.unwrap_or_default();
        let table = self.long.iter().position(|(command, _)| command == own);
        let table = table.map_or(&[][..], |n| &self.valued[n]);
        let valued = bytes.iter().skip(1).position(|c| table.contains(c));
        !bytes.starts_with(b"--") && valued.is_some_and(|at| at + 2 == bytes.len())
    }
}

/// Without its dashes (two at most), split at the first `=`.
fn name_and_value(word: &OsStr) -> (&[u8], Option<&[u8]>) {
    let bytes = word.as_bytes();
    let bare = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).unwrap_or(bytes);
    match bare.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bare[..at], Some(&bare[at + 1..])),
        None => (bare, None),
    }
}

fn option(name: &[u8], value: Option<&[u8]>) -> OsString {
    let mut word = [b"--", name].concat();
    if let Some(value) = value {
        word.push(b'=');
        word.extend(value);
    }
    OsString::from_vec(word)
}

/// Options with dashes, and what clap is to refuse; a dash alone is standard input.
fn is_option(word: &OsStr) -> bool {
    word.len() > 1 && word.as_bytes().starts_with(b"-")
}

fn named<'a>(subcommands: &[&'a str], word: &OsStr, possible: bool) -> Option<&'a str> {
    subcommands.iter().find(|name| possible && word == **name).copied()
}

/// The line as it was meant, with `--` before the word `at`.
fn corrected(words: &[OsString], at: usize) -> String {
    let mut line = String::from("remotely");
    for (n, word) in words.iter().enumerate() {
        if n == at {
            line.push_str(" --");
        }
        line.push(' ');
        line.push_str(&shell::quote(word).to_string_lossy());
    }
    line
}

/// Why the words mean nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WordsError {
    /// Words follow the target without `--`.
    #[error("the command must be set off from the target by a word of its own, '--'")]
    NoSeparator {
        /// The line with it.
        corrected: String,
    },
    /// An option that takes a value stands last.
    #[error("{} wants a value", option.to_string_lossy())]
    NoValue {
        /// With its dashes.
        option: OsString,
    },
    /// A command for feign.
    #[error("feign runs no command: it sets everything up and gives you a shell on the host")]
    FeignRunsNothing,
}

impl WordsError {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            WordsError::NoSeparator { corrected } => Some(corrected.clone()),
            WordsError::NoValue { .. } | WordsError::FeignRunsNothing => None,
        }
    }
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
