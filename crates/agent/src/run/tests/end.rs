//! The end: whoever dies, and however, nothing stays.

use std::time::{Duration, Instant};

use remotely_proto::exec::Report;
use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// A sleep that nobody else sleeps.
fn marker(number: u32) -> String {
    format!("{}.{number}", 100_000 + std::process::id())
}

/// Leaves a process behind in each way.
fn leave(marker: &str) -> String {
    format!(
        "(setsid sleep {marker} &) ; (trap '' HUP TERM INT; sleep {marker} &) ; sleep {marker} & echo on; sleep {marker}"
    )
}

#[test]
fn a_closed_link_ends_everything() {
    for_both(|rig| async move {
        let marker = marker(1);
        let mut session = rig.start(&rig.sh(&leave(&marker))).await;
        session.read_until(1, "on\n").await;
        while alive(&marker).len() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let begun = Instant::now();
        assert_eq!(rig.close().await, End::Closed);
        assert!(gone(&marker, Duration::from_secs(1)), "{:?}", alive(&marker));
        assert!(begun.elapsed() < Duration::from_secs(4));
    });
}

#[test]
fn without_leftovers_the_end_is_at_once() {
    for_both(|rig| async move {
        rig.run(&rig.sh("true")).await;
        let begun = Instant::now();
        rig.close().await;
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_signal_ends_the_agent_unless_it_was_started_to_ignore_it() {
    let bit = |signal: i32| 1 << (signal - 1);
    for (ignored, heeded) in [(libc::SIGTERM, libc::SIGHUP), (libc::SIGHUP, libc::SIGTERM)] {
        let prepare = || sys::set_dispositions(bit(ignored) | bit(libc::SIGPIPE));
        run_with(None, prepare, |rig| async move {
            // Once something has run, the agent is past its start.
            rig.run(&rig.sh("true")).await;
            sys::kill(rustix::process::getpid(), false, ignored as u32).unwrap();
            let (status, ..) = rig.run(&rig.sh(&format!("kill -{ignored} $$; exit 3"))).await;
            assert_eq!(status, ignored as u32, "the command does not inherit it");
            sys::kill(rustix::process::getpid(), false, heeded as u32).unwrap();
            assert_eq!(rig.link.ended().await, End::Closed);
            assert_eq!(rig.agent.unwrap().await.unwrap().unwrap(), End::Closed);
        });
    }
}

#[test]
fn hang_up_comes_before_kill() {
    for_both(|rig| async move {
        let path = format!("/var/tmp/remotely-agent-{}-hup-{}", std::process::id(), rig.identity.uid);
        let script = format!("trap 'echo hup >{path}; exit' HUP; echo on; while :; do sleep 0.05; done");
        let mut session = rig.start(&rig.sh(&script)).await;
        session.read_until(1, "on\n").await;
        let begun = Instant::now();
        rig.close().await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hup\n");
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn killed_init_ends_everything_and_the_client_learns_of_it() {
    for_both(|rig| async move {
        let marker = marker(2);
        let mut session = rig.start(&rig.sh(&leave(&marker))).await;
        assert_eq!(session.report().await, Report::Started);
        session.read_until(1, "on\n").await;
        kill_process(rig.init, Signal::KILL).unwrap();
        assert!(gone(&marker, Duration::from_secs(2)), "{:?}", alive(&marker));
        let error = session.reports.recv::<Report>().await;
        assert!(error.is_err(), "{error:?}");
    });
}

#[test]
fn a_command_given_up_is_hung_up_on_and_then_killed() {
    for_both(|rig| async move {
        let marker = marker(3);
        let mut session = rig.start(&rig.sh(&format!("trap '' HUP; echo on; sleep {marker}; sleep {marker}"))).await;
        session.read_until(1, "on\n").await;
        session.controls.into_inner().reset(300);
        drop(session.reports);
        assert!(tokio::task::spawn_blocking(move || gone(&marker, Duration::from_secs(4))).await.unwrap());
        // The link goes on.
        assert_eq!(rig.run(&rig.sh("true")).await.0, 0);
    });
}

#[test]
fn an_unknown_message_is_passed_over_and_what_is_none_ends_the_command() {
    for_both(|rig| async move {
        for prefix in [u64::MAX, 9 << 32] {
            let marker = marker(4);
            let mut session =
                rig.start(&rig.sh(&format!("trap 'echo got' WINCH; echo on; sleep {marker} & wait; wait"))).await;
            session.read_until(1, "on\n").await;
            let mut controls = session.controls.into_inner();
            let message = |head: &Control| remotely_proto::message::encode(head, Bytes::new()).0;
            // An array where a map or a known variant should be: what a later version might send.
            controls.send(remotely_proto::message::encode(&[99_u8; 4], Bytes::new()).0).await.unwrap();
            controls.send(message(&Control::Signal { signal: libc::SIGWINCH as u32 })).await.unwrap();
            let out = session.from.get_mut(&1).unwrap();
            assert_eq!(out.until("got\n").await, "got\n");
            controls.send(Bytes::copy_from_slice(&prefix.to_le_bytes())).await.unwrap();
            assert!(tokio::task::spawn_blocking(move || gone(&marker, Duration::from_secs(4))).await.unwrap());
        }
        assert_eq!(rig.run(&rig.sh("true")).await.0, 0);
    });
}

/// An agent of few words in a process of its own: starts a command, says so, and waits to be killed. Returns the pids of
/// agent, init and pid 1, and the other end of its pipe.
fn silent_agent(user: Option<u32>, script: &str) -> ([Pid; 3], UnixStream) {
    let (told, tell) = rustix::pipe::pipe().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let agent = match sys::fork().unwrap() {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            if let Some(user) = user {
                become_user(user);
            }
            drop(ours);
            let init = init::start(theirs.as_fd()).unwrap();
            let mounted = direct::start(&init.socket, direct::setup(user), &["/bin/sh", "-c", script], None);
            let pids = [init.pid.as_raw_nonzero().get() as u32, mounted.init_pid].map(u32::to_ne_bytes).concat();
            rustix::io::write(&tell, &pids).unwrap();
            loop {
                std::thread::sleep(Duration::from_secs(1000));
            }
        }
    };
    drop(tell);
    let mut pids = [0; 8];
    assert_eq!(rustix::io::read(&told, &mut pids).unwrap(), 8);
    let pid = |at: usize| Pid::from_raw(i32::from_ne_bytes(pids[at..at + 4].try_into().unwrap())).unwrap();
    ([agent, pid(0), pid(4)], ours)
}

#[test]
fn whoever_is_killed_takes_the_others_along() {
    for user in [None, Some(USER)] {
        for stopped in [None, Some(1), Some(2)] {
            for victim in 0..3 {
                let marker = marker(100 + victim);
                let (pids, _pipe) = silent_agent(user, &leave(&marker).replace("echo on;", ""));
                let begun = Instant::now();
                while alive(&marker).len() < 4 {
                    assert!(begun.elapsed() < Duration::from_secs(5));
                }
                // Even where another one of them is stopped.
                if let Some(stopped) = stopped {
                    kill_process(pids[stopped], Signal::STOP).unwrap();
                }
                kill_process(pids[victim as usize], Signal::KILL).unwrap();
                let all = gone(&marker, Duration::from_secs(2));
                if victim != 0 {
                    kill_process(pids[0], Signal::KILL).unwrap();
                }
                sys::wait_end(pids[0]).unwrap();
                assert!(
                    all || stopped == Some(1) && victim == 2,
                    "{user:?} {stopped:?} {victim}: {:?}",
                    alive(&marker)
                );
                assert!(gone(&marker, Duration::from_secs(2)), "{user:?} {stopped:?} {victim}");
                let begun = Instant::now();
                while pids.iter().any(|pid| runs(*pid)) {
                    assert!(begun.elapsed() < Duration::from_secs(2), "{user:?} {stopped:?} {victim}");
                }
            }
        }
    }
}

#[test]
fn an_agent_that_is_stopped_ends_when_its_pipe_does() {
    let marker = marker(200);
    let (pids, pipe) = silent_agent(Some(USER), &leave(&marker));
    kill_process(pids[0], Signal::STOP).unwrap();
    drop(pipe);
    assert!(!gone(&marker, Duration::from_secs(5)));
    assert!(gone(&marker, Duration::from_secs(15)));
    sys::wait_end(pids[0]).unwrap();
}

fn runs(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ") && !stat.contains(") X ")
}

#[test]
fn no_mount_is_left_on_the_host() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    for_both(|rig| async move {
        rig.run(&rig.sh("true")).await;
        rig.close().await;
    });
    assert_eq!(mounts(), before);
}
