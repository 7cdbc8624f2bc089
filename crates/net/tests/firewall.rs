//! The elevated helper as a process: what it sets, what is left after each way to end, and what it refuses. The helper is this test
//! program itself, started again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod place;

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use place::{ask, ask_datagram, sh, state};
use remotely_net::firewall::{ClientError, Firewall, Settings, forget, serve};
use remotely_net::rules::{Desired, Listeners, Own, Protocol};
use remotely_net::subnet::{Rule, Subnet, Table};

/// Not a test by itself: becomes the helper where the variables say so.
#[test]
fn helper() {
    let Some(place) = std::env::var_os("FIREWALL_PLACE").map(PathBuf::from) else { return };
    let Some(method) = std::env::args().find_map(|word| word.strip_prefix("method=").map(str::to_owned)) else {
        return;
    };
    let settings = Settings { method, place: place.join("run"), hosts: place.join("hosts") };
    // Ends what the test harness has begun to say: noise, like an administrator's own words before READY.
    rustix::io::write(rustix::stdio::stdout(), b"\n").unwrap();
    let Err(error) = serve(&settings) else { std::process::exit(0) };
    fs::write(place.join("error"), format!("{error:?}")).unwrap();
    std::process::exit(99);
}

fn start(method: &str) -> Firewall {
    Firewall::start_with(&[way(method)]).unwrap()
}

fn way(method: &str) -> Vec<OsString> {
    let program = std::env::current_exe().unwrap();
    let mut way: Vec<OsString> = vec![program.into()];
    // A word that no test is called, so that it only filters.
    way.extend(["--exact", "helper", "--nocapture", "--test-threads=1", "--skip"].map(OsString::from));
    way.push(format!("method={method}").into());
    way
}

struct Site {
    _place: place::Place,
    folder: tempfile::TempDir,
    before: String,
}

const HOSTS: &str = "127.0.0.1 localhost\n";

fn site() -> Site {
    let place = place::make();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hosts"), HOSTS).unwrap();
    // SAFETY: nextest gives each test a process of its own, and no other thread reads the environment.
    unsafe { std::env::set_var("FIREWALL_PLACE", folder.path()) };
    Site { _place: place, folder, before: state() }
}

impl Site {
    fn hosts(&self) -> String {
        fs::read_to_string(self.folder.path().join("hosts")).unwrap()
    }

    /// What the helper has said at its end.
    fn error(&self) -> String {
        fs::read_to_string(self.folder.path().join("error")).unwrap()
    }

    fn journals(&self) -> usize {
        fs::read_dir(self.folder.path().join("run")).unwrap().count()
    }

    fn nothing_is_left(&self) {
        assert_eq!(state(), self.before);
        assert_eq!(self.hosts(), HOSTS);
        let left: Vec<_> = fs::read_dir(self.folder.path().join("run")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(ask("10.0.0.1:80"), "peer");
    }
}

fn table() -> Table {
    let subnet = |address: &str, width| Subnet::new(address.parse().unwrap(), width, None).unwrap();
    Table::new([
        Rule::include(subnet("10.0.0.0", 8)),
        Rule::exclude(subnet("10.1.0.0", 16)),
        Rule::include(subnet("fd00::", 8)),
    ])
}

fn desired() -> Desired {
    let (v4, v6) = place::tunnel(true, false);
    Desired { tcp: Listeners { v4: Some(v4), v6: Some(v6) }, ..Desired::new(v4, table()) }
}

/// The processes of the helper: itself, its guardian, and the nft that holds its rules.
fn processes(firewall: &Firewall) -> Vec<u32> {
    let ours = firewall.process();
    let children = fs::read_to_string(format!("/proc/{ours}/task/{ours}/children")).unwrap_or_default();
    let mut all = vec![ours];
    for task in fs::read_dir(format!("/proc/{ours}/task")).unwrap().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
    }
    all.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
    all.dedup();
    all
}

fn kill(pid: u32, signal: i32) {
    // SAFETY: no memory is concerned; the process is one that this test has started.
    assert_eq!(unsafe { libc::kill(i32::try_from(pid).unwrap(), signal) }, 0);
}

/// Whether a process is there, and not merely not yet waited for.
fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).exists()
}

fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "not yet: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_end_of_the_client_undoes_everything() {
    let site = site();
    for method in ["nft", "nat", "auto"] {
        let mut firewall = start(method);
        assert_eq!(firewall.method(), if method == "nat" { "nat" } else { "nft" });
        assert_eq!(state(), site.before, "no rule before GO");
        assert!(firewall.set(&desired()).unwrap().is_empty());
        assert!(ask("10.0.0.1:80").starts_with("tunnel 10.0.0.1:80"));
        assert_eq!(ask("10.1.0.1:80"), "peer");
        firewall.name("web.corp.example", "10.0.0.1".parse().unwrap()).unwrap();
        firewall.name("web", "fd00::1".parse().unwrap()).unwrap();
        soon("names", || site.hosts().lines().count() == 3);
        assert!(site.hosts().contains("10.0.0.1 web.corp.example "), "{}", site.hosts());
        drop(firewall);
        site.nothing_is_left();
    }
}

#[test]
fn transparent_sockets_come_from_the_helper() {
    let site = site();
    let mut firewall = start("tproxy");
    let desired = Desired {
        tcp: Listeners { v4: Some(12300), v6: Some(12300) },
        udp: Listeners { v4: Some(12300), v6: Some(12300) },
        ..desired()
    };
    let listeners = firewall.set(&desired).unwrap();
    let [tcp4, tcp6, udp4, udp6] = <[OwnedFd; 4]>::try_from(listeners).unwrap();
    for (socket, datagrams) in [(&tcp4, false), (&tcp6, false), (&udp4, true), (&udp6, true)] {
        let kind = rustix::net::sockopt::socket_type(socket).unwrap();
        assert_eq!(kind == rustix::net::SocketType::DGRAM, datagrams);
    }
    let listener = std::net::TcpListener::from(tcp6);
    listener.set_nonblocking(false).unwrap();
    let asker = std::thread::spawn(|| ask("[fd00::5]:4444"));
    let (stream, _) = listener.accept().unwrap();
    assert_eq!(stream.local_addr().unwrap(), "[fd00::5]:4444".parse().unwrap());
    drop(stream);
    assert_eq!(asker.join().unwrap(), "");
    // A datagram comes in, and is answered in the name of whom it was for.
    let sockets = std::net::UdpSocket::from(udp4);
    sockets.set_nonblocking(false).unwrap();
    let asker = std::thread::spawn(|| ask_datagram("10.0.0.9:443"));
    let (_, from) = sockets.recv_from(&mut [0; 100]).unwrap();
    let asked: SocketAddr = "10.0.0.9:443".parse().unwrap();
    let source = std::net::UdpSocket::from(firewall.source(asked).unwrap());
    source.send_to(b"tunnel", from).unwrap();
    assert_eq!(asker.join().unwrap(), "tunnel");
    // Nobody else's name; nor that of this machine, or of many, whatever is captured.
    sh("ip addr add 10.9.9.9/24 dev near; ip addr add fd00::99/128 dev near nodad; ip route add blackhole 10.8.0.0/16");
    assert!(firewall.source("10.8.0.1:443".parse().unwrap()).is_ok(), "where no way leads");
    for address in
        ["10.1.0.1:443", "127.0.0.1:53", "192.0.2.2:4000", "10.9.9.9:443", "10.9.9.255:443", "[fd00::99]:443"]
    {
        let refused = firewall.source(address.parse().unwrap()).unwrap_err().to_string();
        assert_eq!(refused, format!("no answer can be sent in the name of {address}"));
    }
    // Nobody gets what is sent to us by having said that he would share the port.
    let taking = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).unwrap();
    rustix::net::sockopt::set_socket_reuseaddr(&taking, true).unwrap();
    let there: SocketAddr = "127.0.0.1:12300".parse().unwrap();
    assert_eq!(rustix::net::bind(&taking, &there), Err(rustix::io::Errno::ADDRINUSE));
    sh("ip addr del 10.9.9.9/24 dev near; ip addr del fd00::99/128 dev near; ip route del 10.8.0.0/16");
    drop((firewall, listener, tcp4, sockets, udp6, source));
    site.nothing_is_left();
}

#[test]
fn a_killed_helper_leaves_no_rule() {
    let site = site();
    let mut firewall = start("nft");
    firewall.set(&desired()).unwrap();
    assert!(ask("10.0.0.1:80").starts_with("tunnel"));
    let [helper, guardian, nft] = processes(&firewall)[..] else { panic!("{:?}", processes(&firewall)) };
    let watch = firewall.watch().unwrap();
    kill(helper, libc::SIGKILL);
    assert_eq!((&watch).read(&mut [0; 1]).unwrap(), 0, "the client is told");
    soon("nft ends", || !runs(nft));
    soon("the guardian ends", || !runs(guardian));
    soon("the table goes", || state() == site.before);
    assert_eq!(ask("10.0.0.1:80"), "peer");
    drop(firewall);
    drop(start("nft"));
    site.nothing_is_left();
}

