//! Descriptors: exactly those asked for, each of its kind at its number.

use std::os::unix::fs::MetadataExt;

use remotely_proto::exec::{FdKind, Report, Step};

use super::*;

/// Prints the descriptors of the process, but for the one it lists them with.
const LIST: &str =
    "opendir D, '/proc/self/fd'; @f = grep { /\\d/ && readlink(\"/proc/self/fd/$_\") !~ m{/proc/} } readdir D;
    print join ' ', sort { $a <=> $b } @f";

fn file(path: &str, flags: i32, offset: u64) -> FdKind {
    let metadata = std::fs::metadata(path).unwrap();
    FdKind::File {
        path: path.as_bytes().to_vec().into(),
        flags: flags as u32,
        offset,
        dev: metadata.dev(),
        ino: metadata.ino(),
    }
}

fn scratch(name: &str, content: &str) -> String {
    let path = format!("/var/tmp/remotely-agent-{}-{name}", std::process::id());
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    path
}

#[test]
fn no_others_are_there() {
    for_both(|rig| async move {
        let mut request = rig.request(&["perl", "-e", LIST]);
        request.fds.extend([spec(3, FdKind::PipeIn), spec(7, FdKind::PipeOut), spec(63, FdKind::Socket)]);
        let (_, out, err) = rig.run(&request).await;
        assert_eq!((out.as_str(), err.as_str()), ("0 1 2 3 7 63", ""));
        // Not even the first three, if they are closed here.
        let mut request = rig.sh("exec ls /proc/self/fd >&5");
        request.fds = vec![spec(5, FdKind::PipeOut)];
        let mut session = rig.start(&request).await;
        assert_eq!(
            session.from.get_mut(&5).unwrap().all().await,
            b"0\n1\n5\n",
            "the directory, the redirection, and 5"
        );
    });
}

#[test]
fn each_carries_its_own_bytes() {
    for_both(|rig| async move {
        let mut request = rig.sh("cat <&3 >&7; cat <&9 >&9; echo end >&9");
        request.fds.extend([spec(3, FdKind::PipeIn), spec(7, FdKind::PipeOut), spec(9, FdKind::Socket)]);
        let mut session = rig.start(&request).await;
        assert_eq!(session.report().await, Report::Started);
        session.write(3, "three").await;
        session.write(9, "nine ").await;
        session.into.get_mut(&3).unwrap().finish();
        assert_eq!(session.from.get_mut(&7).unwrap().until("three").await, "three");
        assert_eq!(session.read_until(9, "nine ").await, "nine ");
        session.into.get_mut(&9).unwrap().finish();
        assert_eq!(session.from.get_mut(&9).unwrap().all().await, b"end\n");
        assert_eq!(session.ended().await.status, 0);
    });
}

#[test]
fn files_are_opened_where_they_were_and_leave_their_position() {
    let path = scratch("position", "0123456789");
    for_both(|rig| {
        let path = path.clone();
        async move {
            let mut request =
                rig.sh("head -c 3 >/dev/null; dd bs=1 count=2 2>/dev/null; dd bs=1 count=1 <&4 2>/dev/null");
            request.fds[0].kind = file(&path, libc::O_RDONLY, 1);
            request.fds.push(spec(4, FdKind::Same { of: 0 }));
            let mut session = rig.start(&request).await;
            assert_eq!(session.report().await, Report::Started);
            let out = session.from.get_mut(&1).unwrap().all().await;
            let ended = session.ended().await;
            // `head` may read ahead, but it sets a file back to where it stopped.
            assert_eq!((String::from_utf8(out).unwrap().as_str(), ended.offsets[&0]), ("456", 7));
        }
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_file_that_is_another_one_by_now_is_an_error() {
    let (path, other) = (scratch("one", "x"), scratch("other", "y"));
    for_both(|rig| {
        let (kind, path) = (file(&path, libc::O_RDONLY, 0), other.clone());
        async move {
            let FdKind::File { flags, offset, dev, ino, .. } = kind else { unreachable!() };
            let mut request = rig.sh("true");
            request.fds[0].kind = FdKind::File { path: path.into_bytes().into(), flags, offset, dev, ino };
            let report = rig.start(&request).await.report().await;
            assert!(
                matches!(report, Report::Failed { step: Step::Descriptor, errno, .. } if errno == libc::ESTALE as u32)
            );
        }
    });
    std::fs::remove_file(path).unwrap();
    std::fs::remove_file(other).unwrap();
}

#[test]
fn a_number_above_what_is_allowed_is_an_error_and_no_hang() {
    for_both(|rig| async move {
        let mut request = rig.sh("true");
        request.fds.push(spec(2_000_000_000, FdKind::PipeOut));
        let report = rig.start(&request).await.report().await;
        assert!(matches!(report, Report::Failed { step: Step::Descriptor, .. }), "{report:?}");
        let mut request = rig.sh("true");
        request.fds.push(spec(5, FdKind::Same { of: 4 }));
        let report = rig.start(&request).await.report().await;
        assert!(matches!(report, Report::Failed { step: Step::Descriptor, .. }), "{report:?}");
    });
}

#[test]
fn three_hundred_of_them() {
    for_both(|rig| async move {
        let mut request = rig.request(&["perl", "-e", LIST]);
        request.fds.extend((3..303).map(|fd| spec(fd, FdKind::PipeOut)));
        let (_, out, _) = rig.run(&request).await;
        assert_eq!(out, (0..303).map(|fd| fd.to_string()).collect::<Vec<_>>().join(" "));
    });
}
