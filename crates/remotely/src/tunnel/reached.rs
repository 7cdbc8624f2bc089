//! The link of a tunnel as such, for services that are not calls: connected, used, and its end waited for.

use std::sync::Arc;

use remotely_session::Link;

use super::session::Session;
use super::{Error, Tunnel};

/// A link that is there. Whoever has it keeps the tunnel.
pub(crate) struct Reached {
    tunnel: Tunnel,
    session: Arc<Session>,
}

impl Tunnel {
    /// Connects, if there is no link yet, and gives the link. Cancel safe: the link goes on being made.
    pub(crate) async fn reach(&self) -> Result<Reached, Error> {
        let session = self.inner.session()?;
        session.launch();
        session.up().await.map_err(|why| self.inner.error(why))?;
        Ok(Reached { tunnel: self.clone(), session })
    }
}

impl Reached {
    /// The link.
    pub(crate) fn link(&self) -> &Link {
        self.session.link()
    }

    /// Waits until it is over, and says why. Cancel safe.
    pub(crate) async fn end(&self) -> Error {
        self.tunnel.inner.error(self.session.end().await)
    }
}
