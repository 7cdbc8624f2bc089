//! The descriptors of a command, placed at exactly their numbers. Called in the process that becomes the command.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use remotely_proto::exec::Step;
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::run::order::{Descriptor, Failure, Source, show};
use crate::sys;

/// The mount puts the device of the client into the bits above.
const INODE_MASK: u64 = (1 << 48) - 1;

/// A descriptor and its number to be.
pub(crate) struct Opened {
    /// The number.
    pub(crate) fd: u32,
    /// What goes there; for a copy, the number of the other one.
    pub(crate) from: From,
}

/// Where it comes from.
pub(crate) enum From {
    /// Given by the agent.
    Passed(OwnedFd),
    /// A file in the root, opened here.
    File(OwnedFd),
    /// The same as another one.
    Same(u32),
}

/// Opens what is to be opened. Files are opened through the mount, so this may take a round trip for each.
pub(crate) fn open(wanted: &[Descriptor], passed: Vec<OwnedFd>, prefix: &[u8]) -> Result<Vec<Opened>, Failure> {
    let mut passed: Vec<Option<OwnedFd>> = passed.into_iter().map(Some).collect();
    let mut opened: Vec<Opened> = Vec::with_capacity(wanted.len());
    for Descriptor { fd, source } in wanted {
        let failed =
            |error: Errno, what: &str| Failure::new(Step::Descriptor, error, format!("descriptor {fd}: {what}"));
        let from = match source {
            Source::Passed(index) => {
                let passed = passed.get_mut(*index as usize).and_then(Option::take);
                From::Passed(passed.ok_or_else(|| failed(Errno::BADF, "the agent did not pass it"))?)
            }
            Source::File { path, flags, offset, ino } => {
                let path = [prefix, path].concat();
                From::File(
                    open_file(&path, *flags, *offset, *ino)
                        .map_err(|error| failed(error, &format!("open {}", show(&path))))?,
                )
            }
            Source::Same(of) if opened.iter().any(|other| other.fd == *of) => From::Same(*of),
            Source::Same(of) => return Err(failed(Errno::BADF, &format!("a copy of {of}, which is none of them"))),
        };
        opened.push(Opened { fd: *fd, from });
    }
    Ok(opened)
}

fn open_file(path: &[u8], flags: u32, offset: u64, ino: u64) -> Result<OwnedFd, Errno> {
    // The file is there, and open on the client: nothing here may make or empty one.
    let making = OFlags::CREATE | OFlags::EXCL | OFlags::TRUNC;
    let flags = (OFlags::from_bits_retain(flags) - making) | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    if ino != 0 && (rustix::fs::fstat(&file)?.st_ino ^ ino) & INODE_MASK != 0 {
        return Err(Errno::STALE);
    }
    match rustix::fs::seek(&file, SeekFrom::Start(offset)) {
        Ok(_) | Err(Errno::SPIPE) => Ok(file),
        Err(error) => Err(error),
    }
}

/// Puts each at its number; all others of this process close when it executes, `keep` too, whose number may change.
pub(crate) fn place(opened: Vec<Opened>, keep: OwnedFd) -> Result<OwnedFd, (Failure, OwnedFd)> {
    let limit = |error: Errno, fd: u32| Failure::new(Step::Descriptor, error, format!("descriptor {fd}"));
    let Some(highest) = opened.iter().map(|opened| opened.fd).max() else {
        sys::close_on_exec_from(0);
        return Ok(keep);
    };
    if highest >= RawFd::MAX as u32 {
        return Err((limit(Errno::BADF, highest), keep));
    }
    // The soft limit of the command comes later; until then as many as are allowed.
    if let Ok((_, hard)) = sys::limit(libc::RLIMIT_NOFILE) {
        let _ = sys::set_limit(libc::RLIMIT_NOFILE, hard, hard);
    }
    // First everything out of the way, or 3 -> 7 would overwrite what is to go 7 -> 3.
    let above = highest as RawFd + 1;
    let keep = match rustix::io::fcntl_dupfd_cloexec(&keep, above) {
        Ok(moved) => moved,
        Err(error) => return Err((limit(error, highest), keep)),
    };
    let mut moved = Vec::with_capacity(opened.len());
    for Opened { fd, from } in opened {
        let source = match &from {
            From::Passed(source) | From::File(source) => match rustix::io::fcntl_dupfd_cloexec(source, above) {
                Ok(source) => Some(source),
                Err(error) => return Err((limit(error, fd), keep)),
            },
            From::Same(_) => None,
        };
        moved.push((fd, source, from));
    }
    sys::close_on_exec_from(0);
    for (fd, source, from) in &moved {
        let source = match (source, from) {
            (Some(source), _) => source.as_fd(),
            (None, From::Same(of)) => {
                match moved.iter().find(|other| other.0 == *of).and_then(|other| original(&moved, other)) {
                    Some(source) => source,
                    None => return Err((limit(Errno::BADF, *fd), keep)),
                }
            }
            (None, _) => continue,
        };
        if let Err(error) = sys::place(source, *fd as RawFd) {
            let failure = Failure::new(Step::Descriptor, error, format!("descriptor {fd}"));
            return Err((failure, keep));
        }
    }
    // What they were has the numbers that are now the command's: not to be closed by their owners.
    for (_, _, from) in moved {
        if let From::Passed(fd) | From::File(fd) = from {
            std::mem::forget(fd);
        }
    }
    Ok(keep)
}

type Moved = (u32, Option<OwnedFd>, From);

/// The descriptor that a chain of copies leads to; each copies one of a smaller number.
fn original<'a>(moved: &'a [Moved], start: &'a Moved) -> Option<BorrowedFd<'a>> {
    let mut at = start;
    loop {
        match at {
            (_, Some(source), _) => return Some(source.as_fd()),
            (fd, None, From::Same(of)) if of < fd => at = moved.iter().find(|other| other.0 == *of)?,
            _ => return None,
        }
    }
}
