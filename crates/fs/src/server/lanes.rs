//! The streams of the service: one reader for questions, one for changes, a writer for each lane.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use remotely_proto::fs::{Lane, ToMount, ToServer};
use remotely_session::{MessageReceiver, RecvMessageError, RecvStream, SendStream};
use thiserror::Error;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{
    Lanes,
    change::Change,
    out::{Batch, Queue, Queues},
    service::Service,
};

/// Questions at work or waiting for a change.
const QUESTIONS_MAX: usize = 1024;
/// Changes waiting to be applied.
pub(super) const CHANGES_MAX: usize = 4096;
/// Bytes of changes waiting to be applied, in KiB.
const CHANGES_KIB: usize = 32 << 10;

/// How long the last answers may take when the mount has said its last.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// A lane ended before its time.
#[derive(Debug, Error)]
enum LaneError {
    #[error("reading {lane:?} lane")]
    Read { lane: Lane, source: RecvMessageError },
    #[error("stopped")]
    Stopped,
}

/// Starts the tasks. `ended` is set when all of them are through and everything is freed.
pub(super) fn start(
    service: &Arc<Service>,
    lanes: Lanes,
    queues: Queues,
    changes: mpsc::Sender<Change>,
    stop: watch::Receiver<bool>,
    ended: watch::Sender<bool>,
) {
    let Lanes { query, change, bulk } = lanes;
    let Queues { query: query_queue, change: change_queue, bulk: bulk_queue } = queues;
    let (closing, _) = watch::channel(false);
    let notices = Some(Arc::clone(service));
    let writers = [
        tokio::spawn(write(Lane::Query, query.send, query_queue, notices, closing.subscribe())),
        tokio::spawn(write(Lane::Change, change.send, change_queue, None, closing.subscribe())),
        tokio::spawn(write(Lane::Bulk, bulk.send, bulk_queue, None, closing.subscribe())),
    ];
    let service = Arc::clone(service);
    tokio::spawn(async move {
        // The mount says nothing on the bulk lane; its receiving end lives as long as the others.
        let _bulk = bulk.recv;
        let both = async {
            tokio::try_join!(read_questions(&service, query.recv), read_changes(&service, change.recv, changes))
        };
        let read = tokio::select! {
            read = both => read.map(|_| ()),
            () = stopped(stop) => Err(LaneError::Stopped),
        };
        if let Err(error) = read {
            tracing::debug!(error = &error as &dyn std::error::Error, "file lanes");
            // Nobody takes answers any more; the changes that came in must not wait for that.
            writers.iter().for_each(JoinHandle::abort);
        }
        service.gate.ended().await;
        closing.send_replace(true);
        finish(writers).await;
        service.end();
        service.files.clear();
        ended.send_replace(true);
    });
}

/// Lets the last answers out.
async fn finish(writers: [JoinHandle<()>; 3]) {
    let deadline = Instant::now() + LAST_ANSWERS;
    for mut writer in writers {
        if timeout_at(deadline, &mut writer).await.is_err() {
            writer.abort();
        }
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the server was dropped, which stops it as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn read_questions(service: &Arc<Service>, stream: RecvStream) -> Result<(), LaneError> {
    let mut stream = MessageReceiver::new(stream);
    let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
    while let Some((message, _)) = next(Lane::Query, &mut stream).await? {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        service.take_query(message, permit);
    }
    Ok(())
}

/// Takes the queue along: when no more changes come the thread that applies them ends.
async fn read_changes(
    service: &Arc<Service>,
    stream: RecvStream,
    queue: mpsc::Sender<Change>,
) -> Result<(), LaneError> {
    let mut stream = MessageReceiver::new(stream);
    let room = Arc::new(Semaphore::new(CHANGES_KIB));
    while let Some((message, payload)) = next(Lane::Change, &mut stream).await? {
        let weight = (payload.len() / 1024 + 1).min(CHANGES_KIB) as u32;
        let Ok(permit) = Arc::clone(&room).acquire_many_owned(weight).await else { break };
        let change = service.take_change(message, payload, permit);
        if queue.send(change).await.is_err() {
            break;
        }
    }
    Ok(())
}

async fn next(lane: Lane, stream: &mut MessageReceiver) -> Result<Option<(ToServer, Bytes)>, LaneError> {
    stream.recv().await.map_err(|source| LaneError::Read { lane, source })
}

/// Notices first, answers next, pushes when there is nothing else to say.
async fn write(
    lane: Lane,
    mut stream: SendStream,
    mut queue: Queue,
    notices: Option<Arc<Service>>,
    mut closing: watch::Receiver<bool>,
) {
    loop {
        let batch = tokio::select! {
            biased;
            notice = next_notice(notices.as_deref()) => vec![encode(notice)],
            Some(batch) = queue.answers.recv() => behind_news(notices.as_deref(), batch),
            Some(batch) = queue.pushes.recv() => behind_news(notices.as_deref(), batch),
            _ = closing.wait_for(|closing| *closing) => return stream.finish(),
        };
        for (head, payload) in batch {
            if let Err(error) = stream.send_all(&mut [head, payload]).await {
                tracing::debug!(?lane, error = &error as &dyn std::error::Error, "writing file lane");
                return;
            }
        }
    }
}

/// The batch, behind every notice that it is newer than: one may have come since notices were looked for.
fn behind_news(service: Option<&Service>, batch: Batch) -> Batch {
    let news = service.into_iter().flat_map(|service| std::iter::from_fn(|| service.notices.take()));
    news.map(encode).chain(batch).collect()
}

fn encode(notice: ToMount) -> (Bytes, Bytes) {
    remotely_proto::message::encode(&notice, Bytes::new())
}

async fn next_notice(service: Option<&Service>) -> ToMount {
    match service {
        Some(service) => service.notices.next().await,
        None => std::future::pending().await,
    }
}
