//! What this machine knows of its network: routes, names, and where it looks for short ones.

use std::fs;

use bytes::Bytes;
use remotely_proto::message::encode;
use remotely_proto::net::{HOSTS_MAX, Surroundings};
use remotely_session::Stream;

use super::resolv::Resolv;
use crate::routes::{Routes, routes};

/// Most routes that are told.
const ROUTES_MAX: usize = 16 << 10;

pub(super) async fn serve(mut stream: Stream) {
    stream.recv.stop();
    let Ok(found) = tokio::task::spawn_blocking(look).await else { return };
    let (message, _) = encode(&found, Bytes::new());
    if stream.send.send(message).await.is_ok() {
        stream.send.finish();
    }
}

fn look() -> Surroundings {
    let Routes { networks, default } = routes().unwrap_or_else(|error| {
        tracing::debug!(%error, "routes cannot be read");
        Routes::default()
    });
    let routes = networks.iter().map(|subnet| (subnet.network(), subnet.width())).take(ROUTES_MAX).collect();
    let mut hosts = fs::read("/etc/hosts").unwrap_or_default();
    hosts.truncate(HOSTS_MAX);
    let search = Resolv::read().search;
    Surroundings { routes, hosts: hosts.into(), search, default }
}
