//! The root of commands: the client's files by FUSE, with /proc, /sys, /dev and what else the view asks for of the host.
//! Called by pid 1 of the namespace. Everything is mounted in its private mount namespace and goes with it.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use remotely_proto::exec::{Step, View};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::shared;
use crate::run::order::{Failure, Root, Setup, show};
use crate::run::passwd;

/// Where the client's files can be mounted before the root is changed: one of these exists.
const BEFORE: [&str; 5] = ["/tmp", "/mnt", "/run", "/var", "/usr"];
/// Where they are mounted for a shell in the host's own root.
const BESIDE: [&str; 3] = ["/mnt", "/media", "/srv"];

/// What is brought into the root, and the mount that is to become it.
pub(crate) struct Prepared {
    mount_point: CString,
    items: Vec<Item>,
    shared: Vec<shared::Item>,
    root: Root,
    /// User and group of commands.
    owner: (u32, u32),
}

/// A tree of the host and where it goes.
struct Item {
    tree: Tree,
    target: Vec<u8>,
    /// Without a mount point in the root it is left out.
    optional: bool,
}

/// Mounts of the host, taken before the root is changed.
pub(crate) enum Tree {
    /// A copy that is mounted nowhere yet.
    Detached(OwnedFd),
    /// Before Linux 5.2: by name, bound while the name still leads there.
    Named(CString),
    /// The same for a new proc.
    NewProc,
}

/// Takes what is needed of the host and mounts the client's files. Returns the descriptor of FUSE, which is to be
/// answered before [`enter`]; none if the root is not the client's.
pub(crate) fn prepare(setup: &Setup, owner: (u32, u32)) -> Result<(Prepared, Option<OwnedFd>), Failure> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| Failure::new(Step::Setup, error, "make the mounts of the host private"))?;
    let items = match setup.root {
        Root::Host => proc_tree().map(|tree| vec![Item { tree, target: b"/proc".to_vec(), optional: true }])?,
        _ => items(&setup.view)?,
    };
    let shared = if setup.root == Root::Host { Vec::new() } else { shared::collect(&setup.shared) };
    let mount_point = mount_point(setup.root)?;
    let fuse = match setup.root {
        Root::Client | Root::Host => Some(mount_fuse(setup, owner, &mount_point)?),
        #[cfg(test)]
        Root::Bound => {
            rustix::mount::mount_bind_recursive("/", &mount_point)
                .map_err(|error| Failure::new(Step::Setup, error, "bind the root"))?;
            None
        }
    };
    let owner = (setup.identity.uid, setup.identity.gid);
    Ok((Prepared { mount_point, items, shared, root: setup.root, owner }, fuse))
}

impl Prepared {
    /// Where the client's files are mounted as long as the root is the host's.
    pub(crate) fn mount_point(&self) -> &[u8] {
        self.mount_point.as_bytes()
    }
}

fn items(view: &View) -> Result<Vec<Item>, Failure> {
    let mut items = vec![Item { tree: proc_tree()?, target: b"/proc".to_vec(), optional: false }];
    for path in ["/sys", "/dev"] {
        items.push(Item { tree: tree(path.as_bytes())?, target: path.into(), optional: false });
    }
    for path in &view.host_paths {
        if path.first() != Some(&b'/') {
            let what = format!("use {} of the host: the path is not absolute", show(path));
            return Err(Failure::new(Step::Setup, Errno::INVAL, what));
        }
        items.push(Item { tree: tree(path)?, target: path.to_vec(), optional: false });
    }
    if view.host_network {
        for path in ["/etc/resolv.conf", "/etc/hosts"] {
            if let Ok(tree) = tree(path.as_bytes()) {
                items.push(Item { tree, target: path.into(), optional: true });
            }
        }
    }
    Ok(items)
}

/// All mounts of the host at and beneath `path`, symbolic links followed.
pub(crate) fn tree(path: &[u8]) -> Result<Tree, Failure> {
    // Less than all is refused where a mount below is locked, as those of a foreign user namespace are.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    match rustix::mount::open_tree(CWD, path, flags) {
        Ok(tree) => Ok(Tree::Detached(tree)),
        Err(Errno::NOSYS) => CString::new(path)
            .map(Tree::Named)
            .map_err(|_| Failure::new(Step::Setup, Errno::INVAL, format!("use {} of the host", show(path)))),
        Err(error) => Err(Failure::new(Step::Setup, error, format!("use {} of the host", show(path)))),
    }
}

/// A proc of the new pid namespace. Containers in which parts of /proc are hidden are refused one: then the host's.
fn proc_tree() -> Result<Tree, Failure> {
    let new = || {
        let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&context)?;
        let attributes =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    match new() {
        Ok(tree) => Ok(Tree::Detached(tree)),
        Err(Errno::NOSYS) => Ok(Tree::NewProc),
        Err(_) => tree(b"/proc"),
    }
}

