//! `remotely net`: a command of here with the host's network, in a namespace that nobody had to be root for.

use std::time::{Duration, Instant};

use testbed::{HostOptions, Lan, Outcome, Pair, Process, Terminal, Wire};

const LIMIT: Duration = Duration::from_secs(60);

struct Site {
    pair: Pair,
    _lan: Lan,
}

impl Site {
    fn start() -> Self {
        let pair = Pair::start();
        let lan = Lan::behind(&pair.host);
        Self { pair, _lan: lan }
    }

    /// A script of bash with the host's network.
    fn net(&self, script: &str) -> Process {
        self.net_with(&[], script)
    }

    fn net_with(&self, words: &[&str], script: &str) -> Process {
        let target = self.pair.target();
        let words = ["net", &target].into_iter().chain(words.iter().copied()).chain(["--", "bash", "-c", script]);
        Process::start(&mut self.pair.client.remotely(words), b"")
    }

    #[track_caller]
    fn says(&self, script: &str) -> String {
        self.net(script).wait(LIMIT).success().text()
    }

    /// Nothing is left on either side.
    #[track_caller]
    fn clean(&self) {
        self.pair.clean_within(Duration::from_secs(10));
    }
}

#[test]
fn connections_of_both_families_and_names_are_of_the_host() {
    let site = Site::start();
    assert_eq!(site.says("curl -sS http://10.66.0.2/"), "hello\n");
    // The host is who connects.
    assert_eq!(site.says("curl -sS http://10.66.0.2/from"), "10.66.0.1\n");
    assert_eq!(site.says("curl -sS 'http://[fd66::2]/from'"), "fd66::1\n");
    assert_eq!(site.says("curl -sS http://four.inside.example/"), "hello\n");
    // A short name, by the domain that the host searches.
    assert_eq!(site.says("getent ahostsv4 four | head -1 | cut -d' ' -f1"), "10.66.0.2\n");
    // A name of the host's /etc/hosts.
    assert_eq!(site.says("getent hosts only-far.example | cut -d' ' -f1"), "10.77.255.254\n");
    let sum = site.says("curl -sS http://10.66.0.2/big | md5sum");
    assert_eq!(sum, "96995b58d4cbf6aaa9041b4f00c7f6ae  -\n");
    site.clean();
}

#[test]
fn names_are_asked_for_by_datagram_and_by_connection() {
    let site = Site::start();
    assert_eq!(site.says("dig +short four.inside.example"), "10.66.0.2\n");
    assert_eq!(site.says("dig +short +tcp web.inside.example AAAA"), "fd66::2\n");
    // Too long for a datagram: told so, and asked again by TCP.
    assert_eq!(site.says("dig +noedns +short TXT long.inside.example | wc -c"), "1771\n");
    assert!(site.says("dig missing.inside.example").contains("NXDOMAIN"));
    // Another server than the host's own.
    assert_eq!(site.says("dig +short @10.66.0.2 four.inside.example"), "10.66.0.2\n");
    // resolv.conf of the host is read again, and a server that is not there is passed over.
    let running = site.net("dig +short four.inside.example; echo ready; while [ ! -e on ]; do sleep 0.05; done; dig +short four.inside.example");
    running.expect("ready", LIMIT);
    site.pair.host.sh("printf 'nameserver 127.0.0.9\\nnameserver 10.66.0.2\\n' >/etc/resolv.conf; sleep 0.6");
    site.pair.client.write("on", "");
    assert_eq!(running.wait(LIMIT).success().text(), "10.66.0.2\nready\n10.66.0.2\n");
}

/// A client of the echo: sends and compares. Arguments: address, length, how many.
const ECHO: &str = "
import os, socket, sys
address, length, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
for n in range(count):
    sent = os.urandom(length)
    s.sendto(sent, (address, 7007))
    found, source = s.recvfrom(65536)
    assert found == sent and source[:2] == (address, 7007), (len(found), source)
print('ok')
";

#[test]
fn datagrams_travel_whole_and_answers_come_from_whom_they_are() {
    let site = Site::start();
    site.pair.client.write("echo.py", ECHO);
    let echo = |address: &str, length: usize, count: usize| {
        site.says(&format!("/usr/bin/python3 echo.py {address} {length} {count}"))
    };
    for length in [0, 1, 1400, 8000, 65_507] {
        assert_eq!(echo("10.66.0.2", length, 5), "ok\n", "{length} bytes");
        assert_eq!(echo("fd66::2", length, 5), "ok\n", "{length} bytes, IPv6");
    }
    // One socket that speaks with several, from the port that they are asked at.
    let several = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('', 7007)); s.settimeout(10)
