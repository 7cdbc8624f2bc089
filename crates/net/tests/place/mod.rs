//! Two network namespaces for tests of rules: the one of the test's thread is the client, behind a veth pair is a peer that has every
//! address of 10/8 and fd00::/8. Both go with the threads.

#![allow(dead_code, reason = "each test uses what it needs of it")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::thread::UnshareFlags;

pub(crate) fn own_network() {
    // SAFETY: only the network namespace of this thread changes; no descriptor or memory is concerned.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .expect("these tests make namespaces: run them as root");
    // As distributions set it that look at sources strictly.
    sh("ip link set lo up; sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1");
}

/// Runs a line of shell in this thread's namespace, and gives what it prints.
#[expect(clippy::disallowed_methods, reason = "the place where these tests start processes; each is waited for")]
pub(crate) fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-ec", line]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Starts a program that talks over a socket.
#[expect(clippy::disallowed_methods, reason = "the place where these tests start processes; who calls waits for it")]
pub(crate) fn with_socket(argv: &[std::ffi::OsString], socket: std::os::unix::net::UnixStream) -> std::process::Child {
    let socket = std::os::fd::OwnedFd::from(socket);
    let output = socket.try_clone().unwrap();
    Command::new(&argv[0]).args(&argv[1..]).stdin(socket).stdout(output).spawn().unwrap()
}

/// Everything that rules consist of, as text.
pub(crate) fn state() -> String {
    sh("for w in -4 -6; do ip $w rule; ip $w route show table all | grep -v fe80; done
        nft list tables | grep -v ' ip6\\? \\(nat\\|mangle\\|filter\\|raw\\)$' || true
        for i in iptables ip6tables; do for t in nat filter; do $i -w -t $t -S; done; done 2>/dev/null")
}

/// The ports on which the peer serves.
pub(crate) const SERVED: [u16; 4] = [22, 53, 80, 8080];

pub(crate) struct Place {
    number: String,
    questions: Option<mpsc::Sender<String>>,
    told: mpsc::Receiver<String>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The client is 192.0.2.2 and 2001:db8::2, the peer .1 and ::1 and whatever of 10/8 and fd00::/8.
pub(crate) fn make() -> Place {
    own_network();
    let peer = beyond("far", |_| {
        sh("ip link set far up; ip addr add 192.0.2.1/24 dev far; ip addr add 2001:db8::1/64 dev far nodad
            ip route add local 10.0.0.0/8 dev lo; ip -6 route add local fd00::/8 dev lo");
        serve();
    });
    peer.connect("near", "far", "192.0.2.2/24");
    sh("ip addr add 2001:db8::2/64 dev near nodad
        ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1");
    peer
}

/// A guest for whom this machine is the way on; whom he asks is what is sent to the place.
pub(crate) fn guest() -> Place {
    sh("sysctl -qw net.ipv4.ip_forward=1");
    let guest = beyond("inside", |_| {
        sh("ip link set inside up; ip addr add 192.0.3.2/24 dev inside; ip route add default via 192.0.3.1");
    });
    guest.connect("lan", "inside", "192.0.3.1/24");
    guest
}

/// A thread with a network of its own, which sets itself up when it has got a device of that name.
fn beyond(device: &'static str, set_up: fn(&str)) -> Place {
    let (tell, told) = mpsc::channel();
    let (questions, asked) = mpsc::channel::<String>();
    let thread = thread::spawn(move || {
        own_network();
        tell.send(rustix::thread::gettid().as_raw_nonzero().to_string()).unwrap();
        // The device comes, or the test has failed.
        for _ in 0..500 {
            if sh("ip -o link").contains(device) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        set_up(device);
        tell.send("ready".into()).unwrap();
        for address in asked {
            tell.send(ask(&address)).unwrap();
        }
    });
    let number = told.recv().unwrap();
    Place { number, questions: Some(questions), told, thread: Some(thread) }
}

impl Place {
    fn connect(&self, near: &str, far: &str, address: &str) {
        let (process, thread) = (std::process::id(), &self.number);
        sh(&format!(
            "ip link add {near} type veth peer name {far} netns /proc/{process}/task/{thread}/ns/net
             ip link set {near} up; ip addr add {address} dev {near}"
        ));
        assert_eq!(self.told.recv().unwrap(), "ready");
    }

    /// Who answers a connection that is made there.
    pub(crate) fn ask(&self, address: &str) -> String {
        self.questions.as_ref().unwrap().send(address.into()).unwrap();
        self.told.recv().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.questions.take();
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Answers "peer" to whoever connects or sends.
fn serve() {
    for port in SERVED {
        for any in ["0.0.0.0", "::"] {
            let address = SocketAddr::new(any.parse().unwrap(), port);
            let listener = listen(address);
            thread::spawn(move || {
                while let Ok((mut stream, _)) = listener.accept() {
                    let _ = stream.write_all(b"peer");
                }
            });
            answer_datagrams(address, |_| "peer".into());
        }
    }
}

pub(crate) fn listen(address: SocketAddr) -> TcpListener {
    let socket = bound(address, rustix::net::SocketType::STREAM, false);
    rustix::net::listen(&socket, 128).unwrap();
    socket.into()
}

pub(crate) fn datagrams(address: SocketAddr) -> UdpSocket {
    bound(address, rustix::net::SocketType::DGRAM, false).into()
}

/// A socket that takes what is for others.
pub(crate) fn transparent(address: SocketAddr, kind: rustix::net::SocketType) -> std::os::fd::OwnedFd {
    bound(address, kind, true)
}

fn bound(address: SocketAddr, kind: rustix::net::SocketType, transparent: bool) -> std::os::fd::OwnedFd {
    let family = if address.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
    let socket = rustix::net::socket(family, kind, None).unwrap();
    if address.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true).unwrap();
    }
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    if transparent {
        let (level, name) = if address.is_ipv4() {
            (libc::SOL_IP, libc::IP_TRANSPARENT)
        } else {
            (libc::SOL_IPV6, libc::IPV6_TRANSPARENT)
        };
        let one = 1i32;
        // SAFETY: the option is an int, which lives during the call.
        let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const one).cast(), 4) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
    rustix::net::bind(&socket, &address).unwrap();
    socket
}

/// Answers "tunnel" and the original destination to whoever is redirected here. Gives the port for each family.
pub(crate) fn tunnel(translated: bool, any: bool) -> (u16, u16) {
    let ports = ["127.0.0.1", "::1"].map(|host| {
        let host: IpAddr = host.parse().unwrap();
        let host = match (any, host) {
            (false, host) => host,
            (true, IpAddr::V4(_)) => "0.0.0.0".parse().unwrap(),
            (true, IpAddr::V6(_)) => "::".parse().unwrap(),
        };
        let listener: TcpListener = if translated {
            listen(SocketAddr::new(host, 0))
        } else {
            let socket = transparent(SocketAddr::new(host, 0), rustix::net::SocketType::STREAM);
            rustix::net::listen(&socket, 128).unwrap();
            socket.into()
        };
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let asked = if translated { original(&stream) } else { stream.local_addr().unwrap() };
                let _ = stream.write_all(format!("tunnel {asked}").as_bytes());
            }
        });
        port
    });
    (ports[0], ports[1])
}

/// Answers "tunnel" to each datagram, from a transparent socket that has the original destination as its own address.
pub(crate) fn tunnel_datagrams() -> (u16, u16) {
    let ports = ["127.0.0.1:0", "[::1]:0"];
    let ports = ports.map(|address| answer_datagrams(address.parse().unwrap(), |asked| format!("tunnel {asked}")));
    (ports[0], ports[1])
}

/// Answers from the address that was asked. Gives its port.
fn answer_datagrams(address: SocketAddr, text: fn(SocketAddr) -> String) -> u16 {
    let socket: UdpSocket = transparent(address, rustix::net::SocketType::DGRAM).into();
    let port = socket.local_addr().unwrap().port();
    let (level, name) = if address.is_ipv4() {
        (libc::SOL_IP, libc::IP_RECVORIGDSTADDR)
    } else {
        (libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR)
    };
    let one = 1i32;
    // SAFETY: the option is an int, which lives during the call.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const one).cast(), 4) };
    assert_eq!(done, 0);
    thread::spawn(move || {
        while let Some((from, asked)) = receive(&socket) {
            let answer: UdpSocket = transparent(asked, rustix::net::SocketType::DGRAM).into();
            let _ = answer.send_to(text(asked).as_bytes(), from);
        }
    });
    port
}

fn receive(socket: &UdpSocket) -> Option<(SocketAddr, SocketAddr)> {
    let mut data = [0u8; 2048];
    let mut control = [0u64; 32];
    // SAFETY: all zero is a valid value of these plain structures.
    let (mut from, mut header): (libc::sockaddr_storage, libc::msghdr) = unsafe { std::mem::zeroed() };
    let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    header.msg_name = (&raw mut from).cast();
    header.msg_namelen = u32::try_from(size_of_val(&from)).unwrap();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: the header points to buffers of the lengths that it names.
    if unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) } < 0 {
        return None;
    }
    // SAFETY: the kernel has filled the header; the first control message, if any, lies in `control`.
    let asked = unsafe { libc::CMSG_DATA(libc::CMSG_FIRSTHDR(&raw const header)) };
    Some((address((&raw const from).cast()), address(asked)))
}

