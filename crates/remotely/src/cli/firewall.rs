//! `remotely firewall METHOD`: the elevated helper of `remotely net`, which starts it; `remotely firewall release`: lifts what kill switches
//! are left. Not for users. sudo may have been told to let anybody run it: so it takes one word and no other, without the grammar of the
//! other commands. The work is done by [`remotely_net::firewall`].

use std::ffi::OsString;
use std::process::ExitCode;

use remotely_net::firewall::{Settings, lift, serve};

use super::log;
use crate::report::{self, Failure, exit_code};

/// What it can be asked for.
pub(super) const WORDS: [&str; 5] = ["auto", "nft", "nat", "tproxy", RELEASE];
/// Lifts kill switches.
pub(crate) const RELEASE: &str = "release";

pub(super) fn main(words: &[OsString]) -> ExitCode {
    log::start(0);
    let word = match words {
        [word] => WORDS.into_iter().find(|known| word == known),
        _ => None,
    };
    let Some(word) = word else {
        report::note(&format!("the firewall helper takes one word, one of {}", WORDS.join(", ")));
        return exit_code(Failure::Setup);
    };
    let settings = Settings::new(word);
    if word == RELEASE {
        lift(&settings);
        return ExitCode::SUCCESS;
    }
    match serve(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error, None);
            exit_code(Failure::Setup)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_else_is_refused() {
        for words in [&[][..], &["pf"], &["nft", "x"], &["feign", "local:"], &["--help"], &["-V"], &["nft", "--", "id"]]
        {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert_eq!(main(&words), exit_code(Failure::Setup), "{words:?}");
        }
    }
}