for address in ['10.66.0.2', '10.66.0.3', '10.66.0.2']:
    s.sendto(address.encode(), (address, 7007))
    found, source = s.recvfrom(100)
    assert (found.decode(), source) == (address, (address, 7007)), (found, source)
print('ok')";
    site.pair.client.write("several.py", several);
    assert_eq!(site.says("/usr/bin/python3 several.py"), "ok\n");
}

#[test]
fn what_is_refused_there_is_refused_here_and_own_addresses_are_own() {
    let site = Site::start();
    let refused = site.net("curl -sS http://10.66.0.2:81/ 2>&1; echo $?").wait(LIMIT).success().text();
    // The kernel here has accepted: a reset is what can be told. Where it comes before curl has looked, that is "couldn't
    // connect" (7), or else "receive failure" (56).
    let told = refused.trim_end();
    assert!(told.ends_with("\n7") || (told.ends_with("\n56") && told.contains("reset by peer")), "{refused}");
    // localhost is the command's own.
    let own = "(exec 3<>/dev/tcp/127.0.0.1/9) 2>&1; /usr/bin/python3 -c '
import socket, threading
l = socket.create_server((\"127.0.0.1\", 8080))
threading.Thread(target=lambda: l.accept()[0].sendall(b\"own\")).start()
print(socket.create_connection((\"127.0.0.1\", 8080)).recv(9).decode())'";
    let own = site.says(own);
    assert!(own.contains("refused") && own.ends_with("own\n"), "{own}");
}

#[test]
fn the_command_is_the_users_own_and_ends_as_it_does() {
    let site = Site::start();
    let Site { pair, .. } = &site;
    assert_eq!(site.says("id -u"), format!("{}\n", pair.client.uid()));
    assert_eq!(site.says("pwd"), format!("{}\n", pair.client.work().display()));
    assert_eq!(site.says("touch mine; stat -c %u mine"), format!("{}\n", pair.client.uid()));
    // No privilege comes along.
    assert_eq!(site.says("grep -c 'Cap\\(Prm\\|Eff\\|Inh\\|Amb\\):.*[1-9a-f]' /proc/self/status; true"), "0\n");
    let code = |script: &str| site.net(script).wait(LIMIT).code();
    assert_eq!(code("exit 7"), 7);
    assert_eq!(code("kill -TERM $$"), 128 + 15);
    let run = |words: &[&str]| Process::start(&mut pair.client.remotely(words), b"").wait(LIMIT);
    let target = pair.target();
    assert_eq!(run(&["net", &target, "--", "/no/such"]).code(), 127);
    assert_eq!(run(&["net", &target, "--", "/etc/passwd"]).code(), 126);
    let nowhere = run(&["net", "dev@nowhere.invalid", "--", "true"]);
    assert_eq!(nowhere.code(), 255, "{nowhere}");
    let absurd = run(&["net", &target, "10.0.0.0/33", "--", "true"]);
    assert!(absurd.code() == 125 && absurd.errors().contains("33"), "{absurd}");
    assert_eq!(run(&["net", "--join", "nobody", "--", "true"]).code(), 125);
    // A signal for us is one for it.
    let running = site.net("trap 'echo told; exit 3' USR1; echo ready; while :; do sleep 0.05; done");
    running.expect("ready", LIMIT);
    running.signal(USR1);
    let ended = running.wait(LIMIT);
    assert!(ended.code() == 3 && ended.text().ends_with("told\n"), "{ended}");
    site.clean();
}

const USR1: i32 = 10;

/// In a shell on a terminal: keys, stops and the terminal are the command's, and nothing of them reaches the link.
#[test]
fn it_is_a_job_like_any_other() {
    let site = Site::start();
    let mut command = site.pair.client.command("bash");
    let run = format!("remotely net {} --", site.pair.target());
    command.args(["--norc", "--noprofile", "-i"]).env("PS1", "$ ").env("RUN", run).env("HISTFILE", "");
    let mut terminal = Terminal::start(&mut command, "012");
    terminal.expect("$ ", LIMIT);
    terminal.send("$RUN bash -c 'trap \"echo caught\" INT; echo go; read a; echo got $a; curl -s http://10.66.0.2/; read b; echo end $b'\r");
    terminal.expect("go\r\n", LIMIT);
    terminal.send("\x03");
    terminal.expect("caught\r\n", LIMIT);
    terminal.send("\x1a");
    terminal.expect("Stopped", LIMIT);
    terminal.send("echo a shell >&2\r");
    terminal.expect("a shell\r\n", LIMIT);
    terminal.send("fg\r");
    terminal.expect("$RUN", LIMIT);
    terminal.send("x\r");
    terminal.expect("got x\r\nhello\r\n", LIMIT);
    terminal.send("y\r");
    terminal.expect("end y\r\n", LIMIT);
    terminal.send("$RUN sleep 100\r");
    std::thread::sleep(Duration::from_secs(2));
    terminal.send("\x03");
    terminal.send("echo $?.\r");
    terminal.expect("130.\r\n", LIMIT);
    // In a pipeline, all of it is one job.
    terminal.send("$RUN sh -c 'echo one; sleep 100' | cat\r");
    terminal.expect("one\r\n", LIMIT);
    terminal.send("\x03");
    terminal.send("echo ${PIPESTATUS[0]}.\r");
    terminal.expect("130.\r\n", LIMIT);
    terminal.send("exit\r");
    terminal.wait(LIMIT);
    site.clean();
}

#[test]
fn only_the_subnets_named_are_of_the_host() {
    let site = Site::start();
    // Here there is no such network, so what is dialled from here does not get there.
    let get = |words: &[&str], url: &str| {
        let script = format!("curl -sS --connect-timeout 3 -m 5 {url} 2>&1");
        site.net_with(words, &script).wait(LIMIT).text()
    };
    assert_eq!(get(&["10.66.0.2/32"], "http://10.66.0.2/"), "hello\n");
    assert_eq!(get(&["10.66.0.0/24:80", "fd66::/64"], "http://10.66.0.3/"), "hello\n");
    assert_ne!(get(&["10.66.0.2/32"], "http://10.66.0.3/"), "hello\n");
    // The host is a machine that this one reaches by itself.
    let address = site.pair.host.address().ip();
    let banner = format!("head -c 4 </dev/tcp/{address}/22");
    assert_eq!(site.net_with(&["10.66.0.2/32"], &banner).wait(LIMIT).success().text(), "SSH-");
}

#[test]
fn a_network_with_a_name_can_be_entered() {
    let site = Site::start();
    let first = site.net_with(&["--name", "office"], "echo ready; sleep 60");
    first.expect("ready", LIMIT);
    let join = |script: &str| {
        Process::start(&mut site.pair.client.remotely(["net", "--join", "office", "--", "bash", "-c", script]), b"")
            .wait(LIMIT)
    };
    assert_eq!(
        join("curl -sS http://four.inside.example/; pwd").success().text(),
        format!("hello\n{}\n", site.pair.client.work().display())
    );
    assert_eq!(join("exit 9").code(), 9);
    let second = site.net_with(&["--name", "office"], "true").wait(LIMIT);
    assert!(second.code() == 125 && second.errors().contains("office"), "{second}");
    drop(first);
    site.clean();
    assert_eq!(join("true").code(), 125);
}

#[test]
fn whichever_process_is_killed_nothing_is_left() {
    let site = Site::start();
    // Ours, in the order in which they are started: owner, holder, init; the command; ssh.
    for (n, what) in ["owner", "holder", "init", "ssh"].into_iter().enumerate() {
        let running = site.net("echo ready; (setsid sleep 1000 &); sleep 1000");
        running.expect("ready", LIMIT);
        let ours: Vec<_> = site.pair.client.processes();
        let of_us: Vec<_> = ours.iter().filter(|p| p.name == "remotely").collect();
        let victim = match what {
            "ssh" => ours.iter().find(|p| p.name == "ssh").expect("an ssh").pid,
            _ => of_us.get(n).unwrap_or_else(|| panic!("no {what} in {ours:#?}")).pid,
        };
        kill(victim);
        if what == "ssh" {
            // It is made again.
            let deadline = Instant::now() + LIMIT;
            while !String::from_utf8_lossy(&running.stderr()).contains("connected again") {
                assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&running.stderr()));
                std::thread::sleep(Duration::from_millis(20));
            }
            drop(running);
        } else {
            let ended = running.wait(LIMIT);
            assert_ne!(ended.code(), 0, "{what}: {ended}");
        }
        let left = site.pair.left_after(Duration::from_secs(10));
        assert!(left.is_empty(), "after {what} was killed:\n{}", left.join("\n"));
    }
}

fn kill(pid: u32) {
    testbed::spawn::must(testbed::spawn::command("kill").args(["-KILL", &pid.to_string()]));
}

#[test]
fn a_lost_link_is_made_again_and_connections_are_reset() {
    let site = Site::start();
    let script = "exec 3<>/dev/tcp/10.66.0.2/80; echo ready; cat <&3; echo cut; curl -sS --retry 9 --retry-all-errors http://10.66.0.2/";
    let running = site.net(script);
    running.expect("ready", LIMIT);
    site.pair.relay.reset();
    let ended = running.wait(LIMIT).success();
    assert!(ended.text().ends_with("cut\nhello\n"), "{ended}");
    assert!(ended.errors().contains("connecting again") && ended.errors().contains("connected again"), "{ended}");
    site.clean();
}

/// Opens many connections, keeps them, and asks over another meanwhile. Arguments: how many.
const IDLE: &str = "
import socket, sys, time
count = int(sys.argv[1])
held = []
began = time.time()
for n in range(count):
    s = socket.create_connection(('10.66.0.2', 80))
    s.settimeout(20)
    held.append(s)
for s in held[::50]:
    s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
    assert b'hello' in s.recv(1000)
print('opened', count, 'in', round(time.time() - began, 2), flush=True)
times = []
for n in range(200):
    began = time.time()
    s = held[n % len(held)]
    s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
    assert b'hello' in s.recv(1000)
    times.append(time.time() - began)
times.sort()
print('p50', round(times[100] * 1000, 2), 'ms', flush=True)
sys.stdin.read()
";

/// A thousand of them, and the test's own share of descriptors has 1,024.
#[test]
fn a_thousand_idle_connections_cost_little() {
    let (outcome, memory) = idle(1000);
    assert!(outcome.text().contains("p50"), "{outcome}");
    // In KiB, of both processes that carry them.
    assert!(memory < 60 << 10, "{memory} KiB for 1000 connections");
}

fn idle(count: usize) -> (Outcome, u64) {
    let site = Site::start();
    site.pair.client.write("idle.py", IDLE);
    let target = site.pair.target();
    let script = format!("ulimit -n {}; exec /usr/bin/python3 idle.py {count}", count + 100);
    let mut running =
        Process::start_open(&mut site.pair.client.remotely(["net", &target, "--", "bash", "-c", &script]));
    running.expect("p50", Duration::from_secs(120));
    let resident = |pid: u32, proc: &str| {
        let status = std::fs::read_to_string(format!("{proc}/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).map(str::trim).unwrap_or_default();
        line.trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
    };
    let here =
        site.pair.client.processes().iter().filter(|p| p.name == "remotely").map(|p| resident(p.pid, "/proc")).max();
    let proc = site.pair.host.root().join("proc").display().to_string();
    let there = site.pair.host.processes().iter().map(|p| resident(p.pid, &proc)).max();
    let memory = here.unwrap_or(0) + there.unwrap_or(0);
    eprintln!("{count} connections: {here:?} KiB here, {there:?} KiB there");
    drop(running.stdin());
    (running.wait(LIMIT).success(), memory)
}

#[test]
fn a_reader_that_does_not_read_stops_nobody_else() {
    let site = Site::start();
    let script = "exec 3<>/dev/tcp/10.66.0.2/80; printf 'GET /big HTTP/1.0\\r\\n\\r\\n' >&3; sleep 0.5
for n in 1 2 3 4 5; do curl -sS http://10.66.0.2/; done";
    let began = Instant::now();
    assert_eq!(site.says(script), "hello\n".repeat(5));
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn pings_are_answered_by_whom_they_are_for() {
    let site = Site::start();
    site.pair.host.sh("echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range");
    site.pair.client.write("ping.py", PING);
    let ping = |address: &str| site.says(&format!("/usr/bin/python3 ping.py {address}"));
    assert_eq!(ping("10.66.0.2"), "answered\n");
    assert_eq!(ping("127.0.0.1"), "answered\n");
    assert_eq!(ping("10.66.0.77"), "silent\n");
}

/// A ping without privilege. Argument: address.
const PING: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
s.settimeout(4)
s.sendto(bytes([8, 0, 0, 0, 0, 0, 0, 5]) + b'data', (sys.argv[1], 0))
try:
    found, source = s.recvfrom(1000)
    assert found[0] == 0 and found[6:] == bytes([0, 5]) + b'data' and source[0] == sys.argv[1], (found, source)
    print('answered')
except TimeoutError:
    print('silent')
";

#[test]
fn where_no_namespaces_can_be_made_it_says_what_to_allow() {
    let pair = Pair::with(HostOptions::default(), Wire::default());
    let target = pair.target();
    // A user namespace of its own, in which no further one may be made.
    let script = format!(
        "echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --bounding-set -all remotely net {target} -- true"
    );
    let mut inside = pair.client.command("unshare");
    inside.args(["--user", "--map-current-user", "--keep-caps", "sh", "-c", &script]);
    let ended = Process::start(&mut inside, b"").wait(LIMIT);
    assert!(ended.code() == 125 && ended.errors().contains("max_user_namespaces"), "{ended}");
}
