//! The root that commands run in: made by init on the first command, used by all that want the same. Called by
//! [`crate::run::exec`].

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use remotely_fs::mount::Mount;
use remotely_proto::ByteVec;
use remotely_proto::exec::{Program, Request, Step};
use tokio::sync::OnceCell;

use crate::run::files;
use crate::run::handle::{Handle, Stage};
use crate::run::order::{Failure, Order, Root, Setup, Shared};
use crate::run::rendezvous::Rendezvous;

/// How long streams that the client announced may take to come.
pub(crate) const STREAMS_WITHIN: Duration = Duration::from_secs(15);

/// A root that commands run in.
#[derive(Debug)]
pub(crate) struct Ready {
    setup: Setup,
    /// What paths of the client begin with in it.
    pub(crate) prefix: ByteVec,
    /// The client's files.
    pub(crate) mount: Option<Mount>,
    /// Changes to files sent to the client.
    pub(crate) changes: Arc<AtomicU64>,
    /// Who commands are on the host; `None`: the agent's user.
    pub(crate) owner: Option<u32>,
}

/// The root, once somebody asked for it.
#[derive(Debug)]
pub(crate) struct Scene {
    ready: OnceCell<Result<Ready, Failure>>,
    client_root: Root,
}

impl Scene {
    /// None yet. `client_root` is what [`Program::Command`] runs in.
    pub(crate) fn new(client_root: Root) -> Self {
        Self { ready: OnceCell::new(), client_root }
    }

    /// The root for this request, made if it is the first.
    pub(crate) async fn ready(
        &self,
        init: &Handle,
        streams: &Rendezvous,
        request: &Request,
        shared: Vec<Shared>,
    ) -> Result<&Ready, Failure> {
        let root = match request.program {
            Program::Command { .. } => self.client_root,
            Program::HostShell => Root::Host,
        };
        let setup = Setup {
            identity: request.identity.clone(),
            view: request.view.clone(),
            root,
            // With one id for everything the kernel cannot tell who may do what; then the mount asks the client.
            default_permissions: request.identity.uid == 0 && rustix::process::geteuid().is_root(),
            shared,
        };
        let made = self.ready.get_or_init(|| make(init, streams, setup.clone())).await;
        let ready = made.as_ref().map_err(Clone::clone)?;
        let (ours, theirs) = (&ready.setup, &setup);
        if (&ours.identity, &ours.view, ours.root) != (&theirs.identity, &theirs.view, theirs.root) {
            return Err(Failure::plain(Step::Setup, "commands of one link have one user and one view of the files"));
        }
        Ok(ready)
    }
}

async fn make(init: &Handle, streams: &Rendezvous, setup: Setup) -> Result<Ready, Failure> {
    let lost = |error: std::io::Error| Failure::new(Step::Setup, error, "speak to the init process on the host");
    init.order(&Order::Setup(setup.clone()), &[]).await.map_err(lost)?;
    let (mounted, fuse) = match init.stage().await {
        Stage::Mounted(mounted, fuse) => (mounted, fuse),
        Stage::Failed(failure) => return Err(failure),
        Stage::Ready => return Err(Failure::plain(Step::Setup, "init is ready too early")),
    };
    let mount = match fuse {
        Some(fuse) => {
            let lanes = tokio::time::timeout(STREAMS_WITHIN, streams.claim_lanes())
                .await
                .map_err(|_| Failure::plain(Step::Setup, "the client offered no files"))?;
            Some(files::serve(&setup, &mounted, fuse, lanes).await?)
        }
        None => None,
    };
    init.order(&Order::Go, &[]).await.map_err(lost)?;
    match init.stage().await {
        Stage::Ready => {
            let owner = mounted.owner.filter(|_| setup.root != Root::Host);
            let changes = mount.as_ref().map_or_else(Arc::default, Mount::changes);
            Ok(Ready { setup, prefix: mounted.prefix, mount, changes, owner })
        }
        Stage::Failed(failure) => Err(failure),
        Stage::Mounted(..) => Err(Failure::plain(Step::Setup, "init is mounted twice")),
    }
}
