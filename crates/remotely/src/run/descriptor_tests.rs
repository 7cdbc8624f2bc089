//! Classification of descriptors, on real ones.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use rustix::pty::OpenptFlags;

use super::*;

/// Classifies these as if they had been inherited under the numbers they have, which ascend as they were opened.
fn kinds(fds: &[&dyn AsRawFd], tty: TtyMode) -> Vec<FdKind> {
    let mut numbers: Vec<u32> = fds.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    numbers.sort_unstable();
    let survey = survey(&numbers, &Shown::default(), tty);
    assert_eq!(survey.left_out, []);
    let kind = |fd: &&dyn AsRawFd| {
        let spec = survey.specs.iter().find(|spec| spec.fd == fd.as_raw_fd() as u32);
        spec.unwrap().kind.clone()
    };
    fds.iter().map(kind).collect()
}

fn scratch() -> (PathBuf, File) {
    // /dev is the host's, so what is tested must lie elsewhere.
    let path =
        std::env::temp_dir().join(format!("descriptor-{}-{:?}", std::process::id(), std::thread::current().id()));
    (path.clone(), OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path).unwrap())
}

#[test]
fn pipes_sockets_and_null() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let (socket, _other) = UnixStream::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    let zero = File::open("/dev/zero").unwrap();
    assert_eq!(
        kinds(&[&reader, &writer, &socket, &null, &zero], TtyMode::Auto),
        [FdKind::PipeIn, FdKind::PipeOut, FdKind::Socket, FdKind::Null { flags: 0 }, FdKind::PipeIn]
    );
}

#[test]
fn a_file_that_is_read_keeps_its_place() {
    let (path, mut file) = scratch();
    file.write_all(b"one\ntwo\n").unwrap();
    let mut read = File::open(&path).unwrap();
    read.seek(SeekFrom::Start(4)).unwrap();
    let dup = read.try_clone().unwrap();
    let again = File::open(&path).unwrap();
    let write = OpenOptions::new().write(true).open(&path).unwrap();
    let append = OpenOptions::new().append(true).open(&path).unwrap();
    let second_append = OpenOptions::new().append(true).open(&path).unwrap();

    let found = kinds(&[&file, &read, &dup, &again, &write, &append, &second_append], TtyMode::Auto);
    let at = |kind: &FdKind| match kind {
        FdKind::File { path: found, flags, offset, .. } => {
            assert_eq!(found.as_slice(), path.as_os_str().as_bytes());
            Some((*flags & libc::O_ACCMODE as u32, *offset))
        }
        _ => None,
    };
    assert_eq!(at(&found[0]), Some((libc::O_RDWR as u32, 8)));
    assert_eq!(at(&found[1]), Some((libc::O_RDONLY as u32, 4)));
    assert_eq!(found[2], FdKind::Same { of: read.as_raw_fd() as u32 });
    assert_eq!(at(&found[3]), Some((libc::O_RDONLY as u32, 0)));
    assert_eq!(found[4], FdKind::PipeOut);
    assert_eq!(found[5], FdKind::PipeOut);
    assert_eq!(found[6], FdKind::Same { of: append.as_raw_fd() as u32 });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_file_that_cannot_be_found_there_is_read_here() {
    let (path, _file) = scratch();
    let read = File::open(&path).unwrap();
    let number = read.as_raw_fd() as u32;
    let hidden = Shown { hidden: vec![path.clone()], ..Shown::default() };
    assert_eq!(survey(&[number], &hidden, TtyMode::Auto).specs[0].kind, FdKind::PipeIn);
    let hosts = Shown { host: vec![std::env::temp_dir()], ..Shown::default() };
    assert_eq!(survey(&[number], &hosts, TtyMode::Auto).specs[0].kind, FdKind::PipeIn);
    std::fs::remove_file(path).unwrap();
    assert_eq!(survey(&[number], &Shown::default(), TtyMode::Auto).specs[0].kind, FdKind::PipeIn);
    let proc = File::open("/proc/self/status").unwrap();
    assert_eq!(kinds(&[&proc], TtyMode::Auto), [FdKind::PipeIn]);
}

#[test]
fn two_descriptors_of_one_pipe_keep_their_order() {
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let dup = writer.try_clone().unwrap();
    // A description of its own, as of /dev/stdout.
    let reopened = OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", writer.as_raw_fd())).unwrap();
    let same = FdKind::Same { of: writer.as_raw_fd() as u32 };
    assert_eq!(kinds(&[&writer, &dup, &reopened], TtyMode::Auto), [FdKind::PipeOut, same.clone(), same]);
}

#[test]
fn a_terminal_counts_only_where_it_is_standard() {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let terminal = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    assert!(rustix::termios::isatty(terminal.as_fd()));
    // Above 2 and not the terminal of 0, 1 or 2: a way to write.
    assert_eq!(kinds(&[&terminal], TtyMode::Never), [FdKind::PipeOut]);
}

#[test]
fn what_cannot_be_carried_is_named() {
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let (datagram, _other) = UnixDatagram::pair().unwrap();
    let dir = std::env::temp_dir().join(format!("listener-{}", std::process::id()));
    let listener = UnixListener::bind(&dir).unwrap();
    let mut numbers: Vec<u32> =
        [event.as_raw_fd(), datagram.as_raw_fd(), listener.as_raw_fd()].map(|fd| fd as u32).to_vec();
    numbers.sort_unstable();
    let found = survey(&numbers, &Shown::default(), TtyMode::Auto);
    std::fs::remove_file(dir).unwrap();
    assert_eq!(found.specs, []);
    assert_eq!(found.left_out.len(), 3);
}

#[test]
fn a_directory_is_opened_by_its_path() {
    let dir = File::open("/usr").unwrap();
    let [FdKind::File { path, offset: 0, .. }] = &kinds(&[&dir], TtyMode::Auto)[..] else { panic!("no file") };
    assert_eq!(path.as_slice(), b"/usr");
}

#[test]
fn taking_over_closes_the_number_and_keeps_the_description() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let number = std::os::fd::IntoRawFd::into_raw_fd(writer);
    let own = take(number as u32).unwrap();
    drop(own);
    let mut buffer = [0; 1];
    assert_eq!(rustix::io::read(&reader, &mut buffer), Ok(0), "no copy of the writing end may be left");
}
