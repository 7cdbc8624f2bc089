//! Byte streams: in, out, half-close, stop.

use std::time::{Duration, Instant};

use remotely_proto::exec::{FdKind, Report};
use remotely_session::SendError;

use super::*;

#[test]
fn output_error_and_exit_code() {
    for_both(|rig| async move {
        let (status, out, err) = rig.run(&rig.sh("echo out; echo err >&2; exit 7")).await;
        assert_eq!((exit_code(status), out.as_str(), err.as_str()), (7, "out\n", "err\n"));
        // A second command of the link finds all in place.
        let (status, out, _) = rig.run(&rig.sh("hostname; id -u; id -g; echo $PWD")).await;
        let expected = format!("client-name\n{}\n{}\n/\n", rig.identity.uid, rig.identity.gid);
        assert_eq!((exit_code(status), out), (0, expected));
        assert_eq!(rig.close().await, End::Closed);
    });
}

#[test]
fn input_goes_in_and_ends() {
    for_both(|rig| async move {
        let mut request = rig.request(&["cat"]);
        request.fds[0].kind = FdKind::PipeIn;
        let mut session = rig.start(&request).await;
        assert_eq!(session.report().await, Report::Started);
        let data: Vec<u8> = (0..8 << 20).map(|n: u32| (n ^ n >> 8) as u8).collect();
        let mut input = session.into.remove(&0).unwrap();
        let sent = data.clone();
        tokio::spawn(async move {
            input.send(sent.into()).await.unwrap();
            input.finish();
        });
        assert!(session.from.get_mut(&1).unwrap().all().await == data);
        assert_eq!(session.ended().await.status, 0);
    });
}

#[test]
fn input_that_is_given_up_has_no_end() {
    for_both(|rig| async move {
        for kind in [FdKind::PipeIn, FdKind::Socket] {
            let mut request = rig.sh("cat; echo all");
            request.fds[0].kind = kind.clone();
            let mut session = rig.start(&request).await;
            session.write(0, &b"half\n"[..]).await;
            assert_eq!(session.read_until(1, "\n").await, "half\n");
            session.into.get_mut(&0).unwrap().reset(300);
            assert_eq!(session.report().await, Report::Started);
            let more = tokio::time::timeout(Duration::from_millis(500), session.from.get_mut(&1).unwrap().block());
            assert!(more.await.is_err(), "{kind:?}: the command took it for an end");
            session.tell(Control::Signal { signal: libc::SIGKILL as u32 }).await;
            assert_eq!(session.ended().await.status, libc::SIGKILL as u32);
        }
    });
}

#[test]
fn a_reader_that_is_gone_stops_the_input() {
    for_both(|rig| async move {
        for command in ["true", "exec <&-; sleep 0.2"] {
            let mut request = rig.sh(command);
            request.fds[0].kind = FdKind::PipeIn;
            let mut session = rig.start(&request).await;
            // Nothing is ever sent.
            let input = session.into.remove(&0).unwrap();
            assert_eq!(input.stopped().await, SendError::Stopped);
            assert_eq!(session.report().await, Report::Started);
            assert_eq!(session.ended().await.status, 0);
        }
        let mut request = rig.request(&["head", "-c", "1"]);
        request.fds[0].kind = FdKind::PipeIn;
        let mut session = rig.start(&request).await;
        let mut input = session.into.remove(&0).unwrap();
        while input.send(vec![b'y'; 4096].into()).await.is_ok() {}
        assert_eq!(session.from.get_mut(&1).unwrap().all().await, b"y");
    });
}

#[test]
fn a_client_that_reads_no_more_ends_the_writer_by_sigpipe() {
    for_both(|rig| async move {
        let mut session = rig.start(&rig.request(&["yes"])).await;
        assert_eq!(session.report().await, Report::Started);
        let mut out = session.from.remove(&1).unwrap();
        assert!(out.block().await.unwrap().starts_with(b"y\ny\n"));
        out.stream.stop();
        assert_eq!(session.ended().await.status, libc::SIGPIPE as u32);
    });
}

