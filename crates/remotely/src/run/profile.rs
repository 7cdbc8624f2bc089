//! Which profile a command has: what it touched in earlier runs. Used by `run`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use remotely_fs::server::Profile;
use remotely_proto::ByteVec;

use super::inherited::variable;
use super::store::Store;

/// Where that of `argv0`, as it is found in `PATH` and run in `cwd`, is kept. The host plays no part: the files are those
/// of here.
pub(super) fn store(argv0: &OsString, env: &[ByteVec], cwd: &[u8]) -> Option<Store<Profile>> {
    let program = resolve(argv0, variable(env, "PATH"), Path::new(OsStr::from_bytes(cwd)));
    Store::of("profile", &[program.as_os_str().as_bytes(), cwd], env)
}

/// The file that execvp(3) would run, or the word itself.
fn resolve(argv0: &OsString, path: Option<&OsStr>, cwd: &Path) -> PathBuf {
    if argv0.as_bytes().contains(&b'/') {
        return cwd.join(argv0);
    }
    let dirs = path.unwrap_or(OsStr::new("/bin:/usr/bin")).as_bytes().split(|&byte| byte == b':');
    dirs.map(|dir| cwd.join(OsStr::from_bytes(dir)).join(argv0))
        .find(|candidate| {
            candidate.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
        .unwrap_or_else(|| argv0.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_the_same_by_name_and_by_path_but_not_elsewhere() {
        let env = [b"HOME=/c".to_vec().into(), b"PATH=/usr/bin:/bin".to_vec().into()];
        let name = |argv0: &str, cwd: &str| format!("{:?}", store(&argv0.into(), &env, cwd.as_bytes()).unwrap());
        assert_eq!(name("env", "/"), name("/usr/bin/env", "/"));
        assert_ne!(name("env", "/"), name("env", "/usr"));
        assert_ne!(name("env", "/"), name("sh", "/"));
        assert_eq!(resolve(&"./x".into(), None, Path::new("/d")), Path::new("/d/./x"));
        assert_eq!(resolve(&"no such command".into(), None, Path::new("/d")), Path::new("no such command"));
    }
}
