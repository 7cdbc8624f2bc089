//! The agent's side of a link: takes the streams that the client opens to where they belong, and ends everything when the
//! link ends. Called by [`crate::main`] in the runtime.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use remotely_proto::exec::FdOpen;
use remotely_proto::fs::Lane;
use remotely_session::{End, LinkBuilder, Offer, Pipe, Role, Service, Settings, reset};
use rustix::process::{Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::exec::{self, Host};
use crate::handle::Handle;
use crate::init::Init;
use crate::order::{Order, Root};
use crate::rendezvous::Rendezvous;
use crate::stage::Scene;
use crate::sys;

/// How long the client may take to close the link when nothing can run any more.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// How long a link that is closed may take to say goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);
/// How long init may take to end all commands; it gives them two seconds itself.
const END_WITHIN: Duration = Duration::from_secs(3);

/// Serves one link over `pipe` until its end, and then ends what was started. `root` is what commands run in.
pub(crate) async fn serve(pipe: Pipe, init: Init, root: Root) -> std::io::Result<End> {
    let pid = init.pid;
    let init = Handle::new(init)?;
    let host = Arc::new(Host { init, streams: Rendezvous::default(), scene: Scene::new(root) });
    let (link, mut incoming) =
        LinkBuilder::new(Settings { role: Role::Agent, ..Settings::default() }).attach(pipe, Bytes::new());
    let dispatching = host.clone();
    tokio::spawn(async move {
        while let Some(offer) = incoming.next().await {
            dispatch(&dispatching, offer);
        }
    });
    let end = tokio::select! {
        end = link.ended() => end,
        () = told_to_end() => {
            link.close();
            let _ = tokio::time::timeout(GOODBYE_WITHIN, link.ended()).await;
            End::Closed
        }
        () = host.init.ended() => {
            // The client has been told why, or is being told.
            let _ = tokio::time::timeout(CLOSE_WITHIN, link.ended()).await;
            link.close();
            let _ = tokio::time::timeout(GOODBYE_WITHIN, link.ended()).await;
            End::Closed
        }
    };
    let hung_up = async {
        if host.init.order(&Order::HangUp, &[]).await.is_ok() {
            host.init.ended().await;
        }
    };
    if tokio::time::timeout(END_WITHIN, hung_up).await.is_err() {
        // Pid 1 follows it, and everything else follows that.
        let _ = kill_process(pid, Signal::KILL);
    }
    Ok(end)
}

fn dispatch(host: &Arc<Host>, offer: Offer) {
    match offer.service {
        Service::EXEC => drop(tokio::spawn(exec::serve(host.clone(), offer.stream))),
        Service::FD => match minicbor::decode::<FdOpen>(&offer.body) {
            Ok(name) => host.streams.offer_fd(name, offer.stream),
            Err(_) => offer.refuse(reset::REFUSED),
        },
        Service::FS => match minicbor::decode::<Lane>(&offer.body) {
            Ok(lane) => host.streams.offer_lane(lane, offer.stream),
            Err(_) => offer.refuse(reset::REFUSED),
        },
        _ => offer.refuse(reset::REFUSED),
    }
}

/// Waits for a signal that asks this process to end. What it was started to ignore it does ignore: on the client's own
/// machine it is in the client's process group, and such a signal for all of that is the command's.
async fn told_to_end() {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let heeded = kinds.into_iter().filter(|kind| !sys::is_ignored(kind.as_raw_value()));
    let mut signals: Vec<_> = heeded.filter_map(|kind| signal(kind).ok()).collect();
    poll_fn(|cx| {
        let told = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
        if told { Poll::Ready(()) } else { Poll::Pending }
    })
    .await
}
