//! What a program that only calls functions looks like. `xtask light` builds it and weighs it against `by_hand`, which does the
//! same without the library.

use std::io;
use std::path::PathBuf;

use remotely::{Tunnel, remote};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    bytes: u64,
}

#[remote]
async fn list(path: PathBuf) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        entries.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), bytes: entry.metadata()?.len() });
    }
    Ok(entries)
}

#[remotely::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = std::env::args().nth(1).ok_or("which host?")?;
    println!("{:?}", Tunnel::to(&host)?.call(list, ("/etc".into(),)).await?);
    Ok(())
}
