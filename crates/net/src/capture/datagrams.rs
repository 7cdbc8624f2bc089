//! Datagrams that were going elsewhere. For each socket that sends some there is a socket of dial's, for as long as it is used;
//! what comes back to that is handed to the sender as if it came from where it does.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use remotely_proto::net::{Datagram, Open};
use remotely_session::Stream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Exits, Packets};
use crate::outbox::Outbox;
use crate::socket::{self, Received, receive};

/// Without an answer, a sender is forgotten after so long,
const UNANSWERED_FOR: Duration = Duration::from_secs(30);
/// and if there were answers after so long, as the kernel does with its own table of connections.
const ANSWERED_FOR: Duration = Duration::from_secs(120);
/// Senders at a time; what others send is lost.
const SENDERS_MAX: usize = 1024;
/// Datagrams taken before others have their turn.
const BATCH: usize = 64;

/// What a sender has sent and has not been passed on.
#[derive(Debug, Default)]
struct Sender {
    outbox: Mutex<Outbox>,
    more: Notify,
}

/// Who sends, and by which side it is dialled: a sender may have to do with both.
type Key = (SocketAddr, bool);

pub(super) fn capture(
    socket: OwnedFd,
    packets: Arc<Packets>,
    exits: Exits,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    rustix::io::ioctl_fionbio(&socket, true)?;
    let socket = socket::register(socket)?;
    Ok(async move {
        let (mut senders, mut tasks) = (HashMap::<Key, Arc<Sender>>::new(), JoinSet::<Key>::new());
        let mut buffer = vec![0; 1 << 16];
        loop {
            tokio::select! {
                Some(ended) = tasks.join_next() => drop(ended.map(|key| senders.remove(&key))),
                ready = socket.readable() => {
                    let Ok(mut ready) = ready else { return };
                    for _ in 0..BATCH {
                        let taken = ready.try_io(|socket| receive(socket.as_fd(), &mut buffer));
                        let Ok(taken) = taken else { break };
                        let Ok(Received { bytes, from, to: Some(to) }) = taken else { continue };
                        let key = (from, (exits.wanted)(to.ip(), to.port()));
                        if !senders.contains_key(&key) {
                            if senders.len() >= SENDERS_MAX {
                                continue;
                            }
                            let sender = Arc::<Sender>::default();
                            senders.insert(key, sender.clone());
                            let (packets, exits) = (packets.clone(), exits.clone());
                            tasks.spawn(async move {
                                serve(from, to, &sender, &packets, &exits).await;
                                key
                            });
                        }
                        if let Some(sender) = senders.get(&key) {
                            let mut outbox = sender.outbox.lock().unwrap_or_else(PoisonError::into_inner);
                            outbox.add(|out| Datagram::put(to, &buffer[..bytes], out));
                            drop(outbox);
                            sender.more.notify_one();
                        }
                    }
                }
            }
        }
    })
}

/// Passes on what a sender sends, and what is sent to it, until it has been silent for long or the link is over.
async fn serve(from: SocketAddr, to: SocketAddr, sender: &Sender, packets: &Packets, exits: &Exits) {
    let Some(stream) = exits.open(Some(to), &Open::Datagrams).await else { return };
    let Stream { mut send, mut recv, .. } = stream;
    let (mut received, mut idle_for) = (BytesMut::new(), UNANSWERED_FOR);
    let mut used = Instant::now();
    loop {
        tokio::select! {
            chunk = recv.recv() => {
                let Ok(Some(chunk)) = chunk else { return };
                received.extend_from_slice(&chunk);
                loop {
                    match Datagram::decode(&mut received) {
                        Ok(Some(Datagram { address, data })) => packets.datagram(address, from, &data),
                        Ok(None) => break,
                        Err(_) => return,
                    }
                }
                (used, idle_for) = (Instant::now(), ANSWERED_FOR);
            }
            () = sender.more.notified() => used = Instant::now(),
            () = tokio::time::sleep_until(used + idle_for) => return,
            sent = poll_fn(|cx| {
                let mut outbox = sender.outbox.lock().unwrap_or_else(PoisonError::into_inner);
                if outbox.is_empty() { std::task::Poll::Pending } else { outbox.poll_send(cx, &mut send) }
            }) => {
                if sent.is_err() {
                    return;
                }
            }
        }
    }
}
