//! The same as `light`, by hand: a process over ssh that has to be there already, Tokio, the same encoding by serde, no errors
//! of the other side but their text. What `xtask light` takes off the size of `light`.

use std::path::PathBuf;
use std::process::Stdio;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

type Failure = Box<dyn std::error::Error>;

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    bytes: u64,
}

async fn list(path: PathBuf) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| e.to_string())? {
        let entry = entry.map_err(|e| e.to_string())?;
        let bytes = entry.metadata().map_err(|e| e.to_string())?.len();
        entries.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), bytes });
    }
    Ok(entries)
}

async fn send<T: Serialize>(to: &mut (impl AsyncWriteExt + Unpin), value: &T) -> Result<(), Failure> {
    let mut serializer = minicbor_serde::Serializer::new(Vec::new());
    value.serialize(&mut serializer)?;
    let bytes = serializer.into_encoder().into_writer();
    to.write_u32(u32::try_from(bytes.len())?).await?;
    to.write_all(&bytes).await?;
    Ok(to.flush().await?)
}

async fn receive<T: DeserializeOwned>(from: &mut (impl AsyncReadExt + Unpin)) -> Result<T, Failure> {
    let mut bytes = vec![0; from.read_u32().await? as usize];
    from.read_exact(&mut bytes).await?;
    Ok(T::deserialize(&mut minicbor_serde::Deserializer::new(&bytes))?)
}

async fn serve() -> Result<(), Failure> {
    let (mut stdin, mut stdout) = (tokio::io::stdin(), tokio::io::stdout());
    loop {
        let path = receive(&mut stdin).await?;
        let listed = tokio::spawn(list(path)).await?;
        send(&mut stdout, &listed).await?;
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let host = std::env::args().nth(1).ok_or("which host?")?;
    if host == "serve" {
        return serve().await;
    }
    let mut ssh = Command::new("ssh");
    let ssh = ssh.args([&host, "./by_hand", "serve"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = ssh.kill_on_drop(true).spawn()?;
    let (mut stdin, mut stdout) = (child.stdin.take().ok_or("a pipe")?, child.stdout.take().ok_or("a pipe")?);
    send(&mut stdin, &PathBuf::from("/etc")).await?;
    let listed: Result<Vec<Entry>, String> =
        tokio::time::timeout(std::time::Duration::from_secs(30), receive(&mut stdout)).await??;
    println!("{:?}", listed?);
    Ok(())
}
