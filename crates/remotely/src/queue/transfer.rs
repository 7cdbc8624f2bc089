//! Transfers of files as work of a queue.

use std::path::Path;

use remotely_copy::{Options, Report};

use super::{Queue, Queued};
use crate::group::{Group, GroupResult, SamePlace, fetch_from, put_to};
use crate::tunnel::{Transfer, What};
use crate::{Error, Tunnel};

impl Queue {
    /// Puts in a transfer of files to a host, or from it.
    pub fn transfer(&self, tunnel: &Tunnel, transfer: Transfer) -> Queued<Result<Report, Error>> {
        self.put(tunnel, transfer.into_future())
    }

    /// Puts in a transfer to each host of a group, each in its host's own order; as [`Group::put`].
    ///
    /// ```no_run
    /// # use remotely::{Group, Queue, copy::Options, remote};
    /// # #[remote] fn restart() {}
    /// # async fn example(web: &Group) -> Result<(), Box<dyn std::error::Error>> {
    /// let queue = Queue::new();
    /// let put = queue.put_each(web, "app.conf", "/etc/app/{host}.conf", &Options::default());
    /// let restarted = queue.call_each(web, restart, ());
    /// let logs = queue.fetch_each(web, "/var/log/app.log", "logs/{host}", &Options::default())?;
    /// put.await.raise_failures()?;
    /// restarted.await.raise_failures()?;
    /// logs.await.raise_failures()?;
    /// # Ok(()) }
    /// ```
    pub fn put_each(
        &self,
        group: &Group,
        local: impl AsRef<Path>,
        remote: impl AsRef<Path>,
        options: &Options,
    ) -> Queued<GroupResult<Report>> {
        self.transfer_each(group, put_to(local.as_ref(), remote.as_ref()), options)
    }

    /// Puts in a transfer from each host of a group, each in its host's own order; as [`Group::fetch`].
    ///
    /// # Errors
    /// Several hosts' files would go to one place; then nothing is put in.
    pub fn fetch_each(
        &self,
        group: &Group,
        remote: impl AsRef<Path>,
        local: impl AsRef<Path>,
        options: &Options,
    ) -> Result<Queued<GroupResult<Report>>, SamePlace> {
        let what = fetch_from(group, remote.as_ref(), local.as_ref())?;
        Ok(self.transfer_each(group, what, options))
    }

    fn transfer_each(
        &self,
        group: &Group,
        what: impl Fn(&str) -> What,
        options: &Options,
    ) -> Queued<GroupResult<Report>> {
        self.each(group, |tunnel| tunnel.transfer(what(tunnel.host())).options(options.clone()).into_future())
    }
}
