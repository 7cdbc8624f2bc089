//! Which shell reads a text on a host: the login shell of the user there, as sshd has it. Used by [`super::process`].

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// The login shell of who runs this, or sh where that is none. /etc/passwd is read by hand, as the executable is static and has no
/// name service; who is known to a directory service only has what sshd has put into `SHELL`.
pub(super) fn of_user() -> OsString {
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let named = named(&passwd, rustix::process::geteuid().as_raw(), std::env::var_os("SHELL"));
    named.filter(|shell| Path::new(shell).exists()).unwrap_or_else(|| "sh".into())
}

fn named(passwd: &[u8], uid: u32, of_environment: Option<OsString>) -> Option<OsString> {
    let own = passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let &[_, _, number, _, _, _, shell] = fields.as_slice() else { return None };
        let number: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
        (number == uid).then(|| OsStr::from_bytes(shell).to_owned())
    });
    let shell = own.or(of_environment)?;
    // What lets nobody log in runs nothing; sudo may have led to such a user.
    let refuses = matches!(Path::new(&shell).file_name().map(OsStr::as_bytes), Some(b"nologin" | b"false"));
    (Path::new(&shell).is_absolute() && !refuses).then_some(shell)
}

/// The text as the word behind `-c`, where what begins as an option does would be one.
pub(super) fn text(text: OsString) -> OsString {
    match text.as_bytes().first() {
        Some(b'-' | b'+') => OsString::from_vec([b" ", text.as_bytes()].concat()),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_is_that_of_passwd_then_that_of_the_environment() {
        let passwd = b"root:x:0:0:root:/root:/bin/bash\nbroken\nsue:x:1000:1000:,,,:/home/sue:\nwww:x:33:33::/:/usr/sbin/nologin\n";
        let of = |uid| named(passwd, uid, Some("/usr/bin/fish".into())).map(|shell| shell.into_string().unwrap());
        assert_eq!(of(0).as_deref(), Some("/bin/bash"));
        assert_eq!((of(1000), of(33)), (None, None));
        assert_eq!(of(7).as_deref(), Some("/usr/bin/fish"));
        assert_eq!(named(passwd, 7, Some("fish".into())), None);
    }
}
