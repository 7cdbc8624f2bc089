//! Put and fetch, as the client calls them.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use minicbor::Encode;
use remotely_proto::{
    file::{Answer, Request},
    message,
    mux::RecvError,
};
use remotely_session::{Class, Link, MessageReceiver, RecvMessageError, RecvStream, Service, Stream, reset};
use tokio::sync::oneshot;

use crate::{
    agent::Busy,
    error::{CopyError, Side, path_of},
    flow::{Meter, carry_in, carry_out, inlet, outlet},
    notes::{Kept, Notes},
    options::Options,
    receive::{self, Destination, ReceiveError, Received},
    report::{Hash, Report},
    send::{self, Desk, Sent, Want, desk},
    thread,
};

/// Copies a file or a tree of here to the host.
///
/// `remote` is absolute or beneath the home directory there (`~` as well). If it is a directory, or ends in a slash, the
/// source goes into it under its own name; else it is the new name. Without it, a new temporary directory takes the source.
/// A symbolic link given as the source is followed; those in a tree are copied as what they are.
///
/// Fails with [`CopyError::Incomplete`] if a part of a tree could not be copied; the rest is in place then.
///
/// Cancel safe in that nothing half is left in the place of a file; a large one can be continued, see [`Options::resume`].
pub async fn put(
    link: &Link,
    local: impl AsRef<Path>,
    remote: Option<&Path>,
    options: &Options,
) -> Result<Report, CopyError> {
    let destination = remote.map(|path| path.as_os_str().as_bytes().to_vec().into());
    let request = Request::Put { destination, receiving: options.receiving() };
    let wire = AtomicU64::new(0);
    let Stream { mut send, mut recv, .. } = open(link)?;
    recv.widen(SIGNATURES);
    let head = said(&request, &wire);
    let (to, from) = outlet();
    let (desk, counter) = desk();
    let (told, sent) = oneshot::channel();
    let notes = Notes::default();
    let job = send::Job {
        source: local.as_ref().to_owned(),
        sending: options.sending(),
        side: Side::Here,
        notes: notes.clone(),
        meter: Meter::new(options.observer.clone()),
    };
    let busy = Busy::new();
    thread::start("copy-send", move || {
        let _busy = busy;
        // Who does not wait for it any more does not need it.
        let _ = told.send(send::run(job, to, counter));
    })
    .map_err(CopyError::Thread)?;
    let out = async {
        // What keeps it from being sent shows on the other half.
        if send.send(head).await.is_ok() {
            carry_out(from, send, &wire).await;
        } else {
            drop(from);
        }
        Ok(())
    };
    let answers = take_answers(recv, desk, &notes, Some(&wire));
    let ((), done) = tokio::try_join!(out, answers)?;
    let Ok(Ok(Sent { path, tree })) = sent.await else {
        let done = done.filter(|_| notes.failed_any()).ok_or_else(|| cut("the stream ended early"))?;
        return conclude(report(PathBuf::new(), done, &wire), notes.take(), false);
    };
    let done = done.ok_or_else(|| cut("the stream ended early"))?;
    conclude(report(path, done, &wire), notes.take(), tree)
}

/// Copies a file or a tree of the host to here.
///
/// `remote` is absolute or beneath the home directory there (`~` as well); where it goes is as with [`put`].
///
/// Fails and can be cancelled as [`put`] does.
pub async fn fetch(
    link: &Link,
    remote: impl AsRef<Path>,
    local: Option<&Path>,
    options: &Options,
) -> Result<Report, CopyError> {
    let source = remote.as_ref().as_os_str().as_bytes().to_vec().into();
    let request = Request::Fetch { source, sending: options.sending() };
    let destination = match local {
        None => Destination::Temporary,
        Some(path) => Destination::Given(std::env::current_dir().unwrap_or_default().join(path)),
    };
    let wire = AtomicU64::new(0);
    let Stream { mut send, mut recv, .. } = open(link)?;
    recv.widen(CONTENT);
    let head = said(&request, &wire);
    let (to, from) = outlet();
    let (chunks, inlet) = inlet();
    let (told, received) = oneshot::channel();
    let notes = Notes::default();
    let job = receive::Job {
        destination,
        receiving: options.receiving(),
        side: Side::Here,
        notes: notes.clone(),
        meter: Meter::new(options.observer.clone()),
    };
    let busy = Busy::new();
    thread::start("copy-receive", move || {
        let _busy = busy;
        // Who does not wait for it any more does not need it.
        let _ = told.send(receive::run(job, inlet, to));
    })
    .map_err(CopyError::Thread)?;
    let out = async {
        // What keeps it from being sent shows on the other half.
        if send.send(head).await.is_ok() {
            carry_out(from, send, &wire).await;
        }
    };
    let ((), why) = tokio::join!(out, carry_in(recv, chunks, &wire));
    match received.await {
        Ok(Ok(received)) => {
            let Received { source, path, tree, files, unchanged, bytes, hash } = received;
            let done = Done { path, files, unchanged, bytes, hash: hash.map(|hash| Hash(*hash)) };
            let mut report = report(PathBuf::new(), done, &wire);
            report.local = std::mem::replace(&mut report.remote, source);
            conclude(report, notes.take(), tree)
        }
        Ok(Err(ReceiveError::Protocol(why))) => Err(CopyError::Protocol { why }),
        Ok(Err(ReceiveError::Cut)) | Err(_) => Err(why.map_or_else(|| cut("the stream ended early"), refused_or_cut)),
    }
}

