//! What makes the link is never captured: the connections of ssh and of whatever it connects by, found by the sockets that there are; at
//! the start, and whenever a link is being made again, since that may go by another way. Tells the helper, and those who capture.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use remotely_net::own;
use remotely_net::rules::{Desired, Own};
use remotely_session::Link;
use tokio::sync::watch;

use super::whole::{Standing, set};
use crate::options::ConnectOptions;
use crate::target::Hop;
use crate::transport::{spawn, ssh};

/// How often it is looked whom ssh connects to, while it does.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Connections of our own that are remembered.
const KNOWN_MAX: usize = 128;

/// What there is now: new connections to the same places are ours too.
pub(super) async fn connections(connect: &ConnectOptions) -> Vec<Own> {
    let mut found = looked(std::process::id(), false).await;
    if found.is_empty()
        && let Some(master) = master(connect).await
    {
        found = looked(master, true).await;
    }
    found
}

async fn looked(process: u32, itself: bool) -> Vec<Own> {
    let look = move || if itself { own::connections(process) } else { own::of_descendants(process) };
    let found: io::Result<Vec<Own>> = tokio::task::spawn_blocking(look).await.unwrap_or_else(|_| Ok(Vec::new()));
    let mut again: Vec<Own> = found.unwrap_or_default().into_iter().map(|own| Own { local: None, ..own }).collect();
    again.retain(|own| own.remote.is_some_and(|remote| !remote.ip().is_loopback()));
    again.sort_unstable_by_key(|own| own.remote);
    again.dedup();
    again
}

/// The process by which ssh reaches the host, where the user has a control master.
async fn master(connect: &ConnectOptions) -> Option<u32> {
    let place = connect.target.hops().iter().find_map(|hop| match hop {
        Hop::Ssh(place) => Some(place),
        _ => None,
    })?;
    // "Master running (pid=4711)".
    let said = spawn::finished(&ssh::check(place, &connect.ssh_opts)).await.ok()?.said;
    let (_, behind) = said.split_once("(pid=")?;
    behind.split(')').next()?.parse().ok()
}

/// Follows what is being connected to while there is no link. `told` has the places.
pub(super) async fn keep(
    connect: ConnectOptions,
    standing: Standing,
    mut desired: Desired,
    told: watch::Sender<Vec<SocketAddr>>,
    mut links: watch::Receiver<Option<Link>>,
) {
    loop {
        if links.wait_for(Option::is_none).await.is_err() {
            return std::future::pending().await;
        }
        loop {
            let up = links.borrow().is_some();
            let found = connections(&connect).await;
            let new: Vec<Own> = found.into_iter().filter(|own| !desired.own.contains(own)).collect();
            if !new.is_empty() && desired.own.len() + new.len() <= KNOWN_MAX {
                let places: Vec<SocketAddr> = new.iter().filter_map(|own| own.remote).collect();
                tracing::info!(?places, "left alone from now on");
                desired.own.extend(new);
                if let Err(error) = set(&standing, desired.clone()).await {
                    tracing::debug!(%error, "the rules stay as they were");
                }
                told.send_modify(|all| all.extend(places));
            }
            if up {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
