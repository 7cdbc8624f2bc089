//! The agent of a tunnel: runs functions of the program that it is, in the host's own root and as the user who logged in. What
//! they print goes to the client as lines; what they start ends with the link.

mod keeper;
mod output;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use remotely_call::{Doors, Pool, Runner};
use remotely_proto::call::Open;
use remotely_session::{End, LinkBuilder, Offer, Pipe, Role, Service, Settings, reset};

use crate::start::{self, told_to_end};
use crate::{join, sys, watchdog};

/// How long transfers that the end has cut may take to remove what they leave half done.
#[cfg(feature = "copy")]
const TIDY_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Runs the agent of a tunnel over stdin and stdout until the link ends. To be called first thing in a process, while it has
/// one thread: the process becomes the keeper of the agent, which it forks.
///
/// Does not return.
pub fn main() -> ExitCode {
    sys::ignore_sigpipe();
    start::exit(run())
}

fn run() -> io::Result<End> {
    let pipe = start::take_stdio()?;
    let printed = keeper::fork()?;
    remotely_call::install_panic_hook();
    start::greet(&pipe)?;
    start::runtime()?.block_on(async {
        watchdog::start();
        serve(pipe, printed).await
    })
}

async fn serve(pipe: Pipe, printed: keeper::Printed) -> io::Result<End> {
    let builder = LinkBuilder::new(Settings { role: Role::Agent, ..Settings::default() });
    let pool = Pool::new();
    let others = pool.clone();
    let (link, mut incoming, turns) = builder.attach_in_turns(pipe, Bytes::new(), move |job| others.run(job))?;
    join::listen(&link);
    let doors = Doors::new(link.clone());
    output::start(printed, &doors)?;
    let runner = Runner::new(doors.clone(), turns, pool, output::flush);
    #[cfg(feature = "net")]
    let dialer = dialer().listening(link.clone());
    tokio::spawn(async move {
        while let Some(offer) = incoming.next().await {
            match offer.service {
                #[cfg(feature = "net")]
                Service::NET => drop(tokio::spawn(dialer.clone().serve(offer))),
                _ => dispatch(&runner, &doors, offer),
            }
        }
    });
    let end = tokio::select! {
        end = link.ended() => end,
        () = told_to_end() => start::close(&link).await,
    };
    #[cfg(feature = "copy")]
    let _ = tokio::time::timeout(TIDY_WITHIN, remotely_copy::idle()).await;
    Ok(end)
}

/// Who dials for all links of this process.
#[cfg(feature = "net")]
fn dialer() -> remotely_net::dial::Dialer {
    static DIALER: std::sync::OnceLock<remotely_net::dial::Dialer> = std::sync::OnceLock::new();
    DIALER.get_or_init(remotely_net::dial::Dialer::new).clone()
}

fn dispatch(runner: &Arc<Runner>, doors: &Arc<Doors>, offer: Offer) {
    match offer.service {
        Service::CALL => {}
        #[cfg(feature = "copy")]
        Service::FILE => return drop(tokio::spawn(remotely_copy::serve(offer))),
        _ => return offer.refuse(reset::REFUSED),
    }
    match minicbor::decode(&offer.body) {
        Ok(Open::Calls { path, depth_limit }) => {
            runner.calls(path, depth_limit, offer.stream);
        }
        Ok(Open::Call { signature, name }) => {
            drop(tokio::spawn(runner.clone().call(name, signature, offer.stream)));
        }
        Ok(Open::Channel) => doors.offer_channel(offer),
        Ok(Open::Answer { .. } | Open::Output) | Err(_) => offer.refuse(reset::REFUSED),
    }
}
