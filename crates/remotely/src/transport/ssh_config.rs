//! What the user has chosen of ssh himself, as far as it concerns us, found without starting ssh: its configuration is read for
//! a few words. A word that stands there for another host only counts too; then nothing is changed, which is never wrong.
//! Used by [`super::session`].

use std::collections::HashSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// More files than this, or longer ones, are not read: then everything counts as chosen.
const FILES_MAX: usize = 64;
const FILE_MAX: u64 = 1 << 20;
/// So much of a script is read.
const SCRIPT_MAX: u64 = 4 << 10;
/// A file of a program that names this knows the ciphers that we prefer.
const CIPHER: &[u8] = b"aes128-gcm@openssh.com";

/// What the user has chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Whether connections are shared.
    pub(super) control: bool,
    /// Whether there are ciphers of his choice, or of a program in place of ssh.
    pub(super) ciphers: bool,
    /// The program that is ssh in the end, if it was found.
    pub(super) program: Option<PathBuf>,
}

const ALL: Chosen = Chosen { control: true, ciphers: true, program: None };

/// What is chosen for an `ssh` of `PATH` with these options.
pub(super) fn chosen(opts: &[OsString]) -> Chosen {
    let Some(program) = find(&env::var_os("PATH").unwrap_or_default()) else { return ALL };
    let home = env::var_os("HOME").map(PathBuf::from);
    chosen_by(&program, home.as_deref(), Path::new("/etc/ssh/ssh_config"), opts)
}

fn chosen_by(program: &Path, home: Option<&Path>, system: &Path, opts: &[OsString]) -> Chosen {
    let mut read =
        Reading { chosen: Chosen::default(), seen: HashSet::new(), user: home.map(|home| home.join(".ssh")) };
    let mut files = read.words(opts.iter().map(|word| word.as_bytes()));
    // A script in front of ssh gives it options of its own.
    let mut text = Vec::new();
    let Ok(file) = File::open(program) else { return ALL };
    if file.take(SCRIPT_MAX).read_to_end(&mut text).is_err() {
        return ALL;
    }
    if text.starts_with(b"#!") {
        let words: Vec<&[u8]> = text.split(|byte| byte.is_ascii_whitespace()).collect();
        files.extend(read.words(words.iter().copied()));
        let real = words.iter().find(|word| word.starts_with(b"/") && word.ends_with(b"/ssh"));
        read.chosen.program = real.map(|path| PathBuf::from(OsStr::from_bytes(path)));
        read.chosen.ciphers |= real.is_none();
    } else {
        read.chosen.program = Some(program.to_owned());
    }
    if files.is_empty() {
        files.extend(read.user.as_ref().map(|user| user.join("config")));
        files.push(system.to_owned());
    }
    files.iter().for_each(|file| read.file(file));
    read.chosen
}

fn find(path: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file();
    env::split_paths(path).map(|directory| directory.join("ssh")).find(is_program)
}

/// Whether a program has the ciphers that we prefer. Reads all of it: nothing for the way to the first byte.
pub(crate) fn knows_cipher(program: &Path) -> bool {
    fs::read(program).is_ok_and(|text| contains(&text, CIPHER))
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    // SAFETY: both are as long as is said; memmem(3) reads them and nothing else. A megabyte takes it a tenth of a millisecond.
    let found = unsafe { libc::memmem(text.as_ptr().cast(), text.len(), what.as_ptr().cast(), what.len()) };
    !found.is_null()
}

struct Reading {
    chosen: Chosen,
    seen: HashSet<PathBuf>,
    user: Option<PathBuf>,
}

