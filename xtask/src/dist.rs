//! Builds the release executable and checks what its users count on: one static file, small enough to be shipped.
//! Run by `cargo xtask dist`. Writes only below the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Bytes of the executable at most.
const LARGEST: usize = 8 << 20;
/// Bytes of it at most when compressed, as it is sent to a host.
const LARGEST_SENT: usize = 7 << 19;

/// Builds it and tells what is wrong with it, one line each; what is right is said on standard output.
pub(crate) fn complaints(workspace: &Path) -> Vec<String> {
    match build(workspace) {
        Ok(path) => judge(&path).unwrap_or_else(|e| vec![format!("{}: {e}", path.display())]),
        Err(what) => vec![what],
    }
}

fn judge(path: &Path) -> std::io::Result<Vec<String>> {
    let bytes = fs::read(path)?;
    let packed = spawn("gzip").args(["-6", "-c"]).arg(path).stderr(Stdio::inherit()).output()?.stdout;
    println!("{}: {} bytes, {} bytes as gzip", path.display(), bytes.len(), packed.len());
    let mut found = Vec::new();
    if bytes.len() > LARGEST {
        found.push(format!("{}: {} bytes, at most {LARGEST} are allowed", path.display(), bytes.len()));
    }
    if packed.is_empty() || packed.len() > LARGEST_SENT {
        found.push(format!("{}: {} bytes as gzip, at most {LARGEST_SENT} are allowed", path.display(), packed.len()));
    }
    match has_interpreter(&bytes) {
        Some(false) => {}
        Some(true) => found.push(format!("{}: needs a dynamic loader; it must be static", path.display())),
        None => found.push(format!("{}: not an ELF executable of 64 bits", path.display())),
    }
    Ok(found)
}

fn build(workspace: &Path) -> Result<PathBuf, String> {
    let found = executables(workspace, &["--package", "remotely"])?;
    let found = found.into_iter().find(|path| path.ends_with("remotely"));
    found.ok_or_else(|| "cargo did not say where the executable is".to_owned())
}

/// Builds what is named, for release, and returns the executables.
pub(crate) fn executables(workspace: &Path, named: &[&str]) -> Result<Vec<PathBuf>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = spawn(&cargo);
    command.args(["build", "--release", "--message-format", "json-render-diagnostics"]).args(named);
    let output = command.current_dir(workspace).stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| format!("cargo could not be started: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo build: {}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.lines().filter_map(|line| line.split_once("\"executable\":\"")?.1.split_once('"'));
    Ok(paths.map(|(path, _)| PathBuf::from(path)).collect())
}

/// Whether an ELF file of 64 bits, little endian, names a dynamic loader (elf(5), PT_INTERP). `None` if it is no such file.
pub(crate) fn has_interpreter(bytes: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, len: usize| {
        let field = bytes.get(at..at + len)?;
        Some(field.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte)))
    };
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    let kinds = (0..count).map(|i| number((table + i * size) as usize, 4));
    Some(kinds.flatten().any(|kind| kind == u64::from(INTERPRETER)))
}

#[expect(clippy::disallowed_methods, reason = "the one spawner of this crate")]
pub(crate) fn spawn(program: &str) -> Command {
    Command::new(program)
}

#[cfg(test)]
mod tests {
    use super::has_interpreter;

    #[test]
    fn tells_static_from_dynamic() {
        let shell = std::fs::read("/bin/sh").expect("a shell");
        assert_eq!(has_interpreter(&shell), Some(true));
        assert_eq!(has_interpreter(&std::fs::read("/proc/self/exe").expect("this test")), Some(false));
        assert_eq!(has_interpreter(b"#!/bin/sh\n"), None);
    }
}
