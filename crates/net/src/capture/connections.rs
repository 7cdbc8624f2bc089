//! Connections that were going elsewhere. Each is accepted, and its bytes travel right behind the request to connect; if that
//! fails there, it is reset here.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use remotely_proto::net::{Open, Place};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Exits;
use crate::connection::Connection;
use crate::flow::{self, Cut};
use crate::routes::is_here;

/// How long nobody is asked again for an address that has refused a connection.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// Addresses of which that is known.
const REFUSED_MAX: usize = 1024;
/// When there are no descriptors left, so long until the next try.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How a listener is told where a connection was going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Original {
    /// It was redirected: the kernel's table of connections knows (SO_ORIGINAL_DST).
    Redirected,
    /// It was left as it is (TPROXY): its own address on this side.
    Own,
}

/// Addresses that have refused a connection a moment ago.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<HashMap<SocketAddr, Instant>>);

impl Refused {
    fn note(&self, address: SocketAddr) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REFUSED_MAX {
            known.retain(|_, at| at.elapsed() < REFUSED_FOR);
        }
        if known.len() < REFUSED_MAX {
            known.insert(address, Instant::now());
        }
    }

    fn is(&self, address: SocketAddr) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&address) {
            Some(at) if at.elapsed() < REFUSED_FOR => true,
            Some(_) => {
                known.remove(&address);
                false
            }
            None => false,
        }
    }
}

/// Accepts for as long as it is polled; connections that are there end with it.
pub(super) fn capture(
    listener: OwnedFd,
    original: Original,
    exits: Exits,
    refused: Arc<Refused>,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    rustix::io::ioctl_fionbio(&listener, true)?;
    let own = StdListener::from(listener.try_clone()?).local_addr()?;
    let listener = TcpListener::from_std(listener.into())?;
    Ok(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) => match destination(&socket, original, own) {
                        Some(to) => drop(connections.spawn(carry(socket, to, exits.clone(), refused.clone()))),
                        None => Connection::from(socket).reset(),
                    },
                    Err(error) => {
                        // The connection is gone already, or there is no descriptor for it.
                        tracing::debug!(%error, "cannot accept a connection");
                        if !matches!(error.kind(), io::ErrorKind::ConnectionAborted) {
                            tokio::time::sleep(AGAIN_AFTER).await;
                        }
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    })
}

/// Where it was going; `None` for somebody who connects to the listener itself.
fn destination(socket: &TcpStream, original: Original, own: SocketAddr) -> Option<SocketAddr> {
    let to = match (original, own) {
        (Original::Own, _) => socket.local_addr().ok()?,
        (Original::Redirected, SocketAddr::V4(_)) => sockopt::ip_original_dst(socket.as_fd()).ok()?.into(),
        (Original::Redirected, SocketAddr::V6(_)) => {
            let to = sockopt::ipv6_original_dst(socket.as_fd()).ok()?;
            SocketAddr::new((*to.ip()).into(), to.port())
        }
    };
    let is_own = to == own || (to.port() == own.port() && is_here(to.ip()));
    (!is_own).then_some(to)
}

/// Returns when this is known to be what makes the link: it can't wait for the link.
async fn is_left_alone(left_alone: &Option<watch::Receiver<Vec<SocketAddr>>>, to: SocketAddr) {
    let Some(mut left_alone) = left_alone.clone() else { return std::future::pending().await };
    if left_alone.wait_for(|places| places.contains(&to)).await.is_err() {
        std::future::pending().await
    }
}

async fn carry(socket: TcpStream, to: SocketAddr, exits: Exits, refused: Arc<Refused>) {
    let socket = Connection::from(socket);
    if refused.is(to) {
        return socket.reset();
    }
    let open = Open::Connect { to: Place::Address(to) };
    // Where there is a link, nothing else is looked at.
    let opened = tokio::select! {
        biased;
        opened = exits.open(Some(to), &open) => opened,
        () = is_left_alone(&exits.left_alone, to) => None,
    };
    let Some(stream) = opened else { return socket.reset() };
    match flow::carry(socket, stream, true).await {
        Ok(()) => {}
        Err(Cut::Refused(answer)) => {
            tracing::debug!(%to, ?answer, "not connected");
            refused.note(to);
        }
        Err(cut) => tracing::trace!(%to, %cut, "connection cut"),
    }
}
