//! The agent's side of a link: takes the streams that the client opens to where they belong, and ends everything when the
//! link ends. The agent of a run.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use remotely_proto::exec::FdOpen;
use remotely_proto::fs::Lane;
use remotely_session::{End, LinkBuilder, Offer, Pipe, Role, Service, Settings, reset};
use rustix::process::{Signal, kill_process};

use crate::run::exec::{self, Host};
use crate::run::handle::Handle;
use crate::run::init::{self, Init};
use crate::run::order::{Order, Root};
use crate::run::rendezvous::Rendezvous;
use crate::run::stage::Scene;
use crate::start::{self, told_to_end};
use crate::{join, sys, watchdog};

/// How long the client may take to close the link when nothing can run any more.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// How long init may take to end all commands; it gives them two seconds itself.
const END_WITHIN: Duration = Duration::from_secs(3);

/// Runs the agent of a run over stdin and stdout until the link ends. To be called first thing in a process, while it has
/// one thread: it forks the process that will make the namespaces.
///
/// Does not return: what may still hang must not keep it.
pub fn main() -> ExitCode {
    sys::ignore_sigpipe();
    start::exit(run())
}

fn run() -> io::Result<End> {
    let pipe = start::take_stdio()?;
    let init = init::start(pipe.reader.as_fd())?;
    // Memory of the agent holds files of the client; the limit of commands is the client's own.
    let _ = sys::set_limit(libc::RLIMIT_CORE, 0, 0);
    start::greet(&pipe)?;
    start::runtime()?.block_on(async {
        watchdog::start();
        serve(pipe, init, Root::Client).await
    })
}

/// Serves one link over `pipe` until its end, and then ends what was started. `root` is what commands run in.
pub(crate) async fn serve(pipe: Pipe, init: Init, root: Root) -> io::Result<End> {
    let pid = init.pid;
    let init = Handle::new(init)?;
    let host = Arc::new(Host { init, streams: Rendezvous::default(), scene: Scene::new(root) });
    let (link, mut incoming) =
        LinkBuilder::new(Settings { role: Role::Agent, ..Settings::default() }).attach(pipe, Bytes::new());
    join::listen(&link);
    let dispatching = host.clone();
    tokio::spawn(async move {
        while let Some(offer) = incoming.next().await {
            dispatch(&dispatching, offer);
        }
    });
    let end = tokio::select! {
        end = link.ended() => end,
        () = told_to_end() => start::close(&link).await,
        () = host.init.ended() => {
            // The client has been told why, or is being told.
            let _ = tokio::time::timeout(CLOSE_WITHIN, link.ended()).await;
            start::close(&link).await
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
