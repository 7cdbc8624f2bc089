//! What doctor finds out about the way: whether an agent answers there, and how long that takes.

use remotely_session::{End, LinkBuilder, Settings};

use super::Finding;
use crate::bootstrap::{self, ConnectError, Connected};
use crate::options::ConnectOptions;

/// What was found, and whether there is a shell at the other end that can be asked more.
pub(super) async fn examine(options: &ConnectOptions) -> (Vec<Finding>, bool) {
    let connected = bootstrap::connect(options, LinkBuilder::new(Settings::default()), std::future::ready(())).await;
    let Connected { link, incoming, process, time, uploaded } = match connected {
        Ok(connected) => connected,
        Err(error) => {
            let what = crate::report::chain(&error);
            let mend = error.hint().unwrap_or_else(|| "-vv shows the command that was run".into());
            let unreached = matches!(
                error,
                ConnectError::Start(_)
                    | ConnectError::Ended { .. }
                    | ConnectError::Silent { .. }
                    | ConnectError::NoPassword { .. }
                    | ConnectError::WrongPassword { .. }
            );
            return (vec![Finding::fail(what, mend)], !unreached);
        }
    };
    let mut found = vec![Finding::ok(format!("the agent answered after {:.2} s", time.as_secs_f64()))];
    if let Some(uploaded) = uploaded {
        let mib = uploaded.bytes as f64 / f64::from(1 << 20);
        let what = format!(
            "it was sent first: {mib:.1} MiB in {:.2} s; the next time it is there",
            uploaded.time.as_secs_f64()
        );
        found.push(Finding::ok(what));
    }
    let closed = async {
        // Without the other side's hello there is nobody to say goodbye to.
        let _ = link.linked().await;
        link.close();
        link.ended().await
    };
    match tokio::time::timeout(std::time::Duration::from_secs(10), closed).await {
        Ok(End::Closed) => {}
        Ok(end) => found.push(Finding::fail(format!("the link broke: {end:?}"), "-vv shows more")),
        Err(_) => {
            found.push(Finding::warn("the agent did not say goodbye within 10 s", "the way there is slow or stuck"))
        }
    }
    drop(incoming);
    process.close().await;
    (found, true)
}
