//! The holder: enters the namespaces, makes the network, its rules and its sockets, hands the sockets out, and stays until init ends.
//! Has one thread; ends with the owner.

use std::ffi::CString;
use std::fs;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::net::{
    AddressFamily, Protocol, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, bind,
    getsockname, ipproto, listen, netdevice, sendmsg, socket_with, sockopt,
};
use rustix::process::{Pid, Signal, getegid, geteuid, getppid, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::probe::Step;
use super::rtnetlink::{Family, Netlink};
use super::rules::{self, MARK, Ports, TABLE};
use super::sys::{self, Fork};
use super::{ADDRESS_V4, ADDRESS_V6, ERROR, Kind, SOCKETS, Settings, init, probe};

/// The interface by which everything leaves.
const LINK: &str = "net0";
const LINK_PEER: &str = "net1";
/// As large as the family allows, so that the kernel cuts nothing.
const LINK_MTU: u32 = 65_520;
/// A datagram of any length, with a header of IPv6.
const LOOPBACK_MTU: u32 = 65_575;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// IPPROTO_RAW: the socket receives nothing, and what it sends has its header.
const RAW: i32 = 255;
const DNS: u16 = 53;

/// What was tried, and why it failed.
pub(super) type Failure = (Step, io::Error);

/// Does not return.
pub(super) fn hold(control: &OwnedFd, owner: Pid, command: &[CString], settings: &Settings) -> ! {
    // What a terminal sends to a whole process group is the command's.
    let keys = [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    sys::set_dispositions(keys.into_iter().fold(sys::bit(libc::SIGPIPE), |all, key| all | sys::bit(key)));
    let made = make(owner).and_then(|made| hand_out(control.as_fd(), &made).map_err(|e| (Step::HandOut, e)));
    if let Err((step, error)) = made {
        let mut message = vec![ERROR];
        message.extend(probe::encode(step, &error));
        let _ = sys_write(control.as_fd(), &message);
        sys::exit_now(1);
    }
    match sys::fork() {
        Ok(Fork::Child) => init::run(control, command, settings),
        Ok(Fork::Parent(init)) => {
            let status = sys::wait_end(init).unwrap_or(0);
            sys::exit_now(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 1 })
        }
        Err(_) => sys::exit_now(1),
    }
}

fn sys_write(to: BorrowedFd<'_>, mut message: &[u8]) -> io::Result<()> {
    while !message.is_empty() {
        message = &message[rustix::net::send(to, message, SendFlags::NOSIGNAL)?..];
    }
    Ok(())
}

fn make(owner: Pid) -> Result<Vec<(Kind, OwnedFd)>, Failure> {
    enter(owner)?;
    let has_v6 = network()?;
    let (sockets, v4, v6) = sockets(has_v6).map_err(|error| (Step::Sockets, error))?;
    load(&rules::text(v4, v6))?;
    // Last: whoever is forked next is the first process of it.
    sys::unshare(UnshareFlags::NEWPID).map_err(|error| (Step::Mounts, error))?;
    Ok(sockets)
}

/// Root needs no user namespace, and so keeps the users that there are.
fn enter(owner: Pid) -> Result<(), Failure> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if uid != 0 {
        sys::unshare(UnshareFlags::NEWUSER).map_err(|error| (Step::User, error))?;
        let write = |path: &str, text: String| fs::write(path, text).map_err(|error| (Step::Map, error));
        write("/proc/self/setgroups", "deny".into())?;
        write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
        write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    }
    // Whoever joins looks at this process, which the change has made nobody's to look at.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable);
    // Behind that, which takes it back.
    let tied = set_parent_process_death_signal(Some(Signal::KILL));
    tied.map_err(|error| (Step::User, error.into()))?;
    if getppid() != Some(owner) {
        sys::exit_now(1);
    }
    sys::unshare(UnshareFlags::NEWNET).map_err(|error| (Step::Network, error))?;
    sys::unshare(UnshareFlags::NEWNS).map_err(|error| (Step::Mounts, error))
}

/// Whether it has IPv6.
fn network() -> Result<bool, Failure> {
    let of = |step| move |error| (step, error);
    let mut netlink = Netlink::open().map_err(of(Step::Interface))?;
    if netlink.add_link(LINK, "dummy", None).is_err() {
        netlink.add_link(LINK, "veth", Some(LINK_PEER)).map_err(of(Step::Interface))?;
        let peer = index(LINK_PEER).map_err(of(Step::Interface))?;
        netlink.set_up(peer, LINK_MTU).map_err(of(Step::Interface))?;
    }
    let (loopback, link) = (index("lo").map_err(of(Step::Interface))?, index(LINK).map_err(of(Step::Interface))?);
    netlink.set_up(loopback, LOOPBACK_MTU).map_err(of(Step::Interface))?;
    netlink.set_up(link, LINK_MTU).map_err(of(Step::Interface))?;
    let mut family = |family, address: &[u8]| {
        netlink.add_address(link, family, address)?;
        netlink.add_default_route(link, family)?;
        netlink.deliver_marked(loopback, family, MARK, TABLE)
    };
    family(Family::V4, &ADDRESS_V4.octets()).map_err(of(Step::Routes))?;
    let has_v6 = family(Family::V6, &ADDRESS_V6.octets()).is_ok();
    // Pings are answered by who passes them on; and whoever may ping here may do so inside.
    let gid = getegid().as_raw();
    let _ = fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1");
    let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", format!("{gid} {gid}"));
    Ok(has_v6)
}

