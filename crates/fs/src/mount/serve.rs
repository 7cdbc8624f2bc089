//! From a request of the kernel to its answer: reads the device, starts the operation, counts, answers. Run by the threads
//! that `mount` starts; what an operation does is in `op`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use bytes::BytesMut;
use tokio::runtime::Handle;

use super::fs::Fs;
use super::fuse::{Device, Op, Request};

/// Reads and serves until the mount is gone. An answer that is known is given on this thread at once; one that must be
/// waited for becomes a task.
pub(super) fn requests(fs: &Arc<Fs>, device: &Device, runtime: &Handle) {
    let _entered = runtime.enter();
    let mut buffer = BytesMut::new();
    loop {
        match device.next(&mut buffer) {
            Ok(Some(Request { op: Op::Destroy, .. }) | None) => break,
            Ok(Some(request)) => serve(fs, request, runtime),
            Err(error) => {
                tracing::warn!(%error, "the mount ends");
                break;
            }
        }
    }
    fs.end();
}

/// Serves one request: at once if nothing must be waited for, else as a task.
fn serve(fs: &Arc<Fs>, request: Request, runtime: &Handle) {
    let kind = fs.counters.came(&request);
    let mut work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(respond(fs.clone(), request));
    // Polled once here: what is known needs no task and no other thread. A future that was polled without a waker is
    // polled again when it is spawned.
    if work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        // Counted before the task runs, and with that before the kernel is answered.
        if let Some(kind) = kind {
            fs.counters.waits(kind);
        }
        runtime.spawn(work);
    }
}

async fn respond(fs: Arc<Fs>, request: Request) {
    let unique = request.unique;
    tracing::trace!(?request, "kernel asks");
    let (reads, written) = match &request.op {
        Op::Read { .. } => (true, 0),
        Op::Write { data, .. } => (false, data.len() as u64),
        _ => (false, 0),
    };
    match fs.operate(request).await {
        Ok(Some(answer)) => {
            if reads {
                fs.counters.bytes_read.fetch_add(answer.data_len() as u64, Ordering::Relaxed);
            } else if written > 0 {
                fs.counters.bytes_written.fetch_add(written, Ordering::Relaxed);
            }
            fs.device.answer(unique, answer);
        }
        Ok(None) => {}
        Err(errno) => {
            tracing::trace!(unique, %errno, "refused");
            fs.device.refuse(unique, errno);
        }
    }
}
