//! The rig itself: that hosts are what their options say, that the relay delays by what it was told and no more, and that
//! nothing of either is left. Without the executables under test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use testbed::{Client, Fuse, Home, HostOptions, Pair, Process, Relay, Wire};

const LIMIT: Duration = Duration::from_secs(60);

fn ssh(pair: &Pair, script: &str) -> testbed::Outcome {
    Process::start(pair.client.command("ssh").args([&pair.target(), script]), b"").wait(LIMIT)
}

fn bare(options: HostOptions) -> Pair {
    Pair::of(Client::start_bare(), options, Wire::default())
}

#[test]
fn a_host_has_a_root_of_its_own() {
    let started = Instant::now();
    let pair = bare(HostOptions::default());
    println!("host and client after {:?}", started.elapsed());
    let script = "id -u; hostname; command -v gcc python3; ls -l /dev/fuse | cut -c1-10; \
                  unshare --user --map-root-user id -u; echo $SSH_CONNECTION | cut -d' ' -f4; tty; cat /etc/resolv.conf | head -1";
    let outcome = ssh(&pair, script).success();
    println!("first ssh took {:?}", outcome.took);
    assert_eq!(outcome.text(), "3007\nfar\ncrw-rw-rw-\n0\n22\nnot a tty\n# of far\n");
    pair.clean_within(Duration::from_secs(5));
    assert_eq!(Process::start(&mut pair.client.command("id"), b"").wait(LIMIT).text().split(' ').count(), 3);
}

#[test]
fn variants_are_what_they_say() {
    let pair = bare(HostOptions {
        login_shell: "/bin/csh".into(),
        sudo: true,
        home: Home::ReadOnly,
        fuse: Fuse::Missing,
        restricted: vec![("/var/tmp".into(), "noexec".into()), ("/tmp".into(), "size=4096".into())],
        noise: 1000,
        ..HostOptions::default()
    });
    let outcome = ssh(
        &pair,
        "sh -c 'sudo -n id -u; touch x || echo ro; ls /dev/fuse; head -c 5000 /dev/zero >/tmp/x || echo full'; echo $shell",
    );
    assert_eq!(outcome.text(), format!("{}\n0\nro\nfull\n/bin/csh\n", "n".repeat(1000)), "{outcome}");

    let pair = bare(HostOptions {
        login_shell: "/opt/busybox/sh".into(),
        busybox: true,
        home: Home::Noexec,
        ..HostOptions::default()
    });
    let outcome = ssh(&pair, "readlink -f $(which head); cp /opt/busybox/true t; ./t || echo noexec");
    assert_eq!(outcome.text(), "/usr/bin/busybox\nnoexec\n", "{outcome}");

    let pair = bare(HostOptions {
        login_shell: "/usr/bin/fish".into(),
        user_namespaces: false,
        home: Home::Room(0),
        ..HostOptions::default()
    });
    let outcome = ssh(
        &pair,
        "unshare --user true; or echo forbidden; head -c 5000 /dev/zero > x; or echo full; echo $version; sudo -n true; or echo no sudo",
    );
    assert_eq!(outcome.text(), "forbidden\nfull\n3.6.0\nno sudo\n", "{outcome}");

    let pair =
        bare(HostOptions { sudo: true, user_namespaces: false, subordinate_ids: true, ..HostOptions::default() });
    let outcome = ssh(
        &pair,
        "sudo -n unshare -m sh -c 'exec 3<>/dev/fuse && mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 x /mnt && echo mounted'; cat /etc/subuid",
    );
    assert_eq!(outcome.text(), "mounted\ndev:100000:65536\n", "{outcome}");
}

#[test]
fn what_is_left_over_is_seen() {
    let pair = bare(HostOptions { sudo: true, ..HostOptions::default() });
    ssh(&pair, "setsid sleep 77 >/dev/null 2>&1 </dev/null & touch /tmp/left; sudo mount -t tmpfs x /mnt").success();
    Process::start(&mut pair.client.bash("touch /tmp/left-$$; setsid sleep 77 >/dev/null 2>&1 & sleep 0.1", ""), b"")
        .wait(LIMIT);
    let left = pair.host.leftovers().join("\n");
    assert!(
        left.contains("sleep 77") && left.contains("file /tmp/left") && left.contains("mount /mnt tmpfs"),
        "{left}"
    );
    let here = pair.client.leftovers().join("\n");
    assert!(here.contains("sleep 77") && here.contains("file /tmp/left-"), "{here}");
    for process in pair.client.processes() {
        testbed::spawn::send_signal(process.pid, 9);
    }
    Process::start(&mut pair.client.bash("rm /tmp/left-*", ""), b"").wait(LIMIT);
}

