//! Whether this machine's ssh has the ciphers that we prefer, found out behind a link and remembered for the next one. Used by
//! [`super::attempt`]; never reads the program on the way to the first byte.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::thread;

use super::executable::{cache, forget_all_but_newest, remember};
use crate::transport::session::knows_cipher;

/// Files of the cache are called so.
const PREFIX: &str = "ciphers-";

/// What is remembered of the program as it is now.
pub(super) fn known(program: &Path) -> Option<bool> {
    known_in(&cache()?, program)
}

/// Reads the program, some time soon, and remembers what it has. Once: this process has one ssh.
pub(super) fn find_out(program: PathBuf) {
    static ASKED: Once = Once::new();
    ASKED.call_once(|| {
        let ask = move || {
            if let Some(cache) = cache() {
                find_out_in(&cache, &program);
            }
        };
        // Nobody waits for it: without it, the next connection is as this one.
        let _ = thread::Builder::new().spawn(ask);
    });
}

fn known_in(cache: &Path, program: &Path) -> Option<bool> {
    match fs::read(place(cache, program)?).ok()?.as_slice() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

fn find_out_in(cache: &Path, program: &Path) {
    let Some(at) = place(cache, program) else { return };
    remember(cache, &at, if knows_cipher(program) { b"yes" } else { b"no" });
    forget_all_but_newest(cache, PREFIX);
}

/// By what tells that a program is another one.
fn place(cache: &Path, program: &Path) -> Option<PathBuf> {
    let about = fs::metadata(program).ok()?;
    let (device, inode, size) = (about.dev(), about.ino(), about.size());
    let (modified, nanoseconds) = (about.mtime(), about.mtime_nsec());
    Some(cache.join(format!("{PREFIX}{device:x}-{inode:x}-{size:x}-{modified:x}.{nanoseconds:x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_is_known_until_the_program_changes() {
        let directory = std::env::temp_dir().join(format!("remotely-ciphers-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let (cache, program) = (directory.join("cache"), directory.join("ssh"));
        fs::create_dir(&directory).unwrap();
        assert_eq!(known_in(&cache, &program), None);
        for (text, knows) in [("has aes128-gcm@openssh.com", true), ("has aes128-cbc", false)] {
            fs::write(&program, text).unwrap();
            assert_eq!(known_in(&cache, &program), None);
            find_out_in(&cache, &program);
            assert_eq!(known_in(&cache, &program), Some(knows));
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