impl Reading {
    /// Words of a command line. Returns the files that stand behind `-F`, in place of which others are not read.
    fn words<'a>(&mut self, words: impl Iterator<Item = &'a [u8]>) -> Vec<PathBuf> {
        let (mut files, mut file_follows) = (Vec::new(), false);
        for word in words {
            if file_follows || (word.starts_with(b"-F") && word.len() > 2) {
                let file = word.strip_prefix(b"-F").unwrap_or(word);
                // A variable of a script.
                if file.iter().any(|byte| b"$\"'`".contains(byte)) {
                    self.chosen = ALL;
                }
                files.push(PathBuf::from(OsStr::from_bytes(file)));
                file_follows = false;
                continue;
            }
            file_follows = word == b"-F";
            let lower = word.to_ascii_lowercase();
            self.chosen.control |= contains(&lower, b"control") || word.starts_with(b"-M") || word.starts_with(b"-S");
            self.chosen.ciphers |= contains(&lower, b"ciphers") || word.starts_with(b"-c");
        }
        files
    }

    fn file(&mut self, path: &Path) {
        if !self.seen.insert(path.to_owned()) {
            return;
        }
        let Ok(about) = fs::metadata(path) else { return };
        if self.seen.len() > FILES_MAX || about.len() > FILE_MAX {
            self.chosen = ALL;
            return;
        }
        let Ok(text) = fs::read(path) else { return };
        for line in text.split(|byte| *byte == b'\n') {
            let mut words =
                line.split(|byte| byte.is_ascii_whitespace() || *byte == b'=').filter(|word| !word.is_empty());
            let Some(keyword) = words.next() else { continue };
            match keyword.to_ascii_lowercase().as_slice() {
                b"controlmaster" | b"controlpath" | b"controlpersist" => self.chosen.control = true,
                b"ciphers" => self.chosen.ciphers = true,
                b"include" => words.for_each(|pattern| self.include(pattern, path)),
                _ => {}
            }
        }
    }

    /// All files of a directory, where only some may be meant.
    fn include(&mut self, pattern: &[u8], from: &Path) {
        let text = pattern.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(pattern);
        let is_pattern = |bytes: &[u8]| bytes.iter().any(|byte| b"*?[\"$%".contains(byte));
        let path = match (text.strip_prefix(b"~/"), &self.user) {
            (Some(rest), Some(user)) => user.join("..").join(OsStr::from_bytes(rest)),
            (None, _) if text.starts_with(b"/") => PathBuf::from(OsStr::from_bytes(text)),
            // Beside the file of the system, or in the directory of the user.
            (None, _) if !text.starts_with(b"~") => match from.parent() {
                Some(beside) => beside.join(OsStr::from_bytes(text)),
                None => return,
            },
            _ => {
                self.chosen = ALL;
                return;
            }
        };
        let Some(directory) = path.parent() else { return };
        if is_pattern(directory.as_os_str().as_bytes()) {
            self.chosen = ALL;
        } else if path.file_name().is_some_and(|name| is_pattern(name.as_bytes())) {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries.for_each(|entry| self.file(&entry.path()));
        } else {
            self.file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("remotely-config-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("home/.ssh/more")).unwrap();
            fs::create_dir_all(path.join("etc")).unwrap();
            let place = Self(path);
            place.write("ssh", b"\x7fELF aes128-gcm@aes128-gcm@openssh.com");
            place
        }

        fn write(&self, name: &str, text: impl AsRef<[u8]>) {
            fs::write(self.0.join(name), text).unwrap();
        }

        fn chosen(&self, opts: &[&str]) -> (bool, bool) {
            let opts: Vec<OsString> = opts.iter().map(Into::into).collect();
            let at = |name: &str| self.0.join(name);
            let chosen = chosen_by(&at("ssh"), Some(&at("home")), &at("etc/ssh_config"), &opts);
            assert!(chosen.ciphers || chosen.program.is_some());
            (chosen.control, chosen.ciphers)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_stands_in_a_configuration_is_found_through_includes_and_scripts() {
        let place = Place::new("files");
        assert_eq!(place.chosen(&["-A"]), (false, false));
        place.write("home/.ssh/config", "Host web\n  User me\nInclude more/*.conf\n");
        place.write("home/.ssh/more/1.conf", "# nothing\nCompression=yes\n");
        place.write("etc/ssh_config", format!("Include {}/etc/d/*.conf\n", place.0.display()));
        assert_eq!(place.chosen(&[]), (false, false));
        place.write("home/.ssh/more/2.conf", "Host db\n\tcontrolPATH=~/.ssh/%C\n");
        assert_eq!(place.chosen(&[]), (true, false));
        fs::create_dir_all(place.0.join("etc/d")).unwrap();
        place.write("etc/d/crypto.conf", "Ciphers aes256-ctr\n");
        assert_eq!(place.chosen(&[]), (true, true));
        // In place of both.
        place.write("other", "User you\n");
        let other = place.0.join("other").display().to_string();
        assert_eq!(place.chosen(&["-F", &other]), (false, false));
        assert_eq!(place.chosen(&[&format!("-F{other}"), "-oControlMaster=no"]), (true, false));
        assert_eq!(place.chosen(&["-F", &other, "-c", "aes128-ctr"]), (false, true));
    }

    #[test]
    fn a_script_in_front_of_ssh_counts_as_its_options() {
        let place = Place::new("script");
        fs::create_dir_all(place.0.join("real")).unwrap();
        place.write("real/ssh", b"\x7fELF aes128-gcm@openssh.com");
        let at = |name: &str| place.0.join(name).display().to_string();
        place.write("mine", "Host *\n");
        place.write("ssh", format!("#!/bin/sh\nexec {} -F {} \"$@\"\n", at("real/ssh"), at("mine")));
        assert_eq!(place.chosen(&[]), (false, false));
        place.write("mine", "ControlMaster auto\n");
        assert_eq!(place.chosen(&[]), (true, false));
        place.write("ssh", format!("#!/bin/sh\nexec {} -F \"$CONFIG\" \"$@\"\n", at("real/ssh")));
        assert_eq!(place.chosen(&[]), (true, true));
        place.write("ssh", "#!/bin/sh\nexec dbclient \"$@\"\n");
        assert_eq!(place.chosen(&[]), (false, true));
    }

    #[test]
    fn a_program_with_the_cipher_is_told_from_one_without() {
        let place = Place::new("old");
        let program = place.0.join("ssh");
        assert!(knows_cipher(&program));
        place.write("ssh", b"\x7fELF aes128-cbc");
        assert!(!knows_cipher(&program));
        assert!(!knows_cipher(&place.0.join("none")));
    }
}