#[test]
fn what_a_killed_helper_has_left_is_undone_at_once() {
    let site = site();
    for method in ["nat", "tproxy", "nft"] {
        let mut firewall = start(method);
        let ports = Listeners { v4: Some(12300), v6: Some(12300) };
        let desired = if method == "tproxy" { Desired { tcp: ports, ..desired() } } else { desired() };
        firewall.set(&desired).unwrap();
        firewall.name("web", "10.0.0.1".parse().unwrap()).unwrap();
        soon("names", || site.hosts() != HOSTS);
        let guardian = processes(&firewall)[1];
        assert_eq!(fs::read_dir(format!("/proc/{guardian}/fd")).unwrap().count(), 4, "nothing of the helper is kept");
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            kill(guardian, signal);
        }
        kill(firewall.process(), libc::SIGKILL);
        soon("the guardian ends", || !runs(guardian));
        site.nothing_is_left();
        drop(firewall);
    }
}

#[test]
fn the_guardian_ends_with_its_helper() {
    let site = site();
    let mut firewall = start("nat");
    firewall.set(&desired()).unwrap();
    let guardian = processes(&firewall)[1];
    assert!(runs(guardian));
    drop(firewall);
    assert!(!runs(guardian));
    site.nothing_is_left();
    // Nor is it missed.
    let mut firewall = start("nat");
    firewall.set(&desired()).unwrap();
    kill(processes(&firewall)[1], libc::SIGKILL);
    assert!(ask("10.0.0.1:80").starts_with("tunnel"));
    drop(firewall);
    site.nothing_is_left();
}

#[test]
fn the_end_of_nft_is_noticed() {
    let site = site();
    for kill_switch in [false, true] {
        let mut firewall = start("nft");
        firewall.set(&Desired { kill_switch, ..desired() }).unwrap();
        firewall.name("web", "10.0.0.1".parse().unwrap()).unwrap();
        soon("names", || site.hosts() != HOSTS);
        let watch = firewall.watch().unwrap();
        kill(processes(&firewall)[2], libc::SIGKILL);
        assert_eq!((&watch).read(&mut [0; 1]).unwrap(), 0, "the client is told");
        drop(firewall);
        assert_eq!(site.error(), "Holder");
        assert_eq!(site.hosts(), HOSTS);
        assert_eq!(ask("10.0.0.1:80"), if kill_switch { "nobody" } else { "peer" });
    }
    let mut next = start("nft");
    next.set(&desired()).unwrap();
    drop(next);
    site.nothing_is_left();
}

#[test]
fn names_are_written_once_a_second_but_not_those_of_here() {
    let site = site();
    let own = format!("{HOSTS}10.7.7.7 mine.corp\n");
    fs::write(site.folder.path().join("hosts"), &own).unwrap();
    let mut firewall = start("nft");
    firewall.set(&desired()).unwrap();
    let ip = "10.0.0.1".parse().unwrap();
    let began = Instant::now();
    for name in ["localhost", "10.0.0.2", "mine.corp"] {
        firewall.name(name, ip).unwrap();
    }
    for none in ["", "no name", "a\nDONE", &"x".repeat(1000)] {
        assert!(matches!(firewall.name(none, ip), Err(ClientError::Name)), "{none:?}");
    }
    firewall.name("first", ip).unwrap();
    soon("the first", || site.hosts().contains(" first "));
    for number in 0..200 {
        firewall.name(&format!("h{number}"), ip).unwrap();
    }
    soon("the last", || site.hosts().contains(" h199 "));
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    assert!(site.hosts().starts_with(&own));
    assert_eq!(site.hosts().lines().count(), 2 + 201);
    assert!(ask("10.0.0.1:80").starts_with("tunnel"), "it goes on");
    firewall.name("late", ip).unwrap();
    drop(firewall);
    assert_eq!(site.hosts(), own);
    assert_eq!(site.journals(), 0);
}

