//! The mount compared with a plain directory: what is done there must come out here, and what is changed here must be seen
//! there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod counts;
mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use support::{Choice, Mounted, eventually};

#[test]
fn what_is_written_there_is_read_here_and_there() {
    let m = Mounted::new();
    fs::write(m.there.join("a"), b"hello").unwrap();
    assert_eq!(fs::read(m.there.join("a")).unwrap(), b"hello");
    eventually("content here", || fs::read(m.here.join("a")).is_ok_and(|data| data == b"hello"));
    assert_eq!(fs::metadata(m.there.join("a")).unwrap().len(), 5);
}

#[test]
fn large_files_come_whole() {
    let m = Mounted::new();
    let data: Vec<u8> = (0..9_000_011u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(m.here.join("big"), &data).unwrap();
    assert!(fs::read(m.there.join("big")).unwrap() == data, "read");
    fs::write(m.there.join("copy"), &data).unwrap();
    File::open(m.there.join("copy")).unwrap().sync_all().unwrap();
    assert!(fs::read(m.here.join("copy")).unwrap() == data, "written");
    // Scattered reads, beyond the end too.
    let file = File::open(m.there.join("big")).unwrap();
    for offset in [0usize, 1, 131_071, 131_072, 5_000_000, 8_999_990, 9_000_011, 9_100_000] {
        let mut buffer = vec![0; 70_000];
        let len = file.read_at(&mut buffer, offset as u64).unwrap();
        let expected = &data[offset.min(data.len())..(offset + 70_000).min(data.len())];
        assert!(buffer[..len] == expected[..len] && (len > 0) != expected.is_empty(), "at {offset}");
    }
}

#[test]
fn appending_appends() {
    let m = Mounted::new();
    for line in ["one\n", "two\n", "three\n"] {
        let mut file = OpenOptions::new().append(true).create(true).open(m.there.join("log")).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
    assert_eq!(fs::read_to_string(m.there.join("log")).unwrap(), "one\ntwo\nthree\n");
    // Somebody here appends between.
    let mut there = OpenOptions::new().append(true).open(m.there.join("log")).unwrap();
    OpenOptions::new().append(true).open(m.here.join("log")).unwrap().write_all(b"four\n").unwrap();
    there.write_all(b"five\n").unwrap();
    there.sync_all().unwrap();
    assert_eq!(fs::read_to_string(m.here.join("log")).unwrap(), "one\ntwo\nthree\nfour\nfive\n");
    eventually("both appends there", || {
        fs::read_to_string(m.there.join("log")).unwrap() == "one\ntwo\nthree\nfour\nfive\n"
    });
}

/// O_APPEND as it is at each write, and never for what is written through a mapping.
#[test]
fn appending_can_be_switched() {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let m = Mounted::new();
    fs::write(m.there.join("f"), vec![b'.'; 8192]).unwrap();
    let mut file = OpenOptions::new().read(true).append(true).open(m.there.join("f")).unwrap();
    // SAFETY: the mapping is of eight kilobytes that the file has, and used only here.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let map = libc::mmap(std::ptr::null_mut(), 8192, protection, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED);
        map.cast::<u8>().add(4096).write(b'm');
        assert_eq!(libc::msync(map, 8192, libc::MS_SYNC), 0);
        libc::munmap(map, 8192);
    }
    let flags = fcntl_getfl(&file).unwrap();
    fcntl_setfl(&file, flags.difference(OFlags::APPEND)).unwrap();
    file.seek(SeekFrom::Start(1)).unwrap();
    file.write_all(b"b").unwrap();
    fcntl_setfl(&file, flags).unwrap();
    // Somebody here appends between.
    file.sync_all().unwrap();
    OpenOptions::new().append(true).open(m.here.join("f")).unwrap().write_all(b"h").unwrap();
    file.write_all(b"a").unwrap();
    file.sync_all().unwrap();
    let mut expected = vec![b'.'; 8192];
    (expected[1], expected[4096]) = (b'b', b'm');
    expected.extend_from_slice(b"ha");
    assert!(fs::read(m.here.join("f")).unwrap() == expected);
}

#[test]
fn changes_made_here_are_seen_there() {
    let m = Mounted::new();
    fs::write(m.here.join("f"), b"old").unwrap();
    assert_eq!(fs::read(m.there.join("f")).unwrap(), b"old");
    assert!(!m.there.join("new").exists());
    fs::write(m.here.join("f"), b"a longer text").unwrap();
    eventually("new content, whole", || {
        let seen = fs::read(m.there.join("f")).unwrap();
        assert!(seen == b"old" || seen == b"a longer text" || seen.is_empty(), "torn: {seen:?}");
        seen == b"a longer text"
    });
    fs::write(m.here.join("new"), b"").unwrap();
    eventually("a new name", || m.there.join("new").exists());
    fs::remove_file(m.here.join("new")).unwrap();
    eventually("a name that went", || !m.there.join("new").exists());
    fs::rename(m.here.join("f"), m.here.join("g")).unwrap();
    eventually("a renamed name", || !m.there.join("f").exists() && m.there.join("g").exists());
    fs::write(m.here.join("tmp"), b"replacement").unwrap();
    fs::rename(m.here.join("tmp"), m.here.join("g")).unwrap();
    eventually("a replaced file", || fs::read(m.there.join("g")).is_ok_and(|data| data == b"replacement"));
    fs::set_permissions(m.here.join("g"), fs::Permissions::from_mode(0o600)).unwrap();
    eventually("a changed mode", || fs::metadata(m.there.join("g")).unwrap().mode() & 0o777 == 0o600);
}

#[test]
fn own_writes_do_not_cost_what_was_read() {
    let m = Mounted::new();
    for index in 0..50 {
        fs::write(m.there.join(format!("f{index}")), vec![index as u8; 100_000]).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    let before = m.mount.questions();
    for index in 0..50 {
        assert_eq!(fs::read(m.there.join(format!("f{index}"))).unwrap(), vec![index as u8; 100_000]);
    }
    let after = m.mount.questions();
    let told = m.server.stats();
    // On a busy machine the kernel gives some writes in pieces, and does not keep the pages around the cuts.
    let pieces = told.requests.iter().find(|(kind, _)| *kind == "write").map_or(0, |(_, count)| count - 50);
    assert!(after - before <= 5 + pieces, "{} questions to read back what was written: {told:?}", after - before);
}

#[test]
fn what_was_pushed_is_not_asked_for() {
    let m = Mounted::new();
    fs::create_dir_all(m.here.join("usr/lib")).unwrap();
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i >> 7) as u8).collect();
    fs::write(m.here.join("usr/lib/libc"), &data).unwrap();
    fs::write(m.here.join("usr/lib/small"), &data[..5000]).unwrap();
    let used = |root: &Path| {
        let libc = File::open(root.join("usr/lib/libc")).unwrap();
        for offset in [0, 2_500_000, 700_000, 1_500_000] {
            let mut page = [0; 4096];
            libc.read_exact_at(&mut page, offset).unwrap();
            assert!(page[..] == data[offset as usize..][..4096]);
        }
        assert_eq!(fs::read(root.join("usr/lib/small")).unwrap().len(), 5000);
    };
    used(&m.there);
    let again = m.again();
    again.server.push(m.server.profile(), 0);
    eventually("the plan", || again.server.stats().bytes_pushed > 0);
    let before = again.mount.questions();
    used(&again.there);
    let after = again.mount.questions();
    assert!(after - before <= 2, "{} questions for what was pushed", after - before);
}

