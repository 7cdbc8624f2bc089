//! Sockets and files of the host that the environment names (SSH_AUTH_SOCK, XAUTHORITY, the X server's), made reachable
//! in the root of commands. Called by [`super::root`]. What cannot be had is left out: a command may not need it.
//!
//! They lie in a small tmpfs of their own over [`SHARED_DIR`], which exists wherever FUSE does and which a command has no
//! business in.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;

use rustix::mount::MountFlags;

use super::root::{Tree, attach as attach_tree, tree};
use crate::run::environment::SHARED_DIR;
use crate::run::order::Shared;

/// Longest file that is copied, in bytes.
const COPY_MAX: u64 = 1 << 20;

/// One of them, taken from the host.
pub(crate) struct Item {
    content: Content,
    place: Vec<u8>,
}

enum Content {
    /// A socket, or a directory of them: the thing itself.
    Tree(Tree),
    /// A regular file: a copy, which the command may read whoever it is.
    Copy(Vec<u8>),
}

/// Takes them from the host.
pub(crate) fn collect(shared: &[Shared]) -> Vec<Item> {
    shared
        .iter()
        .filter_map(|shared| {
            let path = Path::new(std::ffi::OsStr::from_bytes(&shared.host));
            let metadata = fs::metadata(path).ok()?;
            let content = if metadata.is_file() {
                (metadata.len() <= COPY_MAX).then(|| fs::read(path).ok()).flatten().map(Content::Copy)?
            } else {
                Content::Tree(tree(&shared.host).ok().filter(|tree| matches!(tree, Tree::Detached(_)))?)
            };
            Some(Item { content, place: shared.place.to_vec() })
        })
        .collect()
}

/// Puts them into the root, which this process is already in. Copies belong to `owner` (user, group).
pub(crate) fn attach(items: Vec<Item>, owner: (u32, u32)) {
    if items.is_empty() {
        return;
    }
    let options = c"mode=755,size=4m";
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounted = rustix::mount::mount("tmpfs", SHARED_DIR, "tmpfs", flags, options).is_ok();
    for Item { content, place } in items {
        let absolute = place.first() == Some(&b'/');
        if !absolute && !mounted {
            continue;
        }
        let target = if absolute { place } else { [SHARED_DIR.as_bytes(), b"/", &place].concat() };
        let path = Path::new(std::ffi::OsStr::from_bytes(&target));
        // The command may lack what is missing here, or say so itself when it comes to it.
        let _ = match content {
            Content::Tree(tree) if absolute => attach_tree(&tree, &target),
            Content::Tree(tree) => fs::File::create(path).and_then(|_| attach_tree(&tree, &target)),
            Content::Copy(bytes) => {
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
                    file.write_all(&bytes).and_then(|()| fchown(&file, Some(owner.0), Some(owner.1)))
                })
            }
        };
    }
}