fn address(raw: *const u8) -> SocketAddr {
    // SAFETY: the caller has a socket address there, whose family says how long it is.
    unsafe {
        let family = raw.cast::<u16>().read_unaligned();
        let port = u16::from_be_bytes(raw.add(2).cast::<[u8; 2]>().read());
        let ip: IpAddr = if i32::from(family) == libc::AF_INET {
            raw.add(4).cast::<[u8; 4]>().read().into()
        } else {
            raw.add(8).cast::<[u8; 16]>().read().into()
        };
        SocketAddr::new(ip, port)
    }
}

fn original(stream: &TcpStream) -> SocketAddr {
    let mut raw = [0u8; 64];
    let mut length = 64u32;
    let level = if stream.local_addr().unwrap().is_ipv4() { libc::SOL_IP } else { libc::SOL_IPV6 };
    // SAFETY: the buffer has the length that is passed.
    let done = unsafe { libc::getsockopt(stream.as_raw_fd(), level, 80, raw.as_mut_ptr().cast(), &raw mut length) };
    assert_eq!(done, 0, "SO_ORIGINAL_DST: {}", std::io::Error::last_os_error());
    address(raw.as_ptr())
}

/// Who answers a connection: "peer", "tunnel ADDRESS", or the kind of error.
pub(crate) fn ask(address: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    let answer = TcpStream::connect_timeout(&address, Duration::from_secs(1)).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    said(answer)
}

/// Who answers a datagram.
pub(crate) fn ask_datagram(address: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    let mut buffer = [0; 200];
    let answer = socket.connect(address).and_then(|()| socket.send(b"?")).and_then(|_| socket.recv(&mut buffer));
    said(answer.map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned()))
}

fn said(answer: std::io::Result<String>) -> String {
    answer.unwrap_or_else(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "nobody".into(),
        kind => format!("{kind:?}"),
    })
}
