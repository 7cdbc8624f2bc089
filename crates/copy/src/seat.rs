//! Names as they come from the other side. Every one passes here before it reaches a system call.

use remotely_proto::fs::NAME_MAX;
use rustix::io::Errno;

/// Refuses what is not the name of one directory entry.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Errno> {
    if name.len() > NAME_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|&byte| byte == b'/' || byte == 0) {
        return Err(Errno::INVAL);
    }
    Ok(())
}

/// The components of a path beneath a root, each of them checked.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, Errno> {
    let parts: Vec<_> = path.split(|&byte| byte == b'/').collect();
    parts.iter().try_for_each(|part| check_name(part))?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_components_pass() {
        for good in [&b"a"[..], b"...", b"..a", b"\xff\xfe", b" ", b"a\nb", &[b'x'; 255]] {
            assert_eq!(check_name(good), Ok(()), "{good:?}");
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b"] {
            assert_eq!(check_name(bad), Err(Errno::INVAL), "{bad:?}");
        }
        assert_eq!(check_name(&[b'x'; 256]), Err(Errno::NAMETOOLONG));
        assert_eq!(components(b"a/b").unwrap(), [b"a", b"b"]);
        for bad in [&b"/a"[..], b"a//b", b"a/..", b"../a", b"", b"a/"] {
            assert_eq!(components(bad), Err(Errno::INVAL), "{bad:?}");
        }
    }
}
