//! A directory that goes with the test, also when the test is killed: a process outside its process group removes it as
//! soon as the pipe to it is closed. Used by `Host` and `Client`.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::spawn::command;

/// A directory below `$TMPDIR`, removed when dropped or when this process ends in whatever way.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    remover: Child,
}

impl Scratch {
    /// Makes it: mode 755, owned by root.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn new() -> Self {
        // What is made here is read by other users.
        rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("remotely-testbed-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let made = fs::DirBuilder::new().mode(0o755).create(&path);
        made.unwrap_or_else(|e| panic!("testbed: create {}: {e}", path.display()));
        let script = "cat; rm -rf --one-file-system \"$0\"";
        let remover = command("setsid")
            .args(["sh", "-c", script])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn();
        Self { path, remover: remover.unwrap_or_else(|e| panic!("testbed: start setsid: {e}")) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file in it, with its parent directories, mode and owner, and returns its path.
    ///
    /// # Panics
    /// When that fails.
    pub fn write(&self, name: &str, mode: u32, owner: u32, bytes: &[u8]) -> PathBuf {
        let path = self.path.join(name.trim_start_matches('/'));
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(&path, bytes)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            chown(&path, Some(owner), Some(owner))
        };
        write().unwrap_or_else(|e| panic!("testbed: write {}: {e}", path.display()));
        path
    }

    /// Makes a directory in it, with mode and owner, and returns its path.
    ///
    /// # Panics
    /// When that fails.
    pub fn directory(&self, name: &str, mode: u32, owner: u32) -> PathBuf {
        let path = self.path.join(name.trim_start_matches('/'));
        let make = || {
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            chown(&path, Some(owner), Some(owner))
        };
        make().unwrap_or_else(|e| panic!("testbed: create {}: {e}", path.display()));
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        let _ = self.remover.wait();
    }
}
