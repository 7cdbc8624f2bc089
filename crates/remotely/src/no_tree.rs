//! Without the feature `tree`: nothing is reached through a gateway.

use remotely_session::{Incoming, Link, LinkBuilder};

use crate::options::ConnectOptions;
use crate::transport::spawn::Process;
use crate::tunnel::ErrorKind;

/// There is none.
#[derive(Clone)]
pub(crate) enum Branch {}

impl Branch {
    /// Of nobody.
    pub(crate) fn gateway(&self) -> &str {
        match *self {}
    }

    /// To nowhere.
    pub(crate) async fn connect<F: Future<Output = ()>>(
        &self,
        _: &ConnectOptions,
        _: LinkBuilder,
        _: F,
    ) -> Result<(Link, Incoming, Option<Process>), ErrorKind> {
        match *self {}
    }
}