#[test]
fn rules_of_iptables_change_without_a_gap() {
    let site = site();
    let mut firewall = start("nat");
    let first = Desired { kill_switch: true, ..desired() };
    firewall.set(&first).unwrap();
    let jumps =
        || sh("iptables -w -t nat -S OUTPUT; iptables -w -S OUTPUT").lines().filter(|l| l.contains("-j")).count();
    assert_eq!(jumps(), 2);
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let asker = std::thread::spawn(move || {
        let mut asked = 0;
        while told.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            let answer = ask("10.0.0.1:80");
            assert!(answer.starts_with("tunnel"), "{answer:?} after {asked}");
            asked += 1;
        }
        asked
    });
    for round in 0u8..10 {
        let more = Rule::exclude(Subnet::new([10, 5, round, 0].into(), 24, None).unwrap());
        let table = Table::new(first.table.rules().iter().copied().chain([more]));
        let user = (round % 2 == 1).then_some(0);
        firewall.set(&Desired { table, user, kill_switch: round % 3 != 0, ..first.clone() }).unwrap();
        assert_eq!(jumps(), if round % 3 == 0 { 1 } else { 2 });
        assert_eq!(ask(&format!("10.5.{round}.1:80")), "peer");
    }
    drop(tell);
    assert!(asker.join().unwrap() > 10);
    firewall.end();
    site.nothing_is_left();
}

#[test]
fn what_a_killed_helper_has_left_is_undone_by_the_next() {
    let site = site();
    for method in ["nat", "tproxy"] {
        let mut firewall = start(method);
        let ports = Listeners { v4: Some(12300), v6: Some(12300) };
        let desired = if method == "nat" { desired() } else { Desired { tcp: ports, ..desired() } };
        firewall.set(&desired).unwrap();
        firewall.name("web", "10.0.0.1".parse().unwrap()).unwrap();
        soon("names", || site.hosts() != HOSTS);
        kill(processes(&firewall)[1], libc::SIGKILL);
        kill(firewall.process(), libc::SIGKILL);
        drop(firewall);
        assert_ne!(state(), site.before);
        // Somebody else's namespace is left alone.
        let elsewhere = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    place::own_network();
                    drop(start("nft"));
                })
                .join()
        });
        elsewhere.unwrap();
        assert_ne!(site.hosts(), HOSTS);
        drop(start("nft"));
        site.nothing_is_left();
    }
}

#[test]
fn rules_change_while_they_stand() {
    let site = site();
    for method in ["nft", "nat"] {
        let mut firewall = start(method);
        let first = desired();
        firewall.set(&first).unwrap();
        assert_eq!(ask("10.1.0.1:80"), "peer");
        let all = Table::new([Rule::include(Subnet::new("10.0.0.0".parse().unwrap(), 8, None).unwrap())]);
        firewall.set(&Desired { table: all, user: Some(0), ..first.clone() }).unwrap();
        assert_eq!(ask("10.1.0.1:80"), "tunnel 10.1.0.1:80");
        assert_eq!(ask("[fd00::1]:80"), "peer");
        firewall.set(&first).unwrap();
        assert_eq!(ask("10.1.0.1:80"), "peer");
        let other = Desired { tcp: Listeners { v4: Some(1), v6: None }, ..first };
        assert!(firewall.set(&other).unwrap_err().to_string().contains("has ended"));
        drop(firewall);
        site.nothing_is_left();
    }
}

#[test]
fn the_kill_switch_survives_the_helper_but_not_the_user() {
    let site = site();
    for method in ["nft", "nat"] {
        let ssh = Own { protocol: Protocol::Tcp, local: None, remote: Some("10.0.0.1:22".parse().unwrap()) };
        let desired = Desired { kill_switch: true, own: vec![ssh], ..desired() };
        for killed in [false, true] {
            let mut firewall = start(method);
            firewall.set(&desired).unwrap();
            assert!(ask("10.0.0.1:80").starts_with("tunnel"));
            let guardian = processes(&firewall)[1];
            if killed {
                kill(firewall.process(), libc::SIGKILL);
            }
            drop(firewall);
            soon("the guardian ends", || !runs(guardian));
            assert_eq!(ask("10.0.0.1:80"), "nobody");
            assert_eq!(ask("10.0.0.1:22"), "peer");
            // Another one takes over, with another port and without a switch.
            let mut next = start(method);
            assert_eq!(ask("10.0.0.1:80"), "nobody", "{method}: not before it has rules");
            let other = self::desired();
            next.set(&other).unwrap();
            assert!(ask("10.0.0.1:80").starts_with("tunnel"));
            next.end();
            site.nothing_is_left();
        }
        let mut firewall = start(method);
        firewall.set(&desired).unwrap();
        firewall.end();
        site.nothing_is_left();
    }
}

