//! `remotely forward`: ports and sockets that stand for others behind the link.

use std::io::{BufRead, Write};
use std::time::Duration;

use testbed::{Lan, Outcome, Pair, Process};

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

    /// `remotely forward` with these words, once it listens at so many places; with where those are.
    #[track_caller]
    fn forward(&self, words: &[&str], places: usize) -> (Process, Vec<String>) {
        let target = self.pair.target();
        let words = ["forward", &target].into_iter().chain(words.iter().copied());
        let process = Process::start(&mut self.pair.client.remotely(words), b"");
        let found = |text: &str| -> Vec<String> {
            let told = text.lines().filter_map(|line| line.strip_prefix("remotely: listening at "));
            told.map(|rest| rest.split(' ').next().unwrap_or_default().to_owned()).collect()
        };
        let deadline = std::time::Instant::now() + LIMIT;
        loop {
            let at = found(&String::from_utf8_lossy(&process.stderr()));
            if at.len() >= places {
                return (process, at);
            }
            assert!(std::time::Instant::now() < deadline, "{}", String::from_utf8_lossy(&process.stderr()));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn here(&self, script: &str) -> Outcome {
        Process::start(self.pair.client.command("bash").args(["-c", script]), b"").wait(LIMIT)
    }

    #[track_caller]
    fn says(&self, script: &str) -> String {
        self.here(script).success().text()
    }
}

const CURL: &str = "curl -sS --max-time 10";

#[test]
fn a_port_of_here_leads_to_one_there() {
    let site = Site::start();
    let words =
        ["-L", "0:10.66.0.2:80", "-L", "0:four.inside.example:80", "-L", "0:10.66.0.2:81", "-L", "./s:10.66.0.2:80"];
    let (forward, at) = site.forward(&words, 4);
    assert_eq!(site.says(&format!("{CURL} http://{}/from", at[0])), "10.66.0.1\n");
    assert_eq!(site.says(&format!("{CURL} http://{}/", at[1])), "hello\n");
    let sum = site.says(&format!("{CURL} http://{}/big | md5sum", at[0]));
    assert_eq!(sum, "96995b58d4cbf6aaa9041b4f00c7f6ae  -\n");
    // Refused there.
    assert!(matches!(site.here(&format!("{CURL} http://{}/", at[2])).code(), 7 | 52 | 56));
    assert_eq!(site.says(&format!("{CURL} --unix-socket s http://far/")), "hello\n");
    forward.signal(2);
    assert_eq!(forward.wait(LIMIT).code(), 130);
    assert_eq!(site.here("test -e s").code(), 1, "the socket goes with it");
    site.pair.clean_within(Duration::from_secs(10));
}

#[test]
fn socks_leads_anywhere_there() {
    let site = Site::start();
    let (forward, at) = site.forward(&["-D", "0"], 1);
    let at = &at[0];
    for (proxy, url, expected) in [
        ("--socks5", "http://10.66.0.2/", "hello\n"),
        ("--socks5", "http://[fd66::2]/from", "fd66::1\n"),
        ("--socks5-hostname", "http://four.inside.example/", "hello\n"),
        ("--socks4", "http://10.66.0.2/", "hello\n"),
        ("--socks4a", "http://four.inside.example/", "hello\n"),
    ] {
        assert_eq!(site.says(&format!("{CURL} {proxy} {at} '{url}'")), expected, "{proxy} {url}");
    }
    // 97: the proxy has said that it does not work.
    assert_eq!(site.here(&format!("{CURL} --socks5 {at} http://10.66.0.2:81/")).code(), 97);
    assert_eq!(site.here(&format!("{CURL} --socks5-hostname {at} http://missing.inside.example/")).code(), 97);
    // What speaks something else is let go.
    assert_ne!(site.here(&format!("{CURL} http://{at}/")).code(), 0);
    forward.signal(15);
    forward.wait(LIMIT);
    site.pair.clean_within(Duration::from_secs(10));
}

#[test]
fn a_port_there_leads_to_one_of_here() {
    let site = Site::start();
    let port = shouting();
    let to = format!("127.0.0.1:{port}");
    let words = ["-R", &format!("0:{to}"), "-R", "0", "-R", &format!("/tmp/s:{to}")];
    let (forward, at) = site.forward(&words, 3);
    let there = |place: &str, words: &str| {
        site.pair.host.sh(&format!("bash -c 'exec 3<>/dev/tcp/{}; {words}'", place.replace(':', "/")))
    };
    assert_eq!(there(&at[0], "echo over >&3; cat <&3"), "OVER\n");
    // SOCKS, by hand: no password, then CONNECT 127.0.0.1:port.
    let request = format!(
        r#"printf "\\5\\1\\0\\5\\1\\0\\1\\177\\0\\0\\1\\{:03o}\\{:03o}" >&3; head -c 12 <&3 >/dev/null; echo socks >&3; cat <&3"#,
        port >> 8,
        port & 255
    );
    assert_eq!(there(&at[1], &request), "SOCKS\n");
    assert!(site.pair.host.sh("test -S /tmp/s && echo socket").contains("socket"));
    forward.signal(2);
    forward.wait(LIMIT);
    site.pair.host_clean_within(Duration::from_secs(10));
}

/// The port of a server of this machine, of whose clients each says a line and has it back in capitals.
fn shouting() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut line = String::new();
            let _ = std::io::BufReader::new(&socket).read_line(&mut line);
            let _ = socket.write_all(line.to_uppercase().as_bytes());
        }
    });
    port
}
