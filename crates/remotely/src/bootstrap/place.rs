//! What an agent executable says and does about itself on a host, before it is the agent: `--hash` for a
//! `remotely-host` found in `PATH`, `--verify HASH` for one just uploaded. Called by [`crate::agent`] only.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::executable::{Hash, forget_all_but_newest};

/// Prints the hash of the executable that runs.
pub fn print_hash() -> io::Result<()> {
    let hash = own_hash()?;
    writeln!(io::stdout(), "{hash}")
}

/// Whether the executable that runs has this hash. If so, it is on the disk when this returns, and its directory is tidied: it is a cache of agents, and this is
/// the one moment at which somebody waits for an upload anyway.
pub fn verify(expected: &[u8]) -> io::Result<()> {
    let hash = own_hash()?;
    if hash.as_str().as_bytes() != expected {
        return Err(io::Error::other(format!("the upload is damaged: its hash is {hash}")));
    }
    // Before it gets its name: after a crash there would be the name, and no bytes.
    match File::open("/proc/self/exe")?.sync_all() {
        // Some file systems have nothing to sync.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {}
        synced => synced?,
    }
    if let Ok(own) = fs::read_link("/proc/self/exe")
        && let Some(directory) = own.parent()
    {
        remove_cut_uploads(directory, &own);
        forget_all_but_newest(directory, "agent-");
    }
    Ok(())
}

fn own_hash() -> io::Result<Hash> {
    Hash::read(File::open("/proc/self/exe")?)
}

/// Removes what uploads left that were cut: temporary files that nobody has open.
fn remove_cut_uploads(directory: &Path, own: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().as_bytes().starts_with(b".new-")) {
        let path = entry.path();
        if path != own && is_abandoned(&path) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// An upload in progress has its file open, but for moments between two steps. Other machines may share the directory,
/// whose open files are not seen here, so that only what is old is abandoned where leases are not to be had.
fn is_abandoned(path: &Path) -> bool {
    let age = |file: &File| {
        Some(SystemTime::now().duration_since(file.metadata().ok()?.modified().ok()?).unwrap_or_default())
    };
    let Ok(file) = File::open(path) else { return false };
    let Some(age) = age(&file) else { return false };
    if age > Duration::from_secs(3600) {
        return true;
    }
    age > Duration::from_secs(1) && is_open_nowhere_else(&file)
}

/// A write lease (fcntl(2), F_SETLEASE) is granted only on a file that nobody else has open on this machine.
fn is_open_nowhere_else(file: &File) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: fcntl on a descriptor that is open; no memory is passed.
    let granted = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) } == 0;
    if granted {
        // SAFETY: as above.
        unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    }
    granted
}
