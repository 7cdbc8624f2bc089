//! The line that says that files are on their way to the host, for a user who waits and sees nothing else: on a terminal,
//! after a second, until the command has written anything. Driven by `course`; never waits, and changes nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use remotely_session::Link;

use super::outcome;
use crate::stderr;

/// Between two looks while files are on their way.
const BUSY: Duration = Duration::from_millis(200);
/// Between two looks otherwise.
const IDLE: Duration = Duration::from_millis(500);
/// How long they must have been on their way before that is said.
const PATIENCE: Duration = Duration::from_secs(1);
/// What was sent in this time tells whether anything is on its way.
const RECENT: Duration = Duration::from_secs(1);
/// Less than this in that time is news, not files.
const LITTLE: u64 = 16 << 10;
/// The rate is that of so much time.
const WINDOW: Duration = Duration::from_secs(3);

/// Watches what goes to the host over the lanes of the fs service.
#[derive(Debug)]
pub(super) struct Fetching {
    /// The terminal, for as long as there may be something to say.
    screen: Option<Arc<OwnedFd>>,
    lanes: [u32; 2],
    meter: Meter,
}

impl Fetching {
    /// `lanes` are the streams that files go over. Says nothing unless it is `wanted`, standard error is the terminal of this
    /// process, and that one can do more than print.
    pub(super) fn new(wanted: bool, link: &Link, lanes: [u32; 2]) -> Self {
        let able = std::env::var_os("TERM").is_some_and(|name| !name.is_empty() && name != "dumb");
        let ours = wanted && able && stderr::in_foreground(rustix::stdio::stderr()).is_some();
        // A description of its own, which never makes this process wait.
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        let open = || File::options().write(true).custom_flags(flags).open("/dev/tty").ok();
        let screen = ours.then(open).flatten().map(|file| Arc::new(file.into()));
        // What went with the first flight took no time of now.
        let sent = lanes.iter().filter_map(|&lane| link.sent(lane)).map(|(sent, _)| sent).sum();
        Self { screen, lanes, meter: Meter::new(Instant::now(), sent) }
    }

    /// How long until the next look; `None` if there is nothing to look for any more.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.screen.as_ref().map(|_| if self.meter.since.is_some() { BUSY } else { IDLE })
    }

    /// Says how far it is, or nothing if nothing is on its way. `name` tells the file.
    pub(super) fn look(&mut self, link: &Link, name: impl FnOnce() -> Option<Vec<u8>>) {
        let Some(screen) = &self.screen else { return };
        let sent = self.lanes.map(|lane| link.sent(lane).unwrap_or_default());
        let (bytes, waiting) = (sent[0].0 + sent[1].0, sent[0].1 + sent[1].1 > 0);
        match self.meter.look(Instant::now(), bytes, waiting) {
            Some(rate) if stderr::in_foreground(screen) == Some(true) => {
                let width = rustix::termios::tcgetwinsize(screen).map_or(0, |size| usize::from(size.ws_col));
                stderr::show(screen, &line(name().as_deref(), bytes, rate, if width == 0 { 80 } else { width }));
            }
            _ => stderr::clear(),
        }
    }

    /// There is something else to be seen from now on, or the end.
    pub(super) fn end(&mut self) {
        if self.screen.take().is_some() {
            stderr::clear();
        }
    }
}

/// Whether files are on their way, and how fast.
#[derive(Debug)]
struct Meter {
    /// What had been sent when, oldest first.
    samples: VecDeque<(Instant, u64)>,
    /// Since when something is on its way.
    since: Option<Instant>,
}

impl Meter {
    /// So many bytes have been sent yet.
    fn new(now: Instant, sent: u64) -> Self {
        Self { samples: VecDeque::from([(now, sent)]), since: None }
    }