fn mount_point(root: Root) -> Result<CString, Failure> {
    let home = passwd::by_uid(rustix::process::getuid().as_raw()).map(|entry| entry.home);
    let home = home.or_else(|| std::env::var_os("HOME").map(std::os::unix::ffi::OsStringExt::into_vec));
    let candidates: Vec<Vec<u8>> = match root {
        Root::Host => BESIDE.iter().map(|path| path.as_bytes().to_vec()).chain(home).collect(),
        _ => BEFORE.iter().map(|path| path.as_bytes().to_vec()).collect(),
    };
    candidates
        .into_iter()
        .filter_map(|path| CString::new(path).ok())
        .find(|path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).is_ok()
        })
        .ok_or_else(|| Failure::new(Step::Setup, Errno::NOENT, "find a directory of the host to mount on"))
}

fn mount_fuse(setup: &Setup, (uid, gid): (u32, u32), mount_point: &CString) -> Result<OwnedFd, Failure> {
    use std::os::fd::AsRawFd;
    // Opened here and not by the agent: the kernel wants opener and mounter in one user namespace.
    let fuse = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|error| {
        let cure = match error {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => {
                "the administrator of the host could load the module: modprobe fuse"
            }
            Errno::ACCESS | Errno::PERM => "the administrator of the host could allow it: chmod 666 /dev/fuse",
            _ => "the files of the client are mounted through it",
        };
        // Root may open it.
        let step = if matches!(error, Errno::ACCESS | Errno::PERM) { Step::Privilege } else { Step::Setup };
        Failure::new(step, error, format!("open /dev/fuse on the host ({cure})"))
    })?;
    let checks = if setup.default_permissions { ",default_permissions" } else { "" };
    let options = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid},allow_other,max_read=1048576{checks}",
        fuse.as_raw_fd()
    );
    let options = CString::new(options).map_err(|_| Failure::plain(Step::Setup, "mount options"))?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, setup.view.read_only);
    rustix::mount::mount("remotely", mount_point, "fuse.remotely", flags, options.as_c_str()).map_err(|error| {
        let why = match error {
            Errno::PERM => " (without root this needs Linux 4.18 or newer)",
            Errno::NODEV => " (its kernel has no FUSE)",
            _ => "",
        };
        Failure::new(Step::Setup, error, format!("mount the files of the client on the host{why}"))
    })?;
    Ok(fuse)
}

/// Makes the mount the root of this process, and puts the host's parts in. The mount must be answered meanwhile. Returns
/// /proc, which can be used without a look at the mount.
pub(crate) fn enter(prepared: Prepared) -> Result<Option<OwnedFd>, Failure> {
    if prepared.root == Root::Host {
        // A shell in the host's own root does without, if it must.
        let _ = prepared.items.iter().try_for_each(|item| item.attach(b""));
        return Ok(open_proc());
    }
    let (named, detached): (Vec<_>, Vec<_>) =
        prepared.items.into_iter().partition(|item| !matches!(item.tree, Tree::Detached(_)));
    named.iter().try_for_each(|item| item.attach(prepared.mount_point.as_bytes()))?;
    change_root(&prepared.mount_point)?;
    detached.iter().try_for_each(|item| item.attach(b""))?;
    let proc = open_proc();
    shared::attach(prepared.shared, prepared.owner);
    Ok(proc)
}

fn open_proc() -> Option<OwnedFd> {
    rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

impl Item {
    fn attach(&self, prefix: &[u8]) -> Result<(), Failure> {
        match attach(&self.tree, &[prefix, &self.target].concat()) {
            Ok(()) => Ok(()),
            Err(_) if self.optional => Ok(()),
            Err(error) => {
                let path = show(&self.target);
                let why = match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::NOENT) => format!(" (there is no {path} here to mount it on)"),
                    Some(Errno::NOTDIR) => " (one is a directory, the other not)".to_owned(),
                    _ => String::new(),
                };
                Err(Failure::new(Step::Setup, error, format!("put {path} of the host into the root{why}")))
            }
        }
    }
}

/// Mounts a tree on `target`, symbolic links followed.
pub(crate) fn attach(tree: &Tree, target: &[u8]) -> io::Result<()> {
    match tree {
        Tree::Detached(tree) => {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
            rustix::mount::move_mount(tree, c"", CWD, target, flags)?;
        }
        Tree::Named(source) => rustix::mount::mount_bind_recursive(source, target)?,
        Tree::NewProc => {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            match rustix::mount::mount("proc", target, "proc", flags, None) {
                Err(Errno::PERM) => rustix::mount::mount_bind_recursive("/proc", target)?,
                other => other?,
            }
        }
    }
    Ok(())
}

fn change_root(to: &CString) -> Result<(), Failure> {
    let failed = |what: &'static str| move |error: Errno| Failure::new(Step::Setup, error, what);
    let old = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open the root of the host"))?;
    rustix::process::chdir(to).map_err(failed("enter the files of the client"))?;
    match rustix::process::pivot_root(c".", c".") {
        Ok(()) => {
            // The old root now lies on top of the new one; once it is gone, "/" is the new one.
            rustix::process::fchdir(&old).map_err(failed("enter the old root"))?;
            rustix::mount::unmount(c".", UnmountFlags::DETACH).map_err(failed("unmount the root of the host"))?;
        }
        // The root of the host is no mount (a chroot), or one that cannot be exchanged (an initramfs).
        Err(Errno::INVAL) => rustix::process::chroot(c".").map_err(failed("chroot into the files of the client"))?,
        Err(error) => return Err(failed("pivot_root into the files of the client")(error)),
    }
    rustix::process::chdir(c"/").map_err(failed("enter the new root"))
}
