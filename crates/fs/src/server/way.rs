//! How a path leads to what it names, symbolic links included, at this moment. Used by `hide`. Follows the user's own paths,
//! never one that the peer has sent; changes nothing.

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path},
    sync::Arc,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, openat, readlinkat},
    io::Errno,
};

use super::{attr, node::Key};

/// Symbolic links in one path, as in the kernel.
const LINKS_MAX: usize = 40;

/// A name that a path leads through.
#[derive(Debug)]
pub(super) struct Step {
    /// The directory that the name is in.
    pub(super) dir: Key,
    /// It, open.
    pub(super) descriptor: Arc<OwnedFd>,
    pub(super) name: Vec<u8>,
    /// What has the name, if anything.
    pub(super) found: Option<(Key, Arc<OwnedFd>)>,
}

/// All of them, in order. The last one may be of a name that nothing has.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// On the way.
    pub(super) passes: Vec<Step>,
    /// What the path names: one name, or one more for each symbolic link that it leads to.
    pub(super) ends: Vec<Step>,
}

/// Follows a path. An error says that it could not be found out where it leads; that something is missing is none.
pub(super) fn trace(path: &[u8]) -> Result<Way, Errno> {
    let mut way = Way::default();
    let root = Arc::new(open(CWD, b"/")?);
    let root = (attr::key(&attr::stat(&root)?), root);
    let mut at = root.clone();
    let mut todo = Vec::new();
    push(&mut todo, path, true);
    let mut links = 0;
    while let Some((name, ends)) = todo.pop() {
        let up = name == b"..";
        let dir = at.clone();
        let next = missing_is_none(open(&at.1, &name))?.map(Arc::new);
        let stat = next.as_ref().map(attr::stat).transpose()?;
        let found = next.zip(stat.as_ref().map(attr::key)).map(|(next, key)| (key, next));
        if ends || !up {
            let step = Step { dir: dir.0, descriptor: Arc::clone(&dir.1), name, found: found.clone() };
            if ends { &mut way.ends } else { &mut way.passes }.push(step);
        }
        let (Some(next), Some(stat)) = (found, stat) else { break };
        if attr::kind(&stat) != FileType::Symlink {
            at = next;
            continue;
        }
        at = dir;
        links += 1;
        if links > LINKS_MAX {
            break;
        }
        let target = readlinkat(&next.1, "", Vec::new())?.into_bytes();
        if target.starts_with(b"/") {
            at = root.clone();
        }
        push(&mut todo, &target, ends);
    }
    Ok(way)
}

/// Puts the names of a path on the stack, the first one on top.
fn push(todo: &mut Vec<(Vec<u8>, bool)>, path: &[u8], ends: bool) {
    let mut ends = ends;
    for component in Path::new(OsStr::from_bytes(path)).components().rev() {
        match component {
            Component::Normal(name) => todo.push((name.as_bytes().to_vec(), std::mem::take(&mut ends))),
            Component::ParentDir => todo.push((b"..".to_vec(), std::mem::take(&mut ends))),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

fn open(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Where we may not go, nobody goes by us. Everything else, having no descriptors left above all, says nothing of what is
/// there.
fn missing_is_none(opened: Result<OwnedFd, Errno>) -> Result<Option<OwnedFd>, Errno> {
    match opened {
        Ok(descriptor) => Ok(Some(descriptor)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::NAMETOOLONG | Errno::STALE) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn names(steps: &[Step]) -> Vec<&str> {
        steps.iter().map(|step| std::str::from_utf8(&step.name).unwrap()).collect()
    }

    #[test]
    fn links_are_followed_and_every_name_is_told() {
        let dir = fs::canonicalize(std::env::temp_dir()).unwrap().join(format!("remotely-way-{}", std::process::id()));
        fs::create_dir_all(dir.join("real/deep")).unwrap();
        fs::write(dir.join("real/file"), "").unwrap();
        symlink("real/deep/..", dir.join("link")).unwrap();
        symlink("../real/file", dir.join("real/alias")).unwrap();
        let way = |path: &str| trace(dir.join(path).as_os_str().as_bytes()).unwrap();
        let above = dir.components().count() - 1;
        let found = way("link/alias");
        assert_eq!(names(&found.passes)[above..], ["link", "real", "deep", "real"]);
        assert_eq!(names(&found.ends), ["alias", "file"]);
        assert!(found.ends[1].found.is_some());
        let missing = way("real/absent/secret");
        assert_eq!(names(&missing.passes)[above..], ["real", "absent"]);
        assert!(missing.ends.is_empty() && missing.passes[above + 1].found.is_none());
        let new = way("link/new");
        assert_eq!((names(&new.ends), new.ends[0].found.is_none()), (vec!["new"], true));
        fs::remove_dir_all(&dir).unwrap();
    }
}