/// Takes the default route of IPv6 away again.
pub(super) fn without_v6() {
    let deleted = Netlink::open().and_then(|mut netlink| netlink.delete_default_route(index(LINK)?, Family::V6));
    drop(deleted);
}

fn index(name: &str) -> io::Result<u32> {
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(netdevice::name_to_index(any, name)?)
}

/// All sockets, and the ports of those that rules lead to.
#[expect(clippy::type_complexity, reason = "three things that are made together")]
fn sockets(has_v6: bool) -> io::Result<(Vec<(Kind, OwnedFd)>, Ports, Option<Ports>)> {
    let mut made = Vec::new();
    let mut family = |loopback: IpAddr| {
        let listener = bound(SocketType::STREAM, loopback, 0)?;
        listen(&listener, BACKLOG)?;
        let datagrams = bound(SocketType::DGRAM, loopback, 0)?;
        let (level, transparent, original) = match loopback {
            IpAddr::V4(_) => (libc::SOL_IP, libc::IP_TRANSPARENT, libc::IP_RECVORIGDSTADDR),
            IpAddr::V6(_) => (libc::SOL_IPV6, libc::IPV6_TRANSPARENT, libc::IPV6_RECVORIGDSTADDR),
        };
        sys::set_option(datagrams.as_fd(), level, transparent, 1)?;
        sys::set_option(datagrams.as_fd(), level, original, 1)?;
        let _ = sockopt::set_socket_recv_buffer_size(&datagrams, 4 << 20);
        let ports = Ports { connections: port(&listener)?, datagrams: port(&datagrams)? };
        made.push((Kind::Connections, listener));
        made.push((Kind::Datagrams, datagrams));
        Ok::<_, io::Error>(ports)
    };
    let v4 = family(Ipv4Addr::LOCALHOST.into())?;
    let v6 = if has_v6 { Some(family(Ipv6Addr::LOCALHOST.into())?) } else { None };
    made.push((Kind::NamesDatagram, bound(SocketType::DGRAM, ADDRESS_V4.into(), DNS)?));
    let listener = bound(SocketType::STREAM, ADDRESS_V4.into(), DNS)?;
    listen(&listener, BACKLOG)?;
    made.push((Kind::NamesStream, listener));
    let raw = |family, protocol| socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol));
    let echo = raw(AddressFamily::INET, ipproto::ICMP)?;
    // ICMP_FILTER: the types that are not wanted, all but the request.
    sys::set_option(echo.as_fd(), libc::SOL_RAW, 1, !(1 << 8))?;
    made.push((Kind::Echo, echo));
    let protocol = Protocol::from_raw(RAW.unsigned_abs().try_into().map_err(io::Error::other)?);
    made.push((Kind::RawV4, raw(AddressFamily::INET, protocol)?));
    if has_v6 {
        made.push((Kind::RawV6, raw(AddressFamily::INET6, protocol)?));
    }
    Ok((made, v4, v6))
}

fn bound(kind: SocketType, ip: IpAddr, port: u16) -> io::Result<OwnedFd> {
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddr::new(ip, port))?;
    Ok(socket)
}

fn port(socket: &OwnedFd) -> io::Result<u16> {
    let address = SocketAddr::try_from(getsockname(socket)?).map_err(io::Error::from)?;
    Ok(address.port())
}

/// Has `nft` load rules. Not being root in any eyes, it has to be given the one privilege that it needs.
fn load(text: &str) -> Result<(), Failure> {
    let of = |error: io::Error| (Step::Rules, error);
    let lend = geteuid().as_raw() != 0;
    if lend {
        privileges(CapabilitySet::NET_ADMIN).map_err(of)?;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<_> = std::env::split_paths(&path).collect();
    // Where it mostly is, and users mostly do not look.
    directories.extend(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(Into::into));
    let program = directories.iter().map(|directory| directory.join("nft")).find(|path| path.is_file());
    let program = program.ok_or_else(|| (Step::FindNft, io::ErrorKind::NotFound.into()))?;
    #[expect(clippy::disallowed_methods, reason = "this is the place where this crate starts processes")]
    let mut nft = Command::new(program);
    nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut nft = nft.spawn().map_err(of)?;
    if let Some(mut stdin) = nft.stdin.take() {
        // What it fails with shows in what it says.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = nft.wait_with_output().map_err(of)?;
    if lend {
        privileges(CapabilitySet::empty()).map_err(of)?;
    }
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed").trim().to_owned();
    Err((Step::Rules, io::Error::other(line)))
}

/// Lets programs that this process executes have these privileges, and no others.
fn privileges(lent: CapabilitySet) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let sets = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: lent, ..sets })?;
    if !lent.is_empty() {
        rustix::thread::configure_capability_in_ambient_set(lent, true)?;
    }
    Ok(())
}

fn hand_out(control: BorrowedFd<'_>, sockets: &[(Kind, OwnedFd)]) -> io::Result<()> {
    let message: Vec<u8> =
        [SOCKETS, sockets.len() as u8].into_iter().chain(sockets.iter().map(|(kind, _)| *kind as u8)).collect();
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(super::DESCRIPTORS_MAX))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !rights.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(control, &[IoSlice::new(&message)], &mut rights, SendFlags::NOSIGNAL)?;
    Ok(())
}
