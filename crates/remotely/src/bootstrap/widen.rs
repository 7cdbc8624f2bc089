//! Opens further sessions of a link's ssh connection when it would carry more over more of them. Started by [`super::connect`];
//! lives as long as the link, which it does not keep.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use remotely_session::{Pipe, Pipes};
use tokio::task::JoinSet;

use super::conversation::Conversation;
use super::executable::{Hash, nonce};
use super::line;
use crate::options::{AgentKind, Width};
use crate::target::Target;
use crate::transport::session::{self, Connection};

/// A session that takes longer than this to open is not worth it.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// What it takes to widen a link.
pub(super) struct Widener {
    pub(super) connection: Connection,
    pub(super) target: Target,
    pub(super) hash: Hash,
    pub(super) width: Width,
}

impl Widener {
    /// Widens it from now on, as far as the server lets us.
    pub(super) fn start(self, pipes: Pipes) {
        tokio::spawn(self.run(pipes));
    }

    async fn run(self, pipes: Pipes) {
        let (at_once, most) = match self.width {
            Width::Auto => (1, Width::MOST),
            Width::Exactly(pipes) => (pipes, pipes),
        };
        if pipes.linked().await.is_err() || self.open(&pipes, at_once.saturating_sub(1)).await.is_err() {
            return;
        }
        while let Ok(have) = pipes.narrow().await {
            let have = u8::try_from(have).unwrap_or(u8::MAX);
            // Whatever it comes to is found out within few round trips.
            let more = have.min(most.saturating_sub(have));
            if let Err(error) = self.open(&pipes, more).await {
                tracing::debug!(%error, have, "the connection has no further session");
                return;
            }
        }
    }

    /// All at once: each takes some round trips.
    async fn open(&self, pipes: &Pipes, more: u8) -> io::Result<()> {
        if more == 0 {
            return Ok(());
        }
        let socket = self.connection.socket().await?;
        let mut opening = JoinSet::new();
        for _ in 0..more {
            let (socket, target, hash, pipes) = (socket.clone(), self.target.clone(), self.hash.clone(), pipes.clone());
            opening.spawn(async move {
                let opened = tokio::time::timeout(OPEN_WITHIN, open_one(&socket, &target, &hash, &pipes)).await;
                opened.map_err(io::Error::from).flatten()
            });
        }
        let all = async {
            let mut result = Ok(());
            while let Some(opened) = opening.join_next().await {
                result = result.and(opened.unwrap_or_else(|error| Err(io::Error::other(error))));
            }
            result
        };
        tokio::select! {
            result = all => result,
            _ = pipes.ended() => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

async fn open_one(socket: &Path, target: &Target, hash: &Hash, pipes: &Pipes) -> io::Result<()> {
    let refused = || io::Error::other("the agent takes no further pipe");
    let ticket = pipes.ticket().ok_or_else(refused)?;
    let line = line::line(hash, nonce(), true, false, AgentKind::Join);
    let (session, Pipe { reader, writer }) = session::open(socket, target, &line).await?;
    let mut conversation = Conversation::new(reader, writer)?;
    conversation.join(Bytes::copy_from_slice(&ticket.encode())).await?;
    let (reader, writer, received) = conversation.into_pipe()?;
    let mut added = pipes.add(ticket.pipe, Pipe { reader, writer }, received)?.ok_or_else(refused)?;
    tracing::debug!(pipe = ticket.pipe, "the link has a further pipe");
    tokio::spawn(async move {
        added.ended().await;
        session.close().await;
    });
    Ok(())
}
