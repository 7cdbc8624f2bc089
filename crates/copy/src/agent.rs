//! The agent's side of put and fetch: one call for each stream that the client opens.

use std::sync::{LazyLock, atomic::AtomicU64};

use remotely_proto::{
    file::Request,
    message::{MessageDecoder, MessageError},
};
use remotely_session::{Offer, RecvStream, SendStream, reset};
use tokio::sync::watch;

use crate::{
    beneath::at_home,
    client::take_answers,
    error::Side,
    flow::{Inlet, Meter, carry_in, carry_out, inlet, outlet},
    notes::Notes,
    receive::{self, Destination},
    send::{self, desk},
    thread,
};

/// Serves a stream of [`Service::FILE`](remotely_session::Service::FILE) to its end: receives what the client puts, or sends
/// what it fetches, with the rights of this process. Paths are absolute or beneath `$HOME`.
///
/// Dropped, it ends what it does; see [`idle`].
pub async fn serve(offer: Offer) {
    let mut recv = offer.stream.recv;
    let mut send = offer.stream.send;
    // The sender is many bytes ahead as soon as it hears of this.
    recv.widen(CONTENT);
    match read_request(&mut recv).await {
        Ok(Some((Request::Put { destination, receiving }, rest))) => {
            let destination = match destination {
                None => Destination::Temporary,
                Some(path) => Destination::Given(at_home(&path)),
            };
            let notes = Notes::default();
            let job = receive::Job { destination, receiving, side: Side::There, notes, meter: Meter::new(None) };
            receive(job, rest, send, recv).await;
        }
        Ok(Some((Request::Fetch { source, sending }, _))) => {
            let source = at_home(&source);
            let notes = Notes::default();
            let job = send::Job { source, sending, side: Side::There, notes, meter: Meter::new(None) };
            self::send(job, send, recv).await;
        }
        Ok(None) => {}
        Err(error) => {
            tracing::debug!(%error, "no request");
            send.reset(reset::REFUSED);
        }
    }
}

/// How far a client may be ahead with content.
const CONTENT: u64 = 16 << 20;

async fn receive(job: receive::Job, rest: bytes::Bytes, send: SendStream, recv: RecvStream) {
    let (to, from) = outlet();
    let (chunks, mut inlet): (_, Inlet) = inlet();
    inlet.unread(rest);
    let busy = Busy::new();
    let started = thread::start("copy-receive", move || {
        let _busy = busy;
        if let Err(error) = receive::run(job, inlet, to) {
            tracing::debug!(?error, "nothing more is received");
        }
    });
    if let Err(error) = started {
        return tracing::warn!(%error, "cannot start a thread");
    }
    let wire = AtomicU64::new(0);
    tokio::join!(carry_out(from, send, &wire), carry_in(recv, chunks, &wire));
}

async fn send(job: send::Job, send: SendStream, recv: RecvStream) {
    let (to, from) = outlet();
    let (desk, counter) = desk();
    let notes = job.notes.clone();
    let busy = Busy::new();
    let started = thread::start("copy-send", move || {
        let _busy = busy;
        // What failed was told to the client.
        let _ = send::run(job, to, counter);
    });
    if let Err(error) = started {
        return tracing::warn!(%error, "cannot start a thread");
    }
    let wire = AtomicU64::new(0);
    let out = async {
        carry_out(from, send, &wire).await;
        Ok(())
    };
    // A receiver that says what cannot be right ends the whole.
    if let Err(error) = tokio::try_join!(out, take_answers(recv, desk, &notes, None)) {
        tracing::debug!(%error, "nothing more is sent");
    }
}

/// The first message, and what came behind it.
async fn read_request(recv: &mut RecvStream) -> Result<Option<(Request, bytes::Bytes)>, MessageError> {
    let mut decoder = MessageDecoder::default();
    loop {
        if let Some((request, _)) = decoder.next::<Request>()? {
            return Ok(Some((request, decoder.rest())));
        }
        match recv.recv().await {
            Ok(Some(chunk)) => decoder.push(&chunk),
            Ok(None) | Err(_) => return Ok(None),
        }
    }
}

/// Threads of transfers that run.
static RUNNING: LazyLock<watch::Sender<usize>> = LazyLock::new(watch::Sender::default);

/// Counts a thread while it runs.
#[derive(Debug)]
pub(crate) struct Busy;

impl Busy {
    pub(crate) fn new() -> Self {
        RUNNING.send_modify(|count| *count += 1);
        Self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        RUNNING.send_modify(|count| *count -= 1);
    }
}

/// Waits until no transfer of this process touches a file any more. To be called, for a bounded time, before the process ends:
/// a transfer that was cut or cancelled removes what it leaves half done. Cancel safe.
pub async fn idle() {
    // The sender is never dropped.
    let _ = RUNNING.subscribe().wait_for(|count| *count == 0).await;
}
