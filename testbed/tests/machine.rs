//! `remotely net` for the whole machine, as sshuttle does it: a client in a network of its own reaches the network behind a host.

use std::time::Duration;

use testbed::{Client, HostOptions, Lan, Outcome, OwnNetwork, Pair, Process, Wire};

const LIMIT: Duration = Duration::from_secs(60);

struct Site {
    pair: Pair,
    _lan: Lan,
    _network: OwnNetwork,
}

impl Site {
    fn start() -> Self {
        let mut pair = Pair::of(Client::start_with_sudo(), HostOptions::default(), Wire::default());
        let lan = Lan::behind(&pair.host);
        let network = OwnNetwork::of_client(&mut pair);
        Self { pair, _lan: lan, _network: network }
    }

    /// `remotely net` with these words, once it captures.
    #[track_caller]
    fn net(&self, words: &[&str]) -> Process {
        let process = Process::start(&mut self.pair.client.remotely(["net"].iter().chain(words)), b"");
        process.expect_error("connected", LIMIT);
        process
    }

    /// A script of the client, which is captured or not.
    fn here(&self, script: &str) -> Outcome {
        Process::start(self.pair.client.command("bash").args(["-c", script]), b"").wait(LIMIT)
    }

    #[track_caller]
    fn says(&self, script: &str) -> String {
        self.here(script).success().text()
    }

    /// Every rule that there is in the client's network.
    fn rules(&self) -> String {
        let script = "nft list ruleset | grep -v '^table ip6* nat' ; iptables-save | grep remotely; ip6tables-save | grep remotely; \
                      ip rule | grep fwmark; ip -6 rule | grep fwmark; cat /etc/hosts | grep -i remotely; true";
        Process::start(&mut self.pair.client.as_root(script), b"").wait(LIMIT).success().text()
    }

