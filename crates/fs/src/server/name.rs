//! Checks of names from the mount. Every name passes here before it reaches a system call: one component, never a path.

use rustix::io::Errno;

use remotely_proto::fs::NAME_MAX;

/// A name in a directory, shared between the tables that hold it.
pub(super) type Name = std::sync::Arc<[u8]>;

/// Refuses what is not the name of one directory entry.
pub(super) fn check(name: &[u8]) -> Result<(), Errno> {
    if name.len() > NAME_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|&byte| byte == b'/' || byte == 0) {
        return Err(Errno::INVAL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_components_pass() {
        for good in [&b"a"[..], b"...", b"..a", b"\xff\xfe", b" ", &[b'x'; 255]] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b"] {
            assert_eq!(check(bad), Err(Errno::INVAL), "{bad:?}");
        }
        assert_eq!(check(&[b'x'; 256]), Err(Errno::NAMETOOLONG));
    }
}
