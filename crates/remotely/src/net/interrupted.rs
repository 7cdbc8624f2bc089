//! How the user ends what has no end of its own: the whole machine, and forwards.

use tokio::signal::unix::{SignalKind, signal};

use super::{NetError, preparing};

/// The first of the signals that end this.
pub(super) fn interrupted() -> Result<impl Future<Output = i32>, NetError> {
    let (caught, mut signals) = tokio::sync::mpsc::channel(1);
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let mut coming = signal(SignalKind::from_raw(number)).map_err(preparing("catch signals"))?;
        let caught = caught.clone();
        tokio::spawn(async move {
            coming.recv().await;
            let _ = caught.send(number).await;
        });
    }
    Ok(async move {
        match signals.recv().await {
            Some(number) => number,
            None => std::future::pending().await,
        }
    })
}
