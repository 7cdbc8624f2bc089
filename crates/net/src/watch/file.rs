//! What hostwatch reads from files: the hosts file, the kernel's connections, and names of the last time. A file that cannot be read
//! says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::own;
use crate::subnet::Family;

/// Bytes of a file that are looked at.
const MOST: usize = 4 << 20;

/// Names and addresses of a hosts file.
pub(crate) fn hosts(path: &Path) -> Vec<(String, IpAddr)> {
    let text = read(path);
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let entries = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        Some(words.map(move |name| (name.to_owned(), address)))
    });
    entries.flatten().collect()
}

/// Both ends of all TCP and UDP sockets of this network namespace (`/proc/net`).
pub(crate) fn connections(place: &Path) -> BTreeSet<IpAddr> {
    let files = ["tcp", "tcp6", "udp", "udp6"].map(|name| read(&place.join(name)));
    let ends =
        files.iter().flat_map(|text| text.lines().skip(1)).flat_map(|line| line.split_whitespace().skip(1).take(2));
    ends.filter_map(|end| own::end(end).map(|end| end.ip())).collect()
}

/// `name,address` on each line.
pub(crate) fn read_kept(path: &Path) -> Vec<(String, IpAddr)> {
    let text = read(path);
    text.lines()
        .filter_map(|line| line.split_once(','))
        .filter_map(|(name, address)| Some((name.to_owned(), address.parse().ok()?)))
        .collect()
}

/// Replaces the file at once; nobody else can read it.
pub(crate) fn write_kept(path: &Path, known: &BTreeMap<(String, Family), IpAddr>) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.tmp", std::process::id()));
    let draft = Path::new(&draft);
    let text: String = known.iter().map(|((name, _), address)| format!("{name},{address}\n")).collect();
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes())).and_then(|()| fs::rename(draft, path));
    if written.is_err() {
        let _ = fs::remove_file(draft);
    }
    written
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read =
        fs::File::open(path).and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, MOST as u64), &mut bytes));
    if let Err(error) = read {
        tracing::debug!(error = %error, path = %path.display(), "names are not read");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
