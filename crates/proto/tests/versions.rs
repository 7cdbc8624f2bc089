//! Messages that have grown: what an older side says, or says to a newer one, still decodes.

use minicbor::{Decode, Encode};
use remotely_proto::exec::{Modes, Report, Tty, Winsize};
use remotely_proto::fs::{Asked, Counts};

/// [`Report::Exited`] as it was before it told what the mount had counted.
#[derive(Debug, PartialEq, Encode, Decode)]
enum Before {
    #[n(4)]
    Exited {
        #[n(0)]
        status: u32,
        #[n(1)]
        tag: u64,
        #[n(2)]
        offsets: Vec<(u32, u64)>,
        #[n(3)]
        cpu: (u64, u64),
    },
}

#[test]
fn the_end_of_a_command_with_and_without_counts() {
    let before = || Before::Exited { status: 256, tag: 9, offsets: vec![(1, 100)], cpu: (1, 2) };
    let now = |mount| Report::Exited { status: 256, tag: 9, offsets: vec![(1, 100)], cpu: (1, 2), mount };
    let counts = Counts { requests: vec![Asked { opcode: 1, count: 8, hits: 7 }], bytes_read: 4096, bytes_written: 5 };

    let old = minicbor::to_vec(before()).unwrap();
    assert_eq!(minicbor::decode::<Report>(&old).unwrap(), now(None));
    for mount in [None, Some(counts)] {
        let new = minicbor::to_vec(now(mount)).unwrap();
        assert_eq!(minicbor::decode::<Before>(&new).unwrap(), before());
    }
}

/// [`Tty`] as it was before its keys could be announced.
#[derive(Debug, PartialEq, Encode, Decode)]
struct TtyBefore {
    #[n(0)]
    size: Winsize,
    #[n(1)]
    modes: Option<Modes>,
}

#[test]
fn a_terminal_with_and_without_announcement() {
    let size = Winsize { rows: 24, cols: 80, xpixel: 0, ypixel: 0 };
    let old = minicbor::to_vec(TtyBefore { size, modes: None }).unwrap();
    assert_eq!(minicbor::decode::<Tty>(&old).unwrap(), Tty { size, modes: None, announce: false });
    let new = minicbor::to_vec(Tty { size, modes: None, announce: true }).unwrap();
    assert_eq!(minicbor::decode::<TtyBefore>(&new).unwrap(), TtyBefore { size, modes: None });
}