#[test]
fn a_directory_is_asked_for_once() {
    let m = Mounted::new();
    for index in 0..100 {
        fs::write(m.here.join(format!("f{index}")), b"x").unwrap();
    }
    let before = m.mount.questions();
    for index in 0..200 {
        assert_eq!(m.there.join(format!("f{index}")).exists(), index < 100);
    }
    assert_eq!(fs::read_dir(&m.there).unwrap().count(), 100);
    let after = m.mount.questions();
    assert!(after - before <= 2, "{} questions for one directory", after - before);
}

#[test]
fn hard_links_and_open_files_without_a_name() {
    let m = Mounted::new();
    fs::write(m.there.join("a"), b"data").unwrap();
    fs::hard_link(m.there.join("a"), m.there.join("b")).unwrap();
    assert_eq!(fs::metadata(m.there.join("a")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(m.there.join("a")).unwrap().ino(), fs::metadata(m.there.join("b")).unwrap().ino());
    let mut open = File::open(m.there.join("b")).unwrap();
    fs::remove_file(m.there.join("a")).unwrap();
    assert_eq!(fs::metadata(m.there.join("b")).unwrap().nlink(), 1);
    fs::remove_file(m.there.join("b")).unwrap();
    assert_eq!(fs::read_dir(&m.here).unwrap().count(), 0, "no hidden leftovers");
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "data");
    assert_eq!(open.metadata().unwrap().nlink(), 0);
}

