//! What a process inherits: arguments, environment, limits, signals, identity; and the errors of the way there.

use remotely_proto::exec::{Report, Rlimit, Step};

use super::*;
use crate::run::order::Shared;

fn raw(entries: &[&[u8]]) -> Vec<ByteVec> {
    entries.iter().map(|entry| entry.to_vec().into()).collect()
}

#[test]
fn arguments_and_environment_byte_for_byte() {
    for_both(|rig| async move {
        let mut request = rig.request(&["cat", "/proc/self/environ"]);
        request.env = raw(&[b"PATH=/bin", b"A=1", b"nothing", b"A=2", b"B=\xff\n", b"", b"=x"]);
        let mut session = rig.start(&request).await;
        let out = session.from.get_mut(&1).unwrap().all().await;
        assert_eq!(out, b"PATH=/bin\0A=1\0nothing\0A=2\0B=\xff\n\0\0=x\0");

        let mut request = rig.request(&[]);
        let argv = raw(&[b"/usr/bin/printf", b"%s|", b"", b"-n", b"\x80\xff\xc0", b"a b\n\t'\"$x*\\"]);
        request.program = Program::Command { argv };
        let mut session = rig.start(&request).await;
        let out = session.from.get_mut(&1).unwrap().all().await;
        assert_eq!(out, b"|-n|\x80\xff\xc0|a b\n\t'\"$x*\\|");
    });
}

#[test]
fn two_megabytes_of_arguments() {
    for_both(|rig| async move {
        let long = "x".repeat(131_071);
        let mut argv = vec!["/bin/sh", "-c", "echo $# ${#1}", "sh"];
        argv.extend(std::iter::repeat_n(long.as_str(), 14));
        let (_, out, _) = rig.run(&rig.request(&argv)).await;
        assert_eq!(out, "14 131071\n");
        let long = "x".repeat(131_072);
        let report = rig.start(&rig.request(&["true", &long])).await.report().await;
        assert!(matches!(report, Report::Failed { step: Step::Exec, errno, .. } if errno == libc::E2BIG as u32));
    });
}

#[test]
fn attributes_of_the_process() {
    for_both(|rig| async move {
        let mut request = rig.sh(
            "umask; nice; ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; grep ^SigIgn /proc/self/status",
        );
        request.inherited.umask = 0o027;
        request.inherited.nice = 5;
        request.inherited.oom_score_adj = 77;
        request.inherited.blocked = 1 << (libc::SIGUSR2 - 1);
        request.inherited.ignored = 1 << (libc::SIGUSR1 - 1);
        let nofile = libc::RLIMIT_NOFILE;
        request.inherited.rlimits = vec![
            Rlimit { resource: nofile, soft: 333, hard: 444 },
            Rlimit { resource: libc::RLIMIT_CORE, soft: 0, hard: u64::MAX },
            Rlimit { resource: 99, soft: 1, hard: 1 },
        ];
        let (_, out, err) = rig.run(&request).await;
        assert_eq!((out.as_str(), err.as_str()), ("0027\n5\n333\n444\n0\n77\nSigIgn:\t0000000000000200\n", ""));
        // Shells unblock what is blocked; others do not.
        let mut request = rig.request(&["grep", "SigBlk", "/proc/self/status"]);
        request.inherited.blocked = 1 << (libc::SIGUSR2 - 1) | 1 << 31 | 1 << 63;
        assert_eq!(rig.run(&request).await.1, "SigBlk:\t8000000080000800\n");
        // SIGPIPE is not left ignored, as this process has it.
        let (_, out, _) = rig.run(&rig.request(&["grep", "SigIgn", "/proc/self/status"])).await;
        assert_eq!(out, "SigIgn:\t0000000000000000\n");
    });
}

