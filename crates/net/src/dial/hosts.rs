//! The names around this machine, for the other side.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use remotely_proto::message::encode;
use remotely_proto::net::{Found, Question, SEEDS_MAX};
use remotely_session::Stream;
use tokio::sync::mpsc;

use super::names;
use super::resolv::Resolvers;
use crate::watch::{Sources, watch};

/// Names that wait to be sent.
const QUEUE: usize = 64;

/// Tells them for as long as somebody listens.
pub(super) async fn serve(auto: bool, mut seeds: Vec<String>, resolvers: Arc<Resolvers>, mut stream: Stream) {
    seeds.truncate(SEEDS_MAX);
    let sources = Sources {
        seeds,
        auto,
        search: resolvers.resolv().search.clone(),
        hosts: PathBuf::from("/etc/hosts"),
        connections: PathBuf::from("/proc/net"),
        kept: std::env::home_dir().map(|home| home.join(".remotely.hosts")),
    };
    let (found, mut names) = mpsc::channel(QUEUE);
    let ask = move |question: Vec<u8>| {
        let resolvers = resolvers.clone();
        async move {
            let question = Question { number: 0, long: true, message: question.into() };
            let answer = names::ask(None, &resolvers, &question).await;
            answer.map(Vec::from).ok_or_else(|| io::ErrorKind::TimedOut.into())
        }
    };
    let telling = async {
        while let Some((name, address)) = names.recv().await {
            let (message, _) = encode(&Found { name, address }, Bytes::new());
            if stream.send.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = watch(sources, ask, found) => {}
        () = telling => {}
        _ = stream.recv.recv() => {}
    }
    stream.send.finish();
}
