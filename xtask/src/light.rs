//! Checks that a program which only calls functions stays light: which crates it stands on, and by how much the library makes it
//! larger. Run by `cargo xtask light`. Writes only below the target directory.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::dist::{executables, has_interpreter, spawn};

/// The package of the two programs: one calls a function, the other does the same by hand, with Tokio and serde.
const PACKAGE: &str = "caller";
const CALLS: &str = "light";
const BY_HAND: &str = "by_hand";

/// Bytes by which the first may be larger than the second.
const LARGEST: u64 = 1 << 20;

/// Crates that are for the command line, for commands, or for nobody who only calls functions; those that begin so, too.
const HEAVY: [&str; 14] = [
    "clap",
    "indicatif",
    "fuser",
    "remotely-fs",
    "nft",
    "rustables",
    "netlink",
    "similar",
    "saphyr",
    "toml",
    "serde_json",
    "tracing-subscriber",
    "regex",
    "openssl",
];

/// What is wrong, one line each; what is right is said on standard output.
pub(crate) fn complaints(workspace: &Path) -> Vec<String> {
    let crates = match crates(workspace) {
        Ok(text) => text,
        Err(what) => return vec![what],
    };
    let mut found = heavy(&crates);
    match sizes(workspace) {
        Ok((calls, by_hand)) => {
            let more = calls.saturating_sub(by_hand);
            println!("{CALLS}: {calls} bytes, {more} more than {BY_HAND}");
            if more > LARGEST {
                found.push(format!("{CALLS}: {more} bytes more than {BY_HAND}, at most {LARGEST} are allowed"));
            }
        }
        Err(what) => found.push(what),
    }
    found
}

fn heavy(crates: &str) -> Vec<String> {
    let names = crates.lines().filter_map(|line| line.split_ascii_whitespace().next());
    let heavy = names.filter(|name| HEAVY.iter().any(|heavy| name.starts_with(heavy)));
    heavy.map(|name| format!("{PACKAGE}: stands on {name}, which nobody needs who only calls functions")).collect()
}

/// One line for each crate that the package stands on when it is built by itself.
fn crates(workspace: &Path) -> Result<String, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut tree = spawn(&cargo);
    tree.args([
        "tree",
        "--package",
        PACKAGE,
        "--no-default-features",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let output = tree.current_dir(workspace).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| format!("cargo could not be started: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() && text.contains("remotely ") {
        Ok(text)
    } else {
        Err(format!("cargo tree: {}, and no word of remotely", output.status))
    }
}

/// Of both programs, static and stripped.
fn sizes(workspace: &Path) -> Result<(u64, u64), String> {
    let built =
        executables(workspace, &["--package", PACKAGE, "--no-default-features", "--bin", CALLS, "--bin", BY_HAND])?;
    let size = |name: &str| {
        let path = built.iter().find(|path| path.ends_with(name)).ok_or(format!("cargo built no {name}"))?;
        let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        if has_interpreter(&bytes) != Some(false) {
            return Err(format!("{}: not a static executable", path.display()));
        }
        Ok(bytes.len() as u64)
    };
    Ok((size(CALLS)?, size(BY_HAND)?))
}

#[cfg(test)]
mod tests {
    use super::{crates, heavy};

    #[test]
    fn a_program_that_calls_functions_stands_on_light_crates() {
        let crates = crates(&crate::workspace()).expect("cargo tree");
        assert!(heavy(&crates).is_empty(), "{:?}", heavy(&crates));
    }

    #[test]
    fn heavy_crates_are_found() {
        assert_eq!(
            heavy("tokio v1.0.0\nclap_builder v4.0.0\nremotely v0.1.0 (/x)\nremotely-fs v0.1.0 (/y)\n").len(),
            2
        );
    }
}
