//! The executables under test: `remotely` and `probe`, built once per test run unless `$REMOTELY_BIN` says where they are.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::cache;
use crate::spawn::{Process, command};

/// Where the executables under test are.
#[derive(Debug)]
pub struct Executables {
    all: Vec<PathBuf>,
}

impl Executables {
    const NAMES: [&str; 2] = ["remotely", "probe"];

    /// Those in the directory `$REMOTELY_BIN`, else built now with the profile `fast`.
    ///
    /// # Panics
    /// When they don't build.
    pub fn get() -> &'static Self {
        static FOUND: OnceLock<Executables> = OnceLock::new();
        FOUND.get_or_init(|| {
            let dir = std::env::var_os("REMOTELY_BIN").map_or_else(Self::build, PathBuf::from);
            let all: Vec<_> = Self::NAMES.iter().map(|name| dir.join(name)).collect();
            for path in &all {
                assert!(path.is_file(), "testbed: no executable {}", path.display());
            }
            Self { all }
        })
    }

    /// Builds them and returns their directory.
    ///
    /// # Panics
    /// When they don't build.
    pub fn build() -> PathBuf {
        let found = built(&Self::NAMES, "remotely");
        found.parent().unwrap_or(Path::new("/")).to_owned()
    }

    /// The executables.
    pub fn all(&self) -> &[PathBuf] {
        &self.all
    }

    /// `remotely` itself.
    pub fn remotely(&self) -> &Path {
        &self.all[0]
    }
}

/// Builds the executables that packages of this workspace are named after, with the profile `fast`, and returns the path of one.
///
/// # Panics
/// When they don't build.
pub fn built(packages: &[&str], executable: &str) -> PathBuf {
    let _lock = cache::lock("build");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("testbed is in the workspace");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = command(cargo);
    build.current_dir(workspace).args(["build", "--quiet", "--profile", "fast", "--message-format", "json"]);
    build.args(packages.iter().flat_map(|name| ["--package", name, "--bin", name]));
    let outcome = Process::start(&mut build, b"").wait(Duration::from_secs(1800));
    assert!(outcome.status.success(), "testbed: cargo build of {packages:?} failed\n{}", outcome.errors());
    // The one field of cargo's messages that is needed here; paths with escapes would not be found and reported.
    let text = outcome.text();
    let path = |line: &str| Some(PathBuf::from(line.split_once("\"executable\":\"")?.1.split_once('"')?.0));
    let found = text.lines().filter_map(path).find(|path| path.ends_with(executable));
    found.unwrap_or_else(|| panic!("testbed: cargo did not say where it put {executable}\n{text}"))
}
