//! The pty of a command: controlling terminal, foreground, keys, size, modes.

use remotely_proto::exec::{Control, FdKind, Modes, Report, Winsize};

use super::*;

fn on_tty(rig: &Rig, script: &str) -> Request {
    let mut request = rig.sh(script);
    request.fds = (0..3).map(|fd| spec(fd, FdKind::Tty)).collect();
    request.tty = Some(tty_of(33, 101));
    request
}

async fn output(rig: &Rig, request: &Request, fd: u32) -> (u32, String) {
    let mut session = rig.start(request).await;
    assert_eq!(session.report().await, Report::Started);
    let out = session.from.get_mut(&fd).unwrap().all().await;
    (session.ended().await.status, String::from_utf8(out).unwrap())
}

#[test]
fn a_terminal_with_a_name_and_a_size() {
    for_both(|rig| async move {
        let request =
            on_tty(&rig, "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; echo dev >/dev/tty");
        let (status, out) = output(&rig, &request, 0).await;
        let (name, rest) = out.split_once("\r\n").unwrap();
        assert!(name.starts_with("/dev/pts/"), "{out}");
        assert_eq!((status, rest), (0, "33 101\r\nall\r\ndev\r\n"));
        // It may be opened by its name too.
        let (status, out) = output(&rig, &on_tty(&rig, "echo hi >$(tty)"), 0).await;
        assert_eq!((status, out.as_str()), (0, "hi\r\n"));
    });
}

#[test]
fn it_is_in_the_foreground() {
    for_both(|rig| async move {
        let request =
            on_tty(&rig, "exec perl -e 'use POSIX; print getpid == getpgrp, \" \", POSIX::tcgetpgrp(0) == getpgrp'");
        for _ in 0..3 {
            // The second and third take over the terminal of the session from the one before.
            let (_, out) = output(&rig, &request, 0).await;
            assert_eq!(out, "1 1");
        }
    });
}

#[test]
fn what_the_terminal_showed_first_is_told_of() {
    for_both(|rig| async move {
        for first in [FdKind::Tty, FdKind::PipeIn] {
            let mut request = on_tty(&rig, "printf shown >&2; echo out");
            request.fds[0].kind = first;
            request.fds[1].kind = FdKind::PipeOut;
            for _ in 0..20 {
                let mut session = rig.start(&request).await;
                assert_eq!(session.report().await, Report::Started);
                assert_eq!(session.read_until(1, "out\n").await, "out\n");
                assert_eq!(session.from[&1].screen, 5);
            }
        }
    });
}

#[test]
fn pipes_stay_pipes_beside_a_terminal() {
    for_both(|rig| async move {
        let mut request =
            on_tty(&rig, "test -t 0; echo $?; test -t 1; echo $?; test -t 2; echo $?; echo prompt >/dev/tty");
        request.fds[0].kind = FdKind::PipeIn;
        request.fds[1].kind = FdKind::PipeOut;
        let mut session = rig.start(&request).await;
        assert_eq!(session.report().await, Report::Started);
        assert_eq!(session.from.get_mut(&1).unwrap().all().await, b"1\n1\n0\n");
        assert_eq!(session.from.get_mut(&2).unwrap().all().await, b"prompt\r\n");
    });
}

#[test]
fn keys_make_signals() {
    for_both(|rig| async move {
        let mut session = rig.start(&on_tty(&rig, "exec perl -e '$| = 1; print qq(on\n); sleep 1000'")).await;
        assert_eq!(session.report().await, Report::Started);
        session.read_until(0, "on\r\n").await;
        session.write(0, "\x1a").await;
        assert_eq!(session.report().await, Report::Stopped { signal: libc::SIGTSTP as u32 });
        session.tell(Control::Continue).await;
        assert_eq!(session.report().await, Report::Continued);
        session.write(0, "\x03").await;
        assert_eq!(session.ended().await.status, libc::SIGINT as u32);

        let mut session = rig.start(&on_tty(&rig, "cat; echo end")).await;
        session.write(0, "line\n\x04").await;
        assert_eq!(session.from.get_mut(&0).unwrap().all().await, b"line\r\nline\r\nend\r\n");
    });
}

