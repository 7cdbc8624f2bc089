//! What chopsticks documents, what its tests check, and what it is known to get wrong, asked of this library. Hosts are names for
//! this machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bugs;
mod documented;
mod giving_up;
mod suite;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use remotely::tunnel::Line;
use remotely::{Group, Tunnel, remote};

type Heard = Arc<Mutex<Vec<Line>>>;

/// A tunnel whose printed lines are kept.
fn listening(name: &str) -> (Tunnel, Heard) {
    let heard = Heard::default();
    let keep = heard.clone();
    (Tunnel::local().named(name).on_line(move |line| keep.lock().unwrap().push(line.clone())), heard)
}

fn local(name: &str) -> Tunnel {
    listening(name).0
}

fn group(names: &[&str]) -> Group {
    names.iter().map(|name| local(name)).collect()
}

/// What was printed, line by line.
fn text(heard: &Heard) -> Vec<String> {
    heard.lock().unwrap().iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect()
}

#[remote]
fn get_pid() -> u32 {
    std::process::id()
}

#[remote]
fn char_range(start: char, stop: char) -> String {
    (start..=stop).collect()
}

#[remote]
async fn sleep(millis: u64) {
    tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
}

#[remote]
async fn forever() {
    std::future::pending().await
}

/// Runs a script and returns what it wrote, as chopsticks' `check_output` does.
#[remote]
#[expect(clippy::disallowed_methods, reason = "what users do")]
fn check_output(script: String) -> Result<String, String> {
    let output = std::process::Command::new("sh").args(["-c", &script]).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

/// A script that becomes a tunnel: `command:PATH`.
fn way(dir: &tempfile::TempDir, script: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.path().join("way");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}
