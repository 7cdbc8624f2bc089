//! /etc/passwd of the host, read by hand: the executable is static and has no name service. Users who are known only to
//! a directory service are not found.

/// A line of passwd(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Login name.
    pub(crate) name: Vec<u8>,
    /// Home directory.
    pub(crate) home: Vec<u8>,
    /// Login shell; may be empty.
    pub(crate) shell: Vec<u8>,
}

/// The first entry with this number.
pub(crate) fn by_uid(uid: u32) -> Option<Entry> {
    find(&std::fs::read("/etc/passwd").ok()?, uid)
}

fn find(text: &[u8], uid: u32) -> Option<Entry> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let &[name, _, number, _, _, home, shell] = fields.as_slice() else { return None };
        let number: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
        (number == uid).then(|| Entry { name: name.to_vec(), home: home.to_vec(), shell: shell.to_vec() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_by_number() {
        let text = b"root:x:0:0:root:/root:/bin/bash\nbroken\nsue:x:1000:1000:,,,:/home/s\xffe:\n";
        let entry = find(text, 1000).unwrap();
        assert_eq!((entry.home.as_slice(), entry.shell.as_slice()), (&b"/home/s\xffe"[..], &b""[..]));
        assert_eq!(find(text, 0).unwrap().shell, b"/bin/bash");
        assert_eq!(find(text, 1), None);
    }
}