#[test]
fn everything_ends_with_the_host() {
    let pair = bare(HostOptions::default());
    ssh(&pair, "setsid sleep 4711 >/dev/null 2>&1 </dev/null &").success();
    let (root, home) = (pair.host.root(), pair.client.home().to_owned());
    assert!(root.exists() && home.exists());
    drop(pair);
    assert!(!root.exists() && !home.exists());
    let all = testbed::leftover::processes(std::path::Path::new("/proc"));
    assert!(!all.iter().any(|p| p.arguments == "sleep 4711"), "{all:#?}");
}

fn echo_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut block = vec![0; 1 << 16];
                while let Ok(got @ 1..) = stream.read(&mut block) {
                    if stream.write_all(&block[..got]).is_err() {
                        return;
                    }
                }
                // Half-close must come through: this answer comes after the end of the question.
                let _ = stream.write_all(b"bye");
            });
        }
    });
    address
}

#[test]
fn the_relay_delays_exactly() {
    for rtt in [0, 20, 50] {
        let relay = Relay::start(echo_server(), Wire::rtt(rtt));
        let mut stream = TcpStream::connect(relay.address()).expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        let mut times: Vec<_> = (0..41)
            .map(|_| {
                let started = Instant::now();
                stream.write_all(b"x").expect("write");
                stream.read_exact(&mut [0]).expect("read");
                started.elapsed()
            })
            .collect();
        times.sort();
        let (median, asked) = (times[20], Duration::from_millis(rtt));
        println!("rtt {rtt} ms: median {median:?}");
        assert!(times[0] >= asked && median < asked + Duration::from_millis(5), "{times:?}");
    }
}

#[test]
fn the_relay_keeps_half_close_and_has_no_limit() {
    let relay = Relay::start(echo_server(), Wire::rtt(20));
    let mut stream = TcpStream::connect(relay.address()).expect("connect");
    let mut reading = stream.try_clone().expect("clone");
    let total = 256 << 20;
    let started = Instant::now();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        reading.read_to_end(&mut all).expect("read");
        all
    });
    for _ in 0..total >> 20 {
        stream.write_all(&vec![7; 1 << 20]).expect("write");
    }
    stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
    let all = reader.join().expect("reader");
    assert_eq!((all.len(), &all[total..]), (total + 3, &b"bye"[..]));
    let rate = total as f64 / started.elapsed().as_secs_f64() / 1e6;
    println!("{rate:.0} MB/s there and back at 20 ms");
    assert!(rate > 150.0);
}

#[test]
fn the_relay_limits_freezes_resets_and_cuts() {
    let to = echo_server();
    let relay = Relay::start(to, Wire { rate: 1_000_000, ..Wire::default() });
    let mut stream = TcpStream::connect(relay.address()).expect("connect");
    let started = Instant::now();
    stream.write_all(&vec![1; 500_000]).expect("write");
    stream.read_exact(&mut vec![0; 500_000]).expect("read");
    let took = started.elapsed().as_secs_f64();
    assert!((0.45..0.8).contains(&took), "500 kB at 1 MB/s in {took} s");

    relay.freeze();
    stream.write_all(b"x").expect("write");
    stream.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
    assert!(stream.read(&mut [0]).is_err(), "nothing passes");
    relay.thaw();
    stream.set_read_timeout(Some(LIMIT)).expect("timeout");
    stream.read_exact(&mut [0]).expect("passes again");
    relay.reset();
    let error = stream.read(&mut [0]).expect_err("a reset connection");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let relay = Relay::start(to, Wire { cut_after: 100_000, ..Wire::default() });
    let mut stream = TcpStream::connect(relay.address()).expect("connect");
    let _ = stream.write_all(&vec![1; 1_000_000]);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    assert!(all.len() < 400_000, "{}", all.len());
}

#[test]
fn nothing_is_left_when_a_test_is_killed() {
    for signal in [15, 9] {
        let mut program = testbed::spawn::command(env!("CARGO_BIN_EXE_testbed"));
        let mut process = Process::start_open(program.args(["host", "--bare"]));
        process.expect("ends with", LIMIT);
        let text = String::from_utf8_lossy(&process.stdout()).into_owned();
        let after =
            |mark: &str| text.split_once(mark).and_then(|(_, rest)| rest.split_whitespace().next()).expect("said");
        let (root, config) = (after("its root: ").to_owned(), after("ssh -F ").to_owned());
        assert!(std::path::Path::new(&root).exists() && std::path::Path::new(&config).exists());
        process.signal(signal);
        process.ended(LIMIT).expect("it was killed");
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::path::Path::new(&root).exists() || std::path::Path::new(&config).exists() {
            assert!(Instant::now() < deadline, "{root} or {config} is left after signal {signal}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