#[test]
fn a_new_size_is_told() {
    for_both(|rig| async move {
        let mut session = rig.start(&on_tty(&rig, "trap 'stty size; exit' WINCH; echo on; while :; do :; done")).await;
        session.read_until(0, "on\r\n").await;
        session.tell(Control::Resize { size: Winsize { rows: 50, cols: 132, xpixel: 0, ypixel: 0 } }).await;
        assert_eq!(session.from.get_mut(&0).unwrap().all().await, b"50 132\r\n");
    });
}

#[test]
fn modes_are_those_of_the_client() {
    for_both(|rig| async move {
        let mut request = on_tty(&rig, "stty -a");
        let mut special = vec![0; 19];
        special[libc::VINTR] = 7;
        special[libc::VERASE] = 8;
        request.tty.as_mut().unwrap().modes = Some(Modes {
            input: libc::ICRNL | libc::IUTF8,
            output: 0,
            control: libc::CS8 | libc::CREAD | libc::B38400,
            local: libc::ISIG,
            special: special.into(),
        });
        let (_, out) = output(&rig, &request, 0).await;
        for word in ["intr = ^G", "erase = ^H", "iutf8", "-icanon", "-opost", "-echo ", "38400 baud"] {
            assert!(out.contains(word), "{word} in {out}");
        }
    });
}

#[test]
fn a_background_job_holds_the_terminal_but_not_the_status() {
    for_both(|rig| async move {
        let mut session = rig.start(&on_tty(&rig, "sleep 1000 & printf hi")).await;
        assert_eq!(session.report().await, Report::Started);
        let ended = session.ended().await;
        assert_eq!((ended.status, ended.offsets[&0]), (0, 2));
        assert_eq!(session.read_until(0, "hi").await, "hi");
        rig.close().await;
    });
}

#[test]
fn a_terminal_that_the_client_lets_go_hangs_up() {
    for_both(|rig| async move {
        let mut session = rig.start(&on_tty(&rig, "echo on; exec sleep 1000")).await;
        assert_eq!(session.report().await, Report::Started);
        session.read_until(0, "on\r\n").await;
        session.from.get_mut(&0).unwrap().stream.stop();
        assert_eq!(session.ended().await.status, libc::SIGHUP as u32);
    });
}

#[test]
fn a_second_terminal_at_the_same_time() {
    for_both(|rig| async move {
        let mut first = rig.start(&on_tty(&rig, "exec perl -e '$| = 1; print qq(one\n); sleep 1000'")).await;
        first.read_until(0, "one\r\n").await;
        let mut second = rig.start(&on_tty(&rig, "exec perl -e '$| = 1; print qq(two\n); sleep 1000'")).await;
        second.read_until(0, "two\r\n").await;
        for session in [&mut second, &mut first] {
            assert_eq!(session.report().await, Report::Started);
            session.write(0, "\x03").await;
            assert_eq!(session.ended().await.status, libc::SIGINT as u32);
        }
    });
}

#[test]
fn a_megabyte_is_pasted_without_loss() {
    for_both(|rig| async move {
        let mut session = rig.start(&on_tty(&rig, "stty -echo; echo on; sha256sum; wc -c </dev/null")).await;
        session.read_until(0, "on\r\n").await;
        let line = "0123456789".repeat(10) + "\n";
        let paste = line.repeat(10_000);
        let mut input = session.into.remove(&0).unwrap();
        tokio::spawn(async move {
            input.send(paste.into()).await.unwrap();
            input.send("\x04".into()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let out = String::from_utf8(session.from.get_mut(&0).unwrap().all().await).unwrap();
        let expected = std::process::id();
        let path = format!("/var/tmp/remotely-agent-{expected}-paste");
        std::fs::write(&path, line.repeat(10_000)).unwrap();
        let (_, here, _) = rig.run(&rig.sh(&format!("sha256sum <{path}"))).await;
        std::fs::remove_file(path).unwrap();
        assert_eq!(out.lines().next(), here.lines().next());
    });
}
