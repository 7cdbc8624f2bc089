//! Questions about names for the other side, passed on as they are to whom this machine asks itself. A question that fails is
//! answered with nothing, and concerns no other.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use remotely_proto::net::{Question, Reply};
use remotely_session::Stream;
use tokio::sync::{Semaphore, mpsc};

use super::question::code;
use super::resolv::Resolvers;
use crate::outbox::Outbox;

/// Questions under way; others wait for their turn.
const UNDER_WAY_MAX: usize = 512;

pub(super) async fn serve(server: Option<SocketAddr>, resolvers: Arc<Resolvers>, stream: Stream) {
    let Stream { mut send, mut recv, .. } = stream;
    let (answered, mut answers) = mpsc::channel::<Reply>(UNDER_WAY_MAX);
    let turns = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let (mut received, mut outbox) = (BytesMut::new(), Outbox::default());
    loop {
        tokio::select! {
            chunk = recv.recv() => {
                let Ok(Some(chunk)) = chunk else { return };
                received.extend_from_slice(&chunk);
                while let Some(question) = Question::decode(&mut received) {
                    let turn = loop {
                        // Answers must not wait for the questions that wait.
                        tokio::select! {
                            turn = turns.clone().acquire_owned() => break turn,
                            Some(reply) = answers.recv() => outbox.add(|out| reply.encode(out)),
                        }
                    };
                    let (resolvers, answered) = (resolvers.clone(), answered.clone());
                    tokio::spawn(async move {
                        let message = ask(server, &resolvers, &question).await.unwrap_or_default();
                        let _ = answered.send(Reply { number: question.number, message }).await;
                        drop(turn);
                    });
                }
            }
            Some(reply) = answers.recv() => outbox.add(|out| reply.encode(out)),
            sent = poll_fn(|cx| outbox.poll_send(cx, &mut send)), if !outbox.is_empty() => {
                if sent.is_err() {
                    return;
                }
            }
        }
    }
}

/// The first good answer; if no server gives one, the last bad one.
pub(super) async fn ask(server: Option<SocketAddr>, resolvers: &Resolvers, question: &Question) -> Option<Bytes> {
    let servers = server.map_or_else(|| resolvers.servers(), |server| vec![server]);
    let mut last = None;
    for server in servers {
        match resolvers.asker.ask(server, &question.message, question.long).await {
            // A name that does not exist does not exist with the next one either.
            Ok(answer) if matches!(code(&answer), 0 | 3) => return Some(answer),
            Ok(answer) => last = Some(answer),
            Err(error) => tracing::debug!(%server, %error, "no answer about a name"),
        }
    }
    last
}
