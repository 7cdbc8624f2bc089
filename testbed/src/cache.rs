//! What outlives a test run: the directory with the base root, locks between processes, and numbers that are this
//! process's alone (for addresses and user ids). Nothing here is inside the source tree.

use std::fs::{self, File};
use std::path::PathBuf;

/// `$REMOTELY_TESTBED`, else `/var/cache/remotely-testbed`.
pub fn directory() -> PathBuf {
    std::env::var_os("REMOTELY_TESTBED").map_or_else(|| "/var/cache/remotely-testbed".into(), PathBuf::from)
}

/// Waits for the lock of that name; it is held until the file is dropped or the process is gone.
///
/// # Panics
/// When the cache directory can't be written.
pub fn lock(name: &str) -> File {
    let file = open(&format!("{name}.lock"));
    file.lock().unwrap_or_else(|e| panic!("testbed: lock {name}: {e}"));
    file
}

/// A number that no other process of this machine has at the same time; free again when dropped or at the process's end.
#[derive(Debug)]
pub struct Slot {
    number: u16,
    _lock: File,
}

impl Slot {
    const COUNT: u16 = 4096;

    /// Takes the lowest free number.
    ///
    /// # Panics
    /// When the cache directory can't be written or all are taken.
    pub fn take() -> Self {
        for number in 0..Self::COUNT {
            let file = open(&format!("slot/{number}"));
            if file.try_lock().is_ok() {
                return Self { number, _lock: file };
            }
        }
        panic!("testbed: all {} slots are taken", Self::COUNT)
    }

    /// The outer and the inner address of a /30 network of its own in 10.77.0.0/16.
    pub fn addresses(&self) -> (String, String) {
        let (third, fourth) = (self.number / 64, self.number % 64 * 4);
        (format!("10.77.{third}.{}", fourth + 1), format!("10.77.{third}.{}", fourth + 2))
    }

    /// A user id of its own, from 70001 on: above those that Debian gives out, below the subordinate ones.
    pub fn uid(&self) -> u32 {
        70_001 + u32::from(self.number)
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

fn open(name: &str) -> File {
    let path = directory().join(name);
    let open = || {
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        File::options().create(true).truncate(false).read(true).write(true).open(&path)
    };
    open().unwrap_or_else(|e| {
        panic!("testbed: open {}: {e} (the tests need root, or REMOTELY_TESTBED=DIR)", path.display())
    })
}
