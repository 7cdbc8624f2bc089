//! The same for programs that are not async: each call waits on its thread.

use std::time::Duration;

use remotely_call::Remote;

use crate::runtime::shared;
use crate::target::{Target, TargetError};
use crate::{Error, tunnel};

/// A [`Tunnel`](crate::Tunnel) whose calls wait. Clones are the same tunnel, and may be used by many threads at once.
///
/// To be used outside of async code: inside of it, waiting panics.
#[derive(Debug, Clone)]
pub struct Tunnel(tunnel::Tunnel);

impl Tunnel {
    /// See [`tunnel::Tunnel::to`].
    pub fn to(target: &str) -> Result<Self, TargetError> {
        tunnel::Tunnel::to(target).map(Self)
    }

    /// See [`tunnel::Tunnel::new`].
    pub fn new(target: Target) -> Self {
        Self(tunnel::Tunnel::new(target))
    }

    /// See [`tunnel::Tunnel::local`].
    pub fn local() -> Self {
        Self(tunnel::Tunnel::local())
    }

    /// See [`tunnel::Tunnel::host`].
    pub fn host(&self) -> &str {
        self.0.host()
    }

    /// See [`tunnel::Tunnel::connect`].
    pub fn connect(&self) -> Result<(), Error> {
        shared().block_on(self.0.connect())
    }

    /// See [`tunnel::Tunnel::call`].
    pub fn call<F: Remote>(&self, function: F, arguments: F::Args) -> Result<F::Output, Error> {
        shared().block_on(self.0.call(function, arguments))
    }

    /// The same, giving up when there is no answer after `limit`, connecting included.
    pub fn call_within<F: Remote>(&self, limit: Duration, function: F, arguments: F::Args) -> Result<F::Output, Error> {
        // The timer has to be made inside of the runtime.
        shared().block_on(async { self.0.call(function, arguments).timeout(limit).await })
    }

    /// Waits for a transfer of files: `tunnel.transfer(|tunnel| tunnel.put("a", "/b"))`.
    #[cfg(feature = "copy")]
    pub fn transfer(
        &self,
        what: impl FnOnce(&tunnel::Tunnel) -> tunnel::Transfer,
    ) -> Result<crate::copy::Report, Error> {
        shared().block_on(what(&self.0).into_future())
    }

    /// See [`tunnel::Tunnel::close`].
    pub fn close(&self) {
        shared().block_on(self.0.close());
    }
}

impl From<tunnel::Tunnel> for Tunnel {
    /// The tunnel must not have been used yet: its link lives in the runtime that has made it.
    fn from(tunnel: tunnel::Tunnel) -> Self {
        Self(tunnel)
    }
}

/// A [`Group`](crate::Group) whose calls wait for all hosts.
#[derive(Debug, Clone)]
pub struct Group(crate::Group);

impl Group {
    /// See [`Group::to`](crate::Group::to).
    pub fn to<T: AsRef<str>>(targets: impl IntoIterator<Item = T>) -> Result<Self, TargetError> {
        // The windows raise limits of the process, nothing that needs a runtime.
        crate::Group::to(targets).map(Self)
    }

    /// The group, to set windows and timeouts, and for set operations.
    pub fn change(self, change: impl FnOnce(crate::Group) -> crate::Group) -> Self {
        Self(change(self.0))
    }

    /// See [`Group::call`](crate::Group::call).
    pub fn call<F: Remote>(&self, function: F, arguments: F::Args) -> crate::GroupResult<F::Output>
    where
        F::Args: Clone,
    {
        shared().block_on(async { self.0.call(function, arguments).await })
    }

    /// See [`Group::close`](crate::Group::close).
    pub fn close(&self) {
        shared().block_on(self.0.close());
    }
}

impl From<crate::Group> for Group {
    /// Its tunnels must not have been used yet: their links live in the runtime that has made them.
    fn from(group: crate::Group) -> Self {
        Self(group)
    }
}
