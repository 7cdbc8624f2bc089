//! Who waits for input of the terminal is told of, if the client asked for that.

use std::time::Duration;

use remotely_proto::exec::{Control, FdKind, Report};

use super::*;

/// More than it takes to look several times.
const SEVERAL_LOOKS: Duration = Duration::from_millis(500);

/// A command on a terminal that nobody reads keys of yet, with its output in a pipe.
fn piped(rig: &Rig, argv: &[&str], announce: bool) -> Request {
    let mut request = rig.request(argv);
    request.fds[0].kind = FdKind::Tty;
    request.fds[2].kind = FdKind::Tty;
    request.tty = Some(Tty { announce, ..tty_of(24, 80) });
    request
}

async fn nothing_reported(session: &mut Session) {
    let report = tokio::time::timeout(SEVERAL_LOOKS, session.report()).await;
    assert!(report.is_err(), "{report:?}");
}

#[test]
fn who_waits_for_keys_is_told_of_once() {
    const PYTHON: &str = "import sys, selectors, select, os\n";
    let python = |text: &str| format!("{PYTHON}{text}\nprint(sys.stdin.readline(), end='')");
    let select = python("select.select([os.pipe()[0], 0], [], [])");
    let pselect = "use POSIX; my $r = ''; vec($r, 0, 1) = 1; select($r, undef, undef, undef); print scalar <STDIN>";
    let poll = python("p = select.poll(); p.register(2, 4); p.register(0, 1); p.modify(2, 0); p.poll()");
    let epoll = python("s = selectors.EpollSelector(); s.register(0, 1); s.select()");
    let thread = python("import threading\nt = threading.Thread(target=os.read, args=(0, 0))\nt.start(); t.join()");
    let by_name = python("f = open('/dev/tty'); sys.stdin = f");
    let cases: [(&[&str], bool); 10] = [
        (&["/bin/sh", "-c", "read x; echo $x"], false),
        (&["bash", "-c", "read -t 30 x; echo $x"], true),
        (&["/bin/sh", "-c", "cat | head -1"], false),
        (&["/bin/sh", "-c", "stty -echo; read x; stty echo; echo $x"], false),
        (&["perl", "-e", pselect], true),
        (&["python3", "-c", &select], true),
        (&["python3", "-c", &poll], true),
        (&["python3", "-c", &epoll], true),
        (&["python3", "-c", &thread], false),
        (&["python3", "-c", &by_name], false),
    ];
    for_both(|rig| async move {
        for (argv, polls) in cases {
            let mut session = rig.start(&piped(&rig, argv, true)).await;
            assert_eq!(session.report().await, Report::Started, "{argv:?}");
            assert_eq!(session.report().await, Report::Reads { polls }, "{argv:?}");
            nothing_reported(&mut session).await;
            session.write(0, "line\n\x04").await;
            assert_eq!(session.from.get_mut(&1).unwrap().all().await, b"line\n", "{argv:?}");
            assert_eq!(session.ended().await.status, 0, "{argv:?}");
        }
        rig.close().await;
    });
}

#[test]
fn who_waits_for_something_else_is_not() {
    let cases: [&[&str]; 5] = [
        &["/bin/sh", "-c", "echo on; sleep 1000"],
        &["/bin/sh", "-c", "echo on; sleep 1000 | cat"],
        // In the background of its terminal.
        &["bash", "-mc", "python3 -c 'import select; select.select([0], [], [])' & echo on; exec sleep 1000"],
        &[
            "perl",
            "-e",
            "$| = 1; print qq(on\n); my $w = ''; vec($w, 0, 1) = 1; select(undef, undef, my $e = $w, undef)",
        ],
        &["python3", "-c", "import select; print('on', flush=True); p = select.poll(); p.register(0, 8); p.poll()"],
    ];
    for_both(|rig| async move {
        for argv in cases {
            let mut session = rig.start(&piped(&rig, argv, true)).await;
            assert_eq!(session.report().await, Report::Started);
            session.read_until(1, "on\n").await;
            nothing_reported(&mut session).await;
            session.tell(Control::Signal { signal: libc::SIGKILL as u32 }).await;
            assert_eq!(session.ended().await.status, libc::SIGKILL as u32, "{argv:?}");
        }
        // Nor anybody whose client has the terminal.
        let mut session = rig.start(&piped(&rig, &["/bin/sh", "-c", "read x"], false)).await;
        assert_eq!(session.report().await, Report::Started);
        nothing_reported(&mut session).await;
        session.write(0, "line\n").await;
        assert_eq!(session.ended().await.status, 0);
        rig.close().await;
    });
}

#[test]
fn it_can_be_asked_for_again() {
    for_both(|rig| async move {
        let script = "import select; select.select([0], [], []); input(); input()";
        let mut session = rig.start(&piped(&rig, &["python3", "-c", script], false)).await;
        assert_eq!(session.report().await, Report::Started);
        session.tell(Control::Announce { polls: true }).await;
        assert_eq!(session.report().await, Report::Reads { polls: true });
        // To wait until there is something is no reading.
        session.tell(Control::Announce { polls: false }).await;
        nothing_reported(&mut session).await;
        session.write(0, "one\n").await;
        assert_eq!(session.report().await, Report::Reads { polls: false });
        session.tell(Control::Announce { polls: false }).await;
        assert_eq!(session.report().await, Report::Reads { polls: false });
        // One that is stopped while it reads doesn't wait.
        session.tell(Control::Signal { signal: libc::SIGTSTP as u32 }).await;
        assert_eq!(session.report().await, Report::Stopped { signal: libc::SIGTSTP as u32 });
        session.tell(Control::Announce { polls: true }).await;
        nothing_reported(&mut session).await;
        session.tell(Control::Continue).await;
        assert_eq!(session.report().await, Report::Continued);
        assert_eq!(session.report().await, Report::Reads { polls: false });
        session.write(0, "two\n").await;
        assert_eq!(session.ended().await.status, 0);
        rig.close().await;
    });
}
