//! The root file system that all hosts have as their lowest layer: Debian 12 minbase with an sshd, without compiler and
//! python. Made once per recipe by debootstrap, called by `Host`. Must not change after it was made.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use crate::cache;
use crate::spawn::{Process, command};

const RECIPE: &str = include_str!("image.sh");
const PACKAGES: &str = include_str!("packages.sh");

/// The base root and the key that opens its hosts.
#[derive(Debug)]
pub struct Image {
    room: PathBuf,
}

impl Image {
    /// The base of this recipe; the first call on a machine makes it, in about a minute.
    ///
    /// # Panics
    /// When it can't be made: without root, debootstrap or a Debian mirror no test can run.
    pub fn get() -> &'static Self {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        IMAGE.get_or_init(|| {
            let mirror = mirror();
            Self { room: made(RECIPE, "", &[("MIRROR", mirror.as_ref())]) }
        })
    }

    /// Its root with more Debian packages, made the first time it is asked for.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn root_with(&self, packages: &[String]) -> PathBuf {
        if packages.is_empty() {
            return self.root();
        }
        let names = packages.join(" ");
        made(PACKAGES, &names, &[("FROM", self.root().as_ref()), ("PACKAGES", names.as_ref())]).join("root")
    }

    /// Where its files are.
    pub fn root(&self) -> PathBuf {
        self.room.join("root")
    }

    /// The private key of the test user; its public half has `.pub` appended.
    pub fn key(&self) -> PathBuf {
        self.room.join("key")
    }
}

/// The directory that `recipe` makes with these variables; `what` tells those of one recipe apart.
fn made(recipe: &str, what: &str, variables: &[(&str, &OsStr)]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (RECIPE, recipe, what).hash(&mut hasher);
    let room = cache::directory().join(format!("image-{:016x}", hasher.finish()));
    let _lock = cache::lock("image");
    if room.exists() {
        return room;
    }
    assert!(
        rustix::process::geteuid().is_root(),
        "testbed: hosts are made of namespaces and mounts, the tests need root"
    );
    let unfinished = room.with_extension("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished).unwrap_or_else(|e| panic!("testbed: create {}: {e}", unfinished.display()));
    eprintln!("testbed: making the root of the hosts (once, about a minute) {what}");
    let mut shell = command("sh");
    shell.args(["-c", recipe]).env("ROOM", &unfinished).envs(variables.iter().copied());
    let outcome = Process::start(&mut shell, b"").wait(Duration::from_secs(900));
    assert!(outcome.status.success(), "testbed: the root of the hosts could not be made, {variables:?}\n{outcome}");
    fs::rename(&unfinished, &room).unwrap_or_else(|e| panic!("testbed: rename to {}: {e}", room.display()));
    room
}

/// The Debian mirror of this machine's apt sources.
fn mirror() -> String {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|e| e.path()));
    }
    files.sort();
    let found = files.iter().filter_map(|f| fs::read_to_string(f).ok()).find_map(|text| mirror_in(&text));
    found.unwrap_or_else(|| "http://deb.debian.org/debian".to_owned())
}

/// The first archive of Debian itself (no security updates, no third parties) in one file of apt sources.
fn mirror_in(sources: &str) -> Option<String> {
    let lines = sources.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let mut words =
        lines.filter(|line| line.starts_with("deb ") || line.starts_with("URIs:")).flat_map(str::split_whitespace);
    let found = words.find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))?;
    Some(found.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::mirror_in;

    #[test]
    fn finds_the_mirror_in_both_formats() {
        let old = "# deb http://x/debian a main\ndeb [arch=amd64] http://mirror.example/debian/ bookworm main\n";
        let new = "Types: deb\nURIs: http://deb.debian.org/debian-security\n\nTypes: deb\nURIs: http://deb.debian.org/debian\n";
        assert_eq!(mirror_in(old).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(mirror_in(new).as_deref(), Some("http://deb.debian.org/debian"));
        assert_eq!(mirror_in("deb https://packages.example/apt x main"), None);
    }
}