#[test]
fn identity_and_capabilities() {
    for_both(|rig| async move {
        let (_, out, _) =
            rig.run(&rig.sh("id -u; id -g; grep -E '^Cap(Prm|Eff|Inh|Amb)' /proc/self/status; echo $$")).await;
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[..2], [rig.identity.uid.to_string(), rig.identity.gid.to_string()]);
        if rig.identity.uid != 0 {
            assert!(lines[2..6].iter().all(|line| line.ends_with("\t0000000000000000")), "{out}");
        }
        // A pid namespace of its own.
        assert!(lines[6].parse::<u32>().unwrap() < 100, "{out}");
    });
}

#[test]
fn root_becomes_the_user_of_the_client() {
    run_as(None, |mut rig| async move {
        rig.identity.uid = 1234;
        rig.identity.gid = 5678;
        rig.identity.groups = vec![5678, 27, 100];
        let (_, out, _) = rig.run(&rig.sh("id -u; id -g; id -G; grep CapPrm /proc/self/status")).await;
        assert_eq!(out, "1234\n5678\n5678 27 100\nCapPrm:\t0000000000000000\n");
    });
}

#[test]
fn nobody_of_the_host_is_the_command_of_a_root_agent() {
    run_as(None, |mut rig| async move {
        rig.identity.uid = 4321;
        rig.identity.gid = 4322;
        let marker = format!("{}.77", 100_000 + std::process::id());
        let mut request =
            rig.sh(&format!("stat -c %u $(tty); tty >/dev/null && : >$(tty) && echo on; exec sleep {marker}"));
        request.fds[0].kind = FdKind::Tty;
        let size = remotely_proto::exec::Winsize { rows: 24, cols: 80, xpixel: 0, ypixel: 0 };
        request.tty = Some(Tty { size, modes: None, announce: false });
        request.fds[1].kind = FdKind::Same { of: 0 };
        let mut session = rig.start(&request).await;
        assert_eq!(session.read_until(0, "on\r\n").await, "4321\r\non\r\n");
        let pid = tokio::task::spawn_blocking(move || {
            std::iter::repeat_with(|| alive(&marker)).find_map(|found| found.first().copied())
        });
        let pid = pid.await.unwrap().unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}")).unwrap());
        assert_eq!(owner, 0x7000_0000 + 4321);
        // Neither their namesake on the host, nor the one whose files they would be there.
        in_process(Some(4321), || {
            for path in ["environ", "root/etc/passwd", "cwd/etc", "fd/0"] {
                let path = format!("/proc/{pid}/{path}");
                assert!(std::fs::metadata(&path).and_then(|_| std::fs::read(&path)).is_err(), "{path}");
            }
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            assert!(sys::kill(pid, false, 0).is_err());
        });
    });
}

#[test]
fn a_root_agent_gives_what_only_root_may() {
    let prepare = || {
        sys::set_limit(libc::RLIMIT_NOFILE, 900, 1000).unwrap();
        sys::set_limit(libc::RLIMIT_MEMLOCK, 65536, 65536).unwrap();
    };
    run_with(None, prepare, |mut rig| async move {
        rig.identity.uid = 4321;
        let mut request = rig.sh("ulimit -Sn; ulimit -Hn; ulimit -l; nice; cat /proc/self/oom_score_adj");
        let rlimits = [(libc::RLIMIT_NOFILE, 2000, 3000), (libc::RLIMIT_MEMLOCK, 1 << 20, 1 << 30)];
        request.inherited.rlimits = rlimits.map(|(resource, soft, hard)| Rlimit { resource, soft, hard }).to_vec();
        request.inherited.nice = -5;
        request.inherited.oom_score_adj = 77;
        // Root of a container may lack what raises limits: then they stay, and niceness, which is one here.
        let full = rustix::thread::capabilities(None).unwrap().effective;
        let full = full.contains(rustix::thread::CapabilitySet::SYS_RESOURCE);
        let expected = if full { "2000\n3000\n1024\n-5\n77\n" } else { "1000\n1000\n64\n0\n77\n" };
        assert_eq!(rig.run(&request).await.1, expected);
    });
}

