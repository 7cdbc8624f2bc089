//! A network for a client alone, whose only wire ends at a host: whatever it sends and nobody captures goes nowhere. Ends when dropped or
//! when this process ends.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{Child, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::pair::Pair;
use crate::relay::{Relay, Wire};
use crate::spawn::{command, must};

/// Where the host is on that wire.
pub const HOST: &str = "10.79.0.2";

/// A network that a client lives in.
#[derive(Debug)]
pub struct OwnNetwork {
    holder: Child,
    network: File,
}

impl OwnNetwork {
    /// Makes one for the client of this pair, who from here on reaches the host by that wire, without the relay. Its default routes
    /// lead to the host, which passes nothing on.
    ///
    /// # Panics
    /// When that fails.
    pub fn of_client(pair: &mut Pair) -> Self {
        let mut holder = command("unshare")
            .args(["--net", "--kill-child=KILL", "--fork", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("testbed: start unshare: {e}"));
        let mut ready = [0; 6];
        let output = holder.stdout.as_mut().expect("stdout is a pipe");
        std::io::Read::read_exact(output, &mut ready).expect("testbed: a network");
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", holder.id()));
        let inside = children.unwrap_or_default().trim().to_owned();
        let far = pair.host.init().to_string();
        let link = ["link", "add", "eth0", "netns", &inside, "type", "veth", "peer", "name", "own0", "netns", &far];
        must(command("ip").args(link));
        let of_host =
            "ip address add 10.79.0.2/24 dev own0; ip address add fd79::2/64 dev own0 nodad; ip link set own0 up";
        must(command("nsenter").args(["--net", "--target", &far, "sh", "-ec", of_host]));
        let of_client = "ip link set lo up; ip address add 10.79.0.1/24 dev eth0; ip address add fd79::1/64 dev eth0 nodad; \
                         ip link set eth0 up; ip route add default via 10.79.0.2; ip -6 route add default via fd79::2";
        must(command("nsenter").args(["--net", "--target", &inside, "sh", "-ec", of_client]));
        let network = File::open(format!("/proc/{inside}/ns/net")).expect("testbed: open a network");
        pair.client.live_in(network.try_clone().expect("testbed: duplicate a descriptor"));
        let name = pair.host.options().name.clone();
        pair.client.reach(&name, format!("{HOST}:22").parse().expect("an address"));
        Self { holder, network }
    }
}

impl OwnNetwork {
    /// Where the host is, without a wire between.
    pub fn host(&self) -> SocketAddr {
        SocketAddr::new(HOST.parse().expect("an address"), 22)
    }

    /// A wire to the host that is in this network as well.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn relay(&self, wire: Wire) -> Relay {
        let (network, host) = (self.network.try_clone().expect("testbed: duplicate a descriptor"), self.host());
        // Its threads are where the one is that starts them.
        let started = std::thread::spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("testbed: enter a network");
            Relay::start(host, wire)
        });
        started.join().expect("testbed: a relay")
    }
}

impl Drop for OwnNetwork {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