    /// Bytes per second, if that is to be said. `bytes` have been sent in all; `waiting`: there is more.
    fn look(&mut self, now: Instant, bytes: u64, waiting: bool) -> Option<u64> {
        self.samples.push_back((now, bytes));
        let age = |&(at, _): &(Instant, u64)| now.duration_since(at);
        while self.samples.get(1).is_some_and(|sample| age(sample) >= WINDOW) {
            self.samples.pop_front();
        }
        let &(began, before) = self.samples.front()?;
        let recent = self.samples.iter().rev().find(|sample| age(sample) >= RECENT).map_or(before, |&(_, sent)| sent);
        if !waiting && bytes.saturating_sub(recent) < LITTLE {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let time = now.duration_since(began).as_secs_f64();
        let rate = if time > 0.0 { (bytes.saturating_sub(before) as f64 / time) as u64 } else { 0 };
        (now.duration_since(since) >= PATIENCE).then_some(rate)
    }
}

/// What is shown, in less than `width` cells.
fn line(name: Option<&[u8]>, bytes: u64, rate: u64, width: usize) -> String {
    let figures = format!("  {}, {}/s", amount(bytes), amount(rate));
    let head = "remotely: fetching ";
    let name = name.map_or_else(|| "files".into(), outcome::shown);
    let room = width.saturating_sub(1 + head.len() + figures.len());
    cut(&format!("{head}{}{figures}", shortened(&name, room)), width.saturating_sub(1)).to_owned()
}

fn shortened(name: &str, room: usize) -> String {
    match cut(name, room) {
        whole if whole.len() == name.len() => name.to_owned(),
        _ => format!("{}...", cut(name, room.saturating_sub(3))),
    }
}

/// The front of `text`, as far as it fits into so many cells.
fn cut(text: &str, mut cells: usize) -> &str {
    let end = text.char_indices().find(|(_, c)| {
        // A character that is not ASCII may take two.
        match cells.checked_sub(if c.is_ascii() { 1 } else { 2 }) {
            Some(left) => cells = left,
            None => return true,
        }
        false
    });
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

/// A number of bytes, in the largest unit of which it is one or more.
fn amount(bytes: u64) -> String {
    let unit = bytes.checked_ilog2().unwrap_or_default() / 10;
    match unit {
        0 => format!("{bytes} B"),
        // To two places: what f64 does not hold of a large number is far behind them.
        _ => {
            format!("{:.2} {}iB", bytes as f64 / f64::from(unit * 10).exp2(), char::from(b"KMGTPE"[unit as usize - 1]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Looks every 200 ms; says when something was shown, in milliseconds.
    fn shown(sent: impl Fn(u64) -> (u64, bool), until: u64) -> Vec<u64> {
        let start = Instant::now();
        let mut meter = Meter::new(start, 0);
        let at = |ms: &u64| {
            let (bytes, waiting) = sent(*ms);
            meter.look(start + Duration::from_millis(*ms), bytes, waiting).is_some()
        };
        (0..until).step_by(200).filter(at).collect()
    }

    #[test]
    fn it_is_shown_after_a_second_of_sending_and_not_after_it() {
        // A mebibyte a second for three seconds.
        let shown = shown(|ms| (ms.min(3000) * MIB / 1000, false), 10_000);
        assert_eq!(shown.first(), Some(&1200));
        assert_eq!(shown.last(), Some(&3800));
    }

    #[test]
    fn a_burst_and_a_trickle_are_not_shown() {
        assert_eq!(shown(|ms| (if ms > 1000 { MIB } else { 0 }, false), 10_000), [0_u64; 0]);
        assert_eq!(shown(|ms| (ms * 4, false), 10_000), [0_u64; 0]);
    }

    #[test]
    fn a_link_that_stands_still_is_shown_while_more_waits() {
        let shown = shown(|ms| (ms.min(2000) * 100, ms < 6000), 10_000);
        assert_eq!((shown.first(), shown.last()), (Some(&1000), Some(&5800)));
    }

    #[test]
    fn amounts_are_told_in_their_largest_unit() {
        let table =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (3 * MIB / 2, "1.50 MiB"), (u64::MAX, "16.00 EiB")];
        for (bytes, text) in table {
            assert_eq!(amount(bytes), text);
        }
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut meter = Meter::new(start, 0);
        let mut rate = None;
        for ms in (0..=10_000).step_by(200) {
            let bytes = if ms < 5000 { ms * 10_000 } else { 50_000_000 + (ms - 5000) * 1000 };
            rate = meter.look(start + Duration::from_millis(ms), bytes, true);
        }
        assert!(rate.is_some_and(|rate| (990_000..=1_010_000).contains(&rate)), "{rate:?}");
        assert!(meter.samples.len() < 20);
    }

    #[test]
    fn the_line_fits_and_cannot_play_with_the_terminal() {
        let text = |name: &[u8], width| line(Some(name), 12 * MIB + MIB / 2, 4 * MIB, width);
        assert_eq!(text(b"libfoo.so", 80), "remotely: fetching libfoo.so  12.50 MiB, 4.00 MiB/s");
        assert_eq!(line(None, 0, 0, 80), "remotely: fetching files  0 B, 0 B/s");
        assert!(!text(b"a\x1b[2Jb\n", 80).contains(char::is_control));
        let long = text(&[b'x'; 200], 80);
        assert!(long.len() == 79 && long.ends_with("xx...  12.50 MiB, 4.00 MiB/s"), "{long}");
        for width in 0..80 {
            let line = text("größe-größe-größe-größe-größe".as_bytes(), width);
            let cells: usize = line.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum();
            assert!(cells < width.max(1), "{width}: {line}");
        }
    }
}
