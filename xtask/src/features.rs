//! Checks that the library builds without a warning also where a program takes only some of its features. Run by
//! `cargo xtask features`. Writes only below the target directory.

use std::path::Path;

use crate::dist::spawn;

/// What programs take: nothing, each by itself, and what has less to do with each other than it seems. All of them together is what
/// the rest of the checks builds.
const TAKEN: [&str; 10] =
    ["", "copy", "exec", "facts", "inventory", "net", "run", "tree", "exec,facts,inventory", "copy,run"];

/// What is wrong, one line each.
pub(crate) fn complaints(workspace: &Path) -> Vec<String> {
    TAKEN.iter().filter_map(|features| refused(workspace, features)).collect()
}

/// The agent goes along: its features are chosen by the library's.
fn refused(workspace: &Path, features: &str) -> Option<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let named: Vec<_> = features.split(',').filter(|name| !name.is_empty()).map(|f| format!("remotely/{f}")).collect();
    let mut clippy = spawn(&cargo);
    clippy.args(["clippy", "--quiet", "--package", "remotely", "--package", "remotely-agent", "--lib"]);
    clippy.args(["--no-default-features", "--features", &named.join(","), "--", "-D", "warnings"]);
    match clippy.current_dir(workspace).status() {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("remotely with the features {features:?}: {status}")),
        Err(e) => Some(format!("cargo could not be started: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::TAKEN;

    #[test]
    fn each_feature_is_taken_by_itself() {
        let manifest =
            std::fs::read_to_string(crate::workspace().join("crates/remotely/Cargo.toml")).expect("a manifest");
        let (_, features) = manifest.split_once("[features]\n").expect("features");
        let (features, _) = features.split_once("\n[").expect("an end");
        let names = features.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
        for name in names.filter(|name| !["default", "cli"].contains(name)) {
            assert!(TAKEN.contains(&name), "{name}");
        }
    }
}