#[test]
fn names_are_bytes() {
    let m = Mounted::new();
    let name = std::ffi::OsStr::from_bytes(b"bad\xff\x80 name\n");
    fs::write(m.here.join(name), b"1").unwrap();
    let listed: Vec<_> = fs::read_dir(&m.there).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(listed, [name]);
    assert_eq!(fs::read(m.there.join(name)).unwrap(), b"1");
    fs::write(m.there.join(std::ffi::OsStr::from_bytes(b"\xfe")), b"2").unwrap();
    eventually("content", || fs::read(m.here.join(std::ffi::OsStr::from_bytes(b"\xfe"))).unwrap() == b"2");
}

#[test]
fn modes_times_and_holes() {
    let m = Mounted::new();
    let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(m.there.join("f")).unwrap();
    rustix::process::umask(old);
    assert_eq!(fs::metadata(m.here.join("f")).unwrap().mode() & 0o777, 0o640);
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(123_456_789_012_345_678);
    let file = File::options().write(true).open(m.there.join("f")).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    assert_eq!(fs::metadata(m.here.join("f")).unwrap().modified().unwrap(), time);
    assert_eq!(fs::metadata(m.there.join("f")).unwrap().modified().unwrap(), time);
    // Above 4 GiB, with a hole before.
    file.write_all_at(b"end", 5 << 30).unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::metadata(m.there.join("f")).unwrap().len(), (5 << 30) + 3);
    let found = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap();
    assert!(found > 0 && found <= 5 << 30, "{found}");
    let mut text = [0; 3];
    File::open(m.there.join("f")).unwrap().read_exact_at(&mut text, 5 << 30).unwrap();
    assert_eq!(&text, b"end");
    file.set_len(10).unwrap();
    assert_eq!(fs::metadata(m.here.join("f")).unwrap().len(), 10);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 8192).unwrap();
    assert_eq!(fs::metadata(m.there.join("f")).unwrap().len(), 8192);
}

#[test]
fn rename_with_flags() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let m = Mounted::new();
    fs::write(m.there.join("a"), b"A").unwrap();
    fs::write(m.there.join("b"), b"B").unwrap();
    let path = |name: &str| m.there.join(name);
    assert!(renameat_with(CWD, path("a"), CWD, path("b"), RenameFlags::NOREPLACE).is_err());
    renameat_with(CWD, path("a"), CWD, path("b"), RenameFlags::EXCHANGE).unwrap();
    assert_eq!((fs::read(path("a")).unwrap(), fs::read(path("b")).unwrap()), (b"B".to_vec(), b"A".to_vec()));
    fs::create_dir(path("d")).unwrap();
    fs::write(path("d/x"), b"x").unwrap();
    fs::rename(path("d"), path("e")).unwrap();
    assert_eq!(fs::read(path("e/x")).unwrap(), b"x");
    fs::write(path("e/y"), b"y").unwrap();
    eventually("content", || fs::read(m.here.join("e/y")).unwrap() == b"y");
}

