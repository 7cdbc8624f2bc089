//! Signals, stops, statuses, orphans.

use std::time::{Duration, Instant};

use remotely_proto::exec::{Control, Report};

use super::*;

#[test]
fn signals_reach_the_group_and_the_status_says_so() {
    for_both(|rig| async move {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGKILL, libc::SIGRTMIN() + 3] {
            // Two processes. No shell: what it is about to execute (vfork) may swallow a signal, here as anywhere.
            let script = "$| = 1; print qq(on\n) if fork; sleep 1000; print qq(over\n)";
            let mut session = rig.start(&rig.request(&["perl", "-e", script])).await;
            assert_eq!(session.report().await, Report::Started);
            session.read_until(1, "on\n").await;
            session.tell(Control::Signal { signal: signal as u32 }).await;
            assert_eq!(session.ended().await.status, signal as u32);
            assert_eq!(session.from.get_mut(&1).unwrap().all().await, b"");
        }
        let mut session = rig.start(&rig.sh("trap 'exit 7' INT; echo on; while :; do :; done")).await;
        assert_eq!(session.report().await, Report::Started);
        session.read_until(1, "on\n").await;
        session.tell(Control::Signal { signal: 99 }).await;
        session.tell(Control::Signal { signal: libc::SIGINT as u32 }).await;
        assert_eq!(exit_code(session.ended().await.status), 7);
        let (status, ..) = rig.run(&rig.sh("ulimit -c 0; kill -SEGV $$")).await;
        assert_eq!(libc::WTERMSIG(status as i32), libc::SIGSEGV);
    });
}

#[test]
fn stops_and_continuations_are_told() {
    for_both(|rig| async move {
        for signal in [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN] {
            // One process: a shell that waits for vfork(2) cannot stop.
            let mut session = rig.start(&rig.request(&["perl", "-e", "$| = 1; print qq(on\n); sleep 1000"])).await;
            assert_eq!(session.report().await, Report::Started);
            session.read_until(1, "on\n").await;
            session.tell(Control::Signal { signal: signal as u32 }).await;
            // Without a parent in its session that is no leader of it, nothing but SIGSTOP would stop it.
            assert_eq!(session.report().await, Report::Stopped { signal: signal as u32 });
            session.tell(Control::Continue).await;
            assert_eq!(session.report().await, Report::Continued);
            session.tell(Control::Signal { signal: libc::SIGTERM as u32 }).await;
            assert_eq!(session.ended().await.status, libc::SIGTERM as u32);
        }
        let mut session = rig.start(&rig.sh("kill -STOP $$; exit 3")).await;
        assert_eq!(session.report().await, Report::Started);
        assert_eq!(session.report().await, Report::Stopped { signal: libc::SIGSTOP as u32 });
        session.tell(Control::Continue).await;
        loop {
            match session.report().await {
                Report::Continued => {}
                Report::Exited { status, .. } => break assert_eq!(exit_code(status), 3),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn ten_thousand_orphans_leave_no_zombie() {
    for_both(|rig| async move {
        let script = "use POSIX; for (1..100) { if (!fork) { for (1..100) { fork or POSIX::_exit(0) } POSIX::_exit(0) } }
            1 while wait > 0; sleep 1;
            my @z = grep { open(my $f, '<', \"/proc/$_/stat\") and <$f> =~ /\\) Z / } map { /(\\d+)$/ } glob '/proc/[0-9]*';
            print scalar(@z), \"\\n\"";
        let (status, out, err) = rig.run(&rig.request(&["perl", "-e", script])).await;
        assert_eq!((status, out.as_str(), err.as_str()), (0, "0\n", ""));
    });
}

#[test]
fn cpu_time_of_the_command_and_its_children() {
    for_both(|rig| async move {
        let mut session = rig.start(&rig.sh("perl -e '$x += $_ for 1..3000000'")).await;
        assert_eq!(session.report().await, Report::Started);
        let Report::Exited { cpu, .. } = session.report().await else { panic!() };
        assert!((10_000..5_000_000).contains(&cpu.0), "{cpu:?}");
    });
}

#[test]
fn many_at_once() {
    for_both(|rig| async move {
        let rig = &rig;
        let mut sessions = Vec::new();
        for number in 0..64 {
            sessions.push((number, rig.start(&rig.sh(&format!("sleep 0.1; exit {number}"))).await));
        }
        for (number, session) in &mut sessions {
            assert_eq!(session.report().await, Report::Started);
            assert_eq!(exit_code(session.ended().await.status), *number);
        }
    });
}

#[test]
fn what_was_written_is_synced_before_the_status_is_told() {
    for_both(|rig| async move {
        let mut request = rig.sh("exit 5");
        request.view.read_only = false;
        assert_eq!(exit_code(rig.run(&request).await.0), 5);
    });
}

#[test]
fn set_up_is_fast() {
    for_both(|rig| async move {
        let begun = Instant::now();
        rig.run(&rig.request(&["true"])).await;
        let first = begun.elapsed();
        let begun = Instant::now();
        for _ in 0..20 {
            rig.run(&rig.request(&["true"])).await;
        }
        eprintln!("first command {first:?}, each further one {:?}", begun.elapsed() / 20);
        assert!(first < Duration::from_secs(2));
    });
}
