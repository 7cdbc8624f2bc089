//! A network behind a host, which nobody else reaches: a web server, a server of names, iperf3 and an echo of datagrams, in a network
//! namespace. Ends when dropped or when this process ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::host::Host;
use crate::scratch::Scratch;
use crate::spawn::{command, must};

const SCRIPT: &str = include_str!("lan.sh");

/// Answers `hello` at `/`, what is in `files` below that, and 8 MiB of zeros at `/big`.
const NGINX: &str = "daemon off; user root; worker_processes 1; error_log stderr crit; pid nginx.pid;
events { worker_connections 10000; }
http {
  access_log off; keepalive_requests 1000000; keepalive_timeout 600s;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  server {
    listen 80 backlog=4096; listen [::]:80 ipv6only=on backlog=4096;
    location = / { return 200 'hello\\n'; }
    location = /from { return 200 '$remote_addr\\n'; }
    location / { root files; }
  }
}
";

/// A network behind a host.
#[derive(Debug)]
pub struct Lan {
    holder: Child,
    _scratch: Scratch,
}

impl Lan {
    /// Where everything is. Names: `web.inside.example` (both families), `four.inside.example`, `long.inside.example` (TXT).
    pub const V4: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 2);
    /// A second address, at which only the web server and the echo listen.
    pub const OTHER_V4: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 3);
    /// The same of IPv6.
    pub const V6: Ipv6Addr = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 2);
    /// Port of the echo of datagrams.
    pub const ECHO: u16 = 7007;

    /// Makes one, and lets the host ask it about names.
    ///
    /// # Panics
    /// When that fails.
    pub fn behind(host: &Host) -> Self {
        let scratch = Scratch::new();
        scratch.write("nginx.conf", 0o644, 0, NGINX.as_bytes());
        scratch.write("files/big", 0o644, 0, &vec![0; 8 << 20]);
        let mut holder = command("unshare")
            .args(["--net", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", SCRIPT])
            .arg(scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("testbed: start unshare: {e}"));
        let inside = child_of(holder.id());
        let (own, far) = (inside.to_string(), host.init().to_string());
        must(
            command("ip")
                .args(["link", "add", "lan0", "netns", &far, "type", "veth", "peer", "name", "eth0", "netns", &own]),
        );
        let of_host =
            "ip address add 10.66.0.1/24 dev lan0; ip address add fd66::1/64 dev lan0 nodad; ip link set lan0 up";
        must(command("nsenter").args(["--net", "--target", &far, "sh", "-ec", of_host]));
        let stdin = holder.stdin.as_mut().expect("stdin is a pipe");
        let _ = stdin.write_all(b"go\n");
        let mut line = String::new();
        let output = holder.stdout.take().expect("stdout is a pipe");
        let _ = BufReader::new(output).read_line(&mut line);
        if line != "ready\n" {
            let log = std::fs::read_to_string(scratch.path().join("log")).unwrap_or_default();
            panic!("testbed: the network behind the host could not be made: {line:?}\n{log}");
        }
        let namespace = format!("/proc/{inside}/ns/net");
        for ip in [IpAddr::V4(Self::V4), IpAddr::V4(Self::OTHER_V4), IpAddr::V6(Self::V6)] {
            echo(&namespace, SocketAddr::new(ip, Self::ECHO));
        }
        host.sh(&format!("printf 'nameserver {}\\nsearch inside.example\\n' >/etc/resolv.conf", Self::V4));
        Self { holder, _scratch: scratch }
    }

    /// A command inside it, as root.
    pub fn command(&self, program: &str) -> std::process::Command {
        let mut inside = command("nsenter");
        inside.args(["--net", "--target", &child_of(self.holder.id()).to_string(), program]);
        inside
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// What `unshare` has forked, once it has.
fn child_of(parent: u32) -> u32 {
    let path = format!("/proc/{parent}/task/{parent}/children");
    for _ in 0..1000 {
        let children = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(child) = children.split_ascii_whitespace().next().and_then(|pid| pid.parse().ok()) {
            return child;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("testbed: unshare makes no process")
}

/// Sends every datagram back, on a thread of this process that is in that namespace.
fn echo(namespace: &str, at: SocketAddr) {
    let namespace = File::open(namespace).unwrap_or_else(|e| panic!("testbed: open {namespace}: {e}"));
    let (ready, is_ready) = std::sync::mpsc::channel();
    thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("testbed: enter a network");
        // It would keep the network.
        drop(namespace);
        let socket = UdpSocket::bind(at).expect("testbed: bind the echo");
        let _ = ready.send(());
        let mut buffer = vec![0; 1 << 16];
        while let Ok((bytes, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..bytes], from);
        }
    });
    is_ready.recv().expect("testbed: the echo listens");
}