#[test]
fn anonymous_and_direct_files() {
    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
    let m = Mounted::new();
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    let mut file = File::from(open(&m.there, flags, Mode::from_raw_mode(0o644)).unwrap());
    file.write_all(b"from nowhere").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from nowhere");
    let source = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    linkat(CWD, source, CWD, m.there.join("named"), AtFlags::SYMLINK_FOLLOW).unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read(m.here.join("named")).unwrap(), b"from nowhere");
    let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(m.there.join("named")).unwrap();
    let mut buffer = vec![0; 4096];
    assert_eq!(direct.read_at(&mut buffer, 0).unwrap(), 12);
}

#[test]
fn extended_attributes() {
    let m = Mounted::new();
    fs::write(m.there.join("f"), b"").unwrap();
    let path = m.there.join("f");
    rustix::fs::setxattr(&path, "user.a", b"value", rustix::fs::XattrFlags::CREATE).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut buffer).unwrap(), 5);
    assert_eq!(rustix::fs::getxattr(m.here.join("f"), "user.a", &mut buffer).unwrap(), 5);
    let len = rustix::fs::listxattr(&path, &mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"user.a\0");
    rustix::fs::removexattr(&path, "user.a").unwrap();
    assert!(rustix::fs::getxattr(&path, "user.a", &mut buffer).is_err());
}

#[test]
fn memory_maps_share_and_are_written_back() {
    let m = Mounted::new();
    fs::write(m.there.join("f"), vec![1; 8192]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(m.there.join("f")).unwrap();
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
    // SAFETY: a fresh mapping of 8192 bytes, unmapped below, and nothing refers to it after.
    unsafe {
        let map =
            mmap(std::ptr::null_mut(), 8192, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0).unwrap();
        let bytes = std::slice::from_raw_parts_mut(map.cast::<u8>(), 8192);
        assert_eq!(bytes[5000], 1);
        bytes[5000] = 9;
        msync(map, 8192, MsyncFlags::SYNC).unwrap();
        munmap(map, 8192).unwrap();
    }
    file.sync_all().unwrap();
    assert_eq!(fs::read(m.here.join("f")).unwrap()[5000], 9);
}

#[test]
fn hidden_names_are_not_there() {
    let m = Mounted::with(Choice { hide: vec!["secret"], ..Choice::default() });
    fs::write(m.here.join("secret"), b"key").unwrap();
    fs::write(m.here.join("open"), b"").unwrap();
    assert!(!m.there.join("secret").exists());
    let names: Vec<_> = fs::read_dir(&m.there).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["open"]);
}

#[test]
fn a_read_only_mount_changes_nothing() {
    let m = Mounted::with(Choice { read_only: true, ..Choice::default() });
    fs::write(m.here.join("f"), b"x").unwrap();
    assert_eq!(fs::read(m.there.join("f")).unwrap(), b"x");
    for failed in [
        fs::write(m.there.join("f"), b"y"),
        fs::write(m.there.join("g"), b"y"),
        fs::remove_file(m.there.join("f")),
        fs::create_dir(m.there.join("d")),
        fs::rename(m.there.join("f"), m.there.join("g")),
    ] {
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::EROFS));
    }
}

#[test]
fn a_hundred_thousand_names() {
    let m = Mounted::new();
    for index in 0..100_000 {
        File::create(m.here.join(format!("{index:06}"))).unwrap();
    }
    assert!(m.there.join("077777").exists() && !m.there.join("100000").exists());
    assert_eq!(fs::read_dir(&m.there).unwrap().count(), 100_000);
    fs::write(m.here.join("100000"), b"").unwrap();
    eventually("one more", || m.there.join("100000").exists());
}

