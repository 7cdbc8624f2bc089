//! Init without a link: orders and news on its socket.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::*;
use crate::run::channel::{Incoming as Receiving, Outgoing};
use crate::run::order::{Descriptor, Mounted, News, Order, Run, Setup, Source};

/// What the root is made of for this user.
pub(super) fn setup(user: Option<u32>) -> Setup {
    let id = user.map_or(0, |_| 4321);
    Setup {
        identity: Identity { uid: id, gid: id, groups: vec![], hostname: b"x".to_vec().into() },
        view: View { host_paths: vec![], read_only: true, strict: false, host_network: false },
        root: Root::Bound,
        default_permissions: false,
        shared: vec![],
    }
}

/// Starts a command with `output` as its 1 and 2, and waits until it runs.
pub(super) fn start(socket: &OwnedFd, setup: Setup, argv: &[&str], output: Option<BorrowedFd<'_>>) -> Mounted {
    let send = |order: &Order, fds: &[BorrowedFd<'_>]| Outgoing::new(order, fds).unwrap().send(socket).unwrap();
    let mut receiving = Receiving::default();
    let identity = Some(setup.identity.clone());
    send(&Order::Setup(setup), &[]);
    let (news, _) = receiving.wait::<News>(socket).unwrap().unwrap();
    let News::Mounted(mounted) = news else { panic!("{news:?}") };
    send(&Order::Go, &[]);
    let fds: Vec<_> = output.into_iter().collect();
    let run = Run {
        id: 1,
        argv: list(argv),
        env: list(&["PATH=/usr/bin:/bin"]),
        cwd: b"/".to_vec().into(),
        identity,
        inherited: Inherited { umask: 0o022, rlimits: vec![], nice: 0, blocked: 0, ignored: 0, oom_score_adj: 0 },
        fds: fds
            .iter()
            .flat_map(|_| {
                [Descriptor { fd: 1, source: Source::Passed(0) }, Descriptor { fd: 2, source: Source::Same(1) }]
            })
            .collect(),
        tty: None,
        prefix: Vec::new().into(),
        announce: false,
    };
    send(&Order::Run(run), &fds);
    while !matches!(receiving.wait::<News>(socket).unwrap().unwrap().0, News::Started { .. }) {}
    mounted
}

/// What a command writes.
pub(super) fn output(setup: Setup, argv: &[&str]) -> String {
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let init = init::start(theirs.as_fd()).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    start(&init.socket, setup, argv, Some(writer.as_fd()));
    drop(writer);
    let mut all = String::new();
    std::fs::File::from(OwnedFd::from(reader)).read_to_string(&mut all).unwrap();
    all
}
