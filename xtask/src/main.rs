//! Chores of the repository: `cargo xtask tidy`, `cargo xtask dist`, `cargo xtask light` and `cargo xtask features`. Called by developers
//! and by `check`.

use std::process::ExitCode;

mod dist;
mod features;
mod light;
mod tidy;

fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    let complaints = match task.as_deref() {
        Some("tidy") => tidy::complaints(&workspace()),
        Some("dist") => dist::complaints(&workspace()),
        Some("light") => light::complaints(&workspace()),
        Some("features") => features::complaints(&workspace()),
        _ => vec!["usage: cargo xtask tidy|dist|light|features".to_owned()],
    };
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn workspace() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
