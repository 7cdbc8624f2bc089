//! `--stats`: what it says of a run is what happened.

use std::time::Duration;

use testbed::Pair;

const LIMIT: Duration = Duration::from_secs(60);

/// The figures of a row of the table that `script` makes on standard error: its first number.
fn figures(pair: &Pair, script: &str, rows: &[&str]) -> Vec<u64> {
    let outcome = pair.there(&format!("remotely --stats dev@far -- sh -c '{script}' >/dev/null"), LIMIT);
    assert_eq!(outcome.code(), 0, "{outcome}");
    let table = outcome.errors();
    let figure = |row: &&str| {
        let line = table.lines().find_map(|line| line.trim_start().strip_prefix(*row));
        let number = line.and_then(|line| line.split_whitespace().next()?.trim_end_matches(',').parse().ok());
        number.unwrap_or_else(|| panic!("no {row:?} in {table}"))
    };
    rows.iter().map(figure).collect()
}

#[test]
fn reading_a_file_again_is_a_hit() {
    let pair = Pair::start();
    let content: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    pair.client.write("file", &content);
    let rows = ["FUSE requests", "cache hits", "read there", "files read", "files pushed"];
    // The profile of what ran before would be pushed: the same command word, the same profile.
    pair.there("$RUN sh -c true; rm -rf ~/.cache/remotely", LIMIT);
    let cold = figures(&pair, "cat file; exit", &rows);
    let [asked, hits, given, read, pushed] = cold[..] else { panic!("{cold:?}") };
    assert!(hits < asked && hits > 0, "{cold:?}");
    assert!(given >= 300_000 && read + pushed >= 300_000, "{cold:?}");
    pair.there("rm -rf ~/.cache/remotely", LIMIT);
    let twice = figures(&pair, "cat file; cat file; cat file; exit", &rows);
    let [asked_twice, hits_twice, given_twice, ..] = twice[..] else { panic!("{twice:?}") };
    let (more, more_hits) = (asked_twice - asked, hits_twice - hits);
    // Nothing but what the first one brought; a request or two may fall to the other side of a race.
    assert!(more > 0 && more_hits + 3 >= more, "{cold:?} {twice:?}");
    assert!(given_twice < given + 300_000, "the kernel keeps what it was given: {cold:?} {twice:?}");
    // Next time all of that is there before it is asked for.
    let warm = figures(&pair, "cat file; cat file; cat file; exit", &rows);
    assert!(warm[4] >= 300_000, "{warm:?}");
    pair.clean_within(Duration::from_secs(5));
}