#[test]
fn a_grandchild_that_holds_the_output_does_not_hold_the_status() {
    for_both(|rig| async move {
        let begun = Instant::now();
        let mut session = rig.start(&rig.sh("(sleep 0.7; echo late) & echo hi")).await;
        assert_eq!(session.report().await, Report::Started);
        let ended = session.ended().await;
        assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
        // What had been written by then.
        assert_eq!(ended, Ended { status: 0, offsets: HashMap::from([(1, 3), (2, 0)]) });
        assert_eq!(session.from.get_mut(&1).unwrap().all().await, b"hi\nlate\n");
    });
}

#[test]
fn the_status_does_not_wait_for_a_client_that_reads_nothing() {
    for_both(|rig| async move {
        let mut session = rig.start(&rig.sh("head -c 60000 /dev/zero; echo done >&2")).await;
        assert_eq!(session.report().await, Report::Started);
        let ended = session.ended().await;
        assert_eq!((ended.offsets[&1], ended.offsets[&2]), (60_000, 5));
        assert_eq!(session.from.get_mut(&1).unwrap().all().await.len(), 60_000);
    });
}

#[test]
fn order_of_two_streams_in_one_pipe() {
    for_both(|rig| async move {
        let mut request = rig.sh("echo a; echo b >&2; echo c");
        request.fds[2].kind = FdKind::Same { of: 1 };
        let mut session = rig.start(&request).await;
        assert_eq!(session.from.get_mut(&1).unwrap().all().await, b"a\nb\nc\n");
    });
}

/// The totals that come back for what was fed to descriptor 0.
struct Totals(RecvStream);

impl Totals {
    async fn next(&mut self) -> Option<u64> {
        let bytes = self.0.recv().await.unwrap()?;
        assert_eq!(bytes.len() % 8, 0);
        Some(u64::from_le_bytes(bytes[bytes.len() - 8..].try_into().unwrap()))
    }

    async fn until(&mut self, total: u64) {
        let mut last = 0;
        while last < total {
            let next = self.next().await.expect("no more is told");
            assert!(next > last && next <= total, "{next} after {last}");
            last = next;
        }
    }
}

fn piped(rig: &Rig, script: &str) -> Request {
    let mut request = rig.sh(script);
    request.fds[0].kind = FdKind::PipeIn;
    request
}

#[test]
fn what_was_read_of_the_input_is_told() {
    for_both(|rig| async move {
        let mut session =
            rig.start(&piped(&rig, "head -c 3 >&2; sleep 0.3; head -c 200000 >&2; exec <&-; sleep 0.3")).await;
        assert_eq!(session.report().await, Report::Started);
        let mut totals = Totals(session.from.remove(&0).unwrap().stream);
        session.write(0, vec![b'x'; 250_000]).await;
        totals.until(3).await;
        let begun = Instant::now();
        totals.until(200_003).await;
        assert!(begun.elapsed() > Duration::from_millis(100), "told before it was read: {:?}", begun.elapsed());
        // Nobody reads it any more: the last was said.
        assert_eq!(totals.next().await, None);
        assert_eq!(session.into.remove(&0).unwrap().stopped().await, SendError::Stopped);
        assert_eq!(session.ended().await.offsets[&0], 200_003);
    });
}

#[test]
fn what_was_read_is_known_after_the_end_of_the_input() {
    for_both(|rig| async move {
        for (script, read) in [("sleep 0.2", 0), ("sleep 0.1; head -c 4", 4), ("cat", 10)] {
            let mut session = rig.start(&piped(&rig, script)).await;
            let mut totals = Totals(session.from.remove(&0).unwrap().stream);
            session.write(0, &b"0123456789"[..]).await;
            session.into.get_mut(&0).unwrap().finish();
            assert_eq!(session.report().await, Report::Started);
            assert_eq!(session.from.get_mut(&1).unwrap().all().await, b"0123456789"[..read as usize]);
            assert_eq!(session.ended().await.offsets[&0], read, "{script}");
            totals.until(read).await;
        }
    });
}

#[test]
fn input_that_nobody_reads_is_not_counted() {
    for_both(|rig| async move {
        let mut session = rig.start(&piped(&rig, "read line; echo $line; read line")).await;
        session.write(0, &b"a\n"[..]).await;
        assert_eq!(session.read_until(1, "\n").await, "a\n");
        session.write(0, &b"b\nc\n"[..]).await;
        assert_eq!(session.report().await, Report::Started);
        assert_eq!(session.ended().await.offsets[&0], 4);
    });
}
