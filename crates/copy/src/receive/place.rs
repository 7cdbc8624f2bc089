//! Where a transfer goes: the rules by which a destination and the name of a source make one path, as cp(1) has them.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use remotely_proto::file::Operation;
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    rand::{GetRandomFlags, getrandom},
};

use crate::{beneath::join, draft_name::is_draft_name, seat::check_name};

/// What the user wants it to be.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    /// An absolute path, with the slash that it was written with at its end.
    Given(PathBuf),
    /// A new directory among the temporary files.
    Temporary,
}

/// The root of what is received.
#[derive(Debug)]
pub(super) struct Place {
    /// Absolute.
    pub(super) path: Vec<u8>,
    /// The directory that it is in, or, without a name, that it is.
    pub(super) directory: OwnedFd,
    pub(super) name: Option<Vec<u8>>,
    /// Made for it alone.
    pub(super) temporary: bool,
}

/// No place can be had: what was done, with which path.
pub(super) type Denied = (Operation, Vec<u8>, Option<Errno>);

impl Place {
    /// Decides where a source of this name goes. Only a directory may come without a name: then its content is meant.
    pub(super) fn find(
        destination: &Destination,
        source: Option<&[u8]>,
        tree: bool,
        parents: bool,
    ) -> Result<Self, Denied> {
        if let Some(name) = source
            && (check_name(name).is_err() || is_draft_name(name))
        {
            let shown = &name[..name.len().min(255)];
            return Err((Operation::Name, shown.to_vec(), None));
        }
        let given = match destination {
            Destination::Temporary => return temporary(source),
            Destination::Given(path) => path,
        };
        let text = given.as_os_str().as_bytes();
        let inside = text.ends_with(b"/") || matches!(last(text), b"." | b"..");
        match fs::metadata(given) {
            Ok(found) if found.is_dir() => match source {
                Some(name) => Self::new(given, Some(name)),
                None => Self::new(given, None),
            },
            Ok(_) if tree => Err((Operation::MakeDirectory, text.to_vec(), Some(Errno::EXIST))),
            Ok(found) if !found.is_file() => Err((Operation::Type, text.to_vec(), None)),
            // The user's own symbolic link is kept, what it leads to replaced.
            Ok(_) => match fs::canonicalize(given) {
                Ok(real) => Self::split(&real),
                Err(error) => Err((Operation::Look, text.to_vec(), Some(errno(&error)))),
            },
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err((Operation::Look, text.to_vec(), Some(errno(&error))))
            }
            // A symbolic link to nowhere.
            Err(_) if fs::symlink_metadata(given).is_ok() => {
                Err((Operation::Create, text.to_vec(), Some(Errno::NOENT)))
            }
            Err(_) if inside && !parents => Err((Operation::Enter, text.to_vec(), Some(Errno::NOENT))),
            Err(_) if inside => {
                make_directories(given)?;
                Self::new(given, source)
            }
            Err(_) => {
                if parents && let Some(parent) = given.parent() {
                    make_directories(parent)?;
                }
                Self::split(given)
            }
        }
    }

    fn new(directory: &Path, name: Option<&[u8]>) -> Result<Self, Denied> {
        let text = directory.as_os_str().as_bytes();
        let open = |flags| openat(CWD, directory, flags | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let opened = match open(OFlags::RDONLY) {
            Err(Errno::ACCESS) => open(OFlags::PATH),
            result => result,
        };
        let opened = opened.map_err(|errno| (Operation::Enter, text.to_vec(), Some(errno)))?;
        let end = text.iter().rposition(|&byte| byte != b'/').map_or(1, |last| last + 1);
        let path = join(&text[..end.min(text.len())], name.unwrap_or_default());
        Ok(Self { path, directory: opened, name: name.map(<[u8]>::to_vec), temporary: false })
    }

    /// A path whose last component is the name.
    fn split(path: &Path) -> Result<Self, Denied> {
        let denied = |errno| (Operation::Create, path.as_os_str().as_bytes().to_vec(), Some(errno));
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(denied(Errno::INVAL)) };
        check_name(name.as_bytes()).map_err(denied)?;
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        Self::new(parent, Some(name.as_bytes()))
    }
}

fn temporary(source: Option<&[u8]>) -> Result<Place, Denied> {
    let all = std::env::temp_dir();
    for _ in 0..16 {
        let mut random = [0; 8];
        let drawn = getrandom(&mut random, GetRandomFlags::empty());
        drawn.map_err(|errno| (Operation::MakeDirectory, all.as_os_str().as_bytes().to_vec(), Some(errno)))?;
        let path = all.join(format!("remotely-{:016x}", u64::from_ne_bytes(random)));
        match rustix::fs::mkdir(&path, Mode::RWXU) {
            Ok(()) => {
                let place = Place::new(&path, Some(source.unwrap_or(b"root")))?;
                return Ok(Place { temporary: true, ..place });
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err((Operation::MakeDirectory, path.as_os_str().as_bytes().to_vec(), Some(errno))),
        }
    }
    Err((Operation::MakeDirectory, all.as_os_str().as_bytes().to_vec(), Some(Errno::EXIST)))
}

fn make_directories(path: &Path) -> Result<(), Denied> {
    let made = fs::create_dir_all(path);
    made.map_err(|error| (Operation::MakeDirectory, path.as_os_str().as_bytes().to_vec(), Some(errno(&error))))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// The last component as it is written.
fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}