    #[track_caller]
    fn no_rules(&self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let left: Vec<String> = self
                .rules()
                .lines()
                .filter(|line| line.contains("remotely") || line.contains("fwmark"))
                .map(str::to_owned)
                .collect();
            if left.is_empty() {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{left:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

const CURL: &str = "curl -sS --max-time 5";

#[test]
fn every_method_captures_both_families_and_leaves_nothing() {
    let site = Site::start();
    assert_ne!(site.here(&format!("{CURL} --connect-timeout 1 http://10.66.0.2/")).code(), 0, "not reached without");
    for method in ["nft", "nat", "tproxy"] {
        let net = site.net(&["-r", &site.pair.target(), "10.66.0.0/16", "fd66::/16", "--method", method]);
        assert_eq!(site.says(&format!("{CURL} http://10.66.0.2/from")), "10.66.0.1\n", "{method}");
        assert_eq!(site.says(&format!("{CURL} 'http://[fd66::2]/from'")), "fd66::1\n", "{method}");
        let sum = site.says(&format!("{CURL} http://10.66.0.2/big | md5sum"));
        assert_eq!(sum, "96995b58d4cbf6aaa9041b4f00c7f6ae  -\n", "{method}");
        // Nobody listens there: that is told by a reset, which curl may find at once.
        let refused = site.here(&format!("{CURL} http://10.66.0.2:81/"));
        assert!(matches!(refused.code(), 7 | 56), "{method} {refused}");
        net.signal(2);
        assert_eq!(net.wait(LIMIT).code(), 130, "{method}");
        site.no_rules();
    }
    site.pair.clean_within(Duration::from_secs(10));
}

#[test]
fn the_way_to_the_host_is_never_captured_and_excludes_win() {
    let site = Site::start();
    let net = site.net(&[&site.pair.target(), "0/0", "::/0", "-x", "10.66.0.3", "-x", "10.66.0.2:80"]);
    // Not the running ssh, nor a new one.
    assert_eq!(site.says("ssh far echo up"), "up\n");
    assert_ne!(site.here(&format!("{CURL} --connect-timeout 1 http://10.66.0.3/")).code(), 0);
    assert_ne!(site.here(&format!("{CURL} --connect-timeout 1 http://10.66.0.2/")).code(), 0);
    assert_eq!(site.says("iperf3 -c 10.66.0.2 -n 100K >/dev/null && echo through"), "through\n");
    net.signal(15);
    net.wait(LIMIT);
    site.no_rules();
}

#[test]
fn names_are_asked_for_there() {
    let site = Site::start();
    let target = site.pair.target();
    let net = site.net(&["-r", &target, "10.66.0.0/16", "--dns", "--ns-hosts", "10.9.9.9"]);
    assert_eq!(site.says("dig +short @10.9.9.9 four.inside.example"), "10.66.0.2\n");
    assert_eq!(site.says("dig +short +tcp @10.9.9.9 web.inside.example AAAA"), "fd66::2\n");
    net.signal(2);
    net.wait(LIMIT);
    // Of a server that is named.
    let net = site.net(&["-r", &target, "10.66.0.0/16", "--ns-hosts", "10.9.9.9", "--to-ns", "10.66.0.2"]);
    assert_eq!(site.says("dig +short @10.9.9.9 four.inside.example"), "10.66.0.2\n");
    net.signal(2);
    net.wait(LIMIT);
    site.no_rules();
}

/// A nameserver of this side, at 127.0.0.9: the address of every name is that of the host.
const OWN_SERVER: &str = "
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(('127.0.0.9', 53))
open('ready', 'w').close()
while True:
    question, asker = server.recvfrom(512)
    name = question[12:question.index(0, 12) + 5]
    found = name[-4:-2] == bytes([0, 1])
    head = question[:2] + bytes([0x81, 0x80, 0, 1, 0, found, 0, 0, 0, 0])
    record = bytes([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 79, 0, 2])
    server.sendto(head + name + record * found, asker)
";

/// Has the client ask that one.
fn own_server(site: &Site) -> Process {
    site.pair.client.write("server.py", OWN_SERVER);
    site.pair.client.write("resolv.conf", "nameserver 127.0.0.9\n");
    let script = "mount --bind resolv.conf /etc/resolv.conf; exec python3 server.py";
    let server = Process::start(&mut site.pair.client.as_root(script), b"");
    site.says("until [ -e ready ]; do sleep 0.05; done");
    server
}

#[test]
fn names_of_a_domain_are_asked_for_there_and_all_others_here() {
    let site = Site::start();
    let server = own_server(&site);
    let net = site.net(&[
        "-r",
        &site.pair.target(),
        "10.66.0.0/16",
        "--dns-domain",
        "inside.example",
        "--to-ns",
        "10.66.0.2",
    ]);
    assert_eq!(site.says("dig +short @127.0.0.9 four.inside.example"), "10.66.0.2\n");
    assert_eq!(site.says("dig +short @127.0.0.9 www.elsewhere.example"), "10.79.0.2\n");
    net.signal(2);
    net.wait(LIMIT);
    site.no_rules();
    server.signal(9);
}

#[test]
fn a_lost_link_is_made_again_also_where_the_name_of_the_host_is_captured() {
    let site = Site::start();
    let server = own_server(&site);
    let net = site.net(&[
        "-r",
        "dev@gate.elsewhere.example",
        "0/0",
        "::/0",
        "-x",
        "127.0.0.0/8",
        "--dns",
        "--to-ns",
        "10.66.0.2",
    ]);
    assert_eq!(site.says(&format!("{CURL} http://four.inside.example/")), "hello\n");
    let ssh = site.pair.client.processes().into_iter().find(|process| process.name == "ssh");
    testbed::spawn::send_signal(ssh.expect("an ssh").pid, 9);
    net.expect_error("connected again", LIMIT);
    assert_eq!(site.says(&format!("{CURL} http://four.inside.example/")), "hello\n");
    net.signal(2);
    net.wait(LIMIT);
    site.no_rules();
    server.signal(9);
}

#[test]
fn routes_of_the_host_and_files_of_subnets() {
    let site = Site::start();
    let target = site.pair.target();
    let net = site.net(&["-r", &target, "-N"]);
    assert_eq!(site.says(&format!("{CURL} http://10.66.0.2/")), "hello\n");
    net.signal(2);
    net.wait(LIMIT);
    site.pair.client.write("nets", "# all\n10.66.0.2:80\n");
    site.pair.client.write("args", format!("-r\n{target}\n'--subnets'\nnets\n"));
    let net = site.net(&["@args"]);
    assert_eq!(site.says(&format!("{CURL} http://10.66.0.2/")), "hello\n");
    assert_ne!(site.here(&format!("{CURL} --connect-timeout 1 http://10.66.0.3/")).code(), 0);
    net.signal(2);
    net.wait(LIMIT);
    site.no_rules();
}

#[test]
fn whoever_is_killed_no_rule_is_left() {
    let site = Site::start();
    for (method, victim) in [("nft", "net -r"), ("tproxy", "net -r"), ("nat", "net -r"), ("nft", "firewall")] {
        let net = site.net(&["-r", &site.pair.target(), "10.66.0.0/16", "--method", method]);
        match victim {
            "firewall" => {
                let helper = helper_of(net.pid()).expect("a helper");
                testbed::spawn::send_signal(helper, 9);
                assert_eq!(net.wait(LIMIT).code(), 99);
            }
            _ => {
                net.signal(9);
                net.wait(LIMIT);
            }
        }
        site.no_rules();
    }
    site.pair.clean_within(Duration::from_secs(10));
}

/// The last of the children of a process: sudo's own child.
fn helper_of(client: u32) -> Option<u32> {
    let children = |pid: u32| -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let texts = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        texts
            .flat_map(|text| text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect()
    };
    let mut next = children(client);
    while let Some(pid) = next.pop() {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
        if !words[0].ends_with(b"sudo") && words.contains(&&b"firewall"[..]) {
            return Some(pid);
        }
        next.extend(children(pid));
    }
    None
}

#[test]
fn a_kill_switch_holds_when_the_client_is_killed_and_goes_when_it_is_ended() {
    let site = Site::start();
    let target = site.pair.target();
    // The host is in the captured range itself.
    let words = ["-r", &target, "10.66.0.0/16", "--kill-switch"];
    let net = site.net(&words);
    net.signal(9);
    net.wait(LIMIT);
    std::thread::sleep(Duration::from_millis(500));
    assert!(site.rules().contains("remotely-keep"), "{}", site.rules());
    let net = site.net(&words);
    assert_eq!(site.says(&format!("{CURL} http://10.66.0.2/")), "hello\n");
    net.signal(2);
    net.wait(LIMIT);
    site.no_rules();
}

#[test]
fn a_kill_switch_outlives_a_terminal_and_is_lifted_when_asked() {
    let site = Site::start();
    let net = site.net(&["-r", &site.pair.target(), "10.66.0.0/16", "--kill-switch"]);
    net.signal(1);
    net.wait(LIMIT);
    assert!(site.rules().contains("remotely-keep"), "{}", site.rules());
    let release = Process::start(&mut site.pair.client.remotely(["net", "--release"]), b"").wait(LIMIT);
    assert_eq!(release.code(), 0, "{release}");
    site.no_rules();
}

#[test]
fn what_sudo_may_run_can_do_nothing_else() {
    let site = Site::start();
    let text = site.says("remotely net --sudoers-no-modify --sudoers-user dev");
    assert!(!text.contains('*') && text.contains("firewall nft"), "{text}");
    for words in ["feign local:", "nft feign local:", "feign", "magic", "nft -- id", "--help"] {
        let outcome = site.here(&format!("sudo $(command -v remotely) firewall {words}"));
        assert_eq!(outcome.code(), 125, "{words}: {outcome}");
        assert!(outcome.errors().contains("takes one word"), "{words}: {outcome}");
    }
}

#[test]
fn another_network_namespace_is_captured() {
    let site = Site::start();
    // One that looks as the client's: nothing else has a way to the host.
    let inside = Process::start(site.pair.client.command("sleep").args(["1000"]), b"");
    let words = format!("remotely net -r {} 10.66.0.0/16 --namespace-pid {}", site.pair.target(), inside.pid());
    let refused = site.here(&words);
    assert!(refused.code() == 99 && refused.errors().contains("could not enter the network"), "{refused}");
    inside.signal(9);
}

#[test]
fn in_the_background_with_a_pidfile() {
    let site = Site::start();
    let words = format!("net -r {} 10.66.0.0/16 -D --pidfile pid", site.pair.target());
    let started = site.here(&format!("remotely {words}"));
    assert_eq!(started.code(), 0, "{started}");
    assert_eq!(site.says(&format!("{CURL} http://10.66.0.2/")), "hello\n");
    let second = site.here(&format!("remotely {words}"));
    assert_eq!(second.code(), 5, "{second}");
    site.says("kill $(cat pid); while [ -e pid ]; do sleep 0.05; done");
    site.no_rules();
    site.pair.clean_within(Duration::from_secs(10));
}

#[test]
fn what_cannot_be_is_told_before_anything_is_changed() {
    let site = Site::start();
    let target = site.pair.target();
    for (words, said) in [
        (&["10.66.0.0/33"][..], "/33 is not between /0 and /32"),
        (&["10.66.0.0/16:70000"], "no port 70000"),
        (&["no-such-name.invalid"], "no address is known for this name"),
        (&["10.66.0.0/16", "--method", "magic"], "there is no method magic"),
        (&["10.66.0.0/16", "--user", "nobody-at-all"], "no user"),
        (&["10.66.0.0/16", "-l", "10.79.0.1:12300"], "a loopback address is wanted"),
        (&["10.66.0.0/16", "-l", "127.0.0.1:22000", "-s", "nowhere"], "can't be read"),
        (&[], "which subnets"),
    ] {
        let first = ["net", "-r", &target, "--dns"];
        let outcome = Process::start(&mut site.pair.client.remotely(first.iter().chain(words)), b"").wait(LIMIT);
        assert!(matches!(outcome.code(), 99 | 125), "{outcome}");
        assert!(outcome.errors().contains(said), "{outcome}");
    }
    // Nobody can be reached: the helper was there, and has left nothing.
    let outcome = Process::start(&mut site.pair.client.remotely(["net", "-r", "dev@10.79.0.77", "10.66.0.0/16"]), b"");
    assert_eq!(outcome.wait(LIMIT).code(), 99);
    site.no_rules();
}
