//! A function that opens a tunnel to where it alone can go, and calls a function there, which does the same.
//!
//! ```console
//! $ nested-tunnel gateway db.internal
//! localhost -> gateway -> db.internal
//! ```
//!
//! For a way that only has to be gone, a chain is simpler and costs no process on the gateway: `gateway+db.internal`. A
//! tunnel inside a function is for work that belongs there: a gateway that asks its hundred hosts and sends back one number.

use std::error::Error;

use remotely::{Tunnel, here, remote};

/// Goes on to the first of these, and from there to the next; the last one tells the way.
///
/// The error may be of any type; `?` on a call puts the error of the far end into it, with the host that it came from.
#[remote]
async fn go_on(mut targets: Vec<String>) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    println!("{} links from where it began", here::depth());
    if targets.is_empty() {
        return Ok(here::path());
    }
    let next = targets.remove(0);
    // This program is there too: what was sent here goes on from here, once, and is kept in the next cache.
    let tunnel = Tunnel::to(&next)?.named(next);
    // A future that contains itself has to be boxed.
    Ok(Box::pin(tunnel.call(go_on, (targets,))).await?)
}

#[remotely::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // Called like this it runs here, which is where the way begins.
    match go_on(std::env::args().skip(1).collect()).await {
        Ok(path) => println!("{}", path.join(" -> ")),
        Err(error) => {
            // Two links are allowed, so that a function that calls itself does not fill the world with processes; for more,
            // see `Tunnel::depth_limit` and REMOTELY_DEPTH_LIMIT.
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
    Ok(())
}