/// How far the agent may be ahead with content, and with signatures of files.
const CONTENT: u64 = 16 << 20;
const SIGNATURES: u64 = 4 << 20;

/// What the receiver says in the end.
#[derive(Debug)]
pub(crate) struct Done {
    path: PathBuf,
    files: u64,
    unchanged: u64,
    bytes: u64,
    hash: Option<Hash>,
}

fn open(link: &Link) -> Result<Stream, CopyError> {
    link.open(Service::FILE, Class::Bulk, Bytes::new()).map_err(|ended| cut(&ended.to_string()))
}

/// A request as bytes; it has no payload.
fn said(request: &impl Encode<()>, wire: &AtomicU64) -> Bytes {
    let (front, _) = message::encode(request, Bytes::new());
    wire.fetch_add(front.len() as u64, Ordering::Relaxed);
    front
}

/// Takes what a receiver says: answers go to the thread of the sender, failures into the notes. Both sides use it.
pub(crate) async fn take_answers(
    recv: RecvStream,
    desk: Desk,
    notes: &Notes,
    wire: Option<&AtomicU64>,
) -> Result<Option<Done>, CopyError> {
    let mut answers = MessageReceiver::new(recv);
    let mut done = None;
    loop {
        let (answer, payload) = match answers.recv::<Answer>().await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(done),
            Err(RecvMessageError::Recv(_)) if done.is_some() => return Ok(done),
            Err(RecvMessageError::Recv(error)) => return Err(refused_or_cut(error)),
            Err(error) => return Err(CopyError::Protocol { why: error.to_string() }),
        };
        if let Some(wire) = wire {
            // The heads are small; what counts are signatures.
            wire.fetch_add(ANSWER_HEAD + payload.len() as u64, Ordering::Relaxed);
        }
        match answer {
            Answer::Want { ask, way } => {
                desk.answer(Want { ask, way, signature: payload }).map_err(|why| CopyError::Protocol { why })?;
            }
            Answer::Failed { failure, file } => {
                notes.failed(Side::There, failure);
                file.into_iter().for_each(|file| desk.unwanted(file));
            }
            Answer::Skipped(skipped) => notes.skipped(Side::There, skipped),
            Answer::Done { path, files, unchanged, bytes, hash } => {
                let hash = hash.map(|hash| Hash(*hash));
                done = Some(Done { path: path_of(path.into()), files, unchanged, bytes, hash });
            }
        }
    }
}

/// About how many bytes an answer has besides its payload.
const ANSWER_HEAD: u64 = 16;

fn report(local: PathBuf, done: Done, wire: &AtomicU64) -> Report {
    let Done { path, files, unchanged, bytes, hash } = done;
    let wire = wire.load(Ordering::Relaxed);
    Report { local, remote: path, files, unchanged, bytes, wire, hash, skipped: Vec::new() }
}

/// Whether it went well, in part, or not at all.
fn conclude(mut report: Report, notes: Kept, tree: bool) -> Result<Report, CopyError> {
    let Kept { mut failures, unnamed, skipped, .. } = notes;
    report.skipped = skipped;
    if failures.is_empty() && unnamed == 0 {
        return Ok(report);
    }
    let nothing = report.files == 0 && report.unchanged == 0;
    let nowhere = report.local.as_os_str().is_empty() || report.remote.as_os_str().is_empty();
    if nothing && (!tree || nowhere) && !failures.is_empty() {
        return Err(CopyError::Failed(failures.swap_remove(0)));
    }
    Err(CopyError::Incomplete { report: Box::new(report), failures, unnamed })
}

fn cut(why: &str) -> CopyError {
    CopyError::Cut { why: why.to_owned() }
}

fn refused_or_cut(error: RecvError) -> CopyError {
    match error {
        RecvError::Reset(reset::REFUSED) => CopyError::Refused,
        error => cut(&error.to_string()),
    }
}
