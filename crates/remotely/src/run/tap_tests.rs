//! What a tap leaves in the user's pipe, what it takes, and when.

use super::*;

struct Rig {
    tap: Arc<Tap>,
    /// Another copy of what the tap is on.
    read: Arc<OwnedFd>,
    write: OwnedFd,
}

fn rig() -> Rig {
    let (read, write) = rustix::pipe::pipe().unwrap();
    let read = Arc::new(read);
    Rig { tap: Tap::new(Arc::clone(&read)).unwrap(), read, write }
}

impl Rig {
    async fn chunk(&self) -> Bytes {
        match self.next().await {
            Next::Chunk(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    async fn next(&self) -> Next {
        tokio::time::timeout(Duration::from_secs(5), self.tap.next()).await.expect("nothing comes")
    }

    async fn silent(&self) {
        let next = tokio::time::timeout(Duration::from_millis(250), self.tap.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    fn write(&self, bytes: &[u8]) {
        assert_eq!(rustix::io::write(&self.write, bytes), Ok(bytes.len()));
    }

    /// What is in the user's pipe, read by somebody else.
    fn rest(&self) -> Vec<u8> {
        let mut rest = vec![0; rustix::io::ioctl_fionread(&self.read).unwrap() as usize];
        let mut filled = 0;
        while filled < rest.len() {
            filled += rustix::io::read(&self.read, &mut rest[filled..]).unwrap();
        }
        rest
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect()
}

#[tokio::test]
async fn what_is_seen_stays_and_what_is_added_is_seen_once() {
    let rig = rig();
    rig.write(b"one\n");
    assert_eq!(rig.chunk().await, b"one\n"[..]);
    rig.silent().await;
    // While the first is still there.
    let (next, ()) = tokio::join!(rig.chunk(), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        rig.write(b"two\n");
    });
    assert_eq!(next, b"two\n"[..]);
    rig.silent().await;
    assert_eq!(rig.rest(), b"one\ntwo\n");
}

#[tokio::test]
async fn only_what_the_command_has_read_is_taken() {
    let rig = rig();
    rig.write(b"one\ntwo\nthree\n");
    assert_eq!(rig.chunk().await.len(), 14);
    rig.tap.consumed(4);
    // Totals, and never less than before.
    rig.tap.consumed(2);
    rig.write(b"four\n");
    assert_eq!(rig.chunk().await, b"four\n"[..]);
    rig.tap.consumed(8);
    rig.tap.settled().await;
    assert_eq!(rig.rest(), b"three\nfour\n");
}

#[tokio::test]
async fn a_wrong_total_takes_nothing_that_was_not_sent() {
    let rig = rig();
    rig.write(b"sent");
    rig.chunk().await;
    rig.write(b"new");
    rig.tap.consumed(u64::MAX);
    assert_eq!(rig.rest(), b"new");
}

#[tokio::test]
async fn the_end_is_told_while_all_is_still_there() {
    let Rig { tap, read, write } = rig();
    rustix::io::write(&write, b"last words").unwrap();
    let rig = Rig { tap, read, write: rustix::pipe::pipe().unwrap().1 };
    assert_eq!(rig.chunk().await, b"last words"[..]);
    rig.silent().await;
    drop(write);
    assert!(matches!(rig.next().await, Next::End));
    rig.tap.consumed(5);
    assert_eq!(rig.rest(), b"words");
    // Taken by somebody else, and nobody can put it back.
    rig.tap.consumed(10);
    tokio::time::timeout(Duration::from_millis(100), rig.tap.settled()).await.unwrap();
}

#[tokio::test]
async fn an_empty_pipe_that_is_closed_ends() {
    let Rig { tap, read, write } = rig();
    drop(write);
    let rig = Rig { tap, read, write: rustix::pipe::pipe().unwrap().1 };
    assert!(matches!(rig.next().await, Next::End));
}

#[tokio::test]
async fn another_reader_that_was_faster_blocks_nothing_and_what_is_put_back_is_taken() {
    let rig = rig();
    rig.write(b"+++");
    assert_eq!(rig.chunk().await, b"+++"[..]);
    rustix::io::read(&rig.read, &mut [0; 2]).unwrap();
    rig.tap.consumed(3);
    assert!(tokio::time::timeout(Duration::from_millis(50), rig.tap.settled()).await.is_err());
    rig.write(b"+++");
    tokio::time::timeout(Duration::from_secs(1), rig.tap.settled()).await.unwrap();
    assert_eq!(rig.rest(), b"+");
}

#[tokio::test]
async fn all_is_sent_again_after_a_rewind() {
    let rig = rig();
    rig.write(b"first");
    assert_eq!(rig.chunk().await, b"first"[..]);
    rig.tap.rewind();
    rig.write(b"second");
    assert_eq!(rig.chunk().await, b"firstsecond"[..]);
}

#[tokio::test]
async fn much_flows_as_fast_as_it_is_read_and_then_ahead() {
    let rig = rig();
    let data = pattern(BULK as usize + (1 << 20));
    let (write, sent) = (rustix::io::dup(&rig.write).unwrap(), data.clone());
    let writer = std::thread::spawn(move || {
        let mut bytes = &sent[..];
        while !bytes.is_empty() {
            let written = rustix::io::write(&write, bytes).unwrap();
            bytes = &bytes[written..];
        }
    });
    let (mut got, mut largest) = (Vec::new(), 0);
    let pipe = loop {
        match rig.next().await {
            Next::Chunk(bytes) => got.extend_from_slice(&bytes),
            Next::End => panic!("it is open"),
            Next::Ahead(pipe) => break pipe,
        }
        // The command lags behind.
        let outstanding = got.len() as u64 - rig.tap.lock().taken;
        largest = largest.max(outstanding);
        if outstanding >= 700_000 {
            rig.tap.consumed(got.len() as u64 - 100);
        }
    };
    assert!(largest >= 700_000, "the pipe was not enlarged: {largest}");
    assert!(got.len() as u64 >= BULK);
    let mut rest = vec![0; data.len() - got.len()];
    let mut filled = 0;
    while filled < rest.len() {
        filled += rustix::io::read(&pipe, &mut rest[filled..]).unwrap();
    }
    writer.join().unwrap();
    got.append(&mut rest);
    assert!(got == data);
    assert_eq!(rustix::io::ioctl_fionread(&pipe), Ok(0));
}

#[tokio::test]
async fn a_pipe_of_many_small_pieces_is_seen_in_full() {
    let rig = rig();
    rustix::pipe::fcntl_setpipe_size(&rig.write, 1 << 20).unwrap();
    // Half pages are not merged: more pieces than the pipe of our own had room for at first.
    let data = pattern(100 * 3000);
    data.chunks(3000).for_each(|piece| rig.write(piece));
    let mut got = Vec::new();
    while got.len() < data.len() {
        got.extend_from_slice(&rig.chunk().await);
    }
    assert!(got == data);
    rig.silent().await;
    assert!(rig.rest() == data);
}

#[tokio::test]
async fn what_the_own_pipe_cannot_show_comes_when_the_rest_was_read() {
    let rig = rig();
    {
        // As for a user who has too many pipes: neither can be enlarged.
        let mut state = rig.tap.lock();
        rustix::pipe::fcntl_setpipe_size(&state.copy.1, 4096).unwrap();
        (state.room, state.refused) = (ENLARGED, true);
    }
    let data = pattern(8192);
    rig.write(&data);
    assert!(rig.chunk().await == data[..4096]);
    rig.silent().await;
    let begun = std::time::Instant::now();
    let (next, ()) = tokio::join!(rig.chunk(), async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        rig.tap.consumed(4096);
    });
    assert!(next == data[4096..]);
    assert!(begun.elapsed() < LOOK / 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn nothing_comes_of_what_is_closed_and_its_writer_is_told() {
    let Rig { tap, read, write } = rig();
    drop(read);
    tap.close();
    assert_eq!(rustix::io::write(&write, b"x"), Err(Errno::PIPE));
    tap.consumed(7);
    tap.settled().await;
    assert!(tokio::time::timeout(Duration::from_millis(20), tap.next()).await.is_err());
}

#[tokio::test]
async fn what_is_no_pipe_is_handed_back() {
    let (one, _two) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(Tap::new(Arc::new(one.into())).is_err());
}
