//! The client's files on the host: hands the mount that init made to [`remotely_fs::mount`]. Called once for each agent.

use std::os::fd::OwnedFd;

use remotely_fs::mount::{IdMaps, Mount, MountConfig};
use remotely_proto::exec::Step;
use remotely_session::Stream;

use crate::run::order::{Failure, Mounted, Root, Setup};

/// Starts to serve it; returns when the kernel has been answered.
pub(crate) async fn serve(
    setup: &Setup,
    mounted: &Mounted,
    fuse: OwnedFd,
    lanes: (Stream, Stream, Stream),
) -> Result<Mount, Failure> {
    let ids = mounted.ids.clone();
    let config = MountConfig {
        fuse,
        lanes,
        identity: setup.identity.clone(),
        id_maps: IdMaps { uids: ids.as_ref().map(|ids| ids.uids.clone()), gids: ids.map(|ids| ids.gids) },
        read_only: setup.view.read_only,
        strict: setup.view.strict,
        default_permissions: setup.default_permissions,
        covered: if setup.root == Root::Host { Vec::new() } else { covered(setup) },
    };
    Mount::start(config).await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::plain(Step::Setup, format!("{error}{cause}"))
    })
}

/// What something of the host is mounted over.
fn covered(setup: &Setup) -> Vec<Vec<u8>> {
    let fixed = ["/proc", "/sys", "/dev"].map(|path| path.as_bytes().to_vec());
    let network = ["/etc/resolv.conf", "/etc/hosts"].map(|path| path.as_bytes().to_vec());
    fixed
        .into_iter()
        .chain(network.into_iter().filter(|_| setup.view.host_network))
        .chain(setup.view.host_paths.iter().map(|path| path.to_vec()))
        .chain(setup.shared.iter().map(|shared| shared.place.to_vec()).filter(|place| place.starts_with(b"/")))
        .collect()
}
