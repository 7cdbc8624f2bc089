//! Rules about the source text that no compiler knows: which crate may use which, how files begin, how long they get, how
//! they are called. Run by `cargo xtask tidy` and as a test. Reads files, changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// Which crates of ours each crate may use, besides for its tests. A crate that is not named here is refused.
const ARROWS: [(&str, &[&str]); 10] = [
    ("proto", &[]),
    ("macros", &[]),
    ("session", &["remotely-proto"]),
    ("fs", &["remotely-proto", "remotely-session"]),
    ("call", &["remotely-proto", "remotely-session"]),
    ("copy", &["remotely-proto", "remotely-session"]),
    ("net", &["remotely-proto", "remotely-session"]),
    ("agent", &["remotely-proto", "remotely-session", "remotely-fs", "remotely-call", "remotely-copy", "remotely-net"]),
    (
        "remotely",
        &[
            "remotely-proto",
            "remotely-session",
            "remotely-fs",
            "remotely-call",
            "remotely-copy",
            "remotely-net",
            "remotely-agent",
            "remotely-macros",
        ],
    ),
    ("probe", &[]),
];

/// What the protocol may stand on: nothing that does input, output, or reads a clock.
const PROTO_USES: [&str; 3] = ["bytes", "minicbor", "thiserror"];

/// What must not occur in the protocol's source, and why.
const PROTO_AVOIDS: [&str; 8] =
    ["Instant::now", "SystemTime", "std::fs", "std::net", "std::process", "std::thread", "std::os", "std::env"];

const LINES: usize = 600;

/// Parts of a file name that say nothing about what is in it.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "helper", "helpers", "common", "misc", "manager", "core"];

/// Text that must not be in a finished source file. Written in two halves, so that this file may be checked too.
const UNFINISHED: [&str; 6] = [
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("#[ig", "nore"),
    concat!("db", "g!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
];

/// Everything that breaks a rule, one line each.
pub(crate) fn complaints(workspace: &Path) -> Vec<String> {
    let mut found = Vec::new();
    arrows(workspace, &mut found);
    for file in sources(workspace) {
        let shown = file.strip_prefix(workspace).unwrap_or(&file).display().to_string();
        match fs::read_to_string(&file) {
            Ok(text) => text_rules(&shown, &text, &mut found),
            Err(e) => found.push(format!("{shown}: cannot be read: {e}")),
        }
    }
    found
}

fn arrows(workspace: &Path, found: &mut Vec<String>) {
    let crates = fs::read_dir(workspace.join("crates")).into_iter().flatten().flatten();
    for entry in crates {
        let name = entry.file_name().to_string_lossy().into_owned();
        let manifest = fs::read_to_string(entry.path().join("Cargo.toml")).unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(of, _)| *of == name) else {
            found.push(format!(
                "crates/{name}: not in the table of arrows (xtask/src/tidy.rs); which crates may it use?"
            ));
            continue;
        };
        for used in dependencies(&manifest) {
            let ours = used.starts_with("remotely") || used == "testbed";
            if ours && !allowed.contains(&used.as_str()) {
                found.push(format!("crates/{name}: may not use {used}; arrows point one way (ARCHITECTURE.md)"));
            }
            if name == "proto" && !PROTO_USES.contains(&used.as_str()) {
                found.push(format!("crates/proto: may not use {used}; it does no I/O and reads no clock"));
            }
        }
    }
}

/// Names in the `[dependencies]` sections of a manifest, those for one platform included, those of tests not.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section == "dependencies" || section.ends_with(".dependencies");
            if let Some((_, name)) = section.split_once("dependencies.").filter(|(before, _)| !before.ends_with('-')) {
                names.push(name.to_owned());
            }
        } else if inside && let Some((key, _)) = line.split_once('=') {
            names.push(key.trim().trim_end_matches(".workspace").trim_matches('"').to_owned());
        }
    }
    names
}

fn text_rules(shown: &str, text: &str, found: &mut Vec<String>) {
    if !text.starts_with("//! ") {
        found.push(format!("{shown}:1: a file begins with `//! `: what it is, who calls it, what it must not do"));
    }
    let lines = text.lines().count();
    if lines > LINES {
        found.push(format!("{shown}: {lines} lines; above {LINES} nobody finds the room he looks for"));
    }
    let stem = Path::new(shown).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if stem.split(['_', '-']).any(|word| EMPTY_NAMES.contains(&word)) {
        found.push(format!("{shown}: a name that says nothing; see docs/glossary.md"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(mark) = UNFINISHED.iter().find(|mark| line.contains(**mark)) {
            found.push(format!("{shown}:{number}: {mark} is unfinished work"));
        }
        let avoided = PROTO_AVOIDS.iter().find(|name| line.contains(**name) && !line.trim_start().starts_with("//"));
        if let (true, Some(name)) = (shown.starts_with("crates/proto/src"), avoided) {
            found.push(format!("{shown}:{number}: {name}; proto does no I/O and reads no clock"));
        }
    }
}

/// All Rust files of the repository.
fn sources(workspace: &Path) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                if !name.starts_with("target") && !name.starts_with('.') {
                    walk(&path, found);
                }
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(workspace, &mut found);
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::{complaints, dependencies, text_rules};

    #[test]
    fn the_repository_is_tidy() {
        let found = complaints(&crate::workspace());
        assert!(found.is_empty(), "\n{}", found.join("\n"));
    }

    #[test]
    fn manifests_are_read() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\nremotely-fs.workspace = true\n\"a\" = \"1\"\n\
                        [dev-dependencies]\ntestbed.workspace = true\n[dependencies.b]\nversion = \"1\"\n\
                        [target.'cfg(unix)'.dependencies]\nc = \"1\"\n[dev-dependencies.d]\nversion = \"1\"\n";
        assert_eq!(dependencies(manifest), ["remotely-fs", "a", "b", "c"]);
    }

    #[test]
    fn rules_are_kept() {
        let complain = |shown: &str, text: &str| {
            let mut found = Vec::new();
            text_rules(shown, text, &mut found);
            found.len()
        };
        assert_eq!(complain("crates/fs/src/mount.rs", "//! What it is.\n"), 0);
        assert_eq!(complain("crates/fs/src/path_util.rs", "fn f() {}\n"), 2);
        assert_eq!(complain("crates/proto/src/mux.rs", "//! It.\nlet now = Instant::now();\n"), 1);
        assert_eq!(complain("x.rs", &format!("//! It.\n{}", "\n".repeat(600))), 1);
    }
}
