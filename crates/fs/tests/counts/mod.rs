//! What `--stats` tells of a mount: what the kernel asked for, and what of it did not wait for the client.

use std::fs;

use crate::support::{Choice, Mounted};
use remotely_proto::fs::Counts;

/// All requests, and those that waited.
fn asked_and_waited(counts: &Counts) -> (u64, u64) {
    counts.requests.iter().fold((0, 0), |(asked, waited), of| (asked + of.count, waited + of.count - of.hits))
}

fn of_kind(counts: &Counts, opcode: u32) -> (u64, u64) {
    counts.requests.iter().find(|of| of.opcode == opcode).map_or((0, 0), |of| (of.count, of.hits))
}

const READ: u32 = 15;
const WRITE: u32 = 16;

#[test]
fn what_is_known_there_is_a_hit_and_what_is_asked_of_here_is_none() {
    let m = Mounted::new();
    let data = vec![7; 300_000];
    fs::write(m.here.join("f"), &data).unwrap();
    assert_eq!(fs::read(m.there.join("f")).unwrap(), data);
    let (first, questions) = (m.mount.counts(), m.mount.questions());
    assert!(asked_and_waited(&first).1 > 0, "{first:?}");
    let (reads, hits) = of_kind(&first, READ);
    assert!(reads > hits, "the first read has to wait: {first:?}");
    assert_eq!(first.bytes_read, 300_000);

    assert_eq!(fs::read(m.there.join("f")).unwrap(), data);
    let second = m.mount.counts();
    assert_eq!(m.mount.questions(), questions);
    let ((before, waited), (after, waited_now)) = (asked_and_waited(&first), asked_and_waited(&second));
    assert!(after > before && waited_now == waited, "{first:?} {second:?}");
    assert_eq!(second.bytes_read, 300_000, "the kernel keeps what it was given");
}

#[test]
fn a_write_is_a_hit_unless_each_has_to_wait() {
    for strict in [false, true] {
        let m = Mounted::with(Choice { strict, ..Choice::default() });
        for _ in 0..20 {
            fs::write(m.there.join("f"), vec![7; 10_000]).unwrap();
        }
        let counts = m.mount.counts();
        let (writes, hits) = of_kind(&counts, WRITE);
        assert!(writes >= 20, "{counts:?}");
        // The answer may be here before it is waited for, now and then.
        assert!(if strict { hits < writes / 2 } else { hits == writes }, "{counts:?}");
        assert_eq!(counts.bytes_written, 200_000);
    }
}
