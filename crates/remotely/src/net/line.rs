//! The link to the host: made, and made again when it is lost, for as long as somebody wants it.

use std::time::Duration;

use remotely_net::capture::ask_surroundings;
use remotely_proto::net::Surroundings;
use remotely_session::Link;
use tokio::sync::watch;

use crate::options::ConnectOptions;
use crate::password::Passwords;
use crate::report;
use crate::tunnel::{Error, Reached, Tunnel, chain};

/// Between two tries to connect again: at first, and at most.
const AGAIN_AFTER: std::ops::RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_secs(15);

pub(super) struct Line {
    connect: ConnectOptions,
}

impl Line {
    pub(super) fn new(connect: ConnectOptions) -> Self {
        Self { connect }
    }

    /// Connects, and asks what the host knows of its network.
    pub(super) async fn connect(&self) -> Result<(Reached, Surroundings), Error> {
        let reached = Tunnel::of(self.connect.clone()).reach().await?;
        match ask_surroundings(reached.link()).await {
            Some(surroundings) => Ok((reached, surroundings)),
            None => Err(reached.end().await),
        }
    }

    /// Waits for the end of the link and makes a new one, again and again; `there` has the one that is there.
    pub(super) async fn keep(self, mut reached: Reached, there: watch::Sender<Option<Link>>) {
        let mut connect = self.connect;
        // The terminal is the command's now: nobody is asked for anything there.
        connect.passwords = Passwords::none();
        connect.progress = false;
        connect.ssh_opts.extend(["-o", "BatchMode=yes"].map(Into::into));
        let tunnel = Tunnel::of(connect);
        loop {
            let end = reached.end().await;
            there.send_replace(None);
            report::note(&format!("{}; connecting again", chain(&end)));
            reached = again(&tunnel).await;
            report::note("connected again");
            there.send_replace(Some(reached.link().clone()));
        }
    }
}

async fn again(tunnel: &Tunnel) -> Reached {
    let mut pause = *AGAIN_AFTER.start();
    loop {
        tokio::time::sleep(pause).await;
        match tunnel.reach().await {
            Ok(reached) => return reached,
            Err(error) => tracing::info!(error = chain(&error), "cannot connect again yet"),
        }
        pause = (pause * 2).min(*AGAIN_AFTER.end());
    }
}
