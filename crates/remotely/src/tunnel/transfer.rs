//! Files and trees to a host and from it, over a tunnel. The copying is [`remotely_copy`]'s.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use remotely_copy::{CopyError, Options, Report};

use super::{Error, ErrorKind, Tunnel};

/// A transfer that is not begun yet. Awaited, it becomes its [`Report`].
///
/// Dropped while it runs, it leaves nothing half done in the place of a file; what was received of a large one is kept for the next
/// time, see [`Options::resume`].
#[must_use = "a transfer does nothing unless it is awaited"]
pub struct Transfer {
    tunnel: Tunnel,
    what: What,
    options: Options,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Put { local: PathBuf, remote: Option<PathBuf> },
    Fetch { remote: PathBuf, local: Option<PathBuf> },
}

impl Tunnel {
    /// Copies a file or a tree of here to the host.
    ///
    /// `remote` is absolute or beneath the home directory there (`~` as well). If it is a directory, or ends in a slash, the
    /// source goes into it under its own name; else it is the new name. An existing file is there whole, old or new, at any time.
    pub fn put(&self, local: impl AsRef<Path>, remote: impl AsRef<Path>) -> Transfer {
        let (local, remote) = (local.as_ref().to_owned(), Some(remote.as_ref().to_owned()));
        self.transfer(What::Put { local, remote })
    }

    /// Copies a file or a tree of here into a new temporary directory of the host, which [`Report::remote`] names.
    pub fn put_temporary(&self, local: impl AsRef<Path>) -> Transfer {
        self.transfer(What::Put { local: local.as_ref().to_owned(), remote: None })
    }

    /// Copies a file or a tree of the host to here; where it goes is as with [`put`](Self::put).
    pub fn fetch(&self, remote: impl AsRef<Path>, local: impl AsRef<Path>) -> Transfer {
        let (remote, local) = (remote.as_ref().to_owned(), Some(local.as_ref().to_owned()));
        self.transfer(What::Fetch { remote, local })
    }

    /// Copies a file or a tree of the host into a new temporary directory of here, which [`Report::local`] names.
    pub fn fetch_temporary(&self, remote: impl AsRef<Path>) -> Transfer {
        self.transfer(What::Fetch { remote: remote.as_ref().to_owned(), local: None })
    }

    pub(crate) fn transfer(&self, what: What) -> Transfer {
        Transfer { tunnel: self.clone(), what, options: Options::default() }
    }
}

impl Transfer {
    /// With these options rather than the default ones.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// With these permission bits for a single file, rather than those of the source.
    pub fn mode(mut self, mode: u32) -> Self {
        self.options.mode = Some(mode);
        self
    }

    /// Making the directories that lead to the destination.
    pub fn parents(mut self) -> Self {
        self.options.parents = true;
        self
    }

    async fn run(self) -> Result<Report, Error> {
        let Self { tunnel, what, options } = self;
        let session = tunnel.inner.session()?;
        session.launch();
        let link = session.link();
        let copied = match what {
            What::Put { local, remote } => remotely_copy::put(link, local, remote.as_deref(), &options).await,
            What::Fetch { remote, local } => remotely_copy::fetch(link, remote, local.as_deref(), &options).await,
        };
        let kind = match copied {
            Ok(report) => return Ok(report),
            // The link knows better why.
            Err(CopyError::Cut { .. }) if session.is_ending() => session.end().await,
            Err(error) => ErrorKind::Copy(Arc::new(error)),
        };
        Err(tunnel.inner.error(kind))
    }
}

impl IntoFuture for Transfer {
    type Output = Result<Report, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Report, Error>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Transfer").field(&self.what).finish()
    }
}
