//! A directory that is in no other: a filesystem of its own, which whoever has it open can reach, and which is gone with the last of them, however
//! they end. For the control socket of [`super::session`]; knows nothing of ssh.

use std::ffi::{CStr, CString, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::vfork;

/// A few calls into the kernel.
const STACK: usize = 32 << 10;

/// A path of this name in a directory that this process has without a name, for as long as it lasts. `None` where it can have none.
pub(super) fn path(name: &str) -> Option<PathBuf> {
    static DIRECTORY: OnceLock<Option<Directory>> = OnceLock::new();
    let make =
        || Directory::make().inspect_err(|error| tracing::debug!(%error, "cannot have a directory without a name"));
    Some(DIRECTORY.get_or_init(|| make().ok()).as_ref()?.path(name))
}

/// Such a directory.
#[derive(Debug)]
struct Directory(OwnedFd);

impl Directory {
    /// Makes one that belongs to this user alone. An error is normal: some systems let nobody make a user namespace, and kernels before
    /// 5.2 have no filesystems without a place.
    fn make() -> io::Result<Self> {
        let map = |id: u32| CString::new(format!("{id} {id} 1")).map_err(io::Error::from);
        let users = map(rustix::process::geteuid().as_raw())?;
        let groups = map(rustix::process::getegid().as_raw())?;
        let mut plan = Plan { users, groups, made: Err(Errno::IO) };
        let mut stack = vec![0_u128; STACK / size_of::<u128>()];
        let flags = libc::CLONE_FILES | libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
        // SAFETY: `make_it` makes calls into the kernel and nothing else; it gets the plan that it expects.
        let pid = unsafe { vfork::in_our_memory(make_it, (&raw mut plan).cast(), &mut stack, flags)? };
        let wait = || rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        let _ = rustix::io::retry_on_intr(wait);
        // SAFETY: it was written before this thread went on, behind the compiler's back.
        let made = unsafe { (&raw mut plan.made).replace(Err(Errno::IO)) };
        Ok(Self(made?))
    }

    /// What leads to a file in it, for processes of this user.
    fn path(&self, name: &str) -> PathBuf {
        format!("/proc/{}/fd/{}/{name}", std::process::id(), self.0.as_raw_fd()).into()
    }
}

/// What the process needs that makes one, made before it is there.
struct Plan {
    users: CString,
    groups: CString,
    made: Result<OwnedFd, Errno>,
}

/// The life of that process, which has our memory and our descriptors.
extern "C" fn make_it(plan: *mut c_void) -> c_int {
    // SAFETY: it is the plan that `make` has given to clone, and `make` waits for us.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    let made = in_own_namespaces(&plan.users, &plan.groups);
    // SAFETY: it is ours to write; by ending at once this process leaves everything else as it is.
    unsafe {
        (&raw mut plan.made).write_volatile(made);
        libc::_exit(0)
    }
}

/// In these, everybody may mount.
fn in_own_namespaces(users: &CStr, groups: &CStr) -> Result<OwnedFd, Errno> {
    let write = |path: &CStr, text: &CStr| {
        let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, text.to_bytes()).map(drop)
    };
    // Without these, nobody has a number that files could belong to.
    write(c"/proc/self/setgroups", c"deny")?;
    write(c"/proc/self/gid_map", groups)?;
    write(c"/proc/self/uid_map", users)?;
    let plan = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&plan, c"mode", c"0700")?;
    rustix::mount::fsconfig_create(&plan)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&plan, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_socket_in_it_can_be_reached_and_has_no_other_place() {
        let directory = Directory::make().unwrap();
        let (before, path) = (directory.path("before"), directory.path("s"));
        let listener = UnixListener::bind(&before).unwrap();
        // As ssh does.
        fs::hard_link(&before, &path).unwrap();
        fs::remove_file(&before).unwrap();
        drop(UnixStream::connect(&path).unwrap());
        listener.accept().unwrap();
        let about = fs::metadata(directory.path("")).unwrap();
        assert_eq!((about.uid(), about.mode() & 0o7777), (rustix::process::geteuid().as_raw(), 0o700));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let (major, minor) = (rustix::fs::major(about.dev()), rustix::fs::minor(about.dev()));
        assert!(!mounts.contains(&format!(" {major}:{minor} ")), "{mounts}");
        let (other, gone) = (Directory::make().unwrap(), directory.path("s"));
        drop((directory, listener));
        assert!(UnixStream::connect(&gone).is_err());
        assert!(!other.path("s").exists());
    }
}