#[test]
fn tracked_connections_to_our_ports_are_forgotten() {
    let _site = site();
    let mut firewall = start("nft");
    let desired = desired();
    let port = desired.tcp.v4.unwrap();
    firewall.set(&desired).unwrap();
    for last in 1..20 {
        ask(&format!("10.0.0.{last}:80"));
        ask(&format!("[fd00::{last}]:80"));
    }
    ask("10.1.0.1:80");
    let tracked = || sh("conntrack -L -f ipv4 2>/dev/null; conntrack -L -f ipv6 2>/dev/null");
    assert!(tracked().contains(&format!("sport={port} ")));
    drop(firewall);
    let left = tracked();
    assert!(!left.contains(&format!("sport={port} ")), "{left}");
    assert!(left.contains("dst=10.1.0.1"), "others stay: {left}");
    assert_eq!(forget(&[(Protocol::Tcp, port)]).unwrap(), 0);
}

#[test]
fn tracked_connections_of_others_are_not_forgotten() {
    let _site = site();
    let (port, _) = place::tunnel(true, false);
    // As of a container whose port is published, beside one that is redirected to this machine.
    sh(&format!(
        "nft 'table ip published {{ chain output {{ type nat hook output priority -90;
         tcp dport 9000 dnat to 10.0.0.1:80; tcp dport 9001 redirect to :{port}; }}; }}'"
    ));
    assert_eq!(ask("192.0.2.1:9000"), "peer");
    assert_eq!(ask("192.0.2.1:9001"), "tunnel 192.0.2.1:9001");
    assert_eq!(forget(&[(Protocol::Tcp, 80), (Protocol::Udp, port)]).unwrap(), 0);
    assert!(sh("conntrack -L 2>/dev/null").contains("dport=9000 "));
    assert_eq!(forget(&[(Protocol::Tcp, port)]).unwrap(), 1);
    assert!(!sh("conntrack -L 2>/dev/null").contains("dport=9001 "));
}

#[test]
fn signals_go_to_the_client() {
    let site = site();
    let mut firewall = start("nft");
    firewall.set(&desired()).unwrap();
    // SAFETY: the handler only counts.
    unsafe { libc::signal(libc::SIGINT, caught as extern "C" fn(i32) as libc::sighandler_t) };
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        kill(firewall.process(), signal);
    }
    soon("a signal", || CAUGHT.load(std::sync::atomic::Ordering::SeqCst) >= 1);
    assert!(ask("10.0.0.1:80").starts_with("tunnel"), "it goes on until the client ends");
    drop(firewall);
    site.nothing_is_left();
}

#[test]
fn a_signal_that_no_client_can_be_told_of_undoes_everything() {
    let site = site();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut helper = place::with_socket(&way("nat"), theirs);
    let (v4, v6) = place::tunnel(true, false);
    // The client is a process that is not to be seen from here.
    let wish = format!("ROUTES\n2,8,0,10.0.0.0,0,0\nNSLIST\nPORTS {v6},{v4},0,0\nGO 0 - - - {}\n", i32::MAX);
    (&ours).write_all(wish.as_bytes()).unwrap();
    let mut said = String::new();
    while !said.contains("STARTED\n") {
        let mut buffer = [0; 100];
        let read = (&ours).read(&mut buffer).unwrap();
        assert!(read > 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(ask("10.0.0.1:80").starts_with("tunnel"));
    kill(helper.id(), libc::SIGTERM);
    assert_eq!(helper.wait().unwrap().code(), Some(99));
    assert_eq!(site.error(), "Signal");
    site.nothing_is_left();
    // Before there are rules, too.
    let firewall = start("nat");
    kill(firewall.process(), libc::SIGINT);
    drop(firewall);
    site.nothing_is_left();
}

static CAUGHT: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

extern "C" fn caught(_: i32) {
    CAUGHT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
}

#[test]
fn without_a_helper_the_error_says_what_was_tried() {
    let ways = [vec!["/no/such/sudo".into()], vec!["false".into()], vec!["sh".into(), "-c".into(), "yes".into()]];
    let error = Firewall::start_with(&ways).unwrap_err().to_string();
    assert!(error.contains("/no/such/sudo: No such file"), "{error}");
    assert!(error.contains("false: exit status: 1"), "{error}");
    assert!(error.contains("sh: said 100 lines, none of them READY"), "{error}");
}

#[test]
fn two_helpers_do_not_share_a_port() {
    let site = site();
    let desired = desired();
    let mut first = start("nft");
    first.set(&desired).unwrap();
    let mut second = start("nft");
    assert!(second.set(&desired).is_err());
    let error = site.error();
    assert!(error.contains("Used"), "{error}");
    assert!(ask("10.0.0.1:80").starts_with("tunnel"), "the first goes on");
    let mut third = start("nft");
    third.set(&self::desired()).unwrap();
    drop(third);
    assert!(ask("10.0.0.1:80").starts_with("tunnel"));
    drop((first, second));
    site.nothing_is_left();
}