/// A random sequence of operations, done there and on a plain directory: outcomes and trees are the same.
#[test]
fn random_operations_as_on_a_plain_directory() {
    for seed in 1..=4 {
        let m = Mounted::new();
        let model = m.here.parent().unwrap().join("model");
        fs::create_dir(&model).unwrap();
        let mut random = Random(seed);
        for step in 0..400 {
            let op = Operation::pick(&mut random);
            let (there, plain) = (op.run(&m.there), op.run(&model));
            assert_eq!(there, plain, "seed {seed}, step {step}: {op:?}");
        }
        assert_eq!(tree(&m.there), tree(&model), "seed {seed}: as seen there");
        rustix::fs::syncfs(File::open(&m.there).unwrap()).unwrap();
        eventually("the same tree here", || tree(&m.here) == tree(&model));
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[derive(Debug)]
enum Operation {
    Write(String, u64, usize, u8),
    Append(String, usize, u8),
    Truncate(String, u64),
    Create(String),
    Remove(String),
    Mkdir(String),
    Rmdir(String),
    Rename(String, String),
    Link(String, String),
    Symlink(String, String),
    Mode(String, u32),
    Read(String),
    List(String),
}

impl Operation {
    fn pick(random: &mut Random) -> Self {
        let mut name = || {
            let file = ["a", "b", "c", "d"][random.below(4) as usize];
            match random.below(3) {
                0 => file.to_owned(),
                1 => format!("x/{file}"),
                _ => format!("x/y/{file}"),
            }
        };
        let (one, two) = (name(), name());
        let dir = ["x", "x/y", "z", "x/a"][random.below(4) as usize].to_owned();
        match random.below(16) {
            0 | 1 => Self::Write(one, random.below(300_000), random.below(200_000) as usize, random.below(256) as u8),
            2 => Self::Append(one, random.below(10_000) as usize, random.below(256) as u8),
            3 => Self::Truncate(one, random.below(400_000)),
            4 => Self::Create(one),
            5 => Self::Remove(one),
            6 | 7 => Self::Mkdir(dir),
            8 => Self::Rmdir(dir),
            9 => Self::Rename(one, two),
            10 => Self::Link(one, two),
            11 => Self::Symlink(one, two),
            12 => Self::Mode(one, [0o600, 0o644, 0o755][random.below(3) as usize]),
            13 | 14 => Self::Read(one),
            _ => Self::List(dir),
        }
    }

    fn run(&self, root: &Path) -> String {
        let at = |name: &String| root.join(name);
        let outcome: std::io::Result<String> = (|| {
            match self {
                Self::Write(name, offset, len, byte) => {
                    let file = OpenOptions::new().write(true).create(true).truncate(false).open(at(name))?;
                    file.write_all_at(&vec![*byte; *len], *offset)?;
                }
                Self::Append(name, len, byte) => {
                    let mut file = OpenOptions::new().append(true).open(at(name))?;
                    file.write_all(&vec![*byte; *len])?;
                }
                Self::Truncate(name, len) => OpenOptions::new().write(true).open(at(name))?.set_len(*len)?,
                Self::Create(name) => drop(OpenOptions::new().write(true).create_new(true).open(at(name))?),
                Self::Remove(name) => fs::remove_file(at(name))?,
                Self::Mkdir(name) => fs::create_dir(at(name))?,
                Self::Rmdir(name) => fs::remove_dir(at(name))?,
                Self::Rename(from, to) => fs::rename(at(from), at(to))?,
                Self::Link(from, to) => fs::hard_link(at(from), at(to))?,
                Self::Symlink(from, to) => std::os::unix::fs::symlink(Path::new(from).file_name().unwrap(), at(to))?,
                Self::Mode(name, mode) => fs::set_permissions(at(name), fs::Permissions::from_mode(*mode))?,
                Self::Read(name) => {
                    let data = fs::read(at(name))?;
                    let meta = fs::metadata(at(name))?;
                    return Ok(format!("{} {:o} {} {:?}", meta.len(), meta.mode(), meta.nlink(), fnv(&data)));
                }
                Self::List(name) => {
                    let mut names: Vec<_> = fs::read_dir(at(name))?.map(|entry| entry.unwrap().file_name()).collect();
                    names.sort();
                    return Ok(format!("{names:?}"));
                }
            }
            Ok(String::new())
        })();
        outcome.unwrap_or_else(|error| format!("errno {:?}", error.raw_os_error()))
    }
}

fn fnv(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn tree(root: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut names: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.file_name().unwrap().to_owned();
        if meta.is_dir() {
            out.push(format!("{name:?} {:o} {:?}", meta.mode(), tree(&path)));
        } else if meta.is_symlink() {
            out.push(format!("{name:?} -> {:?}", fs::read_link(&path).unwrap()));
        } else {
            let data = fs::read(&path).unwrap();
            out.push(format!("{name:?} {:o} {} {} {}", meta.mode(), meta.nlink(), meta.len(), fnv(&data)));
        }
    }
    out
}

#[test]
fn what_others_write_between_our_writes_is_seen() {
    let m = Mounted::new();
    fs::write(m.here.join("f"), vec![0; 16 << 10]).unwrap();
    let here = OpenOptions::new().write(true).open(m.here.join("f")).unwrap();
    let there = OpenOptions::new().read(true).write(true).open(m.there.join("f")).unwrap();
    let value = |at: u64| {
        let mut byte = [0];
        there.read_exact_at(&mut byte, at).unwrap();
        byte[0]
    };
    for turn in 1..=100u8 {
        // Both are in the cache of the kernel there before.
        value(0);
        here.write_all_at(&[turn], 0).unwrap();
        there.write_all_at(&[turn], 12 << 10).unwrap();
        eventually("a byte that was written here", || value(0) == turn);
        assert_eq!(value(12 << 10), turn);
    }
}

#[test]
fn a_file_with_two_names_is_looked_at_while_it_is_open() {
    let m = Mounted::new();
    fs::create_dir(m.here.join("elsewhere")).unwrap();
    fs::write(m.here.join("f"), b"old").unwrap();
    fs::hard_link(m.here.join("f"), m.here.join("elsewhere/f")).unwrap();
    let there = File::open(m.there.join("f")).unwrap();
    let read = || {
        let mut buffer = [0; 8];
        let len = there.read_at(&mut buffer, 0).unwrap();
        buffer[..len].to_vec()
    };
    assert_eq!(read(), b"old");
    fs::write(m.here.join("elsewhere/f"), b"new").unwrap();
    eventually("what was written under the other name", || read() == b"new");
}

#[test]
fn a_working_directory_outlives_what_others_do_beside_it() {
    let m = Mounted::new();
    fs::create_dir_all(m.here.join("d/work")).unwrap();
    std::env::set_current_dir(m.there.join("d/work")).unwrap();
    for round in 0..3 {
        // More than is told name by name: all that was known of the directory is doubtful.
        for index in 0..600 {
            fs::write(m.here.join(format!("d/{round}-{index}")), b"").unwrap();
        }
        eventually("a new name", || m.there.join(format!("d/{round}-599")).exists());
        assert_eq!(std::env::current_dir().unwrap(), m.there.join("d/work"));
    }
    std::env::set_current_dir("/").unwrap();
}

#[test]
fn a_file_that_is_replaced_again_and_again_is_one_or_the_other() {
    let m = Mounted::new();
    let replace = |text: &str| {
        fs::write(m.here.join("next"), text).unwrap();
        fs::rename(m.here.join("next"), m.here.join("f")).unwrap();
    };
    replace("0");
    let read = || fs::read_to_string(m.there.join("f"));
    assert_eq!(read().unwrap(), "0");
    replace("1");
    eventually("the first of many", || read().is_ok_and(|text| text == "1"));
    std::thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            for turn in 2..40 {
                replace(&turn.to_string());
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        });
        let mut last = 1;
        while !replacing.is_finished() {
            let now: u32 = read().expect("it is always there").parse().expect("it is always whole");
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    });
    eventually("the last", || read().is_ok_and(|text| text == "39"));
}
