//! Chores of the repository: `cargo xtask tidy`, `cargo xtask dist` and `cargo xtask light`. Called by developers and by `check`.

use std::process::ExitCode;

mod dist;
mod light;
mod tidy;

fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    let complaints = match task.as_deref() {
        Some("tidy") => tidy::complaints(&workspace()),
        Some("dist") => dist::complaints(&workspace()),
        Some("light") => light::complaints(&workspace()),
        _ => vec!["usage: cargo xtask tidy|dist|light".to_owned()],
    };
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn workspace() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