#[test]
fn one_link_has_one_user() {
    run_as(None, |mut rig| async move {
        rig.run(&rig.sh("true")).await;
        rig.identity.uid = 7;
        let report = rig.start(&rig.sh("true")).await.report().await;
        assert!(matches!(report, Report::Failed { step: Step::Setup, .. }));
    });
}

#[test]
fn failures_say_at_which_step() {
    let dir = format!("/var/tmp/remotely-agent-{}-programs", std::process::id());
    std::fs::create_dir_all(&dir).unwrap();
    let write = |name: &str, content: &[u8], mode: u32| {
        let path = format!("{dir}/{name}");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        path
    };
    let denied = write("denied", b"#!/bin/sh\n", 0o644);
    write("bare", b"echo from a bare script $1\n", 0o755);
    let binary = write("binary", b"\x7fELF\x00\x00\x00\n", 0o755);
    let crlf = write("crlf", b"#!/bin/sh\r\necho\r\n", 0o755);
    for_both(|rig| {
        let (dir, denied, binary, crlf) = (dir.clone(), denied.clone(), binary.clone(), crlf.clone());
        async move {
            for (command, errno) in [
                ("/nowhere/x", libc::ENOENT),
                ("no-such-command", libc::ENOENT),
                ("", libc::ENOENT),
                (&denied, libc::EACCES),
                (&dir, libc::EACCES),
                (&binary, libc::ENOEXEC),
                (&crlf, libc::ENOENT),
            ] {
                let report = rig.start(&rig.request(&[command])).await.report().await;
                let expected = Report::Failed { step: Step::Exec, errno: errno as u32, what: command.into() };
                assert_eq!(report, expected);
            }
            let mut request = rig.sh("true");
            request.cwd = b"/nowhere".to_vec().into();
            let report = rig.start(&request).await.report().await;
            let errno = libc::ENOENT as u32;
            assert_eq!(report, Report::Failed { step: Step::Cwd, errno, what: "/nowhere".into() });

            let mut request = rig.request(&["bare", "arg"]);
            request.env = list(&["X=1", &format!("PATH=/nowhere:{dir}")]);
            assert_eq!(rig.run(&request).await.1, "from a bare script arg\n");
            // A directory that may not be searched does not hide what comes after, nor its own error.
            let mut request = rig.request(&["denied"]);
            request.env = list(&[&format!("PATH={dir}:/bin")]);
            let report = rig.start(&request).await.report().await;
            assert!(matches!(report, Report::Failed { errno, .. } if errno == libc::EACCES as u32));
            // Without PATH, as confstr(3) has it; with an empty element, here.
            let mut request = rig.request(&["true"]);
            request.env = list(&[]);
            assert_eq!(rig.run(&request).await.0, 0);
            let mut request = rig.request(&["bare"]);
            request.env = list(&["PATH=/nowhere:"]);
            request.cwd = dir.clone().into_bytes().into();
            assert_eq!(rig.run(&request).await.0, 0);
        }
    });
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_request_that_cannot_be_is_refused() {
    for_both(|rig| async move {
        let mut request = rig.request(&["true"]);
        request.env = raw(&[b"A=\0"]);
        let report = rig.start(&request).await.report().await;
        assert!(matches!(report, Report::Failed { step: Step::Exec, errno, .. } if errno == libc::EINVAL as u32));
        let report = rig.start(&rig.request(&[])).await.report().await;
        assert!(matches!(report, Report::Failed { step: Step::Exec, errno, .. } if errno == libc::EINVAL as u32));
        let mut request = rig.request(&["true"]);
        request.fds.swap(0, 1);
        let report = rig.start(&request).await.report().await;
        assert!(matches!(report, Report::Failed { step: Step::Descriptor, .. }));
    });
}

#[test]
fn a_host_path_that_the_host_lacks_is_an_error() {
    for_both(|rig| async move {
        let mut request = rig.sh("true");
        request.view.host_paths = list(&["/no/such/place"]);
        let report = rig.start(&request).await.report().await;
        let Report::Failed { step: Step::Setup, errno, what } = report else { panic!("{report:?}") };
        assert_eq!((errno as i32, what.as_str()), (libc::ENOENT, "use /no/such/place of the host"));
    });
}

#[test]
fn a_host_path_is_put_in() {
    for_both(|rig| async move {
        let mut request = rig.sh("grep -c ' /usr/lib ' /proc/self/mountinfo; ls /usr/lib | wc -l");
        request.view.host_paths = list(&["/usr/lib"]);
        request.view.host_network = true;
        let (_, out, _) = rig.run(&request).await;
        let entries = std::fs::read_dir("/usr/lib").unwrap().count();
        assert_eq!(out, format!("1\n{entries}\n"));
    });
}

#[test]
fn without_namespaces_the_report_says_what_could_be_allowed() {
    for user in [None, Some(USER)] {
        run_with(
            user,
            || sys::refuse(&[libc::SYS_unshare], libc::EPERM).unwrap(),
            |rig| async move {
                for _ in 0..2 {
                    let report = rig.start(&rig.sh("true")).await.report().await;
                    let Report::Failed { step: Step::Privilege, errno, what } = report else { panic!("{report:?}") };
                    assert_eq!(errno as i32, libc::EPERM);
                    assert!(
                        what.contains("unshare(user, mount, pid, uts); /proc/sys/user/max_user_namespaces is "),
                        "{what}"
                    );
                    assert!(what.contains("the administrator of the host could allow: "), "{what}");
                }
                assert_eq!(rig.close().await, End::Closed);
            },
        );
    }
}

#[test]
fn a_kernel_without_the_new_mount_calls() {
    for user in [None, Some(USER)] {
        let calls = [libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_close_range];
        run_with(
            user,
            || sys::refuse(&calls, libc::ENOSYS).unwrap(),
            |rig| async move {
                let mut request =
                    rig.sh("cat /proc/1/comm >/dev/null && echo $$; ls /proc/self/fd; test -c /dev/null; exit $?");
                request.view.host_paths = list(&["/usr/lib"]);
                let (status, out, err) = rig.run(&request).await;
                assert_eq!((exit_code(status), out.as_str(), err.as_str()), (0, "2\n0\n1\n2\n3\n", ""));
            },
        );
    }
}

#[test]
fn what_the_environment_of_the_host_names_is_reachable() {
    let dir = format!("/var/tmp/remotely-agent-{}-shared", std::process::id());
    std::fs::create_dir_all(&dir).unwrap();
    let (socket, cookie) = (format!("{dir}/agent"), format!("{dir}/cookie"));
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(&cookie, "sweet").unwrap();
    let answering = std::thread::spawn(move || {
        for _ in 0..2 {
            std::io::Write::write_all(&mut listener.accept().unwrap().0, b"hello").unwrap();
        }
    });
    for user in [None, Some(USER)] {
        let shared = |host: &str, place: &str| Shared {
            host: host.as_bytes().to_vec().into(),
            place: place.as_bytes().to_vec().into(),
        };
        let shared = vec![shared(&socket, "SSH_AUTH_SOCK"), shared(&cookie, "XAUTHORITY"), shared("/none", "X")];
        in_process(user, || {
            let script = "use IO::Socket::UNIX; $d = '/sys/fs/fuse/connections';
                $s = IO::Socket::UNIX->new(Peer => qq($d/SSH_AUTH_SOCK)) or die qq(connect: $!); print <$s>, ' ';
                open F, qq($d/XAUTHORITY) or die; print <F>, ' ', join ',', map { s,.*/,,r } glob qq($d/*)";
            let mut setup = direct::setup(user);
            setup.shared = shared;
            let out = direct::output(setup, &["perl", "-e", script]);
            assert_eq!(out, "hello sweet SSH_AUTH_SOCK,XAUTHORITY");
        });
    }
    answering.join().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}
